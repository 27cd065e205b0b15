"""Fakes and synthetic results that the benchmark tests share."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from benchmarks.cases import REFERENCE, Contender
from benchmarks.data import FrameSet
from benchmarks.process import Worker
from benchmarks.rows import ClipRow, Result, Row
from benchmarks.suite import Workload
from tests.streets import streets_are_drawn_once  # noqa: F401
from train.classes import CAMVID

FAKE_WORKER = Path(__file__).with_name("fake_worker.py")
SIZE = (32, 64)


@pytest.fixture
def start_fake() -> Callable[[str], Worker]:
    """Starts a real worker process whose contenders are fakes."""
    return lambda name: Worker(name, command=(sys.executable, str(FAKE_WORKER)), timeout_s=30)


def fake_contender(behavior: str, name: str | None = None, *, optional: bool = False) -> Contender:
    """A contender whose fate the fake worker reads from its path."""
    return Contender(
        name=name or behavior,
        kind="session",
        path=behavior,
        device="cpu",
        precision="fp32",
        size=SIZE,
        optional=optional,
    )


@pytest.fixture
def frames() -> FrameSet:
    """Five frames whose truth the fakes find exactly: blue modulo 12."""
    pictures = np.random.default_rng(1).integers(0, 256, (5, *SIZE, 3), np.uint8)
    return FrameSet(
        name="fakes", source="rendered", frames=tuple(pictures), truth=tuple(pictures[..., 0] % 12), digest="f"
    )


@pytest.fixture
def make_work(tmp_path: Path, frames: FrameSet) -> Callable[..., Workload]:
    """The work of fake contenders, the reference first."""

    def make(*contenders: Contender) -> Workload:
        everyone = (fake_contender("works", REFERENCE), *contenders)
        return Workload(
            contenders=everyone, data=frames, size=SIZE, classes=CAMVID, repeats=3, frames=6, scratch=tmp_path
        )

    return make


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Five small labelled pictures in the dataset1 layout."""
    root = tmp_path / "dataset"
    generator = np.random.default_rng(0)
    for index in range(5):
        for folder, shape, top in (("images", (24, 32, 3), 256), ("annotations", (24, 32), 12)):
            target = root / f"{folder}_prepped_test" / f"{index}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(target), generator.integers(0, top, shape, np.uint8))
    return root


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    """What passes for a finished run where no Keras looks into it."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.weights.h5").write_bytes(b"weights")
    return folder


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Twelve grey frames with frames that lean on later ones, as x264 makes them."""
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25, width=64, height=48, pix_fmt="yuv420p")
        stream.options = {"bf": "2"}
        for index in range(12):
            picture = np.full((48, 64, 3), 20 * index, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        container.mux(stream.encode())
    return path


def row(name: str, batch: int, ms: float, **changes: object) -> Row:
    """A plausible row around `ms` milliseconds a frame."""
    base = Row(
        name=name,
        kind="keras-predict" if name == REFERENCE else "session",
        precision="fp32",
        device="cpu",
        batch=batch,
        ms_median=ms,
        ms_p95=1.2 * ms,
        frames_per_s=1000 / ms,
        spread=0.02,
        repeats_ms=(0.99 * ms, ms, 1.01 * ms),
        calls=72,
        ratio=100 / ms,
        ratio_low=98 / ms,
        ratio_high=102 / ms,
        cores=1.9,
        idle_share=0.0,
        peak_mb=500.0,
        mean_iou=0.579,
        agreement=0.999,
    )
    return replace(base, **changes)  # type: ignore[arg-type]


@pytest.fixture
def result() -> Result:
    """A result as a small benchmark would give it, one contender failed."""
    rows = tuple(
        item
        for batch in (1, 4)
        for item in (
            row(REFERENCE, batch, 100.0, ratio=1.0, agreement=1.0),
            row("edge_seg cpu int8", batch, 20.0),
            Row(
                name="broken",
                kind="session",
                precision="fp32",
                device="cpu",
                batch=batch,
                status="failed",
                reason="<planted>",
            ),
        )
    )
    clip_row = ClipRow(
        name="edge_seg cpu int8",
        precision="int8",
        device="cpu",
        batch=1,
        frames=75,
        frames_per_s=40.0,
        spread=0.01,
        repeats_fps=(39.8, 40.0, 40.2),
        stage_ms={"decode": 2.0, "inference": 20.0, "encode": 6.0},
        alone_cpu_ms={"decode": 2.0, "inference": 40.0},
        allowed_fps=44.0,
        share_of_allowed=0.91,
        times_naive=12.0,
        peak_mb=300.0,
    )
    return Result(
        created="2026-01-01T00:00:00+00:00",
        duration_s=12.0,
        environment={
            "cpu": "Test CPU",
            "cores": 2,
            "gpus": [],
            "os": "Linux",
            "python": "3.12",
            "packages": {"numpy": "2.0"},
            "revision": "abc",
        },
        settings={"size": [224, 224], "batch_sizes": [1, 4], "repeats": 3, "frames": 24, "clip_repeats": 3},
        data={"name": "rendered scenes", "source": "rendered", "frames": 24, "digest": "d"},
        clip={"name": "street.mp4", "digest": "c", "width": 640, "height": 360, "frames": 75},
        models=[{"file": "m.onnx", "label": "int8", "precision": "int8", "digest": "1"}],
        rows=rows,
        clip_rows=(clip_row,),
        notes=("not here: openvino: <reason>",),
        limits={
            "peaks": {
                "fp32": {"gflops": 123.4, "library": "onnxruntime", "what": "3x3 convolution", "reason": ""},
                "bf16": {"gflops": None, "library": "", "what": "", "reason": "no such units"},
            },
            "bandwidth": {"read_gb_s": 6.0, "best_gb_s": 7.2},
        },
    )
