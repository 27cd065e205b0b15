"""checks says what this machine has, and never fails because something is missing. Threads follow the container."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import edge_seg
from edge_seg import checks, processor, threads
from edge_seg.errors import MissingDependencyError


def test_checks_name_versions_devices_and_autos_choice(monkeypatch, tiny_model):
    monkeypatch.setattr(checks, "bundled_model", tiny_model)
    found = checks.collect_checks()
    assert found.versions["edge_seg"] == edge_seg.__version__
    assert [item.name for item in found.devices][:2] == ["cpu", "openvino"]
    assert found.devices[0].available
    assert all(item.detail for item in found.devices)
    assert found.auto_device in {item.name for item in found.devices if item.available}
    assert found.threads == threads.available_threads()
    assert json.loads(json.dumps(found.to_dict()))["auto_device"] == found.auto_device
    assert any(line.startswith("auto") and found.auto_device in line for line in found.lines())


@pytest.mark.parametrize("build", ["opencv-contrib-python", "opencv-contrib-python-headless"])
def test_checks_name_every_build_of_opencv(monkeypatch, tmp_path, tiny_model, build):
    (tmp_path / f"{build.replace('-', '_')}-5.1.dist-info").mkdir()
    (tmp_path / f"{build.replace('-', '_')}-5.1.dist-info" / "METADATA").write_text(f"Name: {build}\nVersion: 5.1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(checks, "bundled_model", tiny_model)
    assert checks.collect_checks().versions[build] == "5.1"


def test_checks_survive_a_missing_model(monkeypatch, tmp_path):
    monkeypatch.setattr(checks, "bundled_model", lambda: tmp_path / "gone.onnx")
    found = checks.collect_checks()
    assert found.auto_device is None
    assert "No model at" in found.auto_reason


def test_checks_name_a_pyav_that_does_not_load(monkeypatch, tiny_model):
    monkeypatch.setitem(sys.modules, "av", None)
    monkeypatch.setattr(checks, "bundled_model", tiny_model)
    (problem,) = checks.collect_checks().problems
    assert re.fullmatch(r"PyAV cannot be loaded \(.*\)\. Install it: pip install --force-reinstall av", problem)


def test_checks_survive_a_missing_onnxruntime(monkeypatch, tiny_model):
    def missing():
        raise MissingDependencyError("onnxruntime is not installed. Install it: pip install onnxruntime-gpu")

    for module in ("session", "checks"):
        monkeypatch.setattr(f"edge_seg.{module}.load_runtime", missing)
    monkeypatch.setattr(checks, "bundled_model", tiny_model)
    found = checks.collect_checks()
    assert found.devices == ()
    assert found.problems == ("onnxruntime is not installed. Install it: pip install onnxruntime-gpu",)
    assert "problem    onnxruntime is not installed" in "\n".join(found.lines())


def test_cpu_features_are_read_as_each_architecture_writes_them(tmp_path):
    file = tmp_path / "cpuinfo"
    file.write_text("processor\t: 0\nmodel name\t: A CPU\nflags\t\t: fpu avx2 amx_int8 avx512_vnni\n")
    assert processor.cpu_features(file) == ("avx2", "avx512_vnni", "amx_int8")
    file.write_text("processor\t: 0\nFeatures\t: fp asimd asimddp i8mm bf16\n")
    assert processor.cpu_features(file) == ("asimddp", "i8mm", "bf16")
    assert processor.cpu_features(tmp_path / "none") == ()


def system(root: Path, memberships: str, limits: dict[str, str]) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(memberships)
    for name, content in limits.items():
        file = root / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return root


@pytest.mark.parametrize(
    ("memberships", "limits", "quota"),
    [
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000\n", "a/cpu.max": "50000 100000\n"}, 0.5),
        ("0::/a/b\n", {"a/b/cpu.max": "200000 100000\n", "a/cpu.max": "400000 100000\n"}, 2.0),
        ("0::/../../outside\n", {"cpu.max": "300000 100000\n"}, 3.0),
        ("4:cpu,cpuacct:/d\n", {"cpu,cpuacct/d/cpu.cfs_quota_us": "20", "cpu,cpuacct/d/cpu.cfs_period_us": "10"}, 2.0),
        ("4:cpu:/d\n", {"cpu/d/cpu.cfs_quota_us": "-1", "cpu/d/cpu.cfs_period_us": "100000"}, None),
        ("4:cpuset:/d\n", {"cpu/d/cpu.cfs_quota_us": "10", "cpu/d/cpu.cfs_period_us": "10"}, None),
        ("0::/\n", {"cpu.max": "nonsense\n"}, None),
        ("0::/\n", {"cpu.max": "1 0\n"}, None),
        ("", {}, None),
    ],
)
def test_the_containers_quota_is_found_in_both_kinds_of_cgroup(tmp_path, memberships, limits, quota):
    assert threads.cgroup_quota(system(tmp_path, memberships, limits)) == quota


def test_threads_are_the_smaller_of_affinity_and_quota(tmp_path, monkeypatch):
    monkeypatch.setattr(threads, "affinity_count", lambda: 64)
    half = system(tmp_path / "half", "0::/\n", {"cpu.max": "50000 100000\n"})
    more = system(tmp_path / "more", "0::/\n", {"cpu.max": "250000 100000\n"})
    assert threads.available_threads(root=half) == 1
    assert threads.available_threads(root=more) == 3
    monkeypatch.setattr(threads, "affinity_count", lambda: 2)
    assert threads.available_threads(root=more) == 2


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="no affinity on this system")
def test_affinity_sets_the_sessions_threads(tiny_model):
    """In a process bound to one CPU, a session takes one thread."""
    code = (
        "import os, sys; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from edge_seg.session import open_session\n"
        "print(open_session(sys.argv[1], device='cpu').device.threads)"
    )
    done = subprocess.run([sys.executable, "-c", code, tiny_model()], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


@pytest.mark.skipif(shutil.which("taskset") is None, reason="taskset is not installed")
def test_taskset_sets_the_threads_of_the_console():
    first = min(os.sched_getaffinity(0))
    command = ["taskset", "-c", str(first), sys.executable, "-m", "edge_seg", "checks", "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert json.loads(done.stdout)["threads"] == 1


@pytest.mark.parametrize(
    ("memberships", "limits"),
    [
        ("0::/box\n", {"box/cpu.max": "150000 100000\n"}),
        ("4:cpu:/box\n", {"cpu/box/cpu.cfs_quota_us": "150000", "cpu/box/cpu.cfs_period_us": "100000"}),
    ],
)
def test_a_quota_sets_the_threads_of_session_decoder_encoder_and_opencv(
    tmp_path, monkeypatch, tiny_model, memberships, limits
):
    """On 64 processors with a quota of one and a half, two threads each."""
    from fractions import Fraction

    import cv2

    from edge_seg.cli import main
    from edge_seg.encode import VideoWriter
    from edge_seg.session import open_session
    from edge_seg.video import VideoFile
    from tests.edge_seg.clips import make_clip

    root = system(tmp_path / "root", memberships, limits)
    quota = threads.cgroup_quota
    monkeypatch.setattr(threads, "affinity_count", lambda: 64)
    monkeypatch.setattr(threads, "cgroup_quota", lambda _: quota(root))
    clip, before = make_clip(tmp_path / "a.mp4", count=3), cv2.getNumThreads()
    assert open_session(tiny_model(), device="cpu").device.threads == 2
    with VideoFile(clip) as video:
        assert video._stream.codec_context.thread_count == 2
    writer = VideoWriter(tmp_path / "b.mp4", size=(48, 64), time_base=Fraction(1, 25))
    assert writer._stream.codec_context.thread_count == 2
    writer.abort()
    try:
        cv2.setNumThreads(5)
        assert (
            main(["predict", str(clip), "-o", str(tmp_path / "out"), "-m", str(tiny_model()), "--device", "cpu"]) == 0
        )
        assert cv2.getNumThreads() == 2
    finally:
        cv2.setNumThreads(before)
