"""What a forked child must leave alone: what holds native threads, which do not come along. Knows not what that is."""

from __future__ import annotations

import contextlib
import os
import weakref
from typing import Any

_open: weakref.WeakSet[Any] = weakref.WeakSet()


def keep_in_children(thing: Any) -> None:
    """Keep whatever `thing` holds at a fork alive in the child, for good: to destroy it waits for threads that did not
    come along. Nothing is kept of a thing that is gone before."""
    _open.add(thing)


def _keep_inherited() -> None:
    # A list of our own would not do: Python takes it apart when the child ends. A reference too many it never finds.
    with contextlib.suppress(ImportError, AttributeError):
        import ctypes

        for thing in _open:
            for held in vars(thing).values():
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(held))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_inherited)
