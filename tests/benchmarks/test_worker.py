"""The pipe between benchmark and worker: answers, chatter, errors, death, silence."""

from __future__ import annotations

import os
import signal
import sys

import numpy as np
import pytest

from benchmarks.process import Worker, WorkerError

from .conftest import fake_contender


@pytest.fixture
def inputs(tmp_path, frames):
    np.save(tmp_path / "inputs.npy", frames.inputs((32, 64)))
    return str(tmp_path / "inputs.npy")


def contender(behavior: str) -> dict:
    return fake_contender(behavior).to_dict()


def test_a_worker_times_labels_and_weighs(start_fake, inputs, tmp_path, frames):
    with start_fake("x") as worker:
        assert worker.ask("load", contender=contender("works"), batch=4, frames=inputs)["detail"] == "a fake"
        answer = worker.ask("time", calls=3)
        worker.ask("label", to=str(tmp_path / "labels.npy"))
        peak_mb = worker.ask("memory")["peak_mb"]
    assert len(answer["seconds"]) == 3
    assert all(second >= 0 for second in answer["seconds"])
    # Five frames in batches of four: the last batch is filled up, and what fills it is cut off again.
    np.testing.assert_array_equal(np.load(tmp_path / "labels.npy"), np.stack(frames.truth))
    assert peak_mb is None or 10 < peak_mb < 2000


def test_a_worker_is_where_its_caller_is_and_takes_no_module_from_there(monkeypatch, tmp_path):
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "worker.py").write_text("raise SystemExit('another project')")
    (tmp_path / "numpy.py").write_text("raise SystemExit('another numpy')")
    monkeypatch.chdir(tmp_path)
    with Worker("x") as worker, pytest.raises(WorkerError, match=r"No model at mine\.onnx"):
        worker.ask("open-clip", contender=contender("mine.onnx"), batch=1)
    (tmp_path / "mine.onnx").write_bytes(b"no model")
    with Worker("x") as worker, pytest.raises(WorkerError, match=r"mine\.onnx is not a whole ONNX model"):
        worker.ask("open-clip", contender=contender("mine.onnx"), batch=1)


def test_chatter_on_standard_output_does_not_disturb_the_answers(start_fake, inputs):
    with start_fake("x") as worker:
        worker.ask("load", contender=contender("prints"), batch=1, frames=inputs)
        assert len(worker.ask("time", calls=2)["seconds"]) == 2


def test_an_error_is_one_line_and_the_worker_lives_on(start_fake, inputs):
    with start_fake("x") as worker:
        with pytest.raises(WorkerError, match=r"^ValueError: planted$") as caught:
            worker.ask("load", contender=contender("raises"), batch=1, frames=inputs)
        assert caught.value.kind == "ValueError"
        with pytest.raises(WorkerError, match="no contender has been loaded"):
            worker.ask("time", calls=1)
        with pytest.raises(WorkerError, match="KeyError"):
            worker.ask("no such request")
        assert "peak_mb" in worker.ask("memory")


def test_a_death_is_told_with_its_last_words(start_fake, inputs):
    with start_fake("x") as worker, pytest.raises(WorkerError, match=r"exit code 3.*planted last words"):
        worker.ask("load", contender=contender("dies-loading"), batch=1, frames=inputs)


def test_a_kill_is_told_by_its_signal(start_fake):
    with start_fake("x") as worker:
        os.kill(worker._process.pid, signal.SIGKILL)
        with pytest.raises(WorkerError, match="signal SIGKILL"):
            worker.ask("memory")
        with pytest.raises(WorkerError, match="process died"):
            worker.ask("memory")


def test_silence_ends_the_process():
    command = (sys.executable, "-c", "import time; time.sleep(60)")
    with (
        Worker("x", command=command, timeout_s=0.3) as worker,
        pytest.raises(WorkerError, match=r"no answer within 0\.3 s"),
    ):
        worker.ask("memory")


def test_a_worker_ends_with_its_input(start_fake):
    worker = start_fake("x")
    worker.ask("memory")
    worker.close()
    with pytest.raises(ProcessLookupError):
        os.kill(worker._process.pid, 0)
