"""`python -m benchmarks growth`: cost against batch, resolution, threads and clip length, as JSON and as one picture.

Each point of the first three axes is a small benchmark of its own (`suite.measure_batch`), so that every figure is
interleaved and has its parity. All points are kept in one file: a point measured again replaces the old one and the
others stay, so a machine that is quiet for five minutes at a time is enough. The file's packages and revision are those
of the last run.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from edge_seg import bundled_clip, bundled_model
from edge_seg.console import harmless
from edge_seg.errors import ConfigurationError
from edge_seg.files import replacing
from edge_seg.threads import available_threads
from train.arguments import path, positive
from train.files import DAMAGE
from train.quiet import import_keras_quietly

from .arguments import AXES, axis_list, minute_list, rate, side_list, whole_numbers
from .cases import Contender, keras_contenders, session_contenders
from .chart import import_pyplot
from .data import load_data
from .environment import environment, processor
from .field import present_devices
from .growth_chart import draw_growth, noisy_points
from .length import loop_clip
from .process import Say, Start, Worker, WorkerError
from .report import FORMAT, begun, check_save, save_json
from .rows import Row
from .settings import BUNDLED_RUN, DEFAULT_CACHE, DEFAULT_OUT, check_run, exported, model_files, named, run_classes
from .suite import Workload, measure_batch

BATCHES = (1, 2, 4, 8, 16)
SIDES = (224, 352, 512, 704, 896, 1088)
MINUTES = (1.0, 10.0, 60.0)
FILE_NAME = "growth.json"
# Frame size where the resolution is not what grows.
SIZE = (352, 480)
QUICK: dict[str, Any] = {"batches": (1, 2), "sides": (96, 160), "repeats": 2, "frames": 2, "minutes": (0.05, 0.2)}


@dataclass(frozen=True, kw_only=True)
class GrowthSettings:
    """What grows, and how far.

    Attributes:
        axes: some of `AXES`.
        run: the Keras run; its dynamic fp32 and int8 files are exported once into the cache. Clips are segmented by
            the bundled model.
        batches, sides, minutes: points of three axes; `sides` of square frames, in pixels. Threads go up to the cores.
        repeats, frames: turns of each contender at each point, and frames of a turn (at least one batch).
        stride: every Nth frame of the looped clip is segmented.
        fps: frames/s of the looped clip, the clip's own if None; a lower rate makes an hour of fewer frames.
    """

    axes: tuple[str, ...] = AXES
    run: Path = BUNDLED_RUN
    batches: tuple[int, ...] = BATCHES
    sides: tuple[int, ...] = SIDES
    minutes: tuple[float, ...] = MINUTES
    repeats: int = 3
    frames: int = 3
    stride: int = 50
    fps: float | None = None

    @property
    def extent(self) -> str:
        """The options that differ from the defaults, but for `--axes`: a file's other axes stay."""
        usual, words = GrowthSettings(), []
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name == "axes" or value == getattr(usual, item.name):
                continue
            several = value if isinstance(value, tuple) else (value,)
            text = ",".join(named(one) if isinstance(one, Path) else f"{one:g}" for one in several)
            words.append(f"--{item.name} {shlex.quote(text)}")
        return " ".join(words)


def add_growth_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m benchmarks growth`."""
    add = parser.add_argument
    add("--axes", type=axis_list, default=AXES, metavar="A,A", help=f"what grows, of {','.join(AXES)} (default: all)")
    add(
        "--run",
        type=Path,
        default=BUNDLED_RUN,
        metavar="RUN",
        help="folder of the Keras run (default: the bundled one)",
    )
    add("--repeats", type=positive, metavar="N", help="turns of each contender at each point (default: 3)")
    add("--batches", type=whole_numbers, metavar="N,N", help="frames a call (default: 1,2,4,8,16)")
    add("--sides", type=side_list, metavar="N,N", help="sides of square frames (default: 224,352,512,704,896,1088)")
    add("--frames", type=positive, metavar="N", help="frames of a turn, a batch at the least (default: 3)")
    add("--stride", type=positive, metavar="N", help="clip length: segment every Nth frame (default: 50)")
    add("--fps", type=rate, metavar="F", help="clip length: frames a second of the looped clip (default: its own)")
    add("--minutes", type=minute_list, metavar="M,M", help="clip length: minutes of looped clip (default: 1,10,60)")
    add("--quick", action="store_true", help="a rough look: two small points an axis (default: the whole)")
    add(
        "--save",
        type=path,
        default=DEFAULT_OUT / FILE_NAME,
        metavar="FILE",
        help="JSON that keeps the points, the picture beside it; other points in it stay (default: %(default)s)",
    )
    add("--json", action="store_true", help="print the JSON (default: one line)")


def run_growth(options: argparse.Namespace) -> int:
    """Carry out `python -m benchmarks growth`; returns the exit code."""
    given = {item.name: getattr(options, item.name) for item in fields(GrowthSettings)}
    chosen = {name: value for name, value in given.items() if value is not None}
    settings = GrowthSettings(**{**(QUICK if options.quick else {}), **chosen})
    check_save(options.save)
    import_pyplot()
    kept = read_growth(options.save) if options.save.is_file() else None
    surroundings = environment()
    if kept is not None:
        check_like(kept, surroundings, check_run(settings.run), options.save)
        check_drawn(kept, options.save)
    picture = options.save.with_suffix(".png")
    for found in measure_growth(settings, surroundings, say=lambda text: print(text, file=sys.stderr, flush=True)):
        both = {**found, "axes": merged(kept["axes"] if kept else {}, found["axes"])}
        save_json(both, options.save)
        with replacing(picture) as temporary:
            draw_growth(both, temporary)
    print(json.dumps(both, indent=1) if options.json else f"wrote {options.save} and {picture}")
    # This run's points only: earlier runs reported theirs.
    points = [point for points in found["axes"].values() for point in points]
    _report(points, surroundings["cores"])
    return 1 if any(point["status"] == "failed" for point in points) else 0


def _report(points: list[dict[str, Any]], cores: int) -> None:
    """Tell on standard error which points failed, and which are noisy."""
    for point in points:
        if point["status"] == "failed":
            words = f"failed: {point['axis']} {point['value']:g}: {point['name']}: {point['reason']}"
            print(harmless(words), file=sys.stderr)
    if noisy := noisy_points(points, cores):
        named = ", ".join(f"{point['name']} at {point['axis']} {point['value']:g}" for point in noisy[:4])
        print(
            f"NOISY: {len(noisy)} of {len(points)} points ({named}{', ...' if len(noisy) > 4 else ''}): repeats lay "
            "far apart, or other programs computed. Measure them again on a quiet machine.",
            file=sys.stderr,
        )


def read_growth(path: Path) -> dict[str, Any]:
    """Read a growth file. Raises `ConfigurationError` if it is not one."""
    try:
        values = json.loads(path.read_text())
        if values["kind"] != "growth" or values["format"] != FORMAT:
            raise KeyError("kind")
        for name in ("cpu", "cores"):
            values["environment"][name]
        for point in (one for points in values["axes"].values() for one in points):
            if type(point["value"]) not in (int, float) or not isinstance(point["name"], str):
                raise TypeError(f"a point of {point['name']!r} at {point['value']!r}")
            point["status"]
    except (OSError, *DAMAGE) as error:
        raise ConfigurationError(
            f"{path} is not a growth file of this version ({error}); name another with --save."
        ) from error
    return dict(values)


def merged(kept: dict[str, list[dict[str, Any]]], found: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """The points of both, by axis, sorted; one measured again replaces the kept one, unless it has no figures now."""
    axes = {}
    for axis in dict.fromkeys((*kept, *found)):
        both = {(one["value"], one["name"]): one for one in kept.get(axis, ())}
        for one in found.get(axis, ()):
            key = one["value"], one["name"]
            if one["status"] == "ok" or both.get(key, one)["status"] != "ok":
                both[key] = one
        axes[axis] = sorted(both.values(), key=lambda one: one["value"])
    return axes


def check_like(kept: dict[str, Any], surroundings: dict[str, Any], run_digest: str, path: Path) -> None:
    """Raise `ConfigurationError` if the kept points are of another machine, run or size than the new ones."""
    pairs = (
        ("processor", processor(kept["environment"]), processor(surroundings)),
        ("cores", kept["environment"]["cores"], surroundings["cores"]),
        ("run", kept.get("run"), run_digest),
        ("size", kept.get("size"), list(SIZE)),
    )
    for what, old, new in pairs:
        if old != new:
            raise ConfigurationError(
                f"{path} has points of another {what}: {old}, here {new}; name another with --save."
            )


def check_drawn(kept: dict[str, Any], path: Path) -> None:
    """Raise `ConfigurationError` if the kept points cannot be drawn, which would else show after all the measuring."""
    try:
        with tempfile.TemporaryDirectory(prefix="edge_seg_growth_") as scratch:
            draw_growth({**kept, "axes": merged(kept["axes"], {})}, Path(scratch) / "growth.png")
    except DAMAGE as error:
        raise ConfigurationError(
            f"{path} has points that cannot be drawn ({type(error).__name__}: {error}); name another with --save."
        ) from error


def measure_growth(settings: GrowthSettings, surroundings: dict[str, Any], *, say: Say) -> Iterator[dict[str, Any]]:
    """Measure the axes asked for; yields the result so far, as plain JSON types, after each."""
    import_keras_quietly()
    from train.run import open_run  # imports Keras

    digest, parameters = check_run(settings.run), open_run(settings.run).fcn8.parameters
    axes: dict[str, list[dict[str, Any]]] = {}
    found = {
        **begun("growth", surroundings),
        "run": digest,
        "parameters": parameters,
        "size": list(SIZE),
        "options": settings.extent,
        "axes": axes,
    }
    with tempfile.TemporaryDirectory(prefix="edge_seg_growth_") as scratch:
        for axis in settings.axes:
            if axis == "length":
                axes[axis] = measure_lengths(settings, Path(scratch), say)
            else:
                axes[axis] = _measure_axis(axis, settings, digest, Path(scratch), say)
            yield found


def growing_files(settings: GrowthSettings, digest: str, say: Say) -> list[Path]:
    """The run's fp32 and int8 files, exported for any size."""
    shared = ("--dynamic-size", "--gate-on", "rendered", "--gate-frames", "8")
    int8 = ("--calibration-data", "rendered")
    return [
        exported(settings.run, DEFAULT_CACHE, f"{digest}-any-{name}.onnx", ("--precision", name, *shared, *extra), say)
        for name, extra in (("fp32", ()), ("int8", int8))
    ]


def _measure_axis(axis: str, settings: GrowthSettings, digest: str, scratch: Path, say: Say) -> list[dict[str, Any]]:
    values = {"batch": settings.batches, "resolution": settings.sides, "threads": _threads()}[axis]
    points: list[dict[str, Any]] = []
    for value in values:
        say(f"{axis} {value}")
        size = (value, value) if axis == "resolution" else SIZE
        batch = value if axis == "batch" else 1
        classes = run_classes(settings.run)
        work = Workload(
            contenders=growing_contenders(settings, digest, size, value if axis == "threads" else None, say),
            data=load_data(None, limit=settings.frames, classes=classes),
            size=size,
            classes=classes,
            repeats=settings.repeats,
            frames=settings.frames,
            scratch=scratch,
        )
        measured = measure_batch(work, batch, say=say)
        points += [point(axis, value, row, measured.others_cores) for row in measured.rows]
    return points


def measure_lengths(settings: GrowthSettings, scratch: Path, say: Say, start: Start = Worker) -> list[dict[str, Any]]:
    """A point for each length of the bundled clip, looped, through the pipeline of `edge-seg predict`.

    Each runs in a worker of its own, which samples its memory; one that fails is a failed point. Most frames are only
    decoded (`--stride`, `--save jsonl`): otherwise an hour of video would take an hour.
    """
    contender = Contender(
        name="edge_seg cpu int8", kind="session", path=str(bundled_model()), device="cpu", precision="int8", size=(0, 0)
    )
    looped, target = scratch / "looped.mp4", scratch / "looped.jsonl"
    points = []
    for minutes in settings.minutes:
        say(f"length: {minutes:g} minutes of looped clip")
        loop_clip(bundled_clip(), minutes, looped, fps=settings.fps)
        known = {"axis": "length", "value": minutes, "name": contender.name, "precision": contender.precision}
        known |= {"stride": settings.stride, "fps": settings.fps}
        with start(contender.name) as worker:
            try:
                worker.ask("open-clip", contender=contender.to_dict(), batch=1)
                answer = worker.ask("length", clip=str(looped), target=str(target), stride=settings.stride)
            except WorkerError as error:
                points.append({**known, "status": "failed", "reason": str(error)})
            else:
                speed = answer["frames"] / answer["seconds"]
                points.append({**known, "status": "ok", "frames_per_s": speed, **answer})
        looped.unlink()
    return points


def growing_contenders(
    settings: GrowthSettings, digest: str, size: tuple[int, int], threads: int | None, say: Say
) -> list[Contender]:
    """Keras predict and Keras compiled, and both files on each device present, all at one size."""
    files, _ = model_files(growing_files(settings, digest, say))
    devices, _ = present_devices(None)
    everyone = keras_contenders(settings.run, size, digest) + session_contenders(files, devices, size, optional=True)
    return [replace(one, threads=threads) for one in everyone]


def point(axis: str, value: float, row: Row, others_cores: float | None) -> dict[str, Any]:
    """What the file keeps of a row at one point of an axis, and how much other programs computed meanwhile."""
    kept = ("name", "kind", "precision", "device", "batch", "status", "reason", "ms_median", "frames_per_s", "spread",
            "calls", "ratio", "peak_mb", "agreement")  # fmt: skip
    values = asdict(row)
    return {"axis": axis, "value": value, **{name: values[name] for name in kept}, "others_cores": others_cores}


def _threads() -> tuple[int, ...]:
    """1, 2, 4, ... threads, and as many as there are usable cores."""
    cores = available_threads()
    return tuple(sorted({*(2**power for power in range(cores.bit_length()) if 2**power <= cores), cores}))
