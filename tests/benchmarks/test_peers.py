"""Other runtimes: the graphs cut and converted for them, and a word for each that cannot take part."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import peers, torch_peer
from benchmarks.cases import PEERS, Contender, plain_contenders, torch_contenders
from benchmarks.field import find_field
from benchmarks.floatgraph import INPUT, OUTPUT, cut_float_graph
from benchmarks.settings import Settings
from edge_seg.errors import MissingDependencyError, ModelFileError
from edge_seg.preprocess import scale_frames
from edge_seg.spec import ModelSpec

SIZE = (32, 64)
CLASSES = 12


def stamped(kernel, last, *, middle=127.5, product=True):
    """A small graph built as the exporter builds: scaling in (u - 127.5) / 128, the scores a product, positions first.

    Without `product` as it built before: the last stage a convolution, the frames transposed as bytes.
    """
    from onnx import TensorProto, helper, numpy_helper

    nodes = [
        helper.make_node("Cast", ["frames"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["real"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Sub", ["planes", "middle"], ["centered"]),
        helper.make_node("Mul", ["centered", "step"], ["scaled"]),
        helper.make_node("Conv", ["scaled", "kernel"], ["first"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["first"], ["active"]),
        helper.make_node("Transpose", ["active"], ["positions"], perm=[0, 2, 3, 1]),
        helper.make_node("MatMul", ["positions", "last"], ["packed_scores"]),
        helper.make_node("ArgMax", ["packed_scores"], ["ids"], axis=3, keepdims=0),
        helper.make_node("Cast", ["ids"], ["labels"], to=TensorProto.UINT8),
    ]
    if not product:
        nodes[:3] = [
            helper.make_node("Transpose", ["frames"], ["bytes"], perm=[0, 3, 1, 2]),
            helper.make_node("Cast", ["bytes"], ["real"], to=TensorProto.FLOAT),
            helper.make_node("Sub", ["real", "middle"], ["centered"]),
        ]
        nodes[-4:-1] = [
            helper.make_node("Conv", ["active", "last"], ["packed_scores"], kernel_shape=[1, 1]),
            helper.make_node("ArgMax", ["packed_scores"], ["ids"], axis=1, keepdims=0),
        ]
    weights = {
        "middle": np.float32(middle),
        "step": np.float32(1 / 128),
        "kernel": (kernel * np.float32(128 / 127.5)).astype(np.float32),
        "last": last[:, :, 0, 0].T if product else last,
    }
    graph = helper.make_graph(
        nodes,
        "stamped",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, ["N", *SIZE, 3])],
        [helper.make_tensor_value_info("labels", TensorProto.UINT8, ["N", *SIZE])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, ModelSpec(input_size=SIZE, precision="fp32").to_metadata())
    return model


@pytest.fixture
def weights():
    generator = np.random.default_rng(2)
    first = generator.normal(size=(8, 3, 3, 3)).astype(np.float32)
    return first, generator.normal(size=(CLASSES * 4, 8, 1, 1)).astype(np.float32)


@pytest.fixture
def float_file(tmp_path, weights):
    import onnx

    path = tmp_path / "float.onnx"
    onnx.save(cut_float_graph(stamped(*weights), "stamped.onnx"), str(path))
    return path


@pytest.fixture
def contender(float_file):
    return plain_contenders(["onnxruntime"], float_file, SIZE, "digest")[0]


def test_the_float_graph_is_the_network_without_scaling_and_argmax(float_file, weights):
    import onnxruntime

    frames = np.random.default_rng(0).integers(0, 256, (2, *SIZE, 3), np.uint8)
    planes = scale_frames(frames).transpose(0, 3, 1, 2)
    padded = np.pad(planes, ((0, 0), (0, 0), (1, 1), (1, 1)))
    patches = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    active = np.maximum(np.einsum("nchwyx,ocyx->nohw", patches, weights[0]), 0)
    scores = np.einsum("nchw,oc->nohw", active, weights[1][:, :, 0, 0])
    spread = scores.reshape(2, CLASSES, 2, 2, *SIZE).transpose(0, 1, 4, 2, 5, 3).reshape(2, CLASSES, 64, 128)
    (found,) = onnxruntime.InferenceSession(str(float_file)).run([OUTPUT], {INPUT: planes})
    np.testing.assert_allclose(found, spread, atol=2e-5 * np.abs(spread).max())


def test_a_file_of_before_has_the_same_float_graph(weights):
    first, second = (cut_float_graph(stamped(*weights, product=product), "stamped.onnx") for product in (True, False))
    assert [node.op_type for node in first.graph.node] == ["Conv", "Relu", "Conv", "DepthToSpace"]
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)


def test_a_file_that_is_no_fp32_file_of_ours_is_refused(weights, tiny_model):
    import onnx

    with pytest.raises(ModelFileError, match=r"m\.onnx scales its frames by another middle than 127\.5: 100\.0"):
        cut_float_graph(stamped(*weights, middle=100.0), "m.onnx")
    with pytest.raises(ModelFileError, match="it takes an fp32 file of ours"):
        cut_float_graph(onnx.load(tiny_model()), "tiny.onnx")


@pytest.mark.parametrize(("kind", "module"), [("onnxruntime", "onnxruntime"), ("opencv", "cv2")])
def test_runtimes_on_the_float_graph_agree(contender, kind, module):
    frames = np.random.default_rng(1).integers(0, 256, (2, *SIZE, 3), np.uint8)
    reference = peers.plain_onnxruntime(contender, 2)[0](frames)
    run = {"onnxruntime": peers.plain_onnxruntime, "opencv": peers.opencv_dnn}[kind]
    predict, detail, arithmetic = run(replace(contender, kind=kind), 2)
    assert np.mean(predict(frames) == reference) > 0.999
    assert predict(frames).dtype == np.uint8
    assert arithmetic == "fp32"
    assert detail


def test_onnxruntime_is_asked_for_the_processor(monkeypatch, contender):
    """A build for GPUs takes one unasked, and the row says cpu."""
    asked = []

    class Runtime:
        __version__ = "0"

        def InferenceSession(self, path, providers=("CUDAExecutionProvider",)):
            asked.append(list(providers))
            return SimpleNamespace(get_providers=lambda: asked[-1])

    monkeypatch.setattr(peers, "import_module", lambda name: Runtime())
    _, detail, _ = peers.plain_onnxruntime(contender, 1)
    assert asked == [["CPUExecutionProvider"]]
    assert "CPUExecutionProvider" in detail


class Tensor:
    """As much of a tensor as the torch peer needs, in numpy."""

    def __init__(self, array):
        self.array = array

    def permute(self, *axes):
        return Tensor(self.array.transpose(axes))

    def to(self, kind, **_):
        return self if isinstance(kind, str) else Tensor(self.array.astype(kind))

    def __truediv__(self, number):
        return Tensor(self.array / number)

    def __sub__(self, number):
        return Tensor(self.array - number)

    def argmax(self, dim):
        return Tensor(self.array.argmax(dim))

    def copy_(self, other):
        self.array[:] = other.array

    def cpu(self):
        return self

    def numpy(self):
        return self.array


def test_torch_gets_what_makes_it_fast_and_computes_what_its_name_says(monkeypatch):
    """Scaling and argmax are compiled too, convolutions searched for, and fp32 is no TF32."""
    compiled, locked, cudnn = [], [], SimpleNamespace(benchmark=False, allow_tf32=True)

    def network(scaled):
        return Tensor(np.concatenate([scaled.array, -scaled.array], axis=1))

    network.eval = lambda: network
    network.to = lambda **_: network
    fake = SimpleNamespace(
        cuda=SimpleNamespace(is_available=lambda: True, get_device_name=lambda: "Fake GPU"),
        backends=SimpleNamespace(cudnn=cudnn),
        set_num_threads=lambda count: None,
        compile=lambda work, mode: compiled.append((work, mode)) or work,
        empty=lambda shape, dtype, pin_memory: locked.append(pin_memory) or Tensor(np.zeros(shape, dtype)),
        inference_mode=contextlib.nullcontext,
        from_numpy=Tensor,
        channels_last="channels_last",
        **{name: np.dtype(name) for name in ("float16", "float32", "uint8")},
    )
    monkeypatch.setitem(sys.modules, "torch", fake)
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    monkeypatch.setattr(torch_peer, "torch_installed", lambda: True)
    monkeypatch.setattr(torch_peer, "_network", lambda contender: network)
    *_, contender = torch_contenders("run", SIZE, "digest", cuda=True)
    predict, name = torch_peer.torch_predictor(contender, 2)
    frames = np.random.default_rng(3).integers(0, 256, (2, *SIZE, 3), np.uint8)
    scaled = (frames.astype(np.float32) / 127.5 - 1).astype(np.float16)
    expected = np.concatenate([scaled, -scaled], axis=-1).argmax(axis=-1)
    np.testing.assert_array_equal(predict(frames), expected)
    ((labels, mode),) = compiled
    np.testing.assert_array_equal(labels(Tensor(frames)).array, expected)
    assert (mode, locked) == ("reduce-overhead", [True])
    assert (contender.compiled, cudnn.benchmark, cudnn.allow_tf32, name) == (True, True, False, "Fake GPU")


@pytest.mark.parametrize(
    ("load", "missing", "cure"),
    [
        (peers.native_openvino, "openvino", "pip install openvino"),
        (peers.plain_onnxruntime, "onnxruntime", "pip install onnxruntime"),
        (peers.opencv_dnn, "cv2", "pip install opencv-python-headless"),
    ],
)
def test_a_runtime_that_is_not_installed_names_its_cure(monkeypatch, contender, load, missing, cure):
    def absent(name):
        raise ImportError(name)

    monkeypatch.setattr(peers, "import_module", absent)
    with pytest.raises(MissingDependencyError, match=f"{missing} is not installed. Install it: {cure}"):
        load(contender, 1)


def test_every_peer_takes_part_or_says_why_not(monkeypatch, tmp_path, tiny_model):
    """Where nothing can be converted its rows fail with the reason; what needs no conversion still takes part."""
    run = tmp_path / "run"
    refused = subprocess.CompletedProcess([], 1, "", "error: planted\n")
    monkeypatch.setattr("benchmarks.settings.subprocess.run", lambda *_, **__: refused)
    settings = Settings(run=run, models=(tiny_model(),), out=tmp_path / "out", batch_sizes=(1, 4))
    field = find_field(settings, "digest", lambda _: None)
    assert {(row.kind, row.batch) for row in field.failed} == {
        (kind, batch) for kind in ("onnxruntime", "opencv", "litert") for batch in (1, 4)
    }
    assert all(row.reason.endswith("failed: planted") for row in field.failed)
    kinds = {contender.kind: contender for contender in field.contenders}
    assert {"openvino", "torch"} <= kinds.keys()
    assert kinds["openvino"].optional
    assert {row.kind for row in field.failed} | kinds.keys() >= set(PEERS)


@pytest.mark.parametrize(("installed", "said"), [(None, True), (SimpleNamespace(), False)])
def test_a_litert_that_is_tensorflows_says_so(monkeypatch, tmp_path, tiny_model, installed, said):
    monkeypatch.setattr("benchmarks.field.litert_folder", lambda *_: tmp_path)
    monkeypatch.setattr("benchmarks.field.fp32_file", lambda *_: tiny_model(precision="fp32"))
    monkeypatch.setattr("benchmarks.field.util.find_spec", lambda _: installed)
    settings = Settings(run=tmp_path, models=(tiny_model(),), out=tmp_path / "out", peers=("litert",), devices=("cpu",))
    field = find_field(settings, "digest", lambda _: None)
    assert any("tensorflow.lite" in note for note in field.notes) == said


def test_keras_compiled_computes_labels_and_no_softmax(monkeypatch):
    from benchmarks import runners
    from benchmarks.cases import keras_contenders
    from train.fcn8 import Fcn8Config, fcn8

    network = fcn8(Fcn8Config(input_size=SIZE, block_widths=(4, 4, 8, 8, 8), head_widths=(8, 8)))
    frames = np.random.default_rng(3).integers(0, 256, (2, *SIZE, 3), np.uint8)
    expected = network.predict_on_batch(scale_frames(frames)).argmax(axis=-1)

    def planted(*_, **__):
        raise AssertionError("the softmax ran")

    monkeypatch.setattr(network.get_layer("softmax"), "call", planted)
    monkeypatch.setattr(runners, "keras_model", lambda _: network)
    predict, *_ = runners.build(keras_contenders("run", SIZE, "")[1], 2)
    assert np.array_equal(predict(frames), expected)


def test_a_batch_that_was_not_converted_is_named(tmp_path):
    pytest.importorskip("tensorflow")
    contender = Contender(
        name="LiteRT", kind="litert", path=str(tmp_path), device="cpu", precision="fp32", size=SIZE, optional=True
    )
    with pytest.raises(ModelFileError, match=r"batch3\.tflite is not there"):
        peers.litert(contender, 3)


def test_the_float_graph_of_what_the_exporter_writes_is_keras(tmp_path):
    import keras
    import onnx
    import onnxruntime

    from export.convert import convert
    from export.draft import write_draft
    from export.wrap import wrap
    from train.fcn8 import Fcn8Config, fcn8, logits_model

    keras.utils.set_random_seed(5)
    network = fcn8(Fcn8Config(input_size=SIZE, block_widths=(4, 4, 8, 8, 8), head_widths=(8, 8)))
    draft = wrap(convert(network), size=SIZE)
    onnx.helper.set_model_props(draft.model, ModelSpec(input_size=SIZE, precision="fp32").to_metadata())
    write_draft(draft, tmp_path / "ours.onnx")
    float_graph = cut_float_graph(onnx.load(tmp_path / "ours.onnx"), "ours.onnx")
    frames = np.random.default_rng(3).integers(0, 256, (2, *SIZE, 3), np.uint8)
    session = onnxruntime.InferenceSession(float_graph.SerializeToString())
    (found,) = session.run([OUTPUT], {INPUT: scale_frames(frames).transpose(0, 3, 1, 2)})
    scores = logits_model(network).predict_on_batch(scale_frames(frames))
    np.testing.assert_allclose(found.transpose(0, 2, 3, 1), scores, atol=2e-5 * np.abs(scores).max())
