"""On a real NVIDIA GPU, where there is one: `cuda` computes what the file promises. Elsewhere a fake plays the GPU."""

from __future__ import annotations

import numpy as np
import pytest

from edge_seg.devices import nvidia_gpus
from edge_seg.errors import DeviceError
from edge_seg.session import Session, open_session

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not nvidia_gpus(), reason="no NVIDIA GPU here")]


def open_cuda(model: object, batch_size: int) -> Session:
    try:
        return open_session(model, device="cuda", batch_size=batch_size)  # type: ignore[arg-type]
    except DeviceError as error:
        if "libraries" in str(error) or "load library" in str(error):
            pytest.skip(f"CUDA's or cuDNN's libraries are not here: {error}")
        raise


@pytest.mark.parametrize("batch_size", [1, 3])
def test_cuda_gives_the_models_labels(tiny_model, tiny_reference, batch_size):
    session = open_cuda(tiny_model(), batch_size)
    frames = np.random.default_rng(1).integers(0, 256, (batch_size, 32, 64, 3), np.uint8)
    assert session.device.providers[0] == "CUDAExecutionProvider"
    assert np.mean(session.run(frames)["labels"] == tiny_reference(frames, 12)) >= 0.9999
    session.close()


def test_auto_takes_the_gpu(tiny_model):
    open_cuda(tiny_model(), 1).close()
    session = open_session(tiny_model())
    assert session.device.name == "cuda:0", session.device.reason
