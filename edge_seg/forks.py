"""Keeps a forked child from destroying objects whose native threads it lacks. Knows nothing about what they are."""

from __future__ import annotations

import contextlib
import os
import sys
import weakref
from typing import Any

_open: weakref.WeakSet[Any] = weakref.WeakSet()


def keep_in_children(thing: Any) -> None:
    """Keep whatever `thing` holds at a fork alive in the child, for good: destroying it would wait for threads that do
    not exist there. Nothing is kept of a thing that was freed before the fork."""
    # Imported here, since a child may wait for ever for an import that another thread of its parent had begun.
    with contextlib.suppress(ImportError):
        import ctypes  # noqa: F401
    _open.add(thing)


def _keep_inherited() -> None:
    # A list would not do: Python clears it when the child ends. An extra reference is never released.
    ctypes: Any = sys.modules.get("ctypes")
    if hasattr(ctypes, "pythonapi"):
        for thing in _open:
            for held in vars(thing).values():
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(held))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_inherited)
