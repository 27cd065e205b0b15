"""On a real NVIDIA GPU, where there is one: `cuda` computes what the file promises. Elsewhere a fake plays the GPU."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from edge_seg import bundled_model
from edge_seg.devices import nvidia_gpus
from edge_seg.errors import DeviceError
from edge_seg.session import Session, open_session
from edge_seg.spec import AGREEMENT_BOUNDS
from edge_seg.verify import verify

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not nvidia_gpus(), reason="no NVIDIA GPU here")]


def open_cuda(model: object, batch_size: int) -> Session:
    try:
        return open_session(model, device="cuda", batch_size=batch_size)  # type: ignore[arg-type]
    except DeviceError as error:
        signs = (
            "load library",
            "cannot open shared object",
            "cuDNN is not available",
            "instead of CUDAExecutionProvider",
        )
        if any(sign in str(error) for sign in signs):
            pytest.skip(f"CUDA's or cuDNN's libraries are not here: {error}")
        raise


@pytest.mark.parametrize("batch_size", [1, 3])
def test_cuda_gives_the_models_labels(tiny_model, tiny_reference, batch_size):
    session = open_cuda(tiny_model(), batch_size)
    frames = np.random.default_rng(1).integers(0, 256, (batch_size, 32, 64, 3), np.uint8)
    assert session.device.providers[0] == "CUDAExecutionProvider"
    assert np.mean(session.run(frames)["labels"] == tiny_reference(frames, 12)) >= 0.9999
    session.close()


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("batch_size", [1, 3])
def test_frames_that_differ_have_labels_that_differ(tiny_model, tiny_reference, batch_size, precision):
    """By a replayed graph at one frame, by two runs at once at three: what a run leaves behind is not the next's."""
    session = open_cuda(tiny_model(precision=precision), batch_size)
    random = np.random.default_rng(2)
    batches = [random.integers(0, 256, (batch_size, 32, 64, 3), np.uint8) for _ in range(20)]
    with ThreadPoolExecutor(session.runs_at_once) as threads:
        found = list(threads.map(session.run, batches))
    for frames, outputs in zip(batches, found, strict=True):
        agreement = np.mean(outputs["labels"] == tiny_reference(frames, 12))
        assert agreement >= AGREEMENT_BOUNDS[session.device.arithmetic]
    session.close()


@pytest.mark.parametrize("name", ["best", "fast"])
def test_the_bundled_models_prove_themselves(name):
    """By the golden frames in their files, whole networks of them."""
    open_cuda(bundled_model(name), 1).close()
    report = verify(bundled_model(name), device="cuda")
    assert report.passed, report


def test_auto_takes_the_gpu(tiny_model):
    open_cuda(tiny_model(), 1).close()
    session = open_session(tiny_model())
    assert session.device.name == "cuda:0", session.device.reason
