"""What happens around the steps of `fit`: moving average, validation, history, progress, checkpoints, stopping."""

from __future__ import annotations

import csv
import math
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from edge_seg.errors import EdgeSegError
from edge_seg.files import replacing
from edge_seg.progress import bar, columns_of
from edge_seg.signals import asked_twice

from .batches import ResizedBatches
from .checkpoint import kept, save_checkpoint
from .metrics import confusion_matrix, scores


def due(epoch: int, every: int, epochs: int) -> bool:
    """Whether an epoch, counted from 0, is validated and saved: every `every`-th one is, and the last."""
    return (epoch + 1) % every == 0 or epoch + 1 == epochs


class TrainingError(EdgeSegError, ArithmeticError):
    """Training cannot go on: the loss is no longer a number."""


class StopOnNan(keras.callbacks.Callback):
    """Stops at the first batch whose loss is NaN or infinite, before any of its effects are saved."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder, self.epoch = folder, 0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        loss = float((logs or {}).get("loss", 0.0))
        if not math.isfinite(loss):
            raise TrainingError(
                f"The loss became {loss} in epoch {self.epoch + 1}, batch {batch + 1}. "
                f"{kept(self.folder)}, and a smaller --learning-rate."
            )


@contextmanager
def averaged(model: keras.Model) -> Iterator[None]:
    """The model holds the optimizer's exponential moving average of its weights inside the block, if there is one.

    Keras keeps it on the device; each step, average = ema * average + (1 - ema) * weight.
    """
    # mixed_float16 wraps the optimizer in one that scales the loss; the average is the inner one's.
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)
    if not optimizer.use_ema:
        yield
        return
    variables = model.trainable_variables
    own = [np.asarray(variable).copy() for variable in variables]
    _assign(variables, [np.asarray(value) for value in optimizer._model_variables_moving_average])
    try:
        yield
    finally:
        _assign(variables, own)


def _assign(variables: list[Any], values: list[np.ndarray]) -> None:
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)


class Validation(keras.callbacks.Callback):
    """Scores the averaged weights on whole validation images at the network's size and adds `val_*` to the logs.

    Runs after every `every`-th epoch and the last. If no pixel of any image is labelled, nothing is added.
    """

    def __init__(
        self,
        batches: ResizedBatches | None,
        classes: int,
        unlabelled: int | None,
        *,
        every: int,
        epochs: int,
    ) -> None:
        super().__init__()
        self.every, self.epochs = every, epochs
        self.batches, self.classes, self.unlabelled = batches, classes, unlabelled
        self.class_iou: list[float] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.class_iou = []
        if self.batches is None or logs is None or not due(epoch, self.every, self.epochs):
            return
        with averaged(self.model):
            confusion, loss = self._confusion()
        found = scores(confusion, self.unlabelled)
        ignored = self.unlabelled is not None
        if ignored and np.isnan(found.accuracy):
            return
        self.class_iou = [float(value) for value in found.iou]
        logs["val_loss"] = loss
        logs["val_accuracy"] = float(found.accuracy if ignored else found.accuracy_with_unlabelled)
        logs["val_mean_iou"] = float(found.mean_iou if ignored else found.mean_iou_with_unlabelled)

    def _confusion(self) -> tuple[np.ndarray, float]:
        assert self.batches is not None
        confusion = np.zeros((self.classes, self.classes), np.int64)
        losses, sizes = [], []
        for frames, truth in self.batches:
            # With several devices, TensorFlow gives each the whole batch here and returns all their outputs together.
            found = self.model.predict_on_batch(frames)[: len(frames)]
            losses.append(float(ops.convert_to_numpy(ops.mean(self.model.loss(truth, found)))))
            sizes.append(len(frames))
            confusion += confusion_matrix(truth, np.argmax(found, -1).astype(np.uint8), self.classes)
        return confusion, float(np.average(losses, weights=sizes))


class History(keras.callbacks.Callback):
    """One line an epoch in history.csv, which is rewritten whole each time so that no line is ever incomplete.

    A class in neither truth nor prediction has no IoU: its cell is empty, as all IoU cells are without a validation.
    """

    def __init__(self, folder: Path, class_names: tuple[str, ...], validation: Validation) -> None:
        super().__init__()
        self.path, self.class_names, self.validation = folder / "history.csv", class_names, validation
        self.rows: list[dict[str, Any]] = []
        self.began = 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = logs or {}
        keys = ("loss", "accuracy", "mean_iou", "val_loss", "val_accuracy", "val_mean_iou")
        row: dict[str, Any] = {"epoch": epoch + 1}
        row |= {key: float(logs[key]) if key in logs else "" for key in keys}
        row["learning_rate"] = float(ops.convert_to_numpy(self.model.optimizer.learning_rate))
        row["seconds"] = round(time.perf_counter() - self.began, 2)
        ious: list[Any] = list(self.validation.class_iou) or [""] * len(self.class_names)
        row |= {
            f"iou_{name}": "" if iou != "" and math.isnan(iou) else iou
            for name, iou in zip(self.class_names, ious, strict=True)
        }
        self.rows.append(row)
        self.write()

    def write(self) -> None:
        with replacing(self.path) as temporary, open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(self.rows[0]))
            writer.writeheader()
            writer.writerows(self.rows)


class Checkpoints(keras.callbacks.Callback):
    """Saves the whole state after every `every`-th epoch and the last.

    Must come after validation and history in the list of callbacks.

    Raises:
        TrainingError: a weight is NaN or infinite; the previous checkpoint is kept.
        OSError: the checkpoint cannot be written; the previous one is kept.
    """

    def __init__(self, folder: Path, history: History, *, every: int, epochs: int) -> None:
        super().__init__()
        self.folder, self.history, self.every, self.epochs = folder, history, every, epochs

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if not due(epoch, self.every, self.epochs):
            return
        if not all(np.isfinite(np.asarray(variable)).all() for variable in self.model.trainable_variables):
            raise TrainingError(
                f"A weight is no longer finite after epoch {epoch + 1}. {kept(self.folder)}, and a smaller "
                "--learning-rate."
            )
        save_checkpoint(self.folder, self.model, {"epoch": epoch + 1, "history": self.history.rows})


class Progress(keras.callbacks.Callback):
    """One line an epoch; on a terminal also a bar for its steps, with loss, mean IoU and the whole run's time left."""

    def __init__(self, epochs: int, steps: int) -> None:
        super().__init__()
        self.epochs, self.steps, self.stream = epochs, steps, sys.stderr
        self.epoch, self.first_epoch, self.began = 0, -1, 0.0

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self.epoch = epoch
        if self.first_epoch < 0:
            self.first_epoch, self.began = epoch, time.perf_counter()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self.stream.isatty():
            logs = logs or {}
            head = f"epoch {self.epoch + 1}/{self.epochs} "
            tail = (
                f"{batch + 1}/{self.steps} loss {float(logs.get('loss', 0)):.3f} "
                f"mean IoU {float(logs.get('mean_iou', 0)):.3f} left {self.left(batch + 1)}"
            )
            # A line that wrapped could not be wiped.
            columns = columns_of(self.stream)
            drawn = bar((batch + 1) / self.steps, columns - 1 - len(head) - len(tail))
            self.stream.write(f"\r\x1b[2K{f'{head}{drawn}{tail}'[: columns - 1]}")
            self.stream.flush()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        logs = logs or {}
        shown = (("loss", "loss"), ("accuracy", "accuracy"), ("mean_iou", "mean IoU"), ("val_loss", "val loss"),
                 ("val_accuracy", "val accuracy"), ("val_mean_iou", "val mean IoU"))  # fmt: skip
        parts = [f"{label} {float(logs[key]):.4f}" for key, label in shown if key in logs]
        clear = "\r\x1b[2K" if self.stream.isatty() else ""
        self.epoch += 1
        print(
            f"{clear}epoch {epoch + 1}/{self.epochs}  {'  '.join(parts)}  left {self.left(0)}",
            file=self.stream,
            flush=True,
        )

    def left(self, batch: int) -> str:
        """Time left as h:mm:ss, from the mean of the steps so far."""
        done = (self.epoch - self.first_epoch) * self.steps + batch
        todo = (self.epochs - self.epoch) * self.steps - batch
        seconds = round((time.perf_counter() - self.began) / max(1, done) * todo)
        return f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"


class StopOnSignal(keras.callbacks.Callback):
    """Ctrl-C or SIGTERM ends training after the current batch; a second one ends the process at once."""

    def __init__(self) -> None:
        super().__init__()
        self.stopped = False

    def installed(self) -> AbstractContextManager[None]:
        """Listen for the signals inside the block."""
        return asked_twice(
            self._stop,
            said="Finishing the batch under way; once more to stop at once.",
            last_words="error: stopped at once; --resume goes on from the last checkpoint, or starts over without one.",
        )

    def _stop(self) -> None:
        self.stopped = True

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        if self.stopped:
            # Not model.stop_training: that would run the end of the epoch and save a partial epoch as a whole one.
            raise KeyboardInterrupt
