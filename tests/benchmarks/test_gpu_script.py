"""The script for a CUDA machine, where there is none: its one line, and its logic with fakes."""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import cuda_peer, gpu
from benchmarks.cases import REFERENCE, Contender
from benchmarks.process import WorkerError
from edge_seg.errors import DeviceError, MissingDependencyError, ModelFileError
from edge_seg.providers import cuda_options

from .conftest import row


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(gpu, "device_problem", lambda runtime, device: f"no {device} here. Mend it: buy one")


def test_without_a_gpu_it_is_one_line_and_exit_code_2(no_gpu, capsys, tmp_path):
    target = tmp_path / "gpu.json"
    assert command.main(["gpu", "--save", str(target)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == (
        "error: This benchmark needs an NVIDIA GPU, and edge_seg has no CUDA here: no cuda:0 here. Mend it: buy one"
    )
    assert not target.exists()


@pytest.fixture
def machine(monkeypatch, start_fake, run_folder, tiny_model, tmp_path):
    """A GPU machine of fakes: real workers, fake contenders, model files of ours."""
    monkeypatch.setattr(gpu, "device_problem", lambda runtime, device: "")
    # To draw 24 streets takes longer than all that is done with them here.
    monkeypatch.setattr("benchmarks.data.RENDERED_FRAMES", 3)
    paths = {name: tiny_model(precision=name) for name in ("fp32", "fp16", "int8")}
    monkeypatch.setattr(gpu, "exported", lambda run, cached, name, options, say: paths[options[1]])
    measure = gpu.measure_gpu

    def measure_little(settings, say):
        batches = (1, 2) if settings.batches == gpu.BATCHES else settings.batches
        return measure(replace(settings, batches=batches, repeats=2, frames=2), say=say, start=start_fake)

    monkeypatch.setattr(gpu, "measure_gpu", measure_little)
    return ["gpu", "--run", str(run_folder), "--save", str(tmp_path / "gpu.json")]


def test_a_file_that_cannot_be_is_told_before_anything_is_measured(machine, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(gpu, "measure_gpu", lambda *_, **__: pytest.fail("it was measured"))
    assert command.main([*machine, "--save", str(tmp_path / "run" / "config.json" / "gpu.json")]) == 2
    assert "choose another with --save" in capsys.readouterr().err


def test_one_run_measures_every_contender_at_every_batch(machine, tmp_path, capsys):
    assert command.main(machine) == 0
    found = json.loads((tmp_path / "gpu.json").read_text())
    names = [each["name"] for each in found["rows"] if each["batch"] == 2]
    assert names == [
        "edge_seg cuda fp32",
        "edge_seg cuda fp16",
        "edge_seg cuda int8",
        "bound cuda fp16",
        "bound cuda fp16, graph, fused",
        "torch cuda fp32",
        "torch cuda fp16",
        "torch cuda fp16 compiled",
    ]
    yardstick = next(each for each in found["rows"] if each["name"] == "torch cuda fp16")
    assert yardstick["times_torch_fp16"] == 1.0
    assert yardstick["share_of_peak"] == pytest.approx(yardstick["gflops"] / 2000.0)
    assert found["decoder"] == {"cpu_fps": 100.0, "cuda_fps": None, "reason": "planted"}
    text = capsys.readouterr().out
    assert "Fake GPU; fp16 2,000 GFLOP/s" in text
    assert "decoder: processor 100 frames/s, GPU planted" in text


def test_files_and_batches_can_be_given_and_a_note_is_kept(machine, monkeypatch, tiny_model, tmp_path):
    monkeypatch.setattr(gpu, "exported", lambda *_: pytest.fail("nothing is to be exported"))
    seen = []
    measured = gpu.measure_gpu
    monkeypatch.setattr(gpu, "measure_gpu", lambda settings, say: seen.append(settings) or measured(settings, say))
    given = [option for name in ("fp32", "fp16") for option in ("--model", str(tiny_model(precision=name)))]
    assert command.main([*machine, *given, "--batch-sizes", "1", "2", "--note", "planted"]) == 0
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert seen[0].batches == (1, 2)
    assert found["notes"][0] == "planted", "before what is said of noise"
    assert "edge_seg cuda int8" not in {each["name"] for each in found["rows"]}
    assert command.main([*machine, *given, "--input-size", "64x64"]) == 2


def test_labels_are_compared_with_keras_or_where_it_is_not_with_the_fp32_file(machine, monkeypatch, tmp_path):
    machine = [*machine, "--batch-sizes", "1"]
    assert command.main(machine) == 0
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert found["reference"] == REFERENCE
    assert {each["agreement"] for each in found["rows"]} == {1.0}
    asked = []

    def without_keras(contender, plan, batch, **rest):
        asked.append(contender.name)
        if contender.name == REFERENCE:
            raise WorkerError("no TensorFlow", "ModuleNotFoundError")
        return np.full((len(plan.data.frames), *contender.size), 11, np.uint8)

    monkeypatch.setattr(gpu, "labels_of", without_keras)
    assert command.main(machine) == 0
    found = json.loads((tmp_path / "gpu.json").read_text())
    assert asked == [REFERENCE, "edge_seg cpu fp32"]
    assert found["reference"] == "edge_seg cpu fp32"
    assert max(each["agreement"] for each in found["rows"]) < 0.5

    def without_anything(contender, plan, batch, **rest):
        raise WorkerError("not here", "ModuleNotFoundError")

    monkeypatch.setattr(gpu, "labels_of", without_anything)
    assert command.main(machine) == 2

    def broken(contender, plan, batch, **rest):
        raise WorkerError("it died")

    monkeypatch.setattr(gpu, "labels_of", broken)
    with pytest.raises(WorkerError, match="it died"):
        gpu.with_reference(SimpleNamespace(size=(8, 8)), gpu.GpuSettings(), [], "x", say=print)


def test_a_network_without_a_float16_file_is_measured_in_float32(machine, monkeypatch, tiny_model, tmp_path, capsys):
    def refuse(run, cached, name, options, say):
        if options[1] == "fp16":
            raise ModelFileError("`python -m export` of x.onnx failed: float16 agrees on 98.1 % of the pixels")
        return tiny_model(precision=options[1])

    monkeypatch.setattr(gpu, "exported", refuse)
    assert command.main([*machine, "--batch-sizes", "1"]) == 0
    found = json.loads((tmp_path / "gpu.json").read_text())
    names = {each["name"] for each in found["rows"]}
    assert {"edge_seg cuda fp32", "torch cuda fp16"} < names
    assert "edge_seg cuda fp16" not in names
    assert found["missing"] == ["`python -m export` of x.onnx failed: float16 agrees on 98.1 % of the pixels"]
    assert "  missing: `python -m export` of x.onnx failed" in capsys.readouterr().out


def test_rows_are_told_against_torch_and_the_peak_of_their_precision():
    rows = [
        row("torch cuda fp16", 8, 2.0, precision="fp16", device="cuda"),
        row("edge_seg cuda fp16", 8, 1.0, precision="fp16", device="cuda"),
        row("edge_seg cuda fp32", 8, 4.0, device="cuda"),
        row("Keras predict", 8, 100.0),
        row("broken", 8, 1.0, status="failed", frames_per_s=None),
    ]
    limits = {"peaks": {"fp16": {"gflops": 1000.0}, "tf32": {"gflops": 500.0}, "fp32": {"gflops": 60.0}}}
    found = gpu.gpu_rows(rows, 0.2, limits)
    assert [one["times_torch_fp16"] for one in found] == [1.0, 2.0, 0.5, 0.02, None]
    # fp32 rows compute without TF32.
    assert [one["share_of_peak"] for one in found[:3]] == pytest.approx([0.1, 0.2, 50 / 60])
    assert [one["share_of_peak"] for one in found[3:]] == [None, None]


class FakeValue:
    """An OrtValue whose device memory is an array."""

    def __init__(self, array):
        self.array = array

    def update_inplace(self, array):
        self.array[:] = array

    def numpy(self):
        return self.array


class FakeRuntime:
    """The parts of onnxruntime that a bound session needs; labels are blue modulo 12."""

    __version__ = "0"

    def __init__(self, provider="CUDAExecutionProvider"):
        self.provider, self.asked, self.loaded = provider, None, False
        self.OrtValue = SimpleNamespace(
            ortvalue_from_numpy=lambda array, device, index: FakeValue(array.copy()),
            ortvalue_from_shape_and_type=lambda shape, dtype, device, index: FakeValue(np.zeros(shape, dtype)),
        )

    def preload_dlls(self):
        self.loaded = True

    def InferenceSession(self, path, providers):
        assert self.loaded, "CUDA out of NVIDIA's wheels is found only after preload_dlls"
        self.asked = providers[0]
        bound = {}
        binding = SimpleNamespace(bind_ortvalue_input=bound.__setitem__, bind_ortvalue_output=bound.__setitem__)

        def run(given):
            assert given is binding
            bound["labels"].array[:] = bound["frames"].array[..., 0] % 12

        return SimpleNamespace(
            get_providers=lambda: [self.provider], io_binding=lambda: binding, run_with_iobinding=run
        )


@pytest.mark.parametrize("graph", [True, False])
def test_a_bound_session_keeps_its_buffers_and_asks_for_a_graph(monkeypatch, graph):
    runtime = FakeRuntime()
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    contender = Contender(
        name="b", kind="cuda-bound", path="x", device="cuda:1", precision="fp16", size=(8, 8), compiled=graph
    )
    predict, detail, arithmetic = cuda_peer.bound_session(contender, 2)
    frames = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)
    for turned in (frames, frames[::-1]):
        np.testing.assert_array_equal(predict(turned), turned[..., 0] % 12)
    # As edge_seg itself asks, but for what would keep a user waiting.
    fused = {"fuse_conv_bias": "1"} if graph else {}
    assert runtime.asked[1] == cuda_options("fp16", 1, graph=graph) | fused
    assert ("enable_cuda_graph" in runtime.asked[1]) is graph
    assert ("one CUDA graph" in detail) is graph
    assert arithmetic == "fp16"


def test_a_silent_fall_back_to_the_processor_is_an_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", FakeRuntime("CPUExecutionProvider"))
    contender = Contender(name="b", kind="cuda-bound", path="x", device="cuda", precision="fp16", size=(8, 8))
    with pytest.raises(DeviceError, match="CPUExecutionProvider instead of CUDA"):
        cuda_peer.bound_session(contender, 1)


def test_the_peak_needs_a_torch_with_cuda(monkeypatch):
    blind = SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: False))
    monkeypatch.setitem(sys.modules, "torch", blind)
    with pytest.raises(DeviceError, match="torch sees no CUDA device"):
        cuda_peer.gpu_limits()
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingDependencyError, match="pip install torch"):
        cuda_peer.gpu_limits()


def test_opening_and_the_first_frame_are_no_part_of_the_decoder_s_speed(monkeypatch):
    """A GPU makes its context there, which takes longer than the bundled clip."""
    now_s = 0.0

    def decode(video):
        nonlocal now_s
        now_s += 5.0
        for _ in range(11):
            now_s += 0.1
            yield SimpleNamespace(to_ndarray=lambda format: np.zeros(1))

    monkeypatch.setattr(cuda_peer, "time", SimpleNamespace(perf_counter=lambda: now_s))
    container = SimpleNamespace(decode=decode)
    slow = SimpleNamespace(open=lambda clip, hwaccel: contextlib.nullcontext(container))
    assert cuda_peer._decode(slow, "clip", "cuda") == pytest.approx(10.0)


def test_the_processor_decodes_where_the_gpu_does_not():
    from edge_seg import bundled_clip

    found = cuda_peer.decode_speed(str(bundled_clip()))
    assert found["cpu_fps"] > 1
    if found["cuda_fps"] is None:
        assert found["reason"].startswith("no decoding on the GPU: ")
