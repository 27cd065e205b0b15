"""Names of results, and whether results exist already. Knows nothing of how they are written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from .errors import ConfigurationError
from .items import Item

KINDS = ("overlay", "mask", "labels", "jsonl")
# Suffixes of results; OUT with one of these means a file.
FILE_SUFFIXES = frozenset({".mp4", ".png", ".jsonl"})
DEFAULT_FOLDER = Path("edge_seg_out")
Plan = dict[str, Path]


def parse_kinds(text: str) -> tuple[str, ...]:
    """Parse a comma-separated list of kinds, in order, each once; raises `ConfigurationError` naming the choices."""
    kinds = tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown or not kinds:
        raise ConfigurationError(f"--save takes a comma list of {', '.join(KINDS)}; got {text!r}.")
    return kinds


def partial_path(path: Path) -> Path:
    """Path of a result while it is being written: NAME.partial.mp4 for NAME.mp4, NAME.partial for a folder NAME."""
    suffix = path.suffix if path.suffix.lower() in FILE_SUFFIXES else ""
    return path.with_name(f"{path.name.removesuffix(suffix)}.partial{suffix}")


def plan_outputs(
    items: Sequence[Item], kinds: Sequence[str], out: Path | None, *, folder_asked: bool = False
) -> list[Plan]:
    """Decide the paths of all results: kind -> path for each item.

    Args:
        items: the sources of the run.
        kinds: what to save.
        out: a file for one item, a folder for many; None for `DEFAULT_FOLDER`.
        folder_asked: `out` is a folder even if it does not exist yet and its name looks like a file's.

    Raises:
        ConfigurationError: `out` does not fit, or two results, or a result and a source, would be the same file.
    """
    if out == Path("-") and not folder_asked:
        raise ConfigurationError(
            f"results are files and cannot go to standard output; name a file or a folder as OUT (one of this name is "
            f"written -{os.sep})."
        )
    if out is not None and names_a_file(items, out, folder_asked=folder_asked):
        plans = [_around_file(items[0], kinds, out)]
    else:
        folder = out or DEFAULT_FOLDER
        if folder.exists() and not folder.is_dir():
            what = "file" if folder.is_file() else "device or pipe"
            raise ConfigurationError(f"{folder} is a {what}; {_wanted(items)}.")
        if folder.suffix.lower() in FILE_SUFFIXES and not folder.is_dir() and not folder_asked:
            raise ConfigurationError(
                f"{folder} is a file's name, and {_wanted(items)}; a folder of that name is written {folder}{os.sep}"
            )
        plans = [{kind: folder / result_name(item, item.stem, kind) for kind in kinds} for item in items]
    _check_distinct(items, plans)
    return plans


def names_a_file(items: Sequence[Item], out: Path | None, *, folder_asked: bool) -> bool:
    """Whether OUT is the name of one result, as the user wants it, and not a folder."""
    return out is not None and len(items) == 1 and bool(out.suffix) and not out.is_dir() and not folder_asked


def _wanted(items: Sequence[Item]) -> str:
    if len(items) > 1:
        return f"{len(items)} sources need a folder as OUT"
    return f"expected a folder as OUT, or a file's name that ends in {', '.join(sorted(FILE_SUFFIXES))}"


def result_name(item: Item, stem: str, kind: str) -> str:
    """File or folder name of one kind of result of an item, built on `stem`."""
    if kind == "jsonl":
        return f"{stem}.jsonl"
    if item.kind == "image":
        return f"{stem}.png" if kind == "labels" else f"{stem}_{kind}.png"
    return f"{stem}_labels" if kind == "labels" else f"{stem}_{kind}.mp4"


def _around_file(item: Item, kinds: Sequence[str], out: Path) -> Plan:
    """`out` itself for the first kind that its suffix fits, names beside it for the others."""
    names = {kind: result_name(item, out.stem, kind) for kind in kinds}
    fitting = [kind for kind in kinds if Path(names[kind]).suffix == out.suffix.lower()]
    if not fitting:
        wanted = " or ".join(sorted({Path(name).suffix or "a folder" for name in names.values()}))
        raise ConfigurationError(
            f"{out.name} does not fit --save {','.join(kinds)} of {item.name}: expected {wanted}; got {out.suffix}."
        )
    return {kind: out if kind == fitting[0] else out.with_name(name) for kind, name in names.items()}


def _check_distinct(items: Sequence[Item], plans: Sequence[Plan]) -> None:
    taken: dict[str, str] = {os.path.realpath(item.location): item.name for item in items if item.on_disk}
    for item, plan in zip(items, plans, strict=True):
        for path in (name for final in plan.values() for name in (final, partial_path(final))):
            place = os.path.realpath(path)
            if place in taken:
                raise ConfigurationError(
                    f"The results of {item.name} would be written to {path}, which belongs to {taken[place]}; "
                    "choose another OUT."
                )
            taken[place] = f"the results of {item.name}"


def check_free(plans: Sequence[Plan]) -> None:
    """Raise `ConfigurationError` naming results of an earlier run, whole or partial, that would be overwritten."""
    # Not Path.exists, which raises for a name that is too long and would end the run for all the others; a link that
    # leads nowhere is there, too.
    finals = [final for plan in plans for final in plan.values()]
    found = [path for final in finals for path in (final, partial_path(final)) if os.path.lexists(path)]
    if found:
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise ConfigurationError(
            f"Already there: {', '.join(map(str, found[:3]))}{more}. "
            "--resume keeps what is finished and makes the rest, --overwrite makes all anew."
        )
