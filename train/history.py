"""A run's history.csv read back: its rows, and a column as numbers. Written by `train.callbacks.History`."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


def read_history(path: Path | str) -> list[dict[str, str]]:
    """The rows of a history.csv, values as text."""
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def column(rows: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    """One column of a history as (N,) float64; nan where it is empty, missing or no number."""
    return np.array([_number(row.get(name)) for row in rows], np.float64)


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")
