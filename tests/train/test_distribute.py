"""Several devices: what is chosen and refused, how batches are shared, and one fit on two devices and on two hosts."""

from __future__ import annotations

import csv
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from edge_seg.errors import ConfigurationError
from train import distribute
from train.__main__ import main
from train.batches import Pair, TrainingBatches
from train.distribute import Devices, choose_devices, join_hosts
from train.run import load_model, open_run

# To make XLA's code fast takes half of the time that these few steps take in all.
QUICKLY_COMPILED = "--xla_backend_optimization_level=0"
SCRIPT = Path(__file__).with_name("two_devices.py")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def dataset(make_dataset: Callable[..., Path]) -> Path:
    return make_dataset(count=8, size=(48, 64))


@pytest.fixture
def four_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that seems to have four GPUs; a strategy is the list of those it was made for."""
    monkeypatch.setattr(distribute, "visible_devices", lambda: ("cpu:0", "gpu:0", "gpu:1", "gpu:2", "gpu:3"))
    monkeypatch.setattr(distribute, "_strategy", list)


@pytest.fixture
def fresh_hosts() -> None:
    join_hosts.cache_clear()
    yield
    join_hosts.cache_clear()


@pytest.mark.usefixtures("four_gpus")
@pytest.mark.parametrize(("batch_size", "used"), [(8, 4), (6, 3), (2, 2), (3, 3)])
def test_as_many_gpus_as_share_the_batch_equally(
    batch_size: int, used: int, capsys: pytest.CaptureFixture[str]
) -> None:
    found = choose_devices(batch_size)
    assert found.strategy == [f"gpu:{index}" for index in range(used)]
    assert found.count == used
    assert (f"{used} of them train" in capsys.readouterr().err) == (used < 4)


@pytest.mark.usefixtures("four_gpus")
def test_asked_devices_are_taken_or_refused() -> None:
    assert choose_devices(6, ("gpu:3", "gpu:1")).strategy == ["gpu:3", "gpu:1"]
    alone = choose_devices(7, ("gpu:2",))
    assert (alone.strategy, alone.names, alone.count) == (None, ("gpu:2",), 1)
    with pytest.raises(ConfigurationError, match="--batch-size that is a multiple of 2"):
        choose_devices(5, ("gpu:0", "gpu:1"))
    with pytest.raises(ConfigurationError, match="no gpu:9 here"):
        choose_devices(6, ("gpu:9",))


def test_one_device_changes_nothing() -> None:
    names = choose_devices(6).names if not any(name.startswith("gpu") for name in distribute.visible_devices()) else ()
    assert names == ()
    assert Devices().count == 1
    with Devices().scope():
        assert distribute.device_share(3.0) == 3.0
        assert distribute.summed_over_devices([1.0, 2.0]) == [1.0, 2.0]


@pytest.mark.usefixtures("fresh_hosts")
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TF_CONFIG is TensorFlow's")
@pytest.mark.parametrize(
    ("config", "message"),
    [
        ('{"cluster": {"chief": ["a:1"], "worker": ["b:1", "c:1"]}}', "names 3 hosts"),
        ('{"cluster": {"worker": ["b:1", "c:1"]}}', "KERAS_DISTRIBUTION_JOB_ADDRESSES=FIRST_HOST:PORT"),
        ("{not json", "TF_CONFIG cannot be read"),
    ],
)
def test_several_tensorflow_hosts_are_refused_in_one_line(
    config: str,
    message: str,
    dataset: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TF_CONFIG", config)
    assert main(["fit", str(dataset), "--out", str(tmp_path / "run")]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("text", ["gpu", "gpu:0,gpu:0", "0,1", ""])
def test_devices_that_are_no_devices(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["fit", "data", "--out", str(tmp_path / "run"), "--devices", text])
    assert stopped.value.code == 2
    assert "as gpu:0" in capsys.readouterr().err


def pairs(count: int) -> list[Pair]:
    """Images that are nothing but their own number."""
    return [(np.full((8, 8, 3), index, np.uint8), np.full((8, 8), index, np.uint8)) for index in range(count)]


def test_every_batch_can_be_cut_into_its_parts() -> None:
    whole = TrainingBatches(pairs(11), size=(8, 8), batch_size=4, seed=0)
    parted = TrainingBatches(pairs(11), size=(8, 8), batch_size=4, seed=0, parts=2)
    assert [len(whole.batch(0, index)[0]) for index in range(len(whole))] == [4, 4, 3]
    assert [len(parted.batch(0, index)[0]) for index in range(len(parted))] == [4, 4, 2]
    assert len(TrainingBatches(pairs(9), size=(8, 8), batch_size=4, seed=0, parts=2)) == 2
    for index in range(2):
        np.testing.assert_array_equal(whole.batch(0, index)[1], parted.batch(0, index)[1])


def test_shares_of_the_devices_are_the_batch() -> None:
    batches = TrainingBatches(pairs(8), size=(8, 8), batch_size=4, seed=0, parts=2)
    shares = [Devices._shares(batches.stream(0), 2, range(part, part + 1)) for part in (0, 1)]
    for index in range(2):
        frames, masks = (np.concatenate(halves) for halves in zip(*(next(share) for share in shares), strict=True))
        np.testing.assert_array_equal(frames, batches.batch(0, index)[0])
        np.testing.assert_array_equal(masks, batches.batch(0, index)[1])


def test_only_the_first_host_writes_the_run(tmp_path: Path) -> None:
    with Devices(hosts=2, host=0).folder(tmp_path) as folder:
        assert folder == tmp_path
    with Devices(hosts=2, host=1).folder(tmp_path) as folder:
        assert folder.is_dir()
        assert folder != tmp_path
    assert not folder.exists()


def environment(backend: str, devices: int = 1, **more: str) -> dict[str, str]:
    """A process' environment with this backend, on the CPU alone; JAX sees as many devices, quickly compiled for."""
    flags = f"--xla_force_host_platform_device_count={devices} {QUICKLY_COMPILED}"
    virtual = {"XLA_FLAGS": flags} if backend == "jax" else {}
    common = {"PYTHONPATH": str(ROOT), "KERAS_BACKEND": backend, "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "2"}
    return {**os.environ, **common, "CUDA_VISIBLE_DEVICES": "", **virtual, **more}


def losses(run: Path) -> list[float]:
    with open(run / "history.csv", newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)]


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_two_devices_compute_what_one_computes(backend: str, dataset: Path, tmp_path: Path) -> None:
    if backend == "jax":
        pytest.importorskip("jax", reason="needs jax, the second backend")
    command = [sys.executable, str(SCRIPT), str(dataset), str(tmp_path)]
    done = subprocess.run(command, env=environment(backend, devices=2), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "on cpu:0, cpu:1" in done.stdout
    compared = sorted(path.stem.removeprefix("one_") for path in tmp_path.glob("one_*.npz"))
    assert compared == (["1", "None"] if backend == "tensorflow" else ["None"])
    for norm in compared:
        with np.load(tmp_path / f"one_{norm}.npz") as one, np.load(tmp_path / f"two_{norm}.npz") as two:
            assert sorted(one.files) == sorted(two.files)
            for name in one.files:
                np.testing.assert_allclose(two[name], one[name], rtol=1e-4, atol=1e-5, err_msg=f"{name}, norm {norm}")
    run = open_run(tmp_path / "run")
    assert run.config["training"]["devices"] == 2
    assert len(losses(run.folder)) == 2
    resumed, fitted = load_model(run), load_model(run)
    fitted.load_weights(tmp_path / "fitted.weights.h5")
    for ours, theirs in zip(resumed.get_weights(), fitted.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.slow
def test_two_hosts_train_one_network(dataset: Path, tmp_path: Path) -> None:
    pytest.importorskip("jax", reason="needs jax: the backend that trains on several hosts")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    out = tmp_path / "run"
    options = "--block-widths 4,4,4,4,4 --head-widths 4,4 --input-size 32x32 --crop-size 32x32 --rendered-share 0"
    options += " --no-batch-norm"
    command = [sys.executable, "-m", "train", "fit", str(dataset), "--out", str(out), *options.split()]
    command += ["--batch-size", "4", "--epochs", "2", "--policy", "float32"]
    hosts = []
    for index in range(2):
        named = {"JOB_ADDRESSES": address, "NUM_PROCESSES": "2", "PROCESS_ID": str(index)}
        variables = {f"KERAS_DISTRIBUTION_{name}": value for name, value in named.items()}
        surroundings = environment("jax", **variables)
        pipe = subprocess.PIPE
        hosts.append(subprocess.Popen(command, env=surroundings, cwd=ROOT, stdout=pipe, stderr=pipe, text=True))
    try:
        said = [host.communicate(timeout=600) for host in hosts]
    finally:
        for host in hosts:
            host.kill()
    assert [host.returncode for host in hosts] == [0, 0], said[0][1][-2000:] + said[1][1][-2000:]
    assert "host 2 of 2" in said[1][0]
    assert f"the first host has written {out}" in said[1][0]
    # Both see the whole batch's loss.
    lines = [
        [line.partition("  left")[0] for line in text.splitlines() if line.startswith("epoch")] for _, text in said
    ]
    assert len(lines[0]) == 2
    assert lines[0] == lines[1]
    assert len(losses(out)) == 2
    assert open_run(out).config["training"]["devices"] == 2
