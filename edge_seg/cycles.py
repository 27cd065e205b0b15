"""When to collect the reference cycles that closed video files leave. Knows nothing about video.

PyAV's container and streams hold each other, and with them the decoder's threads and pictures. Python's collector,
which counts objects, sees two small ones and lets them wait, each file with two threads.
"""

from __future__ import annotations

import gc
import time


class Collector:
    """Collects the cycles, for a twentieth of the time at most unless `MOST_WAITING` files wait.

    A collection takes milliseconds in `edge-seg` and a second in a program with millions of objects; there, a few
    closed files wait for the next one.
    """

    MOST_WAITING = 16
    SHARE = 0.05

    def __init__(self) -> None:
        self._waiting = 0
        self._rest_until = 0.0

    def file_closed(self) -> None:
        """Collect if it is due; to be called once nothing refers to the file's container."""
        self._waiting += 1
        began = time.monotonic()
        if self._waiting < self.MOST_WAITING and began < self._rest_until:
            return
        gc.collect()
        ended = time.monotonic()
        self._waiting, self._rest_until = 0, ended + (ended - began) / self.SHARE


collector = Collector()
