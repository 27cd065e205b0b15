"""What a graph asks for is known before a session is made: shapes as the runtime finds them, and bounds that hold."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_seg import bundled_model
from edge_seg.demand import MAX_WORK, OPERATORS, GraphError, _output, demand
from edge_seg.errors import ModelFileError, OutOfMemoryError
from edge_seg.memory import available_memory
from edge_seg.modelfile import read_model_header
from edge_seg.onnxwalk import Node, Tensor
from edge_seg.session import open_session

FRAMES = (2, 32, 64, 3)


def node(operator: str, *inputs: str, out: str = "y", **attributes) -> Node:
    return Node(operator, inputs, (out,), {k: v if isinstance(v, str) else tuple(v) for k, v in attributes.items()})


def shape_of(made: Node, **stored: tuple[int, ...]) -> tuple[int, ...]:
    """The shape a node gives for stored tensors of these shapes."""
    return _output(made, {name: Tensor(shape, 4) for name, shape in stored.items()}).shape


@st.composite
def windowed(draw):
    """A Conv, ConvTranspose or pool of any shape that ONNX allows."""
    operator = draw(st.sampled_from(["Conv", "ConvTranspose", "MaxPool", "AveragePool"]))
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    settings_ = {
        "kernel_shape": kernel,
        # Strides wider than the window make the runtime's automatic padding negative, which it then refuses.
        "strides": tuple(draw(st.integers(1, side)) for side in kernel),
    }
    if operator != "AveragePool":
        settings_["dilations"] = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    if draw(st.booleans()):
        settings_["pads"] = draw(st.tuples(*[st.integers(0, min(kernel) - 1)] * 4))
    else:
        settings_["auto_pad"] = draw(st.sampled_from(["SAME_UPPER", "SAME_LOWER", "VALID"]))
    if operator == "MaxPool":
        settings_["ceil_mode"] = (draw(st.integers(0, 1)),)
    sides = draw(st.tuples(st.integers(9, 14), st.integers(9, 14)))
    return operator, sides, kernel, settings_


@given(windowed())
@settings(max_examples=40, deadline=None, derandomize=True)
def test_windows_are_counted_as_the_runtime_counts_them(case):
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    operator, sides, kernel, attributes = case
    inputs, stored, weights = ["x"], {"x": (1, 2, *sides)}, []
    if operator in ("Conv", "ConvTranspose"):
        inputs.append("w")
        stored["w"] = (3, 2, *kernel) if operator == "Conv" else (2, 3, *kernel)
        weights = [numpy_helper.from_array(np.zeros(stored["w"], np.float32), "w")]
    plain = {key: value[0] if key == "ceil_mode" else value for key, value in attributes.items()}
    graph = helper.make_graph(
        [helper.make_node(operator, inputs, ["y"], **plain)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, stored["x"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    found = session.run(None, {"x": np.zeros(stored["x"], np.float32)})[0].shape
    expected = shape_of(node(operator, *inputs, **attributes), **stored)
    if operator == "ConvTranspose" and "auto_pad" in attributes:
        assert all(ours >= theirs for ours, theirs in zip(expected, found, strict=True)), "an upper bound"
    else:
        assert expected == found


@pytest.mark.parametrize(
    ("made", "stored", "expected"),
    [
        (node("Transpose", "x", perm=(0, 2, 1)), {"x": (2, 3, 4)}, (2, 4, 3)),
        (node("Transpose", "x"), {"x": (2, 3, 4)}, (4, 3, 2)),
        (node("DepthToSpace", "x", blocksize=(2,)), {"x": (1, 12, 5, 6)}, (1, 3, 10, 12)),
        (node("Add", "x", "b"), {"x": (2, 3, 4, 1), "b": (3, 1, 5)}, (2, 3, 4, 5)),
        (node("MatMul", "x", "b"), {"x": (2, 3, 4), "b": (4, 7)}, (2, 3, 7)),
        (node("ArgMax", "x", axis=(-1,), keepdims=(0,)), {"x": (2, 3, 4)}, (2, 3)),
        (node("ReduceMax", "x", axes=(1,)), {"x": (2, 3, 4)}, (2, 1, 4)),
        (node("Concat", "x", "b", axis=(1,)), {"x": (2, 3, 4), "b": (2, 9, 4)}, (2, 12, 4)),
        (node("GlobalAveragePool", "x"), {"x": (2, 3, 4, 5)}, (2, 3, 1, 1)),
    ],
)
def test_shapes(made, stored, expected):
    assert shape_of(made, **stored) == expected


def padded(shape: tuple[int, ...], pads: tuple[int, ...] | None) -> Tensor:
    known = {"x": Tensor(shape, 2), "p": Tensor((8,), 8, pads), "v": Tensor((), 2)}
    return _output(node("Pad", "x", "p", "v"), known)


def test_padding_adds_to_both_ends_of_each_side():
    made = padded((2, 3, 4, 5), (0, 1, 2, 3, 0, 4, 5, 6))
    assert (made.shape, made.item_bytes) == ((2, 8, 11, 14), 2)


@pytest.mark.parametrize("pads", [None, (0, 1), (0, 0, 0, 0, 0, 0, 0, -1), (1,) * 10])
def test_padding_that_is_unknown_or_takes_away_is_refused(pads):
    with pytest.raises(GraphError, match="Pad cannot be applied to"):
        padded((2, 3, 4, 5), pads)


@pytest.mark.parametrize(
    ("nodes", "words"),
    [
        ([node("Loop", "frames")], "operator 'Loop' is none"),
        ([node("Relu", "z")], "reads 'z', which nothing before it makes"),
        ([node("Relu", "b", out="a"), node("Relu", "a", out="b")], "reads 'b', which nothing before it makes"),
        ([node("Relu", "y")], "reads 'y'"),
        ([node("Relu", "frames"), node("Relu", "frames")], "two tensors are called 'y'"),
        ([node("Conv", "frames", "w")], "Conv cannot be applied to"),
        ([node("Transpose", "frames", perm=(0, 0, 1, 2))], "Transpose cannot be applied to"),
        ([node("Transpose", "frames", perm=(0, 1))], "Transpose cannot be applied to"),
        ([node("DepthToSpace", "frames", blocksize=(0,))], "DepthToSpace cannot"),
        ([node("DepthToSpace", "frames", blocksize=(-2,))], "DepthToSpace cannot"),
        ([node("MaxPool", "frames", kernel_shape=(2, 2), strides=(0, 1))], "MaxPool cannot"),
        ([node("MaxPool", "frames", kernel_shape=(2, 2), pads=(-9, 0, 0, 0))], "MaxPool cannot"),
        ([node("ArgMax", "frames", axis=(9,))], "ArgMax cannot"),
        ([node("Cast", "frames", to=(99,))], "Cast cannot"),
        ([node("Reshape", "frames", "w")], "Reshape cannot"),
        ([node("Add", "frames", "w")], "Add cannot"),
        ([node("MatMul", "frames", "w")], "MatMul cannot"),
        ([node("MatMul", "frames", "m")], "MatMul cannot"),
        ([node("MatMul", "frames", "f", "f")], "MatMul cannot"),
        ([Node("Relu", ("frames",), ("a", "b"), {})], "Relu with 1 inputs and 2 outputs"),
        ([Node("Relu", (), ("a",), {})], "Relu with 0 inputs"),
    ],
)
def test_graphs_that_cannot_be_are_refused_with_their_node(nodes, words):
    with pytest.raises(GraphError, match=words):
        demand(nodes, {"w": Tensor((5, 7, 3, 3), 4), "m": Tensor((5, 7), 4), "f": Tensor((3, 7), 4)}, FRAMES)


def test_a_product_over_nothing_is_still_written():
    stored = {"x": Tensor((1000, 0), 4), "m": Tensor((0, 1000), 4)}
    assert demand([node("MatMul", "x", "m")], stored, FRAMES).work == 10**6


@given(data=st.data())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_any_graph_has_a_demand_or_an_error(data):
    number = st.integers(-(2**63), 2**63 - 1) | st.integers(-2, 8)
    names = st.sampled_from(["frames", "w", "m", "s", "a", "b", ""])
    attributes = st.dictionaries(
        st.sampled_from(
            ["axis", "axes", "perm", "pads", "strides", "kernel_shape", "blocksize", "to", "group", "start"]
        ),
        st.lists(number, max_size=5).map(tuple) | st.text(max_size=3),
        max_size=4,
    )
    nodes = [
        Node(data.draw(st.sampled_from(sorted(OPERATORS))), tuple(inputs), (out,), data.draw(attributes))
        for out in "abcd"
        for inputs in [data.draw(st.lists(names, min_size=1, max_size=3))]
    ]
    stored = {
        "w": Tensor((5, 3, 3, 3), 4),
        "m": Tensor((3, 7), 4),
        "s": Tensor((2,), 8, tuple(data.draw(st.lists(number, min_size=2, max_size=2)))),
    }
    try:
        found = demand(nodes, stored, FRAMES)
    except GraphError:
        return
    assert found.bytes >= 0
    assert found.work >= 0


def test_the_bundled_models_demand_is_about_what_it_takes():
    header = read_model_header(bundled_model())
    one, four = (header.demand(batch, header.spec.input_size) for batch in (1, 4))
    # 38 G multiply-adds a frame, counted by hand from the widths; measured at about 100 MB for one frame.
    assert one.work == pytest.approx(3.8e10, rel=0.02)
    assert four.work == pytest.approx(4 * one.work, rel=1e-3)
    assert 80e6 < one.bytes < 250e6
    weights = header.contents.weight_bytes
    assert one.bytes - weights < four.bytes - weights < 4.1 * (one.bytes - weights)


def widen(channels: int):
    """A convolution of 1x1 to `channels` channels: few bytes in the file, much memory at run time."""

    def change(model):
        from onnx import helper, numpy_helper

        at = next(index for index, item in enumerate(model.graph.node) if item.op_type == "Conv")
        kernel = np.zeros((channels, 3, 1, 1), np.float32)
        model.graph.initializer.append(numpy_helper.from_array(kernel, "wide"))
        back = np.zeros((3, channels, 1, 1), np.float32)
        model.graph.initializer.append(numpy_helper.from_array(back, "back"))
        model.graph.node[at].input[0] = "narrow"
        model.graph.node.insert(at, helper.make_node("Conv", ["wide_planes", "back"], ["narrow"]))
        model.graph.node.insert(at, helper.make_node("Conv", ["planes", "wide"], ["wide_planes"]))

    return change


def test_a_small_file_that_asks_for_more_memory_than_there_is_is_refused(tiny_model, monkeypatch):
    path = tiny_model(size=(2048, 4096), golden=None, change=widen(4096))
    assert path.stat().st_size < 250_000

    def never(*arguments):
        pytest.fail("a session was made")

    monkeypatch.setattr("edge_seg.session.make_inner", never)
    with pytest.raises(
        OutOfMemoryError, match=r"cpu has no memory for .*tiny1\.onnx: a batch of 1 of 4096x2048 takes 13\d\."
    ):
        open_session(path, device="cpu")


def test_the_limit_is_what_is_free(tiny_model, monkeypatch):
    path = tiny_model(change=widen(64))
    asked = read_model_header(path).demand(2, (32, 64)).bytes
    monkeypatch.setattr("edge_seg.session.available_memory", lambda: asked)
    open_session(path, device="cpu", batch_size=2).close()
    monkeypatch.setattr("edge_seg.session.available_memory", lambda: asked - 1)
    with pytest.raises(OutOfMemoryError, match="Use a smaller batch"):
        open_session(path, device="cpu", batch_size=2)


def test_weights_that_multiply_one_another_are_counted_before_they_are_folded(tiny_model, monkeypatch):
    """Two rows of 100 KB broadcast to 2.5 GB, which a runtime computes while it opens the file."""

    def change(model):
        from onnx import helper, numpy_helper

        for name, shape in (("row", (1, 25_000)), ("column", (25_000, 1))):
            model.graph.initializer.append(numpy_helper.from_array(np.zeros(shape, np.float32), name))
        model.graph.node.append(helper.make_node("Add", ["row", "column"], ["square"]))

    monkeypatch.setattr("edge_seg.session.available_memory", lambda: 10**9)
    with pytest.raises(OutOfMemoryError, match=r"takes 2\.5 GB, 1\.0 GB are free"):
        open_session(tiny_model(change=change), device="cpu")


def test_work_without_end_is_refused(tiny_model):
    def change(model):
        from onnx import helper, numpy_helper

        model.graph.initializer.append(numpy_helper.from_array(np.zeros((3, 3, 999, 999), np.float32), "large"))
        last = "planes"
        for index in range(300):
            model.graph.node.append(
                helper.make_node("Conv", [last, "large"], [f"p{index}"], pads=[499] * 4, name=f"slow{index}")
            )
            last = f"p{index}"

    with pytest.raises(ModelFileError, match=rf"multiply-adds a frame, more than {MAX_WORK:.1e}".replace("+", r"\+")):
        open_session(tiny_model(size=(64, 64), change=change), device="cpu")


def files(root, **contents):
    for name, text in contents.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_free_memory_is_the_least_that_anyone_leaves(tmp_path):
    assert available_memory(root=tmp_path) is None
    files(tmp_path, proc__meminfo="MemTotal: 9 kB\nMemAvailable:    4000 kB\n")
    assert available_memory(root=tmp_path) == 4_096_000
    files(tmp_path, proc__self__cgroup="0::/box\n")
    group = "sys__fs__cgroup__box__memory."
    files(tmp_path, **{f"{group}max": "3000000\n", f"{group}current": "2000000\n"})
    assert available_memory(root=tmp_path) == 1_000_000
    files(tmp_path, **{f"{group}stat": "anon 5\ninactive_file 500000\n"})
    assert available_memory(root=tmp_path) == 1_500_000, "the kernel gives cached files back"
    files(tmp_path, **{f"{group}max": "max\n"})
    assert available_memory(root=tmp_path) == 4_096_000
    files(tmp_path, proc__self__cgroup="4:memory:/box\n")
    group = "sys__fs__cgroup__memory__memory."
    files(tmp_path, **{f"{group}limit_in_bytes": "900", f"{group}usage_in_bytes": "1000"})
    assert available_memory(root=tmp_path) == 0


def test_a_limit_on_the_address_space_counts_too(tmp_path, monkeypatch):
    import resource

    files(tmp_path, proc__meminfo="MemAvailable:    4000 kB\n", proc__self__status="VmSize:    1000 kB\n")
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (1_500_000, 2_000_000))
    assert available_memory(root=tmp_path) == 1_500_000 - 1_024_000


def test_this_machine_says_what_is_free():
    assert available_memory() > 100e6
