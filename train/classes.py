"""The classes that a network tells apart, as masks number them, and what of a recipe is for CamVid's twelve alone.

Knows no files, batches or networks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from edge_seg.errors import ConfigurationError
from edge_seg.spec import CAMVID_CLASSES, CAMVID_UNLABELLED

UNLABELLED_NAME = CAMVID_CLASSES[CAMVID_UNLABELLED]
# The thin and rare classes that plain training loses: CamVid's pole, sign_symbol, pedestrian and bicyclist.
CAMVID_RARE = ("pole", "sign_symbol", "pedestrian", "bicyclist")
# Of other lists those with less than this share of the labelled pixels; of CamVid's that would be the same and fence.
RARE_SHARE = 0.02
MOST_CLASSES = 256  # that a mask's byte can tell


@dataclass(frozen=True, kw_only=True)
class ClassList:
    """Names in the order of their ids, and what of a mask is no class.

    Attributes:
        names: of ids 0, 1, ...
        unlabelled: id whose pixels are left out of loss and scores; None where every pixel counts.
        ignored: a value of masks, beside the ids, that means unlabelled, often 255; None where there is none.
    """

    names: tuple[str, ...] = CAMVID_CLASSES
    unlabelled: int | None = CAMVID_UNLABELLED
    ignored: int | None = None

    def __len__(self) -> int:
        return len(self.names)

    @property
    def is_camvid(self) -> bool:
        """Whether streets can be rendered with these ids."""
        return self.names == CAMVID_CLASSES and self.unlabelled == CAMVID_UNLABELLED

    @property
    def ids(self) -> dict[str, int]:
        """Name -> id, without the unlabelled class."""
        return {name: index for index, name in enumerate(self.names) if index != self.unlabelled}

    def rare(self, shares: np.ndarray) -> tuple[int, ...]:
        """Ids of the classes that crops are centred on and objects pasted of.

        Args:
            shares: (classes,) share of each among the labelled pixels, 0..1.
        """
        if self.is_camvid:
            return tuple(self.names.index(name) for name in CAMVID_RARE)
        return tuple(index for index in self.ids.values() if 0.0 < shares[index] < RARE_SHARE)


CAMVID = ClassList()


def class_list(names: tuple[str, ...], unlabelled: str | None, ignored: int | None) -> ClassList:
    """The classes of a command's options.

    Args:
        names: by id.
        unlabelled: name of the class without a label, "none", or None for one called "unlabelled" if there is one.
        ignored: a mask's value that means unlabelled. Where no class does, one called so is put behind the others.

    Raises:
        ConfigurationError: no such class, more than a byte can tell, or a value that is a class's id already.
    """
    if unlabelled is None:
        index = names.index(UNLABELLED_NAME) if UNLABELLED_NAME in names else None
    else:
        index = _named(names, unlabelled)
    return _with_ignored(names, index, ignored, appended=unlabelled is None)


def changed(known: ClassList, names: tuple[str, ...] | None, unlabelled: str | None, ignored: int | None) -> ClassList:
    """Known classes, and over them what a command's options say; other names begin a list of their own.

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
    """A list whose masks hold `ignored`, too; with `appended` a class is made for it where there is none."""
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
    """Those of the wanted classes that a list has not."""
    return [name for name in wanted if name not in ids]
