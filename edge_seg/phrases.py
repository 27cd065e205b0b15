"""Helpers to put the sentences of messages together. Knows nothing of what the messages are about."""

from __future__ import annotations


def joined(*sentences: str) -> str:
    """Join sentences into one, with semicolons; empty ones are left out."""
    found = [sentence for sentence in sentences if sentence]
    return "; ".join([*(sentence.removesuffix(".") for sentence in found[:-1]), *found[-1:]])


def counted(count: int, noun: str) -> str:
    """A number and its noun: "1 frame", "2 frames"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def percent(share: float, digits: int) -> str:
    """0.5 -> "50.00 %"."""
    return f"{100 * share:.{digits}f} %"


def first_line(error: BaseException, *, after: str = "") -> str:
    """The first line of an error's message `after` a prefix, short enough for one of ours; without words its type."""
    lines = str(error).removeprefix(after).strip().splitlines() or [type(error).__name__]
    return lines[0][:300]
