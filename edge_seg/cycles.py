"""The cycles that closed video files leave, and when to collect them. Knows no video.

PyAV's container and streams hold each other, and with them the decoder's threads and pictures. Python's collector,
which counts objects, sees two small ones and lets them wait, two threads a file.
"""

from __future__ import annotations

import gc
import time


class Collector:
    """Collects them at a twentieth of the time at most.

    A collection takes milliseconds in `edge-seg` and a second in a program with millions of objects, where a few files
    wait for the next one.
    """

    MOST_WAITING = 16
    SHARE = 0.05

    def __init__(self) -> None:
        self._waiting = 0
        self._rest_until = 0.0

    def file_closed(self) -> None:
        """To be called once nothing refers to the file's container."""
        self._waiting += 1
        began = time.monotonic()
        if self._waiting < self.MOST_WAITING and began < self._rest_until:
            return
        gc.collect()
        ended = time.monotonic()
        self._waiting, self._rest_until = 0, ended + (ended - began) / self.SHARE


collector = Collector()
