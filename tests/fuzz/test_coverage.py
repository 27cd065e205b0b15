"""The coverage-guided harness runs, and can fail. Needs atheris, which has no wheel for every Python: else skipped."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.child import ROOT

pytestmark = [
    pytest.mark.fuzz,
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="atheris is not installed"),
]


def run(target: str, corpus: Path, seconds: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.fuzz.coverage", target, "--seconds", str(seconds), "--corpus", str(corpus)],
        cwd=ROOT,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.mark.parametrize("target", ["model", "picture", "dataset", "video", "weights"])
def test_nothing_is_found_in_a_few_seconds(target: str, tmp_path: Path) -> None:
    done = run(target, tmp_path, 15)
    assert done.returncode == 0, done.stderr[-3000:]
    assert not list(tmp_path.glob("crash-*"))
    assert "Done" in done.stderr


def test_a_planted_fault_is_found(tmp_path: Path) -> None:
    done = run("raw", tmp_path, 15)
    assert done.returncode != 0
    assert "ZeroDivisionError: planted" in done.stdout + done.stderr
    assert list(tmp_path.glob("crash-*"))
