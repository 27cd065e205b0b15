"""A child process on a terminal of its own, whose Ctrl-C the kernel turns into SIGINT as it does for a user."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).resolve().parents[1]
CTRL_C = b"\x03"
# Makes the terminal the one that controls the child, which a new session is without. The tests themselves may have been
# begun under nohup, or in the background, whose ignored signals a child would inherit.
_TAKE_TERMINAL = (
    "import fcntl, os, signal, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "[signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGHUP)]; "
    "os.execv(sys.argv[1], sys.argv[1:])"
)


class Terminal:
    """Runs a command on a new pseudo-terminal; a context manager that leaves no process behind."""

    def __init__(self, command: Sequence[object], **environment: str) -> None:
        import pty

        self._master, slave = pty.openpty()
        self.seen = b""
        env = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
        self.child = subprocess.Popen(
            [sys.executable, "-c", _TAKE_TERMINAL, *map(str, command)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            cwd=ROOT,
            env={**env, **environment},
        )
        os.close(slave)

    @property
    def text(self) -> str:
        """All that was printed so far."""
        return self.seen.decode(errors="replace")

    def wait_for(self, sign: str | Path, seconds: float = 120.0) -> None:
        """Until a text was printed, or a file is there."""
        deadline = time.monotonic() + seconds
        while not (sign.exists() if isinstance(sign, Path) else sign in self.text):
            assert self.child.poll() is None, self.text
            assert time.monotonic() < deadline, f"no {sign!r} within {seconds} s: {self.text}"
            self._read(0.05)

    def listen(self, seconds: float) -> None:
        """Take what is printed meanwhile, so that the program never waits for room."""
        self._read(seconds)

    def press(self, number: signal.Signals) -> None:
        """SIGINT as Ctrl-C on the keyboard, others as a signal."""
        if number == signal.SIGINT:
            os.write(self._master, CTRL_C)
        else:
            self.child.send_signal(number)

    def hang_up(self) -> None:
        """Take the terminal away, as a connection that breaks does."""
        os.close(self._master)
        self._master = os.open(os.devnull, os.O_RDONLY)

    def ended(self, seconds: float = 60.0) -> int:
        """The exit code, once the child has ended; what it printed last is in `text`."""
        deadline = time.monotonic() + seconds
        while self.child.poll() is None:
            assert time.monotonic() < deadline, f"still running after {seconds} s: {self.text}"
            self._read(0.05)
        self._read(0.2)
        return int(self.child.returncode)

    def _read(self, seconds: float) -> None:
        # A terminal whose other end is gone gives an error on Linux instead of an end.
        with contextlib.suppress(OSError):
            while select.select([self._master], [], [], seconds)[0]:
                data = os.read(self._master, 65536)
                if not data:
                    return
                self.seen += data

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.child.kill()
        self.child.wait()
        os.close(self._master)
