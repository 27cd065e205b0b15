"""What a run's files are called, and tables written whole or not at all. Knows nothing of their content."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from edge_seg.files import replacing

# The two files of a finished run, named here for those who must not import Keras.
CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.weights.h5"


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table as UTF-8 CSV, whole or not at all; names of files go out as the bytes that they are."""
    with (
        replacing(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
