"""An NVIDIA machine and an Intel one that are not here (onnxruntimes whose sessions claim them, and fail on demand),
and the command line with a tiny model.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edge_seg.cli import main

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
OPENVINO = "OpenVINOExecutionProvider"


@dataclass
class GpuMachine:
    """What the fake GPU does, to be set by a test, and what was asked of it.

    `memory_frames`: a larger batch runs out of memory. `wrong`: labels come back shifted. `silent_cpu`: the session
    comes back on the CPU, as onnxruntime does when a library is missing. `left_on_cpu`: operators that refuse the GPU.
    `graph_error`, `binding_error`: what capturing a graph and binding buffers fail with. `pinned`: whether memory can
    be page-locked; `locked` is what was, `uploaded` what was copied to the GPU. `entries`: of each session's options.
    `fails_by`: provider options with which cuDNN finds no algorithm; `fails_at`: a batch at which it finds none.
    """

    gpus: int | None = 1
    providers: tuple[str, ...] = (TENSORRT, CUDA, CPU)
    memory_frames: int | None = None
    wrong: bool = False
    silent_cpu: bool = False
    left_on_cpu: tuple[str, ...] = ()
    open_error: str = ""
    graph_error: str = ""
    binding_error: str = ""
    pinned: bool = True
    fails_by: dict[str, str] = field(default_factory=dict)
    fails_at: int | None = None
    locked: list[np.ndarray] = field(default_factory=list)
    uploaded: list[np.ndarray] = field(default_factory=list)
    entries: list[dict[str, str]] = field(default_factory=list)
    at_once: AtOnce = field(default_factory=lambda: AtOnce())
    asked: list[Any] = field(default_factory=list)
    batch_sizes: list[int] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def hold(self, right: bool, fault: str) -> None:
        """Note what a real GPU would not forgive: an exception here would be taken for a build without the feature."""
        if not right:
            self.faults.append(fault)


def _has(options: Any, key: str) -> bool:
    try:
        options.get_session_config_entry(key)
    except RuntimeError:
        return False
    return True


class FakeGpuSession:
    """A CPU session of onnxruntime that says it is on the GPU."""

    def __init__(self, machine: GpuMachine, inner: Any, providers: list[str]) -> None:
        self._machine, self._inner, self._providers = machine, inner, providers
        self.graph, self.fails, self._captured, self._threads = False, False, None, set()

    def get_providers(self) -> list[str]:
        return [CPU] if self._machine.silent_cpu else self._providers

    def get_provider_graph_assignment_info(self) -> list[Any]:
        nodes: dict[str, list[Any]] = {}
        for part in self._inner.get_provider_graph_assignment_info():
            for node in part.get_nodes():
                place = CPU if node.op_type in self._machine.left_on_cpu else self._providers[0]
                nodes.setdefault(place, []).append(node)
        return [SimpleNamespace(ep_name=name, get_nodes=lambda n=found: n) for name, found in nodes.items()]

    def run(self, names: list[str], feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
        count = len(feeds["frames"])
        self._machine.batch_sizes.append(count)
        if self._machine.memory_frames is not None and count > self._machine.memory_frames:
            raise RuntimeError("[ONNXRuntimeError] : 1 : FAIL : CUDA failure 2: out of memory ; GPU=0 ; file=cuda.cc")
        if self.fails or count == self._machine.fails_at:
            raise RuntimeError(
                "Non-zero status code returned while running Conv node: Failed to initialize CUDNN Frontend"
            )
        arrays = self._inner.run(names, feeds)
        return [(array + 1) % 12 if self._machine.wrong else array for array in arrays]

    def io_binding(self) -> FakeBinding:
        if self._machine.binding_error:
            raise RuntimeError(self._machine.binding_error)
        return FakeBinding()

    def run_with_iobinding(self, binding: FakeBinding) -> None:
        """Reads and writes the bound buffers alone; a captured graph replays the addresses it first saw."""
        if self.graph:
            if self._machine.graph_error:
                raise RuntimeError(self._machine.graph_error)
            self._captured = self._captured or binding
            binding = self._captured
            self._threads.add(threading.get_ident())
            self._machine.hold(len(self._threads) == 1, "a graph is replayed by another thread than captured it")
        self._machine.at_once.enter()
        try:
            arrays = self.run(list(binding.outputs), {"frames": binding.inputs["frames"].array})
        finally:
            self._machine.at_once.leave()
        for value, array in zip(binding.outputs.values(), arrays, strict=True):
            value.array[...] = array

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class FakeValue:
    """A tensor on the fake GPU; only the ways in and out that a real one has."""

    def __init__(self, machine: GpuMachine, shape: tuple[int, ...], kind: Any, place: str) -> None:
        self._machine, self.array, self.place = machine, np.zeros(shape, kind), place

    def update_inplace(self, array: np.ndarray) -> None:
        self._machine.hold(array.shape == self.array.shape, f"{array.shape} into a buffer of {self.array.shape}")
        self._machine.uploaded.append(array)
        self.array[...] = array

    def numpy(self) -> np.ndarray:
        return self.array.copy()


class FakeBinding:
    """Which buffers a session reads and writes."""

    def __init__(self) -> None:
        self.inputs: dict[str, FakeValue] = {}
        self.outputs: dict[str, FakeValue] = {}

    def bind_ortvalue_input(self, name: str, value: FakeValue) -> None:
        assert value.place == "cuda"
        self.inputs[name] = value

    def bind_ortvalue_output(self, name: str, value: FakeValue) -> None:
        assert value.place == "cuda"
        self.outputs[name] = value


class AtOnce:
    """How many are inside, and the most there ever were."""

    def __init__(self) -> None:
        self._lock, self._inside, self.most = threading.Lock(), 0, 0

    def enter(self) -> None:
        with self._lock:
            self._inside += 1
            self.most = max(self.most, self._inside)

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1


@pytest.fixture
def gpu_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> Iterator[GpuMachine]:
    """Makes this process believe in a GPU. Sessions on other devices stay real."""
    import onnxruntime

    machine = GpuMachine()

    def open_inner(source: Any, options: Any = None, providers: Any = None, **rest: Any) -> Any:
        names = [provider if isinstance(provider, str) else provider[0] for provider in providers or []]
        if not {CUDA, TENSORRT} & set(names):
            return onnxruntime.InferenceSession(source, options, providers=providers, **rest)
        machine.asked.append(providers)
        keys = ("session.disable_quant_qdq", "session.disable_cpu_ep_fallback")
        machine.entries.append({key: options.get_session_config_entry(key) for key in keys if _has(options, key)})
        if machine.open_error:
            raise RuntimeError(machine.open_error)
        if machine.left_on_cpu and CPU not in names:
            raise RuntimeError(
                "nodes are assigned to the default CPU EP, but fallback to CPU EP has been explicitly disabled"
            )
        plain = onnxruntime.SessionOptions()
        plain.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        plain.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        inner = onnxruntime.InferenceSession(source, plain, providers=[CPU])
        settings = {name: value for _, own in providers if isinstance(own, dict) for name, value in own.items()}
        session = FakeGpuSession(machine, inner, names if CPU in names else [*names, CPU])
        session.graph = settings.get("enable_cuda_graph") == "1"
        session.fails = bool(machine.fails_by) and machine.fails_by.items() <= settings.items()
        return session

    def make_value(shape: Any, kind: Any, device: str, index: int) -> FakeValue:
        return FakeValue(machine, shape, kind, device)

    def lock(shape: tuple[int, ...]) -> np.ndarray | None:
        if not machine.pinned:
            return None
        machine.locked.append(np.zeros(shape, np.uint8))
        return machine.locked[-1]

    fake = SimpleNamespace(
        __version__=onnxruntime.__version__,
        SessionOptions=onnxruntime.SessionOptions,
        OrtHardwareDeviceType=onnxruntime.OrtHardwareDeviceType,
        InferenceSession=open_inner,
        get_available_providers=lambda: list(machine.providers),
        # onnxruntime lists the providers it was built with, CUDA not among them.
        get_ep_devices=lambda: [],
        OrtValue=SimpleNamespace(ortvalue_from_shape_and_type=make_value),
        register_execution_provider_library=lambda name, path: None,
        set_default_logger_severity=lambda level: None,
        preload_dlls=lambda: print("noise that must not reach the terminal"),
    )
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for module in ("session", "verify", "checks"):
        monkeypatch.setattr(f"edge_seg.{module}.load_runtime", lambda: fake)
    for module in ("devices", "tensorrt"):
        monkeypatch.setattr(f"edge_seg.{module}.nvidia_gpus", lambda: machine.gpus)
        monkeypatch.setattr(f"edge_seg.{module}.tensorrt_version", lambda: 100300)
    monkeypatch.setattr("edge_seg.binding.page_locked", lock)
    monkeypatch.setattr("edge_seg.tensorrt.gpu_identity", lambda index: f"Fake GPU {index} 9.0 driver 13000")
    yield machine
    assert machine.faults == []


@dataclass
class IntelMachine:
    """What the fake plugin offers: `capabilities` as OpenVINO words them. `asked` holds (provider config, entries)."""

    capabilities: str = "FP32 INT8 BF16"
    wrong: bool = False
    asked: list[tuple[dict[str, Any], dict[str, str]]] = field(default_factory=list)
    batch_sizes: list[int] = field(default_factory=list)
    fails_at: int | None = None
    memory_frames: int | None = None
    silent_cpu: bool = False
    left_on_cpu: tuple[str, ...] = ()


@pytest.fixture
def intel_machine(monkeypatch: pytest.MonkeyPatch) -> IntelMachine:
    """Makes this process believe in an Intel processor and the OpenVINO plugin. The CPU provider stays real."""
    import onnxruntime

    machine = IntelMachine()
    cpu = onnxruntime.OrtHardwareDeviceType.CPU

    class Options:
        """Real options, and a note of the plugin's devices and of what was set."""

        def __init__(self) -> None:
            self.real, self.entries, self.config = onnxruntime.SessionOptions(), {}, None

        def add_session_config_entry(self, key: str, value: str) -> None:
            self.entries[key] = value
            self.real.add_session_config_entry(key, value)

        def add_provider_for_devices(self, found: list[Any], config: dict[str, Any]) -> None:
            self.config = config

        def __setattr__(self, name: str, value: Any) -> None:
            if name in ("real", "entries", "config"):
                object.__setattr__(self, name, value)
            else:
                setattr(self.real, name, value)

    def open_inner(source: Any, options: Any, providers: Any = None, **rest: Any) -> Any:
        if options.config is None:
            return onnxruntime.InferenceSession(source, options.real, providers=providers, **rest)
        machine.asked.append((options.config, options.entries))
        plain = onnxruntime.SessionOptions()
        plain.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        return FakeGpuSession(machine, onnxruntime.InferenceSession(source, plain, providers=[CPU]), [OPENVINO, CPU])

    def found() -> list[Any]:
        metadata = {"OPTIMIZATION_CAPABILITIES": machine.capabilities}
        device = SimpleNamespace(type=cpu, vendor="Intel")
        return [SimpleNamespace(ep_name=OPENVINO, device=device, ep_metadata=metadata)]

    fake = SimpleNamespace(
        __version__=onnxruntime.__version__,
        SessionOptions=Options,
        OrtHardwareDeviceType=onnxruntime.OrtHardwareDeviceType,
        InferenceSession=open_inner,
        get_available_providers=lambda: [CPU],
        get_ep_devices=found,
        register_execution_provider_library=lambda name, path: None,
        set_default_logger_severity=lambda level: None,
    )
    plugin = ModuleType("onnxruntime_ep_openvino")
    plugin.__spec__ = ModuleSpec("onnxruntime_ep_openvino", None)
    plugin.get_library_path = lambda: "plugin.so"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "onnxruntime_ep_openvino", plugin)
    for module in ("session", "verify", "checks"):
        monkeypatch.setattr(f"edge_seg.{module}.load_runtime", lambda: fake)
    return machine


@pytest.fixture
def model(tiny_model: Callable[..., Path]) -> str:
    return str(tiny_model(size=(32, 64), license="Test terms: do as you like."))


@pytest.fixture
def predict(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Any, str]]:
    """Run `edge-seg predict ... --json` in this process: (exit code, JSON or None, stderr)."""

    def run(*arguments: object, out: Path | None = tmp_path / "out") -> tuple[int, Any, str]:
        capsys.readouterr()
        place = ["-o", str(out)] if out else []
        code = main(["predict", *map(str, arguments), "-m", model, "--device", "cpu", "--json", *place])
        printed = capsys.readouterr()
        return code, json.loads(printed.out) if printed.out else None, printed.err

    return run
