"""Names of a run's files, a lock on its folder, and tables written whole or not at all. Knows nothing of content."""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from edge_seg.errors import ConfigurationError
from edge_seg.files import Claim, replacing

# The two files of a finished run, named here for modules that must not import Keras.
CONFIG_NAME = "config.json"
WEIGHTS_NAME = "model.weights.h5"
# What a JSON or CSV file that anyone may have written can raise where it is read and used.
DAMAGE = (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)


@contextlib.contextmanager
def sole_writer(folder: Path) -> Iterator[None]:
    """Make a run's folder if it is missing, and keep other trainings from writing into it inside the block.

    Folders made here are removed again if they are still empty. Where files cannot be locked, as on Windows, no
    training is kept out.

    Raises:
        ConfigurationError: another training writes into the folder.
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


def refuse_link(folder: Path) -> None:
    """Raise `ConfigurationError` if a run's own folder for results is a link: files elsewhere would be replaced.

    A run may come from anyone, links and all; a folder that is named by --out may be one.
    """
    if folder.is_symlink():
        raise ConfigurationError(
            f"{folder} is a link: what is written there would replace files elsewhere. Remove the link, or name a "
            "folder with --out."
        )


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table as UTF-8 CSV, whole or not at all; file names that are not UTF-8 keep their own bytes."""
    with (
        replacing(path) as temporary,
        open(temporary, "w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
