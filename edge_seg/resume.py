"""`--resume`: report what an earlier run left, and find what is still to be made. Knows no pipeline.

A result counts as finished if its line in the records says that it was made from this same source, by this model, with
these options, and its content is what was written then. Any other is made again, and the user is told.
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

    When a second clip with the same name is added, both get longer names, and without this the first clip's results
    would be made again.
    """
    kept = list(plans)
    taken = {path for plan in plans for path in plan.values()}
    for position, (item, plan) in enumerate(zip(items, plans, strict=True)):
        for stem in item.shorter:
            short = {kind: path.with_name(result_name(item, stem, kind)) for kind, path in plan.items()}
            # Of two copies with the same size and time of change, the first is taken for the earlier run's source.
            if taken.isdisjoint(short.values()) and any(records.made_from(item, path) for path in short.values()):
                taken |= set(short.values())
                kept[position] = short
                break
    return kept


def take_up(
    items: Sequence[Item], plans: Sequence[Plan], records: Records, say: Say
) -> tuple[list[Plan], dict[int, SourceReport]]:
    """Compare existing results with the records.

    Args:
        items, plans: the sources and all their results.
        records: what was finished.
        say: takes a line for the user.

    Returns:
        What is left to make for each source, and, by position, the reports of sources that need no work.
    """
    left: list[Plan] = []
    settled: dict[int, SourceReport] = {}
    for position, (item, plan) in enumerate(zip(items, plans, strict=True)):
        # os.path.exists: Path.exists raises for a name that is too long, which would end the run for all the others.
        found = {kind: records.find(item, kind, path) for kind, path in plan.items() if os.path.exists(path)}
        strangers = [str(plan[kind]) for kind, finding in found.items() if not finding.known]
        todo = {} if strangers else {kind: path for kind, path in plan.items() if not _finished(found.get(kind))}
        left.append(todo)
        if strangers:
            settled[position] = _refused(item, strangers)
            continue
        for kind, path in plan.items():
            _tell(item, path, found.get(kind), say)
        if not todo:
            settled[position] = _there(item, plan, found)
    return left, settled


def _finished(finding: Finding | None) -> bool:
    return finding is not None and not finding.doubt


def _refused(item: Item, strangers: list[str]) -> SourceReport:
    """The report of a source with results of unknown origin, which are never replaced."""
    message = (
        f"{', '.join(strangers)}: already there, and nothing beside it says what it was made from. "
        "Move it away, or replace it with --overwrite."
    )
    return SourceReport(source=item.name, status="failed", message=message)


def _there(item: Item, plan: Plan, found: dict[str, Finding]) -> SourceReport:
    outputs = {kind: str(path) for kind, path in plan.items()}
    remark = next((finding.remark for finding in found.values() if finding.remark), "")
    if remark:
        return SourceReport(source=item.name, status="incomplete", message=f"already there; {remark}", outputs=outputs)
    return SourceReport(source=item.name, status="already there", outputs=outputs)


def _tell(item: Item, path: Path, finding: Finding | None, say: Say) -> None:
    """Tell the user about one result that is not as a finished run leaves it, and what happens to it."""
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
        pass  # Gone meanwhile, or in a folder that cannot be written to: writing the result will report that.
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
    """How much of a result a partial file or folder holds, in words."""
    if partial.is_dir():
        return f"{sum(1 for _ in partial.iterdir())} pictures are in it"
    if partial.suffix == ".jsonl":
        return f"{partial.read_bytes().count(10)} lines are in it"
    try:
        frames, seconds = playable(partial)
    except MediaError:
        return "nothing in it plays"
    return f"{frames} frames ({seconds:.1f} s) of it play"
