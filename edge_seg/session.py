"""Sessions on devices: the only importer of onnxruntime.

A named device is a promise: the session runs on it, or a `DeviceError` says what is missing and the command that fixes
it. Only `auto` may choose. Knows nothing of frames of other sizes or of video: a batch at the model's size goes in,
arrays come out.
"""

from __future__ import annotations

import os
import re
from functools import cache, partial
from pathlib import Path
from typing import Any, NoReturn, Protocol

import numpy as np

from . import tensorrt
from .devices import (
    REINSTALL_GPU,
    DeviceName,
    DeviceReport,
    device_problem,
    openvino_devices,
    openvino_has_bf16,
    parse_device,
    precision_problem,
    require_device,
)
from .errors import (
    ConfigurationError,
    DeviceError,
    EdgeSegError,
    MissingDependencyError,
    ModelFileError,
    OutOfMemoryError,
    raise_if_interrupted,
)
from .memory import amount, available_memory
from .modelfile import check_model_argument, read_model_header
from .ort_session import OrtSession, is_out_of_memory, warm_up
from .phrases import first_line
from .proof import Candidate, open_first_proved
from .providers import SessionPlan, make_inner
from .spec import ModelSpec
from .threads import MORE_THREADS, available_threads
from .versions import installed_builds

MAX_BATCH = 1024
MAX_THREADS = 1024


class Session(Protocol):
    """What a Segmenter needs of a session; `OrtSession` and `fake.FakeSession` are such.

    Two more attributes are optional: `runs_at_once`, how many runs at once use the device fully (default 1: threads
    that share the Segmenter take turns), and `whole_batches`, whether to fill up a short batch, because the device
    tunes itself to one shape or the file takes no other (default True).
    """

    @property
    def spec(self) -> ModelSpec:
        """The model's contract; an attribute or a property."""
        ...

    @property
    def device(self) -> DeviceReport:
        """Where it runs; an attribute or a property."""
        ...

    def run(self, batch: np.ndarray) -> dict[str, np.ndarray]:
        """Run a batch (N, H, W, 3) uint8 at the model's size: output name -> array, with "labels" (N, H, W) uint8 and,
        if it has one, "confidence" (N, H, W) of floats 0..1.

        The arrays may be the same ones each time, unless several runs at once were asked for: a Segmenter copies what
        the caller's own session gives. It passes every error on; after an `OutOfMemoryError` it tries half the batch.
        """
        ...

    def close(self) -> None:
        """Release the memory. The Segmenter that was given the session calls it when it is closed itself, even while a
        thread is inside `run`. Closing twice is fine."""
        ...


def open_session(
    model: str | os.PathLike[str] | bytes,
    *,
    device: str = "auto",
    batch_size: int = 1,
    threads: int | None = None,
    input_size: tuple[int, int] | None = None,
    overlapped: bool = False,
) -> Session:
    """Open a model on a device; one that tunes itself is warmed up at its full shape.

    Args:
        model: path of an ONNX file of ours, or its bytes.
        device: "cpu", "openvino", "cuda[:N]", "tensorrt[:N]", or "auto": the fastest that proves its parity.
        batch_size: frames per run; providers tune themselves to it.
        threads: CPU threads; by default what affinity and the container's quota allow.
        input_size: (height, width), for models exported with a dynamic size; by default the model's own.
        overlapped: the caller will keep `runs_at_once` runs under way, each from a thread of its own; on the CPU a
            single run is slower then.

    Raises:
        ModelFileError: a file that is missing, damaged, unsafe, or newer than the runtime.
        DeviceError: the named device is not available; `OutOfMemoryError` if its memory does not hold the batch.
        ConfigurationError: an invalid option.
        MissingDependencyError: no usable onnxruntime.
    """
    check_model_argument(model)
    name = parse_device(device)
    check_batch_size(batch_size)
    if threads is not None and (type(threads) is not int or not 1 <= threads <= MAX_THREADS):
        raise ConfigurationError(f"threads must be a whole number from 1 to {MAX_THREADS}; got {threads!r}.")
    header = read_model_header(model)
    plan = SessionPlan(
        source=model if isinstance(model, bytes) else _readable(os.fspath(model)),
        header=header,
        batch_size=batch_size,
        threads=threads or available_threads(),
        input_size=model_size(header.spec, input_size),
        overlapped=overlapped,
    )
    plan.header.demand(plan.batch_size, plan.input_size)
    ort = load_runtime()
    if name.kind == "auto":
        return open_first_proved(auto_candidates(ort, plan), header, batch_size=batch_size)
    require_device(ort, name)
    return open_on(ort, plan, name, requested=device)


def _readable(path: str) -> str | bytes:
    """The path as it is or, where its name is no UTF-8, the file's bytes: the runtime takes other names for damage."""
    return path if path.encode(errors="replace") == os.fsencode(path) else Path(path).read_bytes()


def check_batch_size(batch_size: int) -> None:
    """Raise `ConfigurationError` unless runs may have so many frames."""
    if type(batch_size) is not int or not 1 <= batch_size <= MAX_BATCH:
        raise ConfigurationError(f"batch_size must be a whole number from 1 to {MAX_BATCH}; got {batch_size!r}.")


def model_size(spec: ModelSpec, asked: tuple[int, int] | None) -> tuple[int, int]:
    """The (height, width) that frames are resized to: the model's own, or another that a dynamic model allows."""
    if asked is None:
        return spec.input_size
    if not isinstance(asked, (tuple, list)) or [type(side) for side in asked] != [int, int]:
        raise ConfigurationError(f"input_size must be (height, width) in whole pixels; got {asked!r}.")
    height, width = asked
    if (height, width) == spec.input_size:
        return spec.input_size
    if not spec.dynamic_size:
        own = "x".join(map(str, spec.input_size))
        raise ConfigurationError(
            f"This model takes frames of {own} (height x width) only; got {height}x{width}. "
            "Export it again with a dynamic size, or leave input_size out."
        )
    if height < 32 or width < 32 or height % 32 or width % 32:
        raise ConfigurationError(f"input_size must be multiples of 32, at least 32x32; got {height}x{width}.")
    return height, width


@cache
def load_runtime() -> Any:
    """Import onnxruntime and return the module, checked to be complete.

    Raises:
        MissingDependencyError: none is installed, several are installed over each other, or it does not load.
        OutOfMemoryError: there is no memory for it.
    """
    builds = installed_builds()
    if len(builds) > 1:
        raise MissingDependencyError(
            f"Several builds of onnxruntime are installed over each other ({', '.join(builds)}). "
            f"Keep one: pip uninstall -y {' '.join(builds)} && pip install onnxruntime-gpu"
        )
    try:
        import onnxruntime
    except ImportError as error:
        raise_if_interrupted(error)
        if "bad_alloc" in str(error):
            raise OutOfMemoryError("There is no memory left to load onnxruntime.") from error
        if not builds and getattr(error, "name", "") == "onnxruntime":
            raise MissingDependencyError(
                "onnxruntime is not installed. Install it: pip install onnxruntime-gpu (or onnxruntime)"
            ) from error
        raise MissingDependencyError(
            f"onnxruntime does not load ({first_line(error)}). Install it anew: {REINSTALL_GPU}"
        ) from error
    if not hasattr(onnxruntime, "InferenceSession"):
        raise MissingDependencyError(
            "onnxruntime is damaged: it has no InferenceSession, as when one of two builds was uninstalled. "
            f"Install it anew: {REINSTALL_GPU}"
        )
    return onnxruntime


def auto_candidates(ort: Any, plan: SessionPlan) -> list[Candidate]:
    """Devices that `auto` tries, the fastest first, as the benchmarks found them (docs/performance.md).

    TensorRT only with an engine already built for exactly this case; openvino only where it multiplies in less than
    float32, since otherwise the CPU provider is as fast and needs no second library.
    """
    names = [DeviceName(kind="cuda"), DeviceName(kind="openvino"), DeviceName(kind="cpu")]
    engine, precision = DeviceName(kind="tensorrt"), plan.header.spec.precision
    if not precision_problem(engine, precision) and tensorrt.has_cached_engine(
        ort, plan.header, plan.batch_size, plan.input_size
    ):
        names.insert(0, engine)

    def attempt(name: DeviceName) -> OrtSession:
        if problem := device_problem(ort, name) or no_gain(ort, plan, name):
            raise DeviceError(problem)
        return open_on(ort, plan, name, requested="auto")

    return [(str(name), partial(attempt, name)) for name in names]


def no_gain(ort: Any, plan: SessionPlan, name: DeviceName) -> str:
    """Why an available device is not worth using, or ""."""
    if name.kind != "openvino" or plan.header.spec.precision == "int8" or openvino_has_bf16(openvino_devices(ort)[0]):
        return ""
    return "no faster than cpu: this processor does not multiply in bf16"


def open_on(ort: Any, plan: SessionPlan, device: DeviceName, *, requested: str) -> OrtSession:
    """Open a session on exactly this device, warmed up where that matters, or raise an error."""
    if device.kind in ("cpu", "openvino"):
        _check_memory(plan, device)
    try:
        made = make_inner(ort, plan, device)
        plan.header.check_unchanged()
        _check_interface(made.inner, plan)
    except EdgeSegError:
        raise
    except Exception as error:
        _raise_open_error(ort, error, plan, device)
    report = DeviceReport(
        requested=requested,
        name=str(device),
        providers=tuple(made.inner.get_providers()),
        arithmetic=made.arithmetic,
        reason="; ".join(filter(None, ["asked for by name", made.remark])),
        threads=plan.threads,
    )
    session = OrtSession(
        made.inner,
        plan.header.spec,
        report,
        plan.header.name,
        bound=made.bound,
        # The CPU provider is not tuned to one shape, and frames that only fill up a batch would cost time.
        whole_batches=device.kind != "cpu" or isinstance(made.inner.get_inputs()[0].shape[0], int),
        # Threads wait for one another between operators: a second run uses these gaps, if there is more than one core.
        runs_at_once=2 if device.kind == "cpu" and plan.overlapped and plan.threads > 1 else 1,
    )
    # The CPU provider has nothing to tune, and a run without a purpose would cost a short clip a frame's time.
    if device.kind != "cpu":
        warm_up(session, plan.batch_size, plan.input_size)
    return session


def _check_memory(plan: SessionPlan, device: DeviceName) -> None:
    """Raise `OutOfMemoryError` if a run needs more memory than is free: the system would kill the process."""
    asked, free = plan.header.demand(plan.batch_size, plan.input_size).bytes, available_memory()
    if free is not None and asked > free:
        height, width = plan.input_size
        raise OutOfMemoryError(
            f"{device} has no memory for {plan.header.name}: a batch of {plan.batch_size} of {width}x{height} takes "
            f"{amount(asked)}, {amount(free)} are free. "
            f"Use {'a smaller batch, or ' if plan.batch_size > 1 else ''}a model of a smaller size."
        )


def _check_interface(inner: Any, plan: SessionPlan) -> None:
    """Raise an error unless the graph's inputs and outputs are those that its metadata promises."""
    name, spec = plan.header.name, plan.header.spec
    inputs = {item.name: item for item in inner.get_inputs()}
    outputs = {item.name: item.type for item in inner.get_outputs()}
    if set(inputs) != {"frames"} or inputs["frames"].type != "tensor(uint8)" or len(inputs["frames"].shape) != 4:
        raise ModelFileError(
            f"{name}: expected one input, frames (N, H, W, 3) uint8; it has {', '.join(inputs) or 'none'}."
        )
    missing = [output for output in spec.outputs if output not in outputs]
    if missing or outputs["labels"] != "tensor(uint8)":
        raise ModelFileError(
            f"{name}: expected the outputs {', '.join(spec.outputs)}, labels as uint8; it has {outputs}."
        )
    shape = inputs["frames"].shape
    wanted = (plan.batch_size, *plan.input_size, 3)
    wrong = [axis for axis in (1, 2, 3) if isinstance(shape[axis], int) and shape[axis] != wanted[axis]]
    if wrong:
        raise ModelFileError(
            f"{name}: its graph takes frames of {shape}, its metadata promises {wanted}. Export it again."
        )
    if isinstance(shape[0], int) and shape[0] != plan.batch_size:
        raise ConfigurationError(f"{name} takes batches of exactly {shape[0]}; got batch_size={plan.batch_size}.")


def _upgrade() -> str:
    """The command that upgrades the installed build: another build would be installed over it."""
    return f"pip install -U {' '.join(installed_builds()) or 'onnxruntime'}"


def _raise_open_error(ort: Any, error: Exception, plan: SessionPlan, device: DeviceName) -> NoReturn:
    """Raise the error of ours that explains a runtime's exception while opening."""
    text = str(error)
    name, contents = plan.header.name, plan.header.contents
    if found := re.search(r"max supported IR version: (\d+)", text):
        raise ModelFileError(
            f"{name} has IR version {contents.ir_version}; onnxruntime {ort.__version__} reads up to {found[1]}. "
            f"Upgrade it: {_upgrade()}; or export again with a lower --opset."
        ) from error
    if found := re.search(r"official support for domain ai\.onnx is till opset (\d+)", text):
        raise ModelFileError(
            f"{name} has opset {contents.opsets.get('', 0)}; onnxruntime {ort.__version__} reads up to {found[1]}. "
            f"Upgrade it: {_upgrade()}; or export again with --opset {found[1]} at most."
        ) from error
    if is_out_of_memory(error):
        raise OutOfMemoryError(
            f"{device} has no memory for {name}: {first_line(error)}. Use a smaller model."
        ) from error
    if "pthread_create failed" in text:
        raise DeviceError(f"{device} can start no more threads for {name}. {MORE_THREADS}") from error
    if device.kind == "cpu":
        raise ModelFileError(f"{name} cannot be opened: {first_line(error)}. Export it again.") from error
    raise DeviceError(f"device {device} cannot run {name}: {first_line(error)}. Look with: edge-seg checks") from error
