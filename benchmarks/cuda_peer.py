"""For the workers of `gpu`: onnxruntime on CUDA with inputs and outputs bound, the GPU's peak, and its decoder.

Knows onnxruntime, torch and PyAV, if they are installed; nothing of rows or rounds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from edge_seg.errors import DeviceError
from edge_seg.phrases import first_line
from edge_seg.providers import cuda_options, preload, searched

from .cases import Contender
from .peers import Loaded, need

PEAK_SIDE = 8192
COPY_MB = 1024


def bound_session(contender: Contender, batch: int) -> Loaded:
    """Load the file on CUDA with edge_seg's options, input and output bound to the device.

    With `compiled` it runs as a CUDA graph, each convolution and its bias in one kernel that cuDNN builds when the file
    is opened. That takes seconds: it shows the most that onnxruntime can do, not what a user would wait for.
    """
    ort = need("onnxruntime", "onnxruntime-gpu")
    preload(ort)
    return searched(lambda search: _bound(ort, contender, batch, search))[0]


def _bound(ort: Any, contender: Contender, batch: int, search: str) -> Loaded:
    index = int(contender.device.partition(":")[2] or 0)
    options = cuda_options(contender.precision, index, graph=contender.compiled, search=search)
    if contender.compiled:
        options["fuse_conv_bias"] = "1"
    session = ort.InferenceSession(contender.path, providers=[("CUDAExecutionProvider", options)])
    if session.get_providers()[0] != "CUDAExecutionProvider":
        raise DeviceError(f"onnxruntime gave {session.get_providers()[0]} instead of CUDA: look with edge-seg checks.")
    height, width = contender.size
    given = ort.OrtValue.ortvalue_from_numpy(np.zeros((batch, height, width, 3), np.uint8), "cuda", index)
    got = ort.OrtValue.ortvalue_from_shape_and_type([batch, height, width], np.uint8, "cuda", index)
    binding = session.io_binding()
    binding.bind_ortvalue_input("frames", given)
    binding.bind_ortvalue_output("labels", got)

    def predict(frames: np.ndarray) -> np.ndarray:
        given.update_inplace(np.ascontiguousarray(frames))
        session.run_with_iobinding(binding)
        return np.asarray(got.numpy())

    predict(np.zeros((batch, height, width, 3), np.uint8))  # cuDNN chooses its algorithms in this call
    how = "one CUDA graph, biases fused" if contender.compiled else "no graph"
    return predict, f"onnxruntime {ort.__version__}, CUDA, I/O bound, {how}", contender.precision


def gpu_limits() -> dict[str, Any]:
    """Peak of matrix products in fp32, tf32 and fp16, and copy bandwidth, by torch on the first GPU, and its name.

    Raises:
        MissingDependencyError, DeviceError: no torch, or none with CUDA.
    """
    torch = need("torch", "torch")
    if not torch.cuda.is_available():
        raise DeviceError("torch sees no CUDA device, so the matrix peak cannot be measured.")
    side = PEAK_SIDE
    peaks: dict[str, Any] = {}
    for name, dtype, tf32 in (("fp32", "float32", False), ("tf32", "float32", True), ("fp16", "float16", False)):
        torch.backends.cuda.matmul.allow_tf32 = tf32
        left, right = (torch.randn(side, side, device="cuda", dtype=getattr(torch, dtype)) for _ in range(2))
        seconds = _best(torch, lambda left=left, right=right: left @ right)  # type: ignore[misc]
        peaks[name] = {"gflops": 2e-9 * side**3 / seconds, "library": "torch", "what": f"{side} x {side} product"}
    source = torch.empty(COPY_MB * 2**20, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    seconds = _best(torch, lambda: target.copy_(source))
    copied = 2e-9 * COPY_MB * 2**20 / seconds
    return {"gpu": torch.cuda.get_device_name(), "peaks": peaks, "bandwidth": {"best_gb_s": copied}}


def _best(torch: Any, call: Callable[[], object]) -> float:
    """Seconds of the fastest of twenty calls after three to warm up; each is waited for."""
    times = []
    for _ in range(3 + 20):
        torch.cuda.synchronize()
        began = time.perf_counter()
        call()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - began)
    return min(times[3:])


def decode_speed(clip: str) -> dict[str, Any]:
    """Frames/s of decoding to BGR in system memory, by the processor and by the GPU (None: see "reason")."""
    import av
    from av.codec.hwaccel import HWAccel

    found: dict[str, Any] = {"cpu_fps": _decode(av, clip, None), "cuda_fps": None, "reason": ""}
    try:
        found["cuda_fps"] = _decode(av, clip, HWAccel(device_type="cuda", allow_software_fallback=False))
    except Exception as error:
        found["reason"] = f"no decoding on the GPU: {first_line(error)}"
    return found


def _decode(av: Any, clip: str, accelerator: Any) -> float:
    """Frames/s after the first frame: until then a GPU spends longer on its context than on a short clip."""
    with av.open(clip, hwaccel=accelerator) as container:
        if accelerator is None:
            container.streams.video[0].thread_type = "AUTO"  # as edge_seg decodes
        pictures = (frame.to_ndarray(format="bgr24") for frame in container.decode(video=0))
        next(pictures)
        began = time.perf_counter()
        count = sum(1 for _ in pictures)
        return count / (time.perf_counter() - began)
