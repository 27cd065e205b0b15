"""`python -m train fit`: make a run's folder with a plain, finished FCN8 from a dataset and a recipe."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
import numpy as np

from edge_seg.phrases import counted

from .augment import Pair
from .batches import ResizedBatches, TrainingBatches, check_processes
from .begin import begin_network, learning_rates, some_frames
from .callbacks import Checkpoints, History, Progress, StopOnNan, StopOnSignal, Validation, averaged
from .checkpoint import has_checkpoint, has_finished, load_checkpoint
from .dataset import Sample
from .distribute import Devices, choose_devices, join_hosts
from .evaluate import write_run_pictures
from .fcn8 import logits_model
from .files import sole_writer
from .fold import fold_batch_norm
from .losses import ConfusionMetric, SegmentationLoss, class_weights
from .memory import out_of_memory_told
from .options import FitOptions, fcn8_config, refuse_changes, refuse_folder, run_config
from .policy import policy_kept
from .recipes import Recipe, make_optimizer
from .report import PAGE_NAME
from .run import Run, open_run, save_run
from .seen import seen_held_out
from .stores import PairStore, class_shares, rendered_scenes
from .teacher import opinions_of
from .training_data import TrainingData, find_data
from .weights import even_out

RENDERED_POOL = 160


@out_of_memory_told()
@policy_kept()
def fit(recipe: Recipe, options: FitOptions) -> Run:
    """Train, and leave a run's folder behind: config, history, checkpoint, weights, pictures, page.

    Raises:
        ConfigurationError: options that are impossible, or another training that writes into the folder.
        DatasetError: bad files, each named.
        TrainingError: the loss is no longer a number; the last finite checkpoint is kept.
        OutOfMemoryError: the network and a batch take more memory than the device has.
        KeyboardInterrupt: stopped by a signal after a whole batch; checkpoints stay.
    """
    check_processes(options.workers or 0)
    # Only the first host writes into the folder.
    with sole_writer(options.out) if join_hosts().index == 0 else contextlib.nullcontext():
        return _fit(recipe, options)


def _fit(recipe: Recipe, options: FitOptions) -> Run:
    # The others may get here when the first host has already begun its run in the folder, which they must not refuse.
    if join_hosts().index == 0 or options.resume:
        refuse_folder(options)
    data = find_data(recipe, options)
    config = run_config(recipe, options, data)
    if options.resume:
        refuse_changes(options, config)
        known = open_run(options.out)
        if has_finished(options.out, known.config):
            return left_as_it_is(known, options)
        config["data"]["seen"] = known.data.get("seen")
        if "training" in known.config:
            # It describes the old weights, which stay until new ones replace them.
            config["training"] = known.config["training"]
    else:
        config["data"]["seen"] = seen_held_out(options, data, config["data"]["hash"])
    return _trained(recipe, options, data, config)


def _trained(recipe: Recipe, options: FitOptions, data: TrainingData, config: dict[str, Any]) -> Run:
    pairs = data.pairs(options.classes)
    devices = choose_devices(min(recipe.batch_size, len(pairs)), options.devices)
    keras.utils.set_random_seed(options.seed)
    keras.mixed_precision.set_dtype_policy(options.policy)

    # On one device: the teacher's small batches could not be shared equally among many.
    opinions = opinions_of(open_run(options.teacher), pairs, recipe.input_size) if options.teacher else []

    with devices.folder(options.out) as folder:
        with devices.scope():
            trainer = Trainer(recipe, options, pairs, data.validation, devices, folder, opinions)
            config["encoder"] = asdict(trainer.inherited)
            print_setup(trainer, config, data)
            save_run(folder, config)
            trainer.train()
        config["training"] = training_record(trainer)
        with averaged(trainer.model):
            plain = fold_batch_norm(trainer.network, trainer.fcn8_config)
        if recipe.batch_norm:
            even_out(plain)  # Folded kernels of 1e-5 would lose digits in float16.
        run = save_run(folder, config, plain)
    if devices.chief and not options.brief:
        write_run_pictures(run, plain)
    return run


def left_as_it_is(run: Run, options: FitOptions) -> Run:
    """The answer to --resume of a finished run: config.json keeps what it was trained with, and only its terms may
    change."""
    if join_hosts().index == 0:
        if options.license != run.config.get("license", ""):
            run = save_run(run.folder, {**run.config, "license": options.license})
        if not (run.folder / PAGE_NAME).exists():  # The training ended, but something stopped its pictures.
            write_run_pictures(run)
    epochs = counted(run.config["recipe"]["epochs"], "epoch")
    print(f"nothing left to train: {run.folder}{os.sep} has finished its {epochs}, and keeps the record of it")
    return run


class Trainer:
    """The network, its batches and its callbacks, put together from a recipe."""

    def __init__(
        self,
        recipe: Recipe,
        options: FitOptions,
        pairs: Sequence[Pair],
        validation: list[Sample],
        devices: Devices,
        folder: Path,
        opinions: Sequence[np.ndarray] = (),
    ) -> None:
        self.recipe, self.options, self.devices, self.folder = recipe, options, devices, folder
        self.classes = options.classes
        self.ignored = self.classes.unlabelled if recipe.ignore_unlabelled else None
        # Also fills the store: processes that draw batches share the images that are read by then.
        self.shares = class_shares(pairs, len(self.classes), self.ignored) if not recipe.is_notebook else None
        self.fcn8_config = fcn8_config(recipe, options)
        self.batches = self._training_batches(pairs, opinions)
        self.network, self.inherited = begin_network(
            recipe, options, some_frames(pairs, recipe.input_size), synchronized=devices.synchronized
        )
        # The notebook's loss sees probabilities; the default recipe's sees logits, which is steadier in low precision.
        self.model = self.network if recipe.is_notebook else logits_model(self.network)
        self._compile()
        # Built within the first step, it would have TensorFlow trace that step a second time.
        self.model.optimizer.build(self.model.trainable_variables)
        held_out = ResizedBatches(PairStore(validation), size=recipe.input_size, batch_size=min(recipe.batch_size, 8))
        self.validation = Validation(
            held_out if validation else None,
            len(self.classes),
            self.ignored,
            every=recipe.epochs if options.brief else options.every,
            epochs=recipe.epochs,
        )
        self.history = History(folder, self.classes.names, self.validation)

    def train(self) -> None:
        """Run the remaining epochs."""
        first = self._resume() if self.options.resume else 0
        stop = StopOnSignal()
        callbacks: list[keras.callbacks.Callback] = [StopOnNan(self.folder), stop, self.validation, self.history]
        epochs = self.recipe.epochs
        callbacks.append(Checkpoints(self.folder, self.history, every=self.options.every, epochs=epochs))
        callbacks.append(Progress(epochs, len(self.batches)))
        if self.options.tensorboard:
            callbacks.append(keras.callbacks.TensorBoard(self.folder / "tensorboard", write_graph=False))
        with stop.installed(), self.batches.failures_raised():
            self.model.fit(
                self.devices.feed(self.batches, first),
                steps_per_epoch=len(self.batches),
                epochs=epochs,
                initial_epoch=first,
                callbacks=callbacks,
                verbose=0,
                shuffle=False,
            )

    def _resume(self) -> int:
        if not has_checkpoint(self.options.out):
            print("no checkpoint had been written: starting over", file=sys.stderr)
            return 0
        record, note = load_checkpoint(self.options.out, self.model)
        if note:
            print(f"warning: {note}", file=sys.stderr)
        self.history.rows = record["history"]
        print(f"resuming after epoch {record['epoch']} of {self.recipe.epochs}", file=sys.stderr)
        return int(record["epoch"])

    def _training_batches(self, pairs: Sequence[Pair], opinions: Sequence[np.ndarray]) -> TrainingBatches:
        recipe = self.recipe
        size = recipe.crop_size or recipe.input_size
        rendered = rendered_scenes(RENDERED_POOL, (360, 480), self.options.seed) if recipe.rendered_share else ()
        return TrainingBatches(
            pairs,
            size=size,
            batch_size=recipe.batch_size,
            seed=self.options.seed,
            augmentation=recipe.augmentation,
            rendered=rendered,
            rendered_share=recipe.rendered_share,
            rare=() if self.shares is None else self.classes.rare(self.shares),
            fill=self.classes.unlabelled,
            ids=self.classes.ids,
            opinions=opinions,
            parts=self.devices.count,
            view=recipe.input_size,
            processes=self.options.workers,
        )

    def _compile(self) -> None:
        recipe, classes = self.recipe, len(self.classes)
        rates = learning_rates(recipe, self.inherited, self.fcn8_config)
        optimizer = make_optimizer(recipe, len(self.batches), rates)
        if self.shares is None:
            loss, metrics = "sparse_categorical_crossentropy", ["accuracy", ConfusionMetric(classes, None)]
            self.model.compile(optimizer=optimizer, loss=keras.losses.get(loss), metrics=metrics, jit_compile=use_jit())
            return
        if recipe.weighted:
            weights = class_weights(self.shares, self.ignored, recipe.weight_offset)
        else:
            weights = np.array([index != self.ignored for index in range(classes)], np.float32)
        self.model.compile(
            optimizer=optimizer,
            loss=SegmentationLoss(weights, jaccard=recipe.jaccard),
            metrics=[ConfusionMetric(classes, self.ignored)],
            jit_compile=use_jit(),
        )


def use_jit() -> bool:
    """Whether to compile the step with XLA: not on TensorFlow's CPU, where it runs at half the speed of oneDNN."""
    return keras.backend.backend() == "jax"


def training_record(trainer: Trainer) -> dict[str, Any]:
    """What config.json, and a model file made of the run, say about a finished training."""
    rows = trainer.history.rows
    last = rows[-1] if rows else {}
    return {
        "recipe": trainer.recipe.name,
        "epochs": len(rows),
        "seconds": round(sum(row["seconds"] for row in rows)),
        **{key: last[key] for key in ("loss", "val_mean_iou", "val_accuracy") if last.get(key) not in (None, "")},
        "policy": trainer.options.policy,
        "loaded_layers": list(trainer.inherited.loaded),
        "devices": trainer.devices.count,
    }


def print_setup(trainer: Trainer, config: dict[str, Any], data: TrainingData) -> None:
    """Print the network's summary, the versions, the data, the recipe and the devices."""
    trainer.network.summary()
    print("  ".join(f"{name} {version}" for name, version in config["versions"].items()))
    recipe = trainer.recipe
    how = f"drives held out: {', '.join(recipe.held_out)}" if recipe.held_out else f"{recipe.split} split"
    split = f"{len(data.training)} train, {len(data.validation)} validation ({how})"
    print(f"{len(data.samples)} images: {split}; seed {config['seed']}")
    batch = min(recipe.batch_size, len(data.training) + len(data.frames))
    epochs = f"{counted(recipe.epochs, 'epoch')} of {counted(len(trainer.batches), 'step')}, batch {batch}"
    print(f"recipe {recipe.name}: {epochs}, {config['policy']}, on {trainer.devices}")
    if trainer.options.weights:
        print(f"{trainer.options.weights.name}: loaded into {', '.join(trainer.inherited.loaded)}")
    if trainer.options.teacher:
        frames = config["data"]["frames"]
        also = f", and of {frames['count']} frames without masks" if frames else ""
        print(f"teacher {config['teacher']['run']}: its opinion of the training images is learnt too{also}")
