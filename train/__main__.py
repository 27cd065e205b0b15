"""`python -m train inspect | fit | average | evaluate | study | clip | ship | poster`: the command line of training."""

from __future__ import annotations

import argparse

from edge_seg.arguments import Parser
from edge_seg.console import answer, complain
from edge_seg.signals import asked_twice, interrupt

from .arguments import refuse_data_folder
from .quiet import import_keras_quietly


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns the exit code (0 done, 1 failed, 2 wrong usage)."""
    return answer(lambda: _run(argv))


def _run(argv: list[str] | None) -> int:
    try:
        with asked_twice(interrupt, last_words="error: stopped at once; every file is whole, the old or the new."):
            args = build_parser().parse_args(argv)
            refuse_data_folder(args)
            if args.needs_keras:
                import_keras_quietly()
            return int(args.run(args))
    except ModuleNotFoundError as error:
        complain(f"{error.name} is not installed; from the clone: pip install -e '.[train]'")
        return 1


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; imports no Keras."""
    # Imported here so that a missing or broken package is reported in one line too.
    from .average import add_average_arguments, run_average
    from .evaluate import add_evaluate_arguments, run_evaluate
    from .fit_arguments import add_fit_arguments
    from .inspect import add_inspect_arguments, run_inspect
    from .ship import add_clip_arguments, add_poster_arguments, add_ship_arguments, run_clip, run_poster, run_ship
    from .study import add_study_arguments, run_study

    parser = Parser(prog="python -m train", description="Train FCN8 on a folder of labelled road images.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, text, add, run in (
        (
            "inspect",
            "pictures and counts of a dataset; every bad file named at once",
            add_inspect_arguments,
            run_inspect,
        ),
        ("fit", "train a network", add_fit_arguments, _run_fit),
        ("average", "a network and what it went on to, weight by weight", add_average_arguments, run_average),
        ("evaluate", "per class TP, FP, FN, IoU; mean IoU; accuracy", add_evaluate_arguments, run_evaluate),
        ("study", "what each part or width gives, by short trainings", add_study_arguments, run_study),
        ("clip", "render a drive to an MP4, as the bundled clip was", add_clip_arguments, run_clip),
        ("ship", "a run's network and float16 weights alone, as the bundled ones", add_ship_arguments, run_ship),
        ("poster", "a clip's frame beside its overlay, as in README", add_poster_arguments, run_poster),
    ):
        command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        add(command)
        command.set_defaults(run=run, needs_keras=name in ("fit", "average", "study", "ship"))
    return parser


def _run_fit(args: argparse.Namespace) -> int:
    from .fit_command import run_fit  # imports Keras, which `--help` should not wait for

    return run_fit(args)


if __name__ == "__main__":
    raise SystemExit(main())
