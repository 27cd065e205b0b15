"""A bounded queue between two threads that either side can close without polling. Knows nothing about frames."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Channel(Generic[T]):
    """A first-in first-out queue of at most `capacity` items.

    The producer ends it with `close`; the consumer, or any thread that sees a failure, with `cancel`, which wakes both.
    """

    def __init__(self, capacity: int) -> None:
        self._items: deque[T] = deque()
        self._capacity = capacity
        self._closed = self._cancelled = self._hungry = False
        self._changed = threading.Condition()

    def put(self, item: T) -> bool:
        """Append, waiting for room; False if the channel was cancelled and the item is not taken."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._items) < self._capacity or self._cancelled)
            if self._cancelled:
                return False
            self._items.append(item)
            self._hungry = False
            self._changed.notify_all()
            return True

    def wait_until_wanted(self) -> bool:
        """Wait until the consumer waits for an item; False if the channel was cancelled."""
        with self._changed:
            self._changed.wait_for(lambda: self._hungry or self._cancelled)
            return not self._cancelled

    def close(self) -> None:
        """Announce that no more items will come; those inside are still handed out."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def cancel(self) -> None:
        """Discard the items inside and release both sides."""
        with self._changed:
            self._cancelled = True
            self._items.clear()
            self._changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        while True:
            with self._changed:
                self._hungry = not self._items
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._items or self._closed or self._cancelled)
                if not self._items:
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item
