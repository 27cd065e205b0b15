"""`--resume`: report what an earlier run left, and find what is still to be made. Knows no pipeline.

A result counts as finished if its line in the records says that it was made from this same source, by this model, with
these options, and its content is what was written then. Any other is made again, and the user is told.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from .account import SourceReport
from .errors import MediaError
from .files import Claim
from .items import Item
from .mp4 import playable
from .names import Plan, partial_path, result_name
from .records import Finding, Records

Say = Callable[[str], None]


def names_kept(items: Sequence[Item], plans: Sequence[Plan], records: Records) -> list[Plan]:
    """The same plans, but results that an earlier run made keep their names, whatever source they are of.

    Names depend on which sources a run has, and runs differ: without this, results would be made again under another
    name, or two sources of one name, one in each run, would want the same. Not for a result that the user has named.
    """
    kept = list(plans)
    taken = {path for plan in plans for path in plan.values()}
    for position, (item, plan) in enumerate(zip(items, plans, strict=True)):
        others = [_renamed(item, plan, stem) for stem in item.other_stems]
        free = [other for other in others if taken.isdisjoint(other.values())]
        made = [other for other in free if any(records.is_of(item, path) for path in other.values())]
        if not made and _is_anothers(item, plan, records):
            made = [other for other in free if not _is_anothers(item, other, records)]
        if made:
            kept[position] = made[0]
            taken |= set(made[0].values())
    return kept


def _renamed(item: Item, plan: Plan, stem: str) -> Plan:
    return {kind: path.with_name(result_name(item, stem, kind)) for kind, path in plan.items()}


def _is_anothers(item: Item, plan: Plan, records: Records) -> bool:
    return any(os.path.exists(path) and records.other_owner(item, path) for path in plan.values())


def take_up(item: Item, plan: Plan, records: Records, say: Say) -> tuple[Plan, SourceReport | None]:
    """Compare what exists of a source's results with the records, at its turn: another run may be making the same.

    Args:
        item, plan: the source and all its results.
        records: what was finished.
        say: takes a line for the user.

    Returns:
        The results still to be made, and the source's report if there are none.
    """
    found = findings(item, plan, records)
    if strangers := [_stranger(plan[kind], finding) for kind, finding in found.items() if not _ours(finding)]:
        return {}, _refused(item, strangers)
    if not item.live:  # Whether an address is live is known once it is open.
        tell(item, plan, found, say)
    todo = {kind: path for kind, path in plan.items() if not _finished(found.get(kind))}
    return todo, None if todo else _there(item, plan, found)


def findings(item: Item, plan: Plan, records: Records) -> dict[str, Finding]:
    """Kind -> what the records say of it, for those of a source's results that exist."""
    # os.path: for a name too long to be one, Path.exists raises, and would end the run for all the others.
    return {kind: records.find(item, kind, path) for kind, path in plan.items() if os.path.exists(path)}


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


def tell(item: Item, plan: Plan, found: dict[str, Finding], say: Say) -> None:
    """Tell the user about each result that is not as a finished run leaves it, and what happens to it."""
    for kind, path in plan.items():
        _tell(item, path, found.get(kind), say)


def _tell(item: Item, path: Path, finding: Finding | None, say: Say) -> None:
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
