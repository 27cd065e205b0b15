"""What is asked of NVIDIA's libraries, on fakes of them: which file, in which order, what is made of the answers."""

from __future__ import annotations

import gc
import mmap
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edge_seg import devices, nvidia


class Libraries:
    """Stands for the loader: `present` are the names or paths that load, and what each then is."""

    def __init__(self) -> None:
        self.present: dict[str, Any] = {}
        self.asked: list[str] = []

    def __call__(self, name: str, mode: int = 0) -> Any:
        self.asked.append(name)
        if name not in self.present:
            raise OSError(f"{name}: cannot open shared object file")
        return self.present[name]


@pytest.fixture
def libraries(monkeypatch: pytest.MonkeyPatch) -> Libraries:
    found = Libraries()
    monkeypatch.setattr(nvidia.ctypes, "CDLL", found)
    return found


@pytest.fixture
def packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder with an onnxruntime that is linked against TensorRT 10, where both are looked for; undone behind it."""
    place = tmp_path / "onnxruntime" / "capi"
    place.mkdir(parents=True)
    linked = b"\x7fELF\0libnvonnxparser.so.10\0libcudart.so.13\0libnvinfer.so.10\0"
    (place / "libonnxruntime_providers_tensorrt.so").write_bytes(linked)
    monkeypatch.setattr(nvidia, "_package_folder", lambda name: tmp_path / name)
    nvidia.tensorrt_version.cache_clear()
    yield tmp_path
    nvidia.tensorrt_version.cache_clear()


ENGINE = SimpleNamespace(getInferLibVersion=lambda: 101300)


def test_tensorrt_is_the_version_that_onnxruntime_is_linked_against(libraries, packages):
    libraries.present = {
        "libnvinfer.so.10": ENGINE,
        "libnvonnxparser.so.10": SimpleNamespace(),
        "libnvinfer.so.11": SimpleNamespace(getInferLibVersion=lambda: 110000),
    }
    assert nvidia.tensorrt_version() == 101300
    assert libraries.asked == ["libnvinfer.so.10", "libnvonnxparser.so.10"], "the parser needs the engine"


def test_tensorrt_of_another_version_or_without_its_parser_is_none(libraries, packages):
    libraries.present = {"libnvinfer.so.11": ENGINE, "libnvonnxparser.so.11": SimpleNamespace()}
    assert nvidia.tensorrt_version() == 0
    nvidia.tensorrt_version.cache_clear()
    libraries.present = {"libnvinfer.so.10": ENGINE}
    assert nvidia.tensorrt_version() == 0


def test_tensorrt_of_a_wheel_is_found_in_its_folder(libraries, packages):
    wheel = packages / "tensorrt_libs"
    libraries.present = {
        str(wheel / "libnvinfer.so.10"): ENGINE,
        str(wheel / "libnvonnxparser.so.10"): SimpleNamespace(),
    }
    assert nvidia.tensorrt_version() == 101300


class Runtime:
    """CUDA's runtime, as far as page-locking goes."""

    def __init__(self, status: int = 0) -> None:
        self.status, self.locked, self.cleared = status, {}, 0

    def cudaHostRegister(self, address: Any, size: Any, flags: Any) -> int:
        if self.status == 0:
            self.locked[address.value] = (size.value, flags.value)
        return self.status

    def cudaHostUnregister(self, address: Any) -> int:
        del self.locked[address.value]
        return 0

    def cudaGetLastError(self) -> int:
        self.cleared += 1
        return self.status


def test_memory_is_locked_as_long_as_the_array_lives(libraries):
    runtime = libraries.present["libcudart.so.12"] = Runtime()
    array = nvidia.page_locked((2, 32, 64, 3))
    assert (array.shape, array.dtype) == ((2, 32, 64, 3), np.uint8)
    assert runtime.locked == {array.ctypes.data: (array.nbytes, 1)}
    assert array.ctypes.data % mmap.PAGESIZE == 0, "pages of its own"
    view = array[1]
    view[...] = 7
    del array
    gc.collect()
    assert len(runtime.locked) == 1
    del view
    gc.collect()
    assert runtime.locked == {}


def test_memory_that_cannot_be_locked_is_said_and_leaves_no_error_behind(libraries):
    assert nvidia.page_locked((8,)) is None, "no CUDA here"
    runtime = libraries.present["libcudart.so.13"] = Runtime(status=35)
    assert nvidia.page_locked((8,)) is None
    assert runtime.cleared == 1
    older = libraries.present["libcudart.so.12"] = Runtime()
    assert nvidia.page_locked((8,)) is not None, "the driver is too old for 13 alone"
    assert (runtime.cleared, older.cleared) == (2, 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_fork_of_a_process_that_uses_cuda_is_told_so(gpu_machine, monkeypatch):
    monkeypatch.setattr(nvidia, "_initialised_in", os.getpid())
    assert not nvidia.forked_after_cuda()
    monkeypatch.setattr(nvidia, "_initialised_in", os.getppid())
    gpu_machine.gpus = None
    runtime = SimpleNamespace(__version__="1", get_available_providers=lambda: [devices.CUDA_PROVIDER])
    assert 'get_context("spawn")' in devices.device_problem(runtime, devices.parse_device("cuda"))
