"""The benchmark's end of the pipe: starts a worker, sends it requests, and notices if it dies or hangs.

Knows the protocol of `worker`; nothing of what is asked.
"""

from __future__ import annotations

import contextlib
import json
import queue
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from edge_seg.errors import EdgeSegError

from .environment import PYTHON, child_environment

DEFAULT_COMMAND = (*PYTHON, "benchmarks.worker")

# Kinds of error that mean that this machine cannot run a contender, not that something went wrong.
CANNOT_BE_HAD = ("DeviceError", "MissingDependencyError")


class WorkerError(EdgeSegError, RuntimeError):
    """A worker that answered with an error, died, or did not answer in time; the message is one line.

    `kind` is the name of the error's class in the worker, or "" if it died or did not answer.
    """

    def __init__(self, message: str, kind: str = "") -> None:
        super().__init__(message)
        self.kind = kind


class Worker:
    """One worker process; a context manager that ends it."""

    def __init__(
        self,
        name: str,
        *,
        command: Sequence[str] = DEFAULT_COMMAND,
        timeout_s: float = 1800.0,
    ) -> None:
        self.name = name
        self._timeout_s = timeout_s
        self._log = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=child_environment(),
        )
        # A thread that reads the pipe is the only way to wait with a time limit on every system.
        self._answers: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, op: str, **arguments: Any) -> dict[str, Any]:
        """Send one request and wait for its answer; raises `WorkerError`."""
        self.send(op, **arguments)
        return self.receive()

    def try_to(self, op: str, **arguments: Any) -> dict[str, Any]:
        """As `ask`, but an error is an answer: {"problem": one line}."""
        try:
            return self.ask(op, **arguments)
        except WorkerError as error:
            return {"problem": str(error)}

    def send(self, op: str, **arguments: Any) -> None:
        """Send one request without waiting; `receive` returns its answer."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"op": op, **arguments}) + "\n")
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError):
            raise WorkerError(self._last_words()) from None

    def receive(self) -> dict[str, Any]:
        """Wait for the next answer; raises `WorkerError` for an error, a dead worker or none within the time limit."""
        try:
            line = self._answers.get(timeout=self._timeout_s)
        except queue.Empty:
            self._process.kill()
            raise WorkerError(f"no answer within {self._timeout_s:g} s; its process was ended") from None
        if not line:
            raise WorkerError(self._last_words())
        answer = json.loads(line)
        if not answer.pop("ok"):
            raise WorkerError(answer["error"], answer["kind"])
        return answer

    def dismiss(self) -> None:
        """Close the worker's input, so that it ends after its current request; does not wait."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def close(self) -> None:
        """End the process by closing its input; kill it if it has not ended within 10 s."""
        self.dismiss()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as answers:
            for line in answers:
                self._answers.put(line)
        self._answers.put("")

    def _last_words(self) -> str:
        code = self._process.wait()
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        self._log.seek(0)
        words = [line.strip() for line in self._log if line.strip()]
        return f"its process died ({how})" + (f"; its last words: {words[-1][:200]}" if words else "")


# What a benchmark is handed: who is told how far it is, and who starts the worker of a name.
Say = Callable[[str], None]
Start = Callable[[str], Worker]
