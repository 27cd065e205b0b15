"""The parent's side: hand cases to a child process, bound the time of each, and survive whatever happens to it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).parents[2]
# What a case may take: processor seconds, which a busy machine does not change, and bytes; and when it counts as hung.
SECONDS, BYTES = 5.0, 10**9
HUNG_S = 30.0


@dataclass(frozen=True)
class Outcome:
    """How a case ended ("good", a typed error's name, "raw", "crash", "hang"), what was said, and what it took."""

    outcome: str
    text: str
    cpu_seconds: float = 0.0
    peak_bytes: int = 0

    def finding(self) -> str:
        """What is wrong with it, or ""."""
        if self.outcome in ("raw", "crash", "hang"):
            return f"{self.outcome}: {self.text}"
        if self.outcome != "good" and "\n" in self.text and not self.text.startswith("refused"):
            return f"an error of several lines: {self.text}"
        if self.cpu_seconds > SECONDS:
            return f"{self.cpu_seconds:.1f} s of processor time ({self.outcome} {self.text})"
        if self.peak_bytes > BYTES:
            return f"{self.peak_bytes / 1e6:.0f} MB of memory ({self.outcome} {self.text})"
        return ""


class Child:
    """A child for one target, made anew after a crash or a hang."""

    def __init__(self, target: str, folder: Path) -> None:
        self.target, self.folder = target, folder
        self._process: Any = None

    def run(self, case: bytes) -> Outcome:
        """Hand a case over and wait for its end."""
        process = self._started()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(len(case).to_bytes(8, "little") + case)
            process.stdin.flush()
        line = self._line(HUNG_S)
        if line is None:
            self.close()
            return Outcome("hang", f"no answer within {HUNG_S:g} s")
        if not line:
            code = process.wait()
            said = self._log.read_text(errors="replace")[-1500:]
            self.close()
            return Outcome("crash", f"exit status {code}; {said}")
        return Outcome(**json.loads(line))

    def _started(self) -> Any:
        if self._process is None:
            self._log = self.folder / f"{self.target}.log"
            with self._log.open("w") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "tests.fuzz.worker", self.target, str(self.folder)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    cwd=ROOT,
                    env=os.environ | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"},
                )
            if not self._line(120):
                raise RuntimeError(f"the child did not start: {self._log.read_text()[-2000:]}")
        return self._process

    def _line(self, seconds: float) -> bytes | None:
        """The next line of the child, b"" when it has ended, None when it says nothing in time."""
        ready, _, _ = select.select([self._process.stdout], [], [], seconds)
        return self._process.stdout.readline() if ready else None

    def close(self) -> None:
        """End the child."""
        if self._process is not None:
            self._process.kill()
            for pipe in (self._process.stdin, self._process.stdout):
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
            self._process.wait()
            self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
