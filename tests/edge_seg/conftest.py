"""A machine with NVIDIA GPUs that is not there: an onnxruntime whose sessions claim CUDA, and fail on demand."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

CPU, CUDA, TENSORRT = "CPUExecutionProvider", "CUDAExecutionProvider", "TensorrtExecutionProvider"
STRICT = "session.disable_cpu_ep_fallback"


@dataclass
class GpuMachine:
    """What the fake GPU does, to be set by a test, and what was asked of it.

    `memory_frames`: a larger batch runs out of memory. `wrong`: labels come back shifted. `silent_cpu`: the session
    comes back on the CPU, as onnxruntime does when a library is missing. `left_on_cpu`: operators that refuse the GPU.
    """

    gpus: int | None = 1
    providers: tuple[str, ...] = (TENSORRT, CUDA, CPU)
    memory_frames: int | None = None
    wrong: bool = False
    silent_cpu: bool = False
    left_on_cpu: tuple[str, ...] = ()
    open_error: str = ""
    asked: list[Any] = field(default_factory=list)
    batch_sizes: list[int] = field(default_factory=list)


class FakeGpuSession:
    """A CPU session of onnxruntime that says it is on the GPU."""

    def __init__(self, machine: GpuMachine, inner: Any, providers: list[str]) -> None:
        self._machine, self._inner, self._providers = machine, inner, providers

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
        arrays = self._inner.run(names, feeds)
        return [(array + 1) % 12 if self._machine.wrong else array for array in arrays]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@pytest.fixture
def gpu_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> GpuMachine:
    """Makes this process believe in a GPU. Sessions on other devices stay real."""
    import onnxruntime

    machine = GpuMachine()

    def open_inner(source: Any, options: Any = None, providers: Any = None, **rest: Any) -> Any:
        names = [provider if isinstance(provider, str) else provider[0] for provider in providers or []]
        if not {CUDA, TENSORRT} & set(names):
            return onnxruntime.InferenceSession(source, options, providers=providers, **rest)
        machine.asked.append(providers)
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
        return FakeGpuSession(machine, inner, names if CPU in names else [*names, CPU])

    fake = SimpleNamespace(
        __version__=onnxruntime.__version__,
        SessionOptions=onnxruntime.SessionOptions,
        OrtHardwareDeviceType=onnxruntime.OrtHardwareDeviceType,
        InferenceSession=open_inner,
        get_available_providers=lambda: list(machine.providers),
        get_ep_devices=lambda: [],
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
    monkeypatch.setattr("edge_seg.tensorrt.gpu_identity", lambda index: f"Fake GPU {index} 9.0 driver 13000")
    return machine
