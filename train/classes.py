"""The classes that a network distinguishes, as masks number them, and what applies to CamVid's twelve only.

Knows nothing of files, batches or networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edge_seg.errors import ConfigurationError
from edge_seg.spec import CAMVID_CLASSES, CAMVID_UNLABELLED

UNLABELLED_NAME = CAMVID_CLASSES[CAMVID_UNLABELLED]
# The thin and rare classes that plain training misses.
CAMVID_RARE = ("pole", "sign_symbol", "pedestrian", "bicyclist")
# In other lists, classes below this share of the labelled pixels are rare; in CamVid that would only add fence.
RARE_SHARE = 0.02
MOST_CLASSES = 256  # a mask has one byte a pixel


@dataclass(frozen=True, kw_only=True)
class ClassList:
    """Class names in the order of their ids, and the mask values that mean unlabelled.

    Attributes:
        names: of ids 0, 1, ...
        unlabelled: id whose pixels are left out of loss and scores; None where every pixel counts.
        ignored: another mask value that means unlabelled, often 255; None where there is none.
    """

    names: tuple[str, ...] = CAMVID_CLASSES
    unlabelled: int | None = CAMVID_UNLABELLED
    ignored: int | None = None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def is_camvid(self) -> bool:
        """Whether these are CamVid's classes, the only ones that scenes are rendered with."""
        return self.names == CAMVID_CLASSES and self.unlabelled == CAMVID_UNLABELLED

    @property
    def ids(self) -> dict[str, int]:
        """Name -> id, without the unlabelled class."""
        return {name: index for index, name in enumerate(self.names) if index != self.unlabelled}

    def rare(self, shares: np.ndarray) -> tuple[int, ...]:
        """Ids of the classes that crops are centred on and whose objects are pasted.

        Args:
            shares: (classes,) share of each among the labelled pixels, 0..1.
        """
        if self.is_camvid:
            return tuple(self.names.index(name) for name in CAMVID_RARE)
        return tuple(index for index in self.ids.values() if 0.0 < shares[index] < RARE_SHARE)


CAMVID = ClassList()


def class_list(names: tuple[str, ...], unlabelled: str | None, ignored: int | None) -> ClassList:
    """The class list that a command's options describe.

    Args:
        names: by id.
        unlabelled: name of the unlabelled class, "none", or None for a class called "unlabelled" if there is one.
        ignored: a mask value that means unlabelled. If no class does, one called "unlabelled" is appended.

    Raises:
        ConfigurationError: no such class, more than `MOST_CLASSES`, or a value that is already a class's id.
    """
    if unlabelled is None:
        index = names.index(UNLABELLED_NAME) if UNLABELLED_NAME in names else None
    else:
        index = _named(names, unlabelled)
    return _with_ignored(names, index, ignored, appended=unlabelled is None)


def changed(known: ClassList, names: tuple[str, ...] | None, unlabelled: str | None, ignored: int | None) -> ClassList:
    """Known classes, overridden by a command's options; other names start a new list.

    Raises what `class_list` raises.
    """
    if names is not None:
        return class_list(names, unlabelled, ignored)
    index = known.unlabelled if unlabelled is None else _named(known.names, unlabelled)
    if ignored is None and index is not None:
        ignored = known.ignored
    return _with_ignored(known.names, index, ignored, appended=unlabelled is None)


def _named(names: tuple[str, ...], name: str) -> int | None:
    if name in names:
        return names.index(name)
    if name == "none":
        return None
    raise ConfigurationError(f"unlabelled class {name}: not one of the classes {', '.join(names)}.")


def _with_ignored(names: tuple[str, ...], index: int | None, ignored: int | None, *, appended: bool) -> ClassList:
    """A list whose masks also hold `ignored`; `appended` adds an unlabelled class for that value if there is none."""
    if ignored is None:
        return ClassList(names=names, unlabelled=index)
    if index is None:
        if not appended:
            raise ConfigurationError(f"--ignore-id {ignored}: expected a class for it; got --unlabelled-class none.")
        index, names = len(names), (*names, UNLABELLED_NAME)
    if len(names) > MOST_CLASSES:
        raise ConfigurationError(f"--ignore-id {ignored}: with a class for it there are more than {MOST_CLASSES}.")
    if ignored == index:  # It is the class's own id.
        return ClassList(names=names, unlabelled=index)
    if ignored < len(names):
        raise ConfigurationError(
            f"--ignore-id {ignored} is the id of {names[ignored]}; expected a value of the masks that no class has."
        )
    return ClassList(names=names, unlabelled=index, ignored=ignored)


def missing(ids: Mapping[str, int], wanted: tuple[str, ...]) -> list[str]:
    """The wanted classes that `ids` lacks."""
    return [name for name in wanted if name not in ids]
