"""Conversion, contract and float16: the graph computes what Keras computes, whatever opset, size or batch."""

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from edge_seg.errors import ConversionError
from edge_seg.preprocess import scale_frames
from export.convert import convert, rewrite_transposed_convolutions
from export.draft import Draft, attributes, write_draft
from export.gate import largest_shares, unpack_logits
from export.half import to_half
from export.late import suit_gpu
from export.passes import PLAIN_OPERATORS
from export.quantize import quantized_convolutions
from export.wrap import wrap
from train.fcn8 import Fcn8Config, fcn8, logits_model

SIZE = (64, 96)


def run(draft: Draft, folder, feeds, outputs=None):
    if outputs is None:
        draft.check()
    write_draft(draft, folder / "model.onnx")
    session = onnxruntime.InferenceSession(str(folder / "model.onnx"), providers=["CPUExecutionProvider"])
    return session.run(outputs, feeds)


def expose(draft: Draft, name: str) -> Draft:
    fork = draft.fork()
    fork.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    return fork


@pytest.fixture(scope="module")
def expected(model, scenes):
    """Keras' logits (9, 64, 96, 12) of the scenes."""
    return logits_model(model).predict_on_batch(scale_frames(scenes[0]))


def at_opset(draft: Draft, opset: int) -> Draft:
    fork = draft.fork()
    fork.model.opset_import[0].version = opset
    fork.model.ir_version = helper.find_min_ir_version_for(fork.model.opset_import)
    return fork


def test_the_network_is_plain_and_gives_keras_logits(network, scenes, expected, tmp_path):
    assert {node.op_type for node in network.nodes} <= PLAIN_OPERATORS - {"ConvTranspose"}
    (logits,) = run(network, tmp_path, {"scaled": scale_frames(scenes[0]).transpose(0, 3, 1, 2)})
    np.testing.assert_allclose(logits.transpose(0, 2, 3, 1), expected, atol=2e-5)


def test_two_conversions_are_alike_to_the_letter(network, model):
    again = convert(model)
    assert again.model.SerializeToString(deterministic=True) == network.model.SerializeToString(deterministic=True)
    assert (again.graph.name, again.graph.doc_string) == ("fcn8", "")


def test_every_parameter_is_in_the_draft_once(network, model):
    assert sum(array.size for array in network.weights.values()) == model.count_params()
    assert "block1_conv1.kernel" in network.weights
    assert "upsample8.kernel" in network.weights
    names = [node.name for node in network.nodes]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("opset", [15, 17, 18, 21, 22])
def test_the_contract_holds_at_every_opset(network, scenes, expected, tmp_path, opset, dynamic):
    draft = wrap(at_opset(network, opset), size=SIZE, dynamic_size=dynamic, outputs=("labels", "confidence"))
    labels, confidence = run(draft, tmp_path, {"frames": scenes[0][:3]})
    assert labels.dtype == np.uint8
    assert labels.shape == (3, *SIZE)
    np.testing.assert_array_equal(labels, expected[:3].argmax(-1))
    shares = np.exp(expected[:3] - expected[:3].max(-1, keepdims=True))
    assert confidence.dtype == np.float16
    np.testing.assert_allclose(confidence, shares.max(-1) / shares.sum(-1), atol=1e-3)
    model = onnx.load(tmp_path / "model.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version == opset
    assert model.ir_version == (8 if opset < 19 else 10)
    sides = [dim.dim_param or dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
    assert sides == (["N", "H", "W", 3] if dynamic else ["N", *SIZE, 3])


@pytest.mark.parametrize("dynamic", [False, True])
def test_each_pixel_of_a_square_gets_its_own_label_and_confidence(network, scenes, tmp_path, dynamic):
    """A fresh network's upsampling is bilinear, which a change of rows and columns leaves as it is; this one is not."""
    draft = network.fork()
    kernel = draft.weights["upsample8.kernel"]
    random = np.random.default_rng(5).standard_normal(kernel.shape)
    draft.weights["upsample8.kernel"] = (kernel.std() * random).astype(np.float32)
    draft = wrap(draft, size=SIZE, dynamic_size=dynamic, outputs=("labels", "confidence"), confidence_type="float32")
    names = ["labels", "confidence", draft.logits]
    labels, confidence, packed = run(expose(draft, draft.logits), tmp_path, {"frames": scenes[0][:3]}, names)
    logits = unpack_logits(packed, draft.block)
    np.testing.assert_array_equal(labels, logits.argmax(-1))
    np.testing.assert_allclose(confidence, largest_shares(logits), rtol=1e-5)


def test_a_dynamic_model_takes_other_sizes(model, network, scenes, tmp_path):
    other = fcn8(Fcn8Config(input_size=(96, 160), block_widths=(8, 8, 16, 16, 16), head_widths=(32, 32)))
    other.set_weights(model.get_weights())
    frames = np.random.default_rng(3).integers(0, 256, (2, 96, 160, 3), np.uint8)
    expected = logits_model(other).predict_on_batch(scale_frames(frames))
    draft = wrap(network.fork(), size=SIZE, dynamic_size=True)
    (labels,) = run(draft, tmp_path, {"frames": frames})
    assert (labels == expected.argmax(-1)).mean() > 0.9999


def test_a_fixed_model_refuses_other_sizes(network, tmp_path):
    draft = wrap(network.fork(), size=SIZE)
    with pytest.raises(Exception, match="frames"):
        run(draft, tmp_path, {"frames": np.zeros((1, 96, 96, 3), np.uint8)})


def test_the_lowest_id_wins_a_tie_as_in_keras(network, tmp_path):
    draft = network.fork()
    draft.weights = {name: np.zeros_like(array) for name, array in draft.weights.items()}
    labels, confidence = run(
        wrap(draft, size=SIZE, outputs=("labels", "confidence"), confidence_type="float32"),
        tmp_path,
        {"frames": np.full((2, *SIZE, 3), 77, np.uint8)},
    )
    assert not labels.any()
    assert confidence.dtype == np.float32
    np.testing.assert_allclose(confidence, 1 / 12, rtol=1e-6)


def test_scaling_is_exact_at_the_border_too(network, tmp_path, model):
    """A frame of extremes: padding must still stand for the middle grey that Keras' zero stands for."""
    frames = np.zeros((1, *SIZE, 3), np.uint8)
    frames[:, ::2] = 255
    first = keras.Model(model.input, model.get_layer("block1_conv1").output)
    expected = first.predict_on_batch(scale_frames(frames))
    draft = expose(wrap(network.fork(), size=SIZE), "block1_conv1.relu")
    (found,) = run(draft, tmp_path, {"frames": frames}, ["block1_conv1.relu"])
    np.testing.assert_allclose(found.transpose(0, 2, 3, 1), expected, atol=1e-5)


def test_float16_weights_and_arithmetic_keep_the_labels(network, scenes, expected, tmp_path):
    draft = to_half(wrap(network.fork(), size=SIZE, outputs=("labels", "confidence"), confidence_type="float32"))
    labels, confidence = run(draft, tmp_path, {"frames": scenes[0]})
    assert (labels == expected.argmax(-1)).mean() >= 0.995
    assert confidence.dtype == np.float32
    heavy = {name: array.dtype for name, array in draft.weights.items() if array.ndim in (2, 4)}
    assert {name for name, dtype in heavy.items() if dtype != np.float16} == {"upsample8.kernel"}


@pytest.mark.parametrize("dynamic", [False, True])
def test_a_file_for_a_gpu_computes_the_same_in_fewer_passes(network, scenes, tmp_path, dynamic):
    """With biases large enough that one which met the padding, or came before a Relu, would show."""
    draft, random = network.fork(), np.random.default_rng(5)
    for name, array in draft.weights.items():
        if array.ndim == 1 and array.dtype == np.float32:
            draft.weights[name] = random.normal(0, 0.5, array.shape).astype(np.float32)
    half = to_half(wrap(draft, size=SIZE, dynamic_size=dynamic))
    logits = half.logits
    (wanted,) = run(expose(half, logits), tmp_path, {"frames": scenes[0]}, [logits])
    suited = suit_gpu(half.fork())
    (found,) = run(expose(suited, logits), tmp_path, {"frames": scenes[0]}, [logits])
    np.testing.assert_allclose(found, wanted, rtol=0.02, atol=0.004 * np.abs(wanted).max())
    suited.check()
    convolutions = [node for node in suited.nodes if node.op_type == "Conv"]
    assert len(convolutions) == len([node for node in half.nodes if node.op_type == "Conv"])
    assert [node.name for node in convolutions if len(node.input) == 3] == []
    assert suited.weights[convolutions[0].input[1]].shape[1] == 8
    pools = [node for node in suited.nodes if node.op_type == "MaxPool"]
    assert {suited.producer(pool.input[0]).op_type for pool in pools} == {"Conv"}
    assert {suited.consumers(pool.output[0])[0].op_type for pool in pools} == {"Add"}


def test_what_two_layers_read_is_pooled_where_it_was(network):
    half = to_half(wrap(network.fork(), size=SIZE))
    pools = [node for node in half.nodes if node.op_type == "MaxPool"]
    relu = pools[1].input[0]
    half.graph.node.append(helper.make_node("Relu", [relu], ["also"], "also"))
    suited = suit_gpu(half)
    kinds = [suited.producer(node.input[0]).op_type for node in suited.nodes if node.op_type == "MaxPool"]
    assert kinds == ["Conv", "Relu", "Conv", "Conv", "Conv"]
    assert suited.producer(relu).op_type == "Relu"


def test_a_weight_too_large_for_float16_is_named(network):
    draft = wrap(network.fork(), size=SIZE)
    draft.weights["conv6.bias"] = draft.weights["conv6.bias"] + 1e5
    with pytest.raises(ConversionError, match=r"conv6\.bias holds 1e\+05.*fp32"):
        to_half(draft)


def transposed(settings: dict, kernel: np.ndarray, bias: np.ndarray | None = None) -> Draft:
    weights = {"kernel": kernel} | ({} if bias is None else {"bias": bias})
    stride, edge = settings["strides"][0], settings["kernel_shape"][0]
    shape = ["N", kernel.shape[1], 4 * stride + edge, 6 * stride + edge]
    graph = helper.make_graph(
        [helper.make_node("ConvTranspose", ["x", *weights], ["y"], "up", **settings)],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", kernel.shape[0], 5, 7])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
    )
    return Draft(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), weights)


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("block", [2, 4, 8])
def test_a_rewritten_transposed_convolution_is_exact(tmp_path, block, with_bias):
    random = np.random.default_rng(block)
    # Small whole numbers: no sum is rounded, so "exact" means equal.
    kernel = random.integers(-8, 9, (6, 3, block, block)).astype(np.float32)
    bias = random.integers(-8, 9, 3).astype(np.float32) if with_bias else None
    x = random.integers(-8, 9, (2, 6, 5, 7)).astype(np.float32)
    draft = transposed({"kernel_shape": [block, block], "strides": [block, block]}, kernel, bias)
    (before,) = run(draft, tmp_path, {"x": x})
    rewrite_transposed_convolutions(draft)
    assert [node.op_type for node in draft.nodes] == ["Conv", "DepthToSpace"]
    assert attributes(draft.nodes[1]) == {"blocksize": block, "mode": "CRD"}
    (after,) = run(draft, tmp_path, {"x": x})
    np.testing.assert_array_equal(before, after)


def test_an_overlapping_transposed_convolution_stays(tmp_path):
    draft = transposed({"kernel_shape": [4, 4], "strides": [2, 2]}, np.ones((6, 3, 4, 4), np.float32))
    rewrite_transposed_convolutions(draft)
    assert [node.op_type for node in draft.nodes] == ["ConvTranspose"]


def test_logits_are_unpacked_as_depth_to_space_does(tmp_path):
    packed = np.random.default_rng(0).standard_normal((2, 12 * 16, 3, 5)).astype(np.float32)
    node = helper.make_node("DepthToSpace", ["x"], ["y"], blocksize=4, mode="CRD")
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in "xy"]
    graph = helper.make_graph([node], "graph", ends[:1], ends[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, {"x": packed})
    np.testing.assert_array_equal(unpack_logits(packed.transpose(0, 2, 3, 1), 4), expected.transpose(0, 2, 3, 1))


def test_a_converter_that_breaks_is_named_with_its_versions(model, monkeypatch):
    import tf2onnx

    def broken(*args, **kwargs):
        raise AttributeError("module 'numpy' has no attribute 'cast'")

    monkeypatch.setattr(tf2onnx.convert, "from_function", broken)
    with pytest.raises(ConversionError, match=r"no attribute 'cast'.*tf2onnx \d.*tensorflow \d.*numpy \d.*pip install"):
        convert(model)


def test_layers_of_one_filter_are_exported_too(scenes, tmp_path):
    """tf2onnx writes their changes of layout as reshapes."""
    keras.utils.set_random_seed(3)
    thin = fcn8(Fcn8Config(input_size=SIZE, block_widths=(1, 8, 1, 8, 8), head_widths=(8, 1)))
    expected = logits_model(thin).predict_on_batch(scale_frames(scenes[0]))
    (logits,) = run(convert(thin), tmp_path, {"scaled": scale_frames(scenes[0]).transpose(0, 3, 1, 2)})
    np.testing.assert_allclose(logits.transpose(0, 2, 3, 1), expected, atol=2e-5)


def test_a_last_layer_with_a_bias_stays_a_convolution_in_float32(network, scenes, expected, tmp_path):
    draft = network.fork()
    last = next(node for node in draft.graph.node if node.name == "upsample8.conv")
    bias = np.random.default_rng(4).standard_normal(12 * 64).astype(np.float32)
    draft.weights["upsample8.bias"] = bias
    last.input.append("upsample8.bias")
    square = unpack_logits(bias[None, None, None], 8)[0]
    wanted = (expected + np.tile(square, (SIZE[0] // 8, SIZE[1] // 8, 1))).argmax(-1)
    wrapped = wrap(draft, size=SIZE)
    assert "MatMul" not in {node.op_type for node in wrapped.nodes}
    assert not [node.name for node in quantized_convolutions(wrapped) if node.name.startswith("upsample8")]
    (labels,) = run(wrapped, tmp_path, {"frames": scenes[0]})
    np.testing.assert_array_equal(labels, wanted)
    half = to_half(wrapped)
    assert half.weights["upsample8.kernel"].dtype == half.weights["upsample8.bias"].dtype == np.float32
    for draft in (half, suit_gpu(half.fork())):
        (labels,) = run(draft, tmp_path, {"frames": scenes[0]})
        assert (labels == wanted).mean() >= 0.995
