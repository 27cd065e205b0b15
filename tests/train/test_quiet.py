"""Keras is imported without its chatter, and an interruption meanwhile is one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edge_seg.signals import held_back
from train.quiet import WAITING

ROOT = Path(__file__).resolve().parents[2]
# A backend that is interrupted amid its import, chatters, and makes nothing of it, or something else.
KERAS = """
import os, signal
os.write(2, b"chatter\\n")
try:
    os.kill(os.getpid(), signal.{name})
    for _ in range(10**6): pass
except BaseException:
    pass
{after}
class ops:
    zeros = staticmethod(lambda shape: 0)
"""

AVERAGE = "from train.__main__ import main; raise SystemExit(main(['average', 'a', 'b', '--out', 'c']))"


def beside(keras: str, folder: Path, script: str) -> subprocess.CompletedProcess[str]:
    """What becomes of a script in a process of its own, for which `keras` is the source of Keras."""
    (folder / "keras.py").write_text(keras)
    script = f"import sys; sys.path[:0] = [{str(folder)!r}, {str(ROOT)!r}]; {script}"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=folder, timeout=60)


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize("after", ["", "raise ImportError('initialization failed')"])
def test_an_interruption_amid_the_import_is_neither_swallowed_nor_another_error(
    tmp_path: Path, name: str, after: str
) -> None:
    done = beside(KERAS.format(name=name, after=after), tmp_path, AVERAGE)
    assert (done.returncode, done.stderr) == (1, f"\n{WAITING}\nerror: interrupted.\n")


def test_a_benchmark_that_reads_a_run_itself_does_not_chatter_either(tmp_path: Path) -> None:
    keras = (
        "import os; from unittest.mock import MagicMock\n"
        "os.write(2, b'chatter\\n')\n"
        "__getattr__ = lambda name: MagicMock()\n"
    )
    script = (
        "from pathlib import Path; from benchmarks.growth import GrowthSettings, measure_growth; "
        f"run = Path({str(ROOT)!r}) / 'edge_seg/assets/keras_fast'; "
        "assert not list(measure_growth(GrowthSettings(run=run, axes=()), {}, say=print))"
    )
    done = beside(keras, tmp_path, script)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_a_second_signal_ends_the_import_with_a_line(tmp_path: Path) -> None:
    keras = (
        "import os, signal, time\n"
        "for _ in range(2): os.kill(os.getpid(), signal.SIGINT); time.sleep(0.3)\n"
        "time.sleep(70)\n"
    )
    done = beside(keras, tmp_path, AVERAGE)
    assert done.returncode == 1
    assert WAITING in done.stderr
    assert done.stderr.endswith("\nerror: stopped at once; every file is whole, the old or the new.\n")


def test_what_an_import_that_fails_has_said_is_shown(tmp_path: Path) -> None:
    keras = "import os; os.write(2, b'no such library\\n'); raise ImportError('broken')"
    done = beside(keras, tmp_path, "from train.quiet import import_keras_quietly; import_keras_quietly()")
    assert "no such library" in done.stderr
    assert "ImportError: broken" in done.stderr


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_signals_wait_for_the_end_of_the_block_and_handlers_come_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    went_on = False
    with pytest.raises(KeyboardInterrupt), held_back():  # noqa: PT012
        os.kill(os.getpid(), signal.SIGTERM)
        went_on = True
    assert went_on
    with held_back():
        pass
    with pytest.raises(ImportError, match="its own"), held_back():
        raise ImportError("its own")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
