"""What a forked child must leave alone: what holds native threads, which do not come along. Knows not what that is."""

from __future__ import annotations

import contextlib
import os
import sys
import weakref
from typing import Any

_open: weakref.WeakSet[Any] = weakref.WeakSet()


def keep_in_children(thing: Any) -> None:
    """Keep whatever `thing` holds at a fork alive in the child, for good: to destroy it waits for threads that did not
    come along. Nothing is kept of a thing that is gone before."""
    # Here, for a child may wait for ever for what another thread of its parent was importing.
    with contextlib.suppress(ImportError):
        import ctypes  # noqa: F401
    _open.add(thing)


def _keep_inherited() -> None:
    # A list of our own would not do: Python takes it apart when the child ends. A reference too many it never finds.
    ctypes: Any = sys.modules.get("ctypes")
    if hasattr(ctypes, "pythonapi"):
        for thing in _open:
            for held in vars(thing).values():
                ctypes.pythonapi.Py_IncRef(ctypes.py_object(held))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_keep_inherited)
