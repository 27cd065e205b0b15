"""How onnxruntime is asked for a session on each device, and whether the session it gives really runs there.

Every function is handed the onnxruntime module, so that a fake can stand in for it. The CUDA part has run on an H200
(docs/performance.md); the TensorRT part follows the documentation and was tested with fakes. Knows no pictures and
opens no files.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np

from . import tensorrt
from .binding import BoundRuns
from .devices import (
    CPU_PROVIDER,
    CUDA_PROVIDER,
    OPENVINO_PROVIDER,
    TENSORRT_PROVIDER,
    DeviceName,
    arithmetic_of,
    openvino_devices,
    openvino_has_bf16,
    precision_problem,
)
from .errors import DeviceError
from .modelfile import ModelHeader
from .ort_session import is_out_of_memory
from .phrases import first_line

T = TypeVar("T")
# The operators that take nearly all the time: these must run on the device that was asked for.
HEAVY_OPERATORS = {"Conv", "ConvTranspose", "FusedConv", "NhwcConv", "QLinearConv", "MatMul", "Gemm"}


@dataclass(frozen=True, kw_only=True)
class SessionPlan:
    """What every attempt to open a session has in common.

    Attributes:
        source: the model's path, or its bytes.
        header: what the file declares.
        batch_size: frames per run.
        threads: CPU threads.
        input_size: (height, width) of the frames.
        overlapped: two runs will be under way at once.
    """

    source: str | bytes
    header: ModelHeader
    batch_size: int
    threads: int
    input_size: tuple[int, int]
    overlapped: bool = False


@dataclass(frozen=True, kw_only=True)
class Made:
    """An onnxruntime session, its arithmetic, a remark on how it was opened, and its buffers on a GPU (`bound`)."""

    inner: Any
    arithmetic: str
    remark: str = ""
    bound: BoundRuns | None = None


def make_inner(ort: Any, plan: SessionPlan, device: DeviceName) -> Made:
    """Open a session on exactly this device; raises `DeviceError` if onnxruntime put it on another.

    onnxruntime's own exceptions pass through: `session` explains them.
    """
    make = {"cpu": _make_cpu, "openvino": _make_openvino, "cuda": _make_cuda, "tensorrt": _make_tensorrt}[device.kind]
    # A session on the CPU is silenced by its own log level; others also log at the process's level. That one is left
    # alone where possible: the application may have set it, and it cannot be read in order to be restored.
    with _quiet(ort) if device.kind != "cpu" else contextlib.nullcontext():
        return make(ort, plan, device)


@contextlib.contextmanager
def _quiet(ort: Any) -> Iterator[None]:
    """Keep onnxruntime's own log lines off the terminal: what goes wrong becomes one error of ours."""
    ort.set_default_logger_severity(4)
    try:
        yield
    finally:
        ort.set_default_logger_severity(2)


def _options(ort: Any, plan: SessionPlan, *, strict: bool) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads = plan.threads
    options.inter_op_num_threads = 1
    # No spinning: a thread that waits for another should leave its core to the decoder and the encoder.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    if strict:
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    return options


def _make_cpu(ort: Any, plan: SessionPlan, device: DeviceName) -> Made:
    options = _options(ort, plan, strict=False)
    if plan.overlapped:
        # Each of the two runs also uses the thread that calls it. On two cores this leaves one thread per run, which
        # never waits for another after an operator: a tenth more frames with the fast model (docs/performance.md).
        options.intra_op_num_threads = max(1, plan.threads - 1)
    spec = plan.header.spec
    if spec.precision == "int8" and not spec.exact_sums:
        # Without VNNI, x86 adds two products in 16 bits and saturates the sum: labels change, silently. This option
        # takes a slower path, on those processors only.
        options.add_session_config_entry("session.x64quantprecision", "1")
    inner = ort.InferenceSession(plan.source, options, providers=[CPU_PROVIDER], enable_fallback=0)
    return Made(inner=inner, arithmetic=arithmetic_of("cpu", spec.precision))


def _make_openvino(ort: Any, plan: SessionPlan, device: DeviceName) -> Made:
    found = openvino_devices(ort)[:1]
    # Set explicitly, so that the reported arithmetic is what was asked for and not a default that may change.
    bf16 = openvino_has_bf16(found[0])
    config = {
        "INFERENCE_PRECISION_HINT": "bf16" if bf16 else "f32",
        "INFERENCE_NUM_THREADS": str(plan.threads),
        # There is one request at a time, so all threads work on it.
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": "1",
    }
    options = _options(ort, plan, strict=True)
    options.add_provider_for_devices(found, {"load_config": json.dumps({"CPU": config})})
    inner = ort.InferenceSession(plan.source, options, enable_fallback=0)
    remark = _check_placement(inner, OPENVINO_PROVIDER, device)
    return Made(inner=inner, arithmetic=arithmetic_of("openvino", plan.header.spec.precision, bf16=bf16), remark=remark)


def _make_cuda(ort: Any, plan: SessionPlan, device: DeviceName) -> Made:
    def make(graph: bool, search: str) -> Made:
        options = cuda_options(plan.header.spec.precision, device.index, graph=graph, search=search)
        return _make_nvidia(ort, plan, device, [(CUDA_PROVIDER, options)], graph=graph)

    def by_any_search(graph: bool) -> Made:
        made, search = searched(lambda search: make(graph, search))
        if search == "HEURISTIC":
            return made
        return replace(made, remark="; ".join(filter(None, ["convolutions searched for", made.remark])))

    return _with_or_without_graph(by_any_search, plan)


def _make_tensorrt(ort: Any, plan: SessionPlan, device: DeviceName) -> Made:
    precision = plan.header.spec.precision
    problem = precision_problem(device, precision)
    if problem:
        raise DeviceError(f"device {device} cannot be had for {plan.header.name}: {problem}")
    own = tensorrt.provider_options(ort, plan.header, plan.batch_size, plan.input_size, device.index)
    # CUDA runs the nodes that TensorRT cannot; the placement check ensures that none of these is heavy.
    providers = [(TENSORRT_PROVIDER, own), (CUDA_PROVIDER, cuda_options(precision, device.index))]
    return _make_nvidia(ort, plan, device, providers, graph=False)


def searched(make: Callable[[str], T]) -> tuple[T, str]:
    """The result of `make` with cuDNN's heuristic choice of algorithms or, if that fails, all tried; and which it was.

    The heuristic fails if none of the algorithms it chose can be built, as on an H200 at 32 frames of 352x480 for one
    layer of the bundled network. The search takes 0.3 s longer there, and what it finds is no faster.
    """
    try:
        return make("HEURISTIC"), "HEURISTIC"
    except DeviceError:
        raise
    except Exception as error:
        if "cudnn" not in str(error).lower() or is_out_of_memory(error):
            raise
    # Outside the handler the exception is gone, and with it the session and its memory.
    return make("EXHAUSTIVE"), "EXHAUSTIVE"


def _with_or_without_graph(make: Callable[[bool], Made], plan: SessionPlan) -> Made:
    """Make a session with a captured CUDA graph for single frames, without one for larger batches.

    For single frames most of the time is kernel launches, which a graph saves; larger batches gain by overlapping their
    copies instead. If a graph cannot be captured or replayed, the session goes without it, with a remark.
    """
    # A captured graph takes only its one size, and `prove` runs the golden frames at the file's own size.
    if plan.batch_size > 1 or plan.input_size != plan.header.spec.input_size:
        return make(False)
    try:
        return make(True)
    except DeviceError:
        raise
    except Exception as error:
        problem = first_line(error)
    # Outside the handler the exception is gone, and with it the session, its memory and its unfinished capture.
    made = make(False)
    return replace(made, remark="; ".join(filter(None, [f"no CUDA graph ({problem})", made.remark])))


def cuda_options(precision: str, index: int, *, graph: bool = False, search: str = "HEURISTIC") -> dict[str, str]:
    """Options of the CUDA provider for a file of `precision` on GPU number `index`.

    `search`: "HEURISTIC", cuDNN's own order of preference, or "EXHAUSTIVE", which tries all algorithms.
    """
    options = {
        "device_id": str(index),
        "cudnn_conv_algo_search": search,
        "arena_extend_strategy": "kSameAsRequested",
    }
    if precision == "fp16":
        # The layout that tensor cores need.
        options["prefer_nhwc"] = "1"
    else:
        # TF32 has fp16's mantissa and would not be fp32; for its speed, export fp16. For fp16 files the option is not
        # set: without TF32, onnxruntime would take no engine that uses tensor cores.
        options["use_tf32"] = "0"
    if graph:
        options["enable_cuda_graph"] = "1"
    return options


def _make_nvidia(
    ort: Any, plan: SessionPlan, device: DeviceName, providers: list[tuple[str, Any]], *, graph: bool
) -> Made:
    """Make a session on NVIDIA's providers, with no node on the CPU if possible, else only light ones."""
    preload(ort)
    precision = plan.header.spec.precision
    try:
        inner = _open_nvidia(ort, plan, providers, strict=True)
    except Exception as error:
        if "fallback to CPU EP has been explicitly disabled" not in str(error):
            raise
        inner = None
    if inner is None:
        inner = _open_nvidia(ort, plan, [*providers, (CPU_PROVIDER, {})], strict=False)
    remarks = [_check_placement(inner, providers[0][0], device)]
    if precision == "int8":
        remarks.append("CUDA multiplies an int8 file in float32; the file for a GPU is fp16")
    bound = None
    try:
        bound = _bind(ort, inner, plan, device, graph=graph)
    except Exception as error:
        if graph:
            raise
        remarks.append(f"no bound buffers ({first_line(error)})")
    _try_out(inner, plan, bound, graph=graph)
    return Made(
        inner=inner,
        arithmetic=arithmetic_of(device.kind, precision),
        remark="; ".join(filter(None, remarks)),
        bound=bound,
    )


def _open_nvidia(ort: Any, plan: SessionPlan, providers: list[tuple[str, Any]], *, strict: bool) -> Any:
    options = _options(ort, plan, strict=strict)
    if plan.header.spec.precision == "int8":
        # Convert kernels and biases to float once, at the start. CUDA has no int8 convolutions, and with Q/DQ pairs
        # left in the graph all biases (int32) would go through the CPU for each frame.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    return ort.InferenceSession(plan.source, options, providers=providers, enable_fallback=0)


def preload(ort: Any) -> None:
    """Load NVIDIA's libraries from its own wheels, where the provider would not find them."""
    if hasattr(ort, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()):
            ort.preload_dlls()


def _bind(ort: Any, inner: Any, plan: SessionPlan, device: DeviceName, *, graph: bool) -> BoundRuns:
    """Make this session's buffers: one set for a captured graph, else two, for two runs at once."""
    shape = (plan.batch_size, *plan.input_size, 3)
    return BoundRuns(ort, inner, index=device.index, shape=shape, sets=1 if graph else 2, captured=graph)


def _try_out(inner: Any, plan: SessionPlan, bound: BoundRuns | None, *, graph: bool) -> None:
    """Run once, since algorithms are chosen only then; with a graph three times, to warm up, capture and replay.

    Running out of memory is ignored here, except with a graph: `warm_up` reports it, and which batch would fit.
    """
    names, frames = list(plan.header.spec.outputs), np.zeros((plan.batch_size, *plan.input_size, 3), np.uint8)
    try:
        for _ in range(3 if graph else 1):
            if bound is not None:
                bound.run(names, frames)
            else:
                inner.run(names, {"frames": frames})
    except Exception as error:
        if graph or not is_out_of_memory(error):
            raise


def _check_placement(inner: Any, expected: str, device: DeviceName) -> str:
    """Raise `DeviceError` unless the session and its heavy operators are on `expected`; returns a remark on others."""
    mend = (
        "pip install 'onnxruntime-gpu[cuda,cudnn]'"
        if device.kind != "openvino"
        else "pip install -U onnxruntime-ep-openvino"
    )
    got = tuple(inner.get_providers())
    if got[:1] != (expected,):
        raise DeviceError(
            f"device {device} cannot be had: the session got {', '.join(got)} instead of {expected}; its libraries are "
            f"missing or do not fit. Mend it: {mend}; look with: edge-seg checks"
        )
    elsewhere = [
        node.op_type
        for part in inner.get_provider_graph_assignment_info()
        if part.ep_name != expected
        for node in part.get_nodes()
    ]
    heavy = sorted(HEAVY_OPERATORS.intersection(elsewhere))
    if heavy:
        raise DeviceError(
            f"device {device} cannot be had: it does not take {', '.join(heavy)} of this model; its libraries are "
            f"missing or do not fit. Mend it: {mend}; look with: edge-seg checks"
        )
    return f"{len(elsewhere)} light nodes run elsewhere: {', '.join(sorted(set(elsewhere)))}" if elsewhere else ""
