"""Checkpoints: the whole state of training in one .npz, written whole or not at all, and how it is restored.

Holds the network's variables, the optimizer's (including its step, momenta and moving average) and a JSON record
(epoch, history). Arrays only (`allow_pickle=False`): loading a checkpoint runs no code.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import keras
import numpy as np

from edge_seg.errors import ModelFileError
from edge_seg.files import replacing
from edge_seg.phrases import first_line, joined

from .files import CONFIG_NAME, WEIGHTS_NAME
from .stored import CURE, NPZ_DAMAGE, read_npz

NAME = "checkpoint.npz"
PREVIOUS = "checkpoint.previous.npz"
DAMAGED = "checkpoint.damaged.npz"
MAX_RECORD = 64 * 2**20


def save_checkpoint(folder: Path, model: keras.Model, record: dict[str, Any]) -> None:
    """Write the state after an epoch; the previous checkpoint stays beside it as `PREVIOUS`."""
    arrays = {f"model/{index}": np.asarray(variable) for index, variable in enumerate(model.variables)}
    arrays |= {f"optimizer/{index}": np.asarray(variable) for index, variable in enumerate(model.optimizer.variables)}
    arrays["record"] = np.frombuffer(json.dumps(record).encode(), np.uint8)
    with (
        replacing(folder / NAME, keep=folder / PREVIOUS) as temporary,
        open(temporary, "wb") as file,
    ):
        np.savez(file, **arrays)  # type: ignore[arg-type]


def load_checkpoint(folder: Path, model: keras.Model) -> tuple[dict[str, Any], str]:
    """Load the newest intact checkpoint into `model` and its optimizer.

    If that is the previous one, the newest is set aside as `DAMAGED`: left in its place, the next save would keep it
    instead of the intact one.

    Returns:
        The record, and a note if the previous checkpoint was used, else "".

    Raises:
        ModelFileError: there is no checkpoint, or none that is intact and fits this network.
        OSError: one cannot be read at the moment, which does not mean that it is damaged; it names the file.
    """
    troubles = []
    for name in (NAME, PREVIOUS):
        path = folder / name
        if not path.exists():
            troubles.append(f"{name}: missing")
            continue
        if path.is_file():
            with path.open("rb"):
                pass  # Below, one that may not be opened would count as damaged.
        try:
            arrays, record = _read(
                path, max_bytes=MAX_RECORD + _bytes(model.variables) + _bytes(model.optimizer.variables)
            )
            _assign(model.variables, arrays, "model")
            _assign(model.optimizer.variables, arrays, "optimizer")
            _check_record(record)
        except NPZ_DAMAGE as error:
            if isinstance(error, OSError):
                raise
            # A checkpoint was written here: there is nothing to copy it from.
            troubles.append(f"{name}: {first_line(error, after=f'{path}: ').removesuffix(f' {CURE}')}")
            continue
        if not troubles:
            return record, ""
        if (folder / NAME).exists():
            os.replace(folder / NAME, folder / DAMAGED)
            troubles.append(f"kept as {DAMAGED}")
        return record, joined(*troubles, f"going on from {name}")
    raise ModelFileError(f"{folder}: nothing to resume from ({joined(*troubles)}). Start again with another --out.")


def has_checkpoint(folder: Path) -> bool:
    """Whether a run has saved a checkpoint."""
    return any((folder / name).exists() for name in (NAME, PREVIOUS))


def kept(folder: Path) -> str:
    """In words, what a run that ends here can be resumed from."""
    for name in (NAME, PREVIOUS):
        if (epoch := _epoch(folder / name)) is not None:
            return f"The checkpoint after epoch {epoch} is kept; go on from it with --resume"
    if (folder / CONFIG_NAME).exists():
        return "No checkpoint had been written; start over with --resume"
    return "No epoch had been begun; start over with the same command"


def has_finished(folder: Path, config: dict[str, Any]) -> bool:
    """Whether a run's folder holds its last epoch's checkpoint and the network made from it, as its config.json says.

    One whose last checkpoint is damaged has not: `load_checkpoint` goes on from the one before.
    """
    epochs = config.get("recipe", {}).get("epochs")
    made = "training" in config and (folder / WEIGHTS_NAME).is_file()
    return made and epochs is not None and _epoch(folder / NAME) == epochs


def _epoch(path: Path) -> int | None:
    """The epoch after which a checkpoint was written; None where there is none, or it cannot be read."""
    try:
        with np.load(path, allow_pickle=False) as file:
            record = json.loads(file["record"].tobytes())
        _check_record(record)
        return int(record["epoch"])
    except (*NPZ_DAMAGE, MemoryError):
        return None


def _read(path: Path, *, max_bytes: int) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    arrays = read_npz(path, max_bytes=max_bytes)
    return arrays, json.loads(arrays.pop("record").tobytes())


def _check_record(record: dict[str, Any]) -> None:
    """Raise `ValueError` unless the record has an epoch, and a history of which each line has its seconds."""
    lines = record.get("history", [])
    if type(record["epoch"]) is not int or not all(isinstance(line["seconds"], int | float) for line in lines):
        raise ValueError("its record of epochs makes no sense")


def _bytes(variables: list[Any]) -> int:
    """Upper bound on the bytes of these variables, at 8 bytes an element."""
    return sum(8 * math.prod(variable.shape) for variable in variables)


def _assign(variables: list[Any], arrays: dict[str, np.ndarray], group: str) -> None:
    stored = sum(key.startswith(f"{group}/") for key in arrays)
    if stored != len(variables):
        raise ValueError(f"holds {stored} {group} variables, this network has {len(variables)}")
    for index, variable in enumerate(variables):
        value = arrays[f"{group}/{index}"]
        if tuple(value.shape) != tuple(variable.shape):
            raise ValueError(f"{variable.path} is {tuple(variable.shape)} here but {value.shape} in the file")
    for index, variable in enumerate(variables):
        variable.assign(arrays[f"{group}/{index}"])
