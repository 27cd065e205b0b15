"""What a run's files are called, and tables written whole or not at all. Knows nothing of their content."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from edge_seg.errors import ConfigurationError
from edge_seg.files import Claim, replacing

# The two files of a finished run, named here for those who must not import Keras.
CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.weights.h5"


@contextlib.contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """A run's folder, made where it is missing, into which no other training writes meanwhile.

    What was made is taken away again where nothing has come to lie in it. Where files cannot be locked, as on Windows,
    nobody is kept out.

    Raises:
        ConfigurationError: another training writes into it.
        OSError: it cannot be made, or written to.
    """
    made = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        claim = Claim(folder / CONFIG_NAME)
    except BlockingIOError as error:
        raise ConfigurationError(
            f"{folder}: another training writes into it; wait for its end, or choose another --out."
        ) from error
    try:
        yield
    finally:
        claim.release()
        for place in made:
            with contextlib.suppress(OSError):
                place.rmdir()


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table as UTF-8 CSV, whole or not at all; names of files go out as the bytes that they are."""
    with (
        replacing(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
