"""A run's folder: what it holds, how it is written and read back.

    RUN/config.json          network, recipe and options, seed, data (folders, stems of each split, hash), versions
    RUN/model.weights.h5     the finished plain FCN8, Keras weights (float32, or float16 to ship)
    RUN/history.csv          one line an epoch
    RUN/checkpoint.npz       the last epoch's whole state, for --resume; checkpoint.previous.npz the one before
                             (checkpoint.damaged.npz: one that could not be read, set aside by --resume)
    RUN/*.png, report.html   curves, samples, the page

Weights are loaded into our own architecture only: no class, lambda or code from a file is ever run.
"""

from __future__ import annotations

import io
import json
import os
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from edge_seg.errors import ConfigurationError, DatasetError, ModelFileError
from edge_seg.files import replacing
from edge_seg.phrases import first_line
from edge_seg.spec import CAMVID_CLASSES, CAMVID_UNLABELLED
from edge_seg.versions import installed

from .classes import ClassList
from .dataset import Sample, composed, find_samples, refuse_gone
from .fcn8 import Fcn8Config, fcn8
from .files import CONFIG_NAME, DAMAGE, WEIGHTS_NAME
from .stored import check_h5

MAX_CONFIG = 64 * 2**20  # a hundred bytes for each of a large dataset's names


@dataclass(frozen=True)
class Run:
    """One run's folder and what its config.json says."""

    folder: Path
    config: dict[str, Any]

    @property
    def fcn8(self) -> Fcn8Config:
        return Fcn8Config.from_dict(self.config["fcn8"])

    @property
    def classes(self) -> tuple[str, ...]:
        return tuple(self.config.get("classes", CAMVID_CLASSES))

    @property
    def unlabelled(self) -> int | None:
        return self.config.get("unlabelled", CAMVID_UNLABELLED)

    @property
    def class_list(self) -> ClassList:
        """The run's classes and the mask values that mean unlabelled."""
        return ClassList(names=self.classes, unlabelled=self.unlabelled, ignored=self.config.get("ignored"))

    @property
    def data(self) -> dict[str, Any]:
        """What it records of its data: folders, the names of each split's images, a hash."""
        return self.config.get("data", {})

    @property
    def seen(self) -> set[str]:
        """Names of the held-out images that it, or what it came from, was trained on (`train/seen.py`)."""
        return set((self.data.get("seen") or {}).get("names", ()))

    @property
    def name(self) -> str:
        """The folder's own name, even if it was given as "."."""
        return os.path.basename(os.path.abspath(self.folder))

    @property
    def weights(self) -> Path:
        return self.folder / WEIGHTS_NAME

    def finished_weights(self) -> Path:
        """The weights file. Raises `ModelFileError` if there is none yet."""
        if not self.weights.is_file():
            raise ModelFileError(
                f"{self.folder} has no {WEIGHTS_NAME}: the run has not finished. Go on with `fit --resume`."
            )
        return self.weights

    def samples(self, split: str, root: Path | str | None = None) -> list[Sample]:
        """All of the run's own "train" or "val" pairs, or the "test" folder's; `root` replaces the recorded dataset.

        Raises:
            ConfigurationError: the run records no such images.
            DatasetError: bad folders, or images that are not there any more, each named.
        """
        plain: dict[str, str | None] = {}
        if root is None:
            root, *folders = map(self.data.get, ("root", "images", "masks"))
            refuse_gone(self.folder, root, *folders)
            plain = dict(zip(("images", "masks"), folders, strict=True))
        if split == "test":
            return find_samples(root, "test", classes=self.class_list)
        recorded = set(map(composed, self.data.get(split, ())))
        if not recorded:
            raise ConfigurationError(
                f"{self.folder} records no {split!r} images: it was fitted without, or shipped without their names. "
                "Evaluate it with --split test, or with --images and --masks."
            )
        found = {sample.stem: sample for sample in find_samples(root, "train", **plain, classes=self.class_list)}
        if missing := sorted(recorded - found.keys()):
            raise DatasetError(
                f"the dataset lacks {len(missing)} of the {len(recorded)} {split} images that the run recorded; give "
                "the one that it was trained on. Missing:",
                tuple(missing),
            )
        return [found[stem] for stem in sorted(recorded)]


def open_run(folder: Path | str) -> Run:
    """Read a run's folder. Raises `ModelFileError` when it is not one, or its config.json is damaged."""
    folder = Path(folder)
    path = folder / CONFIG_NAME
    if folder.is_file():
        if folder.suffix.lower() == ".onnx":
            raise ModelFileError(
                f"{folder}: expected a run's folder, got an exported file, which cannot be trained any further. Give "
                "the run that it was exported from; those of the bundled files are in edge_seg/assets/keras and "
                "keras_fast."
            )
        raise ModelFileError(
            f"{folder}: expected a run's folder, got a file. Saved models (.keras, .h5) can carry code and are never "
            "opened: make a run with `python -m train fit`, or give the folder of one."
        )
    if not path.is_file():
        raise ModelFileError(
            f"{folder} is not a run: it has no {CONFIG_NAME}. Make one with `python -m train fit DATASET --out RUN`."
        )
    try:
        if path.stat().st_size > MAX_CONFIG:
            raise ValueError(f"it has {path.stat().st_size} bytes, more than {MAX_CONFIG}")
        run = Run(folder, json.loads(path.read_text()))
        _check_config(run)
    except (OSError, *DAMAGE) as error:
        raise ModelFileError(
            f"{path}: damaged ({first_line(error)}). Copy the run again, or train it again with `python -m train fit`."
        ) from error
    return run


def joint_terms(*runs: Run) -> str:
    """The terms of use of all these runs' weights, which bind what is made from them."""
    found = (str(run.config.get("license") or "") for run in runs)
    return "; ".join(dict.fromkeys(filter(None, found)))


def _check_config(run: Run) -> None:
    """Raise a built-in error unless the parts of config.json that are used have the right types and values."""
    config = run.fcn8
    whole = (config.classes, *config.block_widths, *config.head_widths, *(config.input_size or ()))
    if any(type(number) is not int for number in whole):
        raise TypeError("the network's sizes must be whole numbers")
    if len(run.classes) != config.classes or not all(isinstance(name, str) for name in run.classes):
        raise ValueError(f"{len(run.classes)} class names for {config.classes} classes")
    # They are printed to terminals, which obey control characters; a model file refuses those, too.
    if strange := [name for name in run.classes if not name.isprintable()]:
        raise ValueError(f"class names must be of printable characters, in one line; got {strange[0][:80]!a}")
    if run.unlabelled is not None and run.unlabelled not in range(config.classes):
        raise ValueError(f"unlabelled is {run.unlabelled!r}")
    ignored = run.class_list.ignored
    if ignored is not None and (run.unlabelled is None or ignored not in range(config.classes, 256)):
        raise ValueError(f"the ignored id is {ignored!r}")
    for part in ("data", "training"):
        if not isinstance(run.config.get(part, {}), dict):
            raise TypeError(f"{part!r} must be a record")
    if type(run.config.get("training", {}).get("epochs", 0)) is not int:
        raise TypeError("the number of epochs must be a whole number")
    _check_data(run.data)


def _check_data(data: dict[str, Any]) -> None:
    """Raise `TypeError` unless the folders and the names of images that config.json records are texts."""
    for part in ("root", "images", "masks"):
        if not isinstance(data.get(part), str | None):
            raise TypeError(f"the data's {part!r} must be a folder's name")
    for part, stems in (
        *((part, data.get(part, [])) for part in ("train", "val")),
        ("seen", (data.get("seen") or {}).get("names", [])),
    ):
        if not isinstance(stems, list) or not all(isinstance(stem, str) for stem in stems):
            raise TypeError(f"the data's {part!r} must be a list of images' names")


def save_run(folder: Path | str, config: dict[str, Any], model: keras.Model | None = None) -> Run:
    """Write the plain network's weights where given, then config.json, each whole or not at all."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if model is not None:
        with replacing(folder / WEIGHTS_NAME) as temporary:
            temporary.write_bytes(weights_in_memory(model).getbuffer())
    # Written last, so that what it says about a training is about weights that are there.
    with replacing(folder / CONFIG_NAME) as temporary:
        temporary.write_text(json.dumps(config, indent=2) + "\n")
    return Run(folder, config)


def load_model(run: Run, *, input_size: tuple[int, int] | None = None) -> keras.Model:
    """Build the run's plain FCN8, at another (height, width) where given, and load its weights.

    Raises:
        ModelFileError: the weights are missing, damaged or of another network.
    """
    config = run.fcn8 if input_size is None else run.fcn8.with_size(input_size)
    declared = check_h5(run.finished_weights(), max_bytes=4 * config.parameters)
    if declared < 2 * config.parameters:
        # Checked before a network of the size that config.json names is built.
        raise ModelFileError(
            f"{run.weights}: damaged, or of another network: {declared} bytes of arrays, where {CONFIG_NAME}'s network "
            f"of {config.parameters} parameters has at least {2 * config.parameters}. Copy the run again."
        )
    model = fcn8(config, kernel_initializer="zeros")
    try:
        model.load_weights(run.weights)
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, zipfile.BadZipFile) as error:
        raise ModelFileError(f"{run.weights}: damaged, or of another network ({first_line(error)}).") from error
    return model


class _WeightsFile(io.BytesIO):
    """A file in memory, with the name that Keras requires of a weights file."""

    def __str__(self) -> str:
        return WEIGHTS_NAME


def weights_in_memory(model: keras.Model) -> io.BytesIO:
    """A model's Keras weights file in memory: on a full disk, HDF5 would end the whole process."""
    file = _WeightsFile()
    model.save_weights(file)
    return file


def save_float16(model: keras.Model, path: Path | str) -> None:
    """Save a model's weights as an ordinary Keras weights file whose arrays are float16: half the bytes."""
    import h5py

    half = io.BytesIO()
    with h5py.File(weights_in_memory(model), "r") as source, h5py.File(half, "w") as target:
        _copy_as_float16(source, target)
    with replacing(Path(path)) as temporary:
        temporary.write_bytes(half.getbuffer())


def _copy_as_float16(source: Any, target: Any) -> None:
    for key, value in source.attrs.items():
        target.attrs[key] = value
    for key, item in source.items():
        if hasattr(item, "items"):
            _copy_as_float16(item, target.create_group(key))
        else:
            # Read as stored, and rounded by numpy: HDF5's own conversion loses the carry into the exponent, which
            # halves values that round up to a power of two.
            target.create_dataset(key, data=item[()].astype(np.float16), compression="gzip", shuffle=True)


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that decide what a run computes, and the name of Keras' backend."""
    packages = ("keras", "tensorflow", "jax", "torch", "numpy", "opencv-python", "opencv-python-headless")
    return {"python": sys.version.split()[0], "backend": keras.backend.backend(), **installed(packages)}
