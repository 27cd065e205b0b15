"""A run's history.csv read back: its rows, and a column as numbers. Written by `train.callbacks.History`."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from edge_seg.errors import ModelFileError

MOST_EPOCHS = 10**9
# A chart divides by the span of its values, which beyond these is infinite or zero.
SMALLEST, LARGEST = 1e-100, 1e100


def read_history(path: Path | str) -> list[dict[str, str]]:
    """The rows of a history.csv, values as text.

    Raises:
        ModelFileError: it is damaged: no table, or epochs that are not ascending whole numbers.
        OSError: it cannot be read.
    """
    try:
        with open(path, newline="") as file:
            rows = list(csv.DictReader(file))
        if any(None in row or None in row.values() for row in rows):
            raise ValueError("lines of different lengths")
        epochs = [int(row["epoch"]) for row in rows]
        if any(not before < after <= MOST_EPOCHS for before, after in pairwise((0, *epochs))):
            raise ValueError("its epochs are not in order")
    except (csv.Error, ValueError, KeyError) as error:
        raise ModelFileError(f"{path}: damaged ({str(error)[:200]}). Copy the run again.") from error
    return rows


def column(rows: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    """One column of a history as (N,) float64; nan where it is empty, missing or no number that a chart can show."""
    return np.array([_number(row.get(name)) for row in rows], np.float64)


def _number(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return float("nan")
    if not abs(number) <= LARGEST:
        return float("nan")
    return number if abs(number) >= SMALLEST else 0.0
