"""`--resume`: what an earlier run left, said in words, and what is still to be made. Knows no pipeline.

A result counts as finished when its line in the records says that it was made from this very source, by this model,
with these options, and its content is what was written then. Anything else is made again, and that is said.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from .encode import playable
from .errors import MediaError
from .files import Claim
from .items import Item
from .names import Plan, partial_path, result_name
from .predict import SourceReport
from .records import Finding, Records

Say = Callable[[str], None]


def names_kept(items: Sequence[Item], plans: Sequence[Plan], records: Records) -> list[Plan]:
    """The same plans, but results that an earlier run made keep the names they had.

    Names depend on which sources of one name a run has, and runs differ: without this, what was made would be made
    again under another name.
    """
    kept = list(plans)
    taken = {path for plan in plans for path in plan.values()}
    for position, (item, plan) in enumerate(zip(items, plans, strict=True)):
        # A name that the caller gave is the one that is wanted.
        if any(path.name != result_name(item, item.stem, kind) for kind, path in plan.items()):
            continue
        for stem in item.other_stems:
            other = {kind: path.with_name(result_name(item, stem, kind)) for kind, path in plan.items()}
            if taken.isdisjoint(other.values()) and any(records.made_from(item, path) for path in other.values()):
                taken |= set(other.values())
                kept[position] = other
                break
    return kept


def take_up(item: Item, plan: Plan, records: Records, say: Say) -> tuple[Plan, SourceReport | None]:
    """Look at what is there of one source's results, just before it is its turn: another run may be at the same ones.

    Args:
        item, plan: the source and all its results.
        records: what was finished.
        say: takes a line for the user.

    Returns:
        What is left to make, and the source's report if nothing is to be done.
    """
    # os.path: for a name too long to be one, Path.exists raises, and would end the run for all the others.
    found = {kind: records.find(item, kind, path) for kind, path in plan.items() if os.path.exists(path)}
    if strangers := [_stranger(plan[kind], finding) for kind, finding in found.items() if not _ours(finding)]:
        return {}, _refused(item, strangers)
    for kind, path in plan.items():
        _tell(item, path, found.get(kind), say)
    todo = {kind: path for kind, path in plan.items() if not _finished(found.get(kind))}
    return todo, None if todo else _there(item, plan, found)


def _ours(finding: Finding) -> bool:
    return finding.known and not finding.owner


def _stranger(path: Path, finding: Finding) -> str:
    made_from = f"was made from {finding.owner}" if finding.owner else "nothing beside it says what it was made from"
    return f"{path} is already there, and {made_from}"


def _finished(finding: Finding | None) -> bool:
    return finding is not None and not finding.doubt


def _refused(item: Item, strangers: list[str]) -> SourceReport:
    """Never replace a file of which nobody knows whose it is."""
    message = f"{'; '.join(strangers)}. Move it away, choose another OUT, or replace it with --overwrite."
    return SourceReport(source=item.name, status="failed", message=message)


def _there(item: Item, plan: Plan, found: dict[str, Finding]) -> SourceReport:
    outputs = {kind: str(path) for kind, path in plan.items()}
    remark = next((finding.remark for finding in found.values() if finding.remark), "")
    if remark:
        return SourceReport(source=item.name, status="incomplete", message=f"already there; {remark}", outputs=outputs)
    return SourceReport(source=item.name, status="already there", outputs=outputs)


def _tell(item: Item, path: Path, finding: Finding | None, say: Say) -> None:
    """Say what there is of one result that is not as a finished run leaves it, and what happens to it."""
    partial = partial_path(path)
    if not os.path.exists(partial):
        if finding is not None and finding.doubt:
            say(f"{path}: {finding.doubt}; it is made again.")
        return
    claim = None
    try:
        claim = Claim(path)
        _tell_of(partial, item, path, finding, say)
    except BlockingIOError:
        say(f"{partial}: another run is writing it.")
    except OSError:
        pass  # Gone meanwhile, or in a folder that takes no file: whoever writes the result will say so.
    finally:
        if claim is not None:
            claim.release()


def _tell_of(partial: Path, item: Item, path: Path, finding: Finding | None, say: Say) -> None:
    if _finished(finding):
        say(f"{partial}: left by a run that was stopped; {path} is whole, so it is removed.")
        shutil.rmtree(partial) if partial.is_dir() else partial.unlink()
        return
    if finding is not None:
        say(f"{path}: {finding.doubt}; it is made again.")
    say(
        f"{partial}: left by a run that was stopped, {contents(partial)}; "
        f"{path.name} is made anew from the start of {item.name}."
    )


def contents(partial: Path) -> str:
    """In words, how much of a result a partial file or folder holds."""
    if partial.is_dir():
        return f"{sum(1 for _ in partial.iterdir())} pictures are in it"
    if partial.suffix == ".jsonl":
        return f"{partial.read_bytes().count(10)} lines are in it"
    try:
        frames, seconds = playable(partial)
    except MediaError:
        return "nothing in it plays"
    return f"{frames} frames ({seconds:.1f} s) of it play"
