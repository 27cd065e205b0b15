"""`python -m train inspect | fit | evaluate | clip | ship | poster`: the command line of training."""

from __future__ import annotations

import argparse
import sys

from edge_seg.errors import EdgeSegError

from .quiet import import_keras_quietly


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code (0 done, 1 failed, 2 the call was wrong)."""
    try:
        from .evaluate import add_evaluate_arguments, run_evaluate
        from .fit_command import add_fit_arguments, run_fit
        from .inspect import add_inspect_arguments, run_inspect
        from .ship import add_clip_arguments, add_poster_arguments, add_ship_arguments, run_clip, run_poster, run_ship
    except ModuleNotFoundError as error:
        return _missing(error)
    except EdgeSegError as error:  # a cv2 that does not load
        return _failed(error)

    parser = argparse.ArgumentParser(
        prog="python -m train", description="Train FCN8 on a folder of labelled road images."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, text, add, run in (
        (
            "inspect",
            "pictures and counts of a dataset; every bad file named at once",
            add_inspect_arguments,
            run_inspect,
        ),
        ("fit", "train a network", add_fit_arguments, run_fit),
        ("evaluate", "per class TP, FP, FN, IoU; mean IoU; accuracy", add_evaluate_arguments, run_evaluate),
        ("clip", "render a drive to an MP4, as the bundled clip was", add_clip_arguments, run_clip),
        ("ship", "a run's network and float16 weights alone, as the bundled ones", add_ship_arguments, run_ship),
        ("poster", "a clip's frame beside its overlay, as in README", add_poster_arguments, run_poster),
    ):
        command = commands.add_parser(name, help=text, description=text)
        add(command)
        command.set_defaults(run=run)
    args = parser.parse_args(argv)
    try:
        if args.run in (run_fit, run_evaluate, run_ship):
            import_keras_quietly()
        return int(args.run(args))
    except EdgeSegError as error:
        return _failed(error)
    except ModuleNotFoundError as error:
        return _missing(error)
    except OSError as error:
        # A folder that cannot be made, a full disk: what was being written is gone or under its old name.
        named = f"{error.filename}: " if error.filename else ""
        print(f"error: {named}{error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("error: interrupted.", file=sys.stderr)
        return 1


def _failed(error: EdgeSegError) -> int:
    print(f"error: {error}", file=sys.stderr)
    return error.exit_code


def _missing(error: ModuleNotFoundError) -> int:
    print(f"error: {error.name} is not installed; from the clone: pip install -e '.[train]'", file=sys.stderr)
    return 1


if __name__ == "__main__":
    raise SystemExit(main())
