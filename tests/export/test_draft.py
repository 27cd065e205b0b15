"""Drafts and passes: what is written is what protobuf would write, and no pass gets away with a broken promise."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edge_seg.errors import ConversionError, ModelFileError
from export.draft import Draft, append_metadata, fresh_name, write_draft
from export.passes import PROPERTIES, Pass, is_depth_to_space, run_passes


def make_draft(**weights: np.ndarray) -> Draft:
    weights = weights or {"kernel": np.arange(12 * 3, dtype=np.float32).reshape(12, 3, 1, 1)}
    inputs = ["scaled", *weights]
    graph = helper.make_graph(
        [helper.make_node("Conv", inputs, ["logits"], "conv", kernel_shape=[1, 1])],
        "graph",
        [helper.make_tensor_value_info("scaled", TensorProto.FLOAT, ["N", 3, 4, 4])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 12, 4, 4])],
    )
    return Draft(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), weights)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int8, np.uint8, np.int64])
def test_a_written_file_reads_back_as_it_was(tmp_path, dtype):
    big = np.random.default_rng(0).integers(-9, 9, (12, 3, 1, 1)).astype(dtype)
    draft = make_draft(kernel=big, bias=np.zeros(12, dtype))
    path = tmp_path / "model.onnx"
    write_draft(draft, path, {"key": "value"})
    append_metadata(path, {"later": "ö" * 300})
    model = onnx.load(path)
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert found.keys() == {"kernel", "bias"}
    np.testing.assert_array_equal(found["kernel"], big)
    assert found["kernel"].dtype == dtype
    assert {entry.key: entry.value for entry in model.metadata_props} == {"key": "value", "later": "ö" * 300}
    assert model.graph.node == draft.graph.node


def test_a_transposed_view_is_written_in_its_own_order(tmp_path):
    view = np.arange(36, dtype=np.float32).reshape(3, 12).T[:, :, None, None]
    write_draft(make_draft(kernel=view), tmp_path / "model.onnx")
    (tensor,) = onnx.load(tmp_path / "model.onnx").graph.initializer
    np.testing.assert_array_equal(numpy_helper.to_array(tensor), view)


def test_a_file_above_two_gigabytes_is_refused_before_it_is_written(tmp_path):
    huge = np.broadcast_to(np.float32(0), (2**29, 1, 1, 1))
    with pytest.raises(ModelFileError, match=r"2 GiB.*fp16"):
        write_draft(make_draft(kernel=huge), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_the_checker_sees_a_graph_without_its_weights():
    draft = make_draft()
    draft.check()
    draft.graph.node[0].input[0] = "nothing"
    with pytest.raises(ConversionError, match="not valid ONNX at opset 17"):
        draft.check()


def test_a_fork_leaves_the_draft_alone():
    draft = make_draft()
    fork = draft.fork()
    fork.graph.node[0].name = "other"
    fork.weights["more"] = np.zeros(1)
    assert draft.graph.node[0].name == "conv"
    assert "more" not in draft.weights


def test_weights_that_nothing_reads_are_dropped():
    draft = make_draft(kernel=np.zeros((12, 3, 1, 1), np.float32), bias=np.zeros(12, np.float32))
    del draft.graph.node[0].input[2]
    draft.set_nodes(draft.nodes)
    assert list(draft.weights) == ["kernel"]


def test_fresh_names_are_fresh():
    draft = make_draft()
    assert fresh_name(draft, "new") == "new"
    assert fresh_name(draft, "kernel") == "kernel_2"
    assert fresh_name(draft, "logits") == "logits_2"


def test_passes_run_in_order():
    seen = []
    steps = [Pass(name=str(index), apply=lambda draft, index=index: seen.append(index)) for index in range(3)]
    run_passes(make_draft(), steps)
    assert seen == [0, 1, 2]


def test_a_pass_whose_requirement_is_missing_is_not_run():
    seen = []
    step = Pass(name="greedy", requires=frozenset({"uint8 contract"}), apply=seen.append)
    with pytest.raises(ConversionError, match=r"'greedy' needs a graph with: uint8 contract \(operators: Conv\)"):
        run_passes(make_draft(), [step])
    assert not seen


def test_a_pass_that_does_not_keep_its_promise_is_named():
    step = Pass(name="idle", ensures=frozenset({"int8 convolutions"}), apply=lambda draft: None)
    with pytest.raises(ConversionError, match="'idle' left a graph without: int8 convolutions"):
        run_passes(make_draft(), [step])


def test_a_pass_names_known_properties_only():
    with pytest.raises(ValueError, match="no such thing"):
        Pass(name="odd", requires=frozenset({"no such thing"}), apply=lambda draft: None)


def test_properties_look_at_the_graph():
    draft = make_draft()
    held = {name for name, test in PROPERTIES.items() if test(draft)}
    assert held == {"weights inside", "channels first", "no exact transposed convolution", "plain operators"}


@pytest.mark.parametrize(
    ("settings", "exact"),
    [
        ({"kernel_shape": [4, 4], "strides": [4, 4]}, True),
        ({"kernel_shape": [4, 4], "strides": [4, 4], "pads": [0, 0, 0, 0], "auto_pad": "NOTSET"}, True),
        ({"kernel_shape": [4, 4], "strides": [2, 2]}, False),
        ({"kernel_shape": [4, 2], "strides": [4, 2]}, False),
        ({"kernel_shape": [4, 4], "strides": [4, 4], "pads": [1, 1, 1, 1]}, False),
        ({"kernel_shape": [4, 4], "strides": [4, 4], "dilations": [2, 2]}, False),
        ({"kernel_shape": [4, 4], "strides": [4, 4], "output_padding": [1, 1]}, False),
        ({"kernel_shape": [4, 4], "strides": [4, 4], "group": 2}, False),
        ({"kernel_shape": [4, 4], "strides": [4, 4], "auto_pad": "SAME_UPPER"}, False),
        ({"strides": [4, 4]}, False),
    ],
)
def test_only_exact_transposed_convolutions_are_rewritten(settings, exact):
    assert is_depth_to_space(helper.make_node("ConvTranspose", ["x", "w"], ["y"], **settings)) is exact
