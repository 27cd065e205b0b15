"""`python -m benchmarks training`: images/s of the input pipeline alone, of the training step alone, and of both.

The training device is kept busy if the pipeline alone is faster than the step alone. Builds and measures what `train
fit --recipe default` builds; knows nothing of exported models, and keeps no weights.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from edge_seg.errors import ConfigurationError
from edge_seg.phrases import counted
from train.arguments import positive, size
from train.fit_arguments import add_workers, widths
from train.quiet import import_keras_quietly

from .data import rendered_scenes
from .environment import environment
from .measure import relative_spread
from .settings import BUNDLED_RUN
from .table import align, number, percent

if TYPE_CHECKING:
    from train.fit import Trainer

QUICK = {"steps": 6, "repeats": 2, "scenes": 8}
# Fewest batches of a turn for each thread or process that draws; with fewer, the time would depend on their order.
LEAST_EACH = 3
Turn = Callable[[], float]


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """The settings of one benchmark of training.

    Attributes:
        dataset: folder in the dataset1 layout, or None for rendered scenes.
        block_widths, head_widths: of the network; the bundled model's if None.
        batch_size, crop_size: the default recipe's if None.
        workers: processes that draw the batches, 0 for threads; chosen by the number of cores if None.
        steps: batches of one turn, but at least `LEAST_EACH` for each thread or process that draws.
        repeats: turns of each measurement.
        scenes: number of rendered scenes to use without a dataset.
    """

    dataset: Path | None = None
    block_widths: tuple[int, int, int, int, int] | None = None
    head_widths: tuple[int, int] | None = None
    batch_size: int | None = None
    crop_size: tuple[int, int] | None = None
    workers: int | None = None
    steps: int = 24
    repeats: int = 3
    scenes: int = 24


@dataclass(frozen=True, kw_only=True)
class Speed:
    """One row: median speed over the repeats, and their spread (`measure.relative_spread`)."""

    name: str
    images_per_s: float
    ms_per_batch: float
    spread: float | None
    repeats_s: tuple[float, ...]


def add_training_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `python -m benchmarks training`."""
    defaults = TrainingSettings()
    add = parser.add_argument
    add("dataset", nargs="?", type=Path, metavar="DATASET", help="dataset1 folder (default: rendered scenes)")
    add("--block-widths", type=widths(5), metavar="A,B,C,D,E", help="filters (default: the bundled model's)")
    add("--head-widths", type=widths(2), metavar="A,B", help="filters of conv6, conv7 (default: the bundled model's)")
    add("--batch-size", type=positive, metavar="N", help="images a batch (default: the default recipe's, 6)")
    add("--crop-size", type=size, metavar="HxW", help="training crop (default: the default recipe's, 256x320)")
    add_workers(add)
    text = "batches of one turn, at least three for each thread or process that draws (default: {}; {} with --quick)"
    add("--steps", type=positive, metavar="N", help=text.format(defaults.steps, QUICK["steps"]))
    text = "turns of each (default: {}; {} with --quick)"
    add("--repeats", type=positive, metavar="N", help=text.format(defaults.repeats, QUICK["repeats"]))
    add("--quick", action="store_true", help="a rough look: few batches, few scenes (default: the whole)")
    add("--json", action="store_true", help="print JSON instead of a table (default: a table)")


def run_training(options: argparse.Namespace) -> int:
    """Carry out `python -m benchmarks training`; returns the exit code."""
    import_keras_quietly()
    names = ("dataset", "block_widths", "head_widths", "batch_size", "crop_size", "workers", "steps", "repeats")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    settings = TrainingSettings(**{**(QUICK if options.quick else {}), **given})
    result = measure_training(settings)
    print(json.dumps(result, indent=2) + "\n" if options.json else render_training(result), end="")
    return 0


def measure_training(settings: TrainingSettings) -> dict[str, Any]:
    """Measure in turns; returns plain JSON types.

    Raises:
        ConfigurationError: the dataset has fewer images than one batch, or no network can have the crop size.
        DatasetError: the dataset is not there, or a file of it is damaged.
    """
    with tempfile.TemporaryDirectory(prefix="edge_seg_training_") as scratch:
        root = settings.dataset or write_scenes(Path(scratch) / "scenes", settings.scenes)
        trainer = build_trainer(settings, root, Path(scratch))
        workers = drawing_workers(settings)
        settings = replace(settings, steps=max(settings.steps, LEAST_EACH * workers))
        turns = make_turns(trainer, settings.steps, workers)
        for turn in turns.values():  # warm-up: compiles, and renders the scenes that are mixed in
            turn()
        seconds: dict[str, list[float]] = {name: [] for name in turns}
        for _ in range(settings.repeats):
            for name, turn in turns.items():
                seconds[name].append(turn())
    batch_size = trainer.batches.batch_size
    rows = {name: speed(name, times, settings.steps, batch_size) for name, times in seconds.items()}
    alone, step, both = rows.values()
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": environment(),
        "settings": {**asdict(settings), "dataset": str(settings.dataset) if settings.dataset else None},
        "network": trainer.fcn8_config.to_dict(),
        "batch_size": batch_size,
        "crop_size": list(trainer.batches.size),
        "policy": trainer.options.policy,
        "rows": [asdict(row) for row in rows.values()],
        "pipeline_over_step": alone.images_per_s / step.images_per_s,
        "fit_over_step": both.images_per_s / step.images_per_s,
    }


def write_scenes(root: Path, count: int) -> Path:
    """Write rendered scenes as a dataset's train folder, so that they are read like any dataset."""
    images, masks = root / "images_prepped_train", root / "annotations_prepped_train"
    images.mkdir(parents=True)
    masks.mkdir()
    scenes = rendered_scenes(count)
    assert scenes.truth is not None
    for index, (frame, truth) in enumerate(zip(scenes.frames, scenes.truth, strict=True)):
        cv2.imwrite(str(images / f"scene_{index:03}.png"), frame)
        cv2.imwrite(str(masks / f"scene_{index:03}.png"), truth)
    return root


def build_trainer(settings: TrainingSettings, root: Path, scratch: Path) -> Trainer:
    """The trainer that `fit --recipe default` would use, with all images of the train folder."""
    import keras

    from train.dataset import find_samples
    from train.distribute import Devices
    from train.fit import Trainer
    from train.fit_command import check_recipe
    from train.options import FitOptions
    from train.policy import auto_policy, policy_kept
    from train.recipes import RECIPES
    from train.run import open_run
    from train.stores import PairStore

    asked = {name: getattr(settings, name) for name in ("batch_size", "crop_size")}
    recipe = replace(RECIPES["default"], **{name: value for name, value in asked.items() if value is not None})
    check_recipe(recipe)
    samples = find_samples(root, "train")
    if len(samples) < recipe.batch_size:
        raise ConfigurationError(
            f"{root} holds {len(samples)} training image(s), fewer than one batch of {recipe.batch_size}; "
            "give a smaller --batch-size."
        )
    bundled = open_run(BUNDLED_RUN).fcn8
    options = FitOptions(
        out=scratch, dataset=root, images=None, masks=None, weights=None, seed=1, policy=auto_policy(), resume=False,
        tensorboard=False, block_widths=settings.block_widths or bundled.block_widths,
        head_widths=settings.head_widths or bundled.head_widths, workers=settings.workers,
    )  # fmt: skip
    keras.utils.set_random_seed(options.seed)
    with policy_kept():
        keras.mixed_precision.set_dtype_policy(options.policy)
        return Trainer(recipe, options, PairStore(samples), [], Devices(), scratch)


def drawing_workers(settings: TrainingSettings) -> int:
    """Number of threads or processes that draw the batches."""
    from train.batches import drawing_processes, drawing_threads

    asked = drawing_processes() if settings.workers is None else settings.workers
    return asked or drawing_threads()


def make_turns(trainer: Trainer, steps: int, workers: int) -> dict[str, Turn]:
    """The measurements by name; each turn returns the seconds of `steps` batches in the middle of a stream."""
    import keras

    # A stream draws this many batches ahead, before the clock starts, so they are not counted.
    first = trainer.batches.ahead(workers)

    class Clock(keras.callbacks.Callback):
        def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
            self.ends: list[float] = []

        def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
            float(np.asarray((logs or {})["loss"]))  # waits for the device, as the callbacks of `fit` do
            self.ends.append(time.perf_counter())

    def pipeline() -> float:
        with closing(trainer.batches.stream()) as stream:
            for _ in range(first):
                next(stream)
            began = time.perf_counter()
            for _ in range(steps):
                next(stream)
            return time.perf_counter() - began

    def fit(stream: Iterator[Any]) -> float:
        clock = Clock()
        trainer.model.fit(stream, steps_per_epoch=first + steps, callbacks=[clock], verbose=0, shuffle=False)
        return clock.ends[-1] - clock.ends[first - 1]

    kept = trainer.batches.batch(0, 0)

    def both() -> float:
        with closing(trainer.batches.stream()) as stream:
            return fit(stream)

    return {
        "input pipeline alone": pipeline,
        "training step alone": lambda: fit(kept for _ in itertools.count()),
        "fit, both at once": both,
    }


def speed(name: str, seconds: list[float], steps: int, batch_size: int) -> Speed:
    """Summarize the turns of one row."""
    median = float(np.median(seconds))
    return Speed(
        name=name,
        images_per_s=steps * batch_size / median,
        ms_per_batch=1000.0 * median / steps,
        spread=relative_spread(seconds),
        repeats_s=tuple(seconds),
    )


def render_training(result: dict[str, Any]) -> str:
    """The result as text: a table, and its conclusion."""
    machine, network, crop = result["environment"], result["network"], result["crop_size"]
    blocks = ",".join(str(width) for width in (*network["block_widths"], *network["head_widths"]))
    cores, gpus = counted(machine["cores"], "core"), counted(len(machine["gpus"]), "GPU")
    head = f"{machine['cpu']}, {cores}, {gpus}; {result['policy']}"
    network_line = f"widths {blocks}; batches of {result['batch_size']} crops of {crop[0]}x{crop[1]}"
    rows = [("", "images/s", "ms/batch", "spread")]
    rows += [
        (row["name"], f"{row['images_per_s']:.1f}", f"{row['ms_per_batch']:.1f}", number(row["spread"], 2))
        for row in result["rows"]
    ]
    ratio, both = result["pipeline_over_step"], result["fit_over_step"]
    said = f"The pipeline alone is {ratio:.2f} times as fast as the step; fit reaches {percent(both, 0)} of the step's."
    if not machine["gpus"]:
        said += "\nWithout a GPU both compute on the same cores: what the pipeline takes, the step lacks."
    return f"{head}\n{network_line}\n\n{align(rows)}\n\n{said}\n"
