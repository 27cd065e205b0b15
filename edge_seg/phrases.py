"""Small parts of sentences that messages are put together from. Knows nothing of what they are about."""

from __future__ import annotations


def joined(*sentences: str) -> str:
    """Sentences made one, with semicolons between; those that are empty are left out."""
    found = [sentence for sentence in sentences if sentence]
    return "; ".join([*(sentence.removesuffix(".") for sentence in found[:-1]), *found[-1:]])


def counted(count: int, noun: str) -> str:
    """A number and its noun: "1 frame", "2 frames"."""
    return f"{count} {noun}{'' if count == 1 else 's'}"
