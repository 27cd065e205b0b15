"""Keras -> ONNX: the network's arithmetic, float32, (N, 3, H, W) scaled frames to (N, classes, H, W) logits.

tf2onnx holds every weight many times over while it works (55 bytes for each byte). So the network is traced with its
weights as *inputs*: tf2onnx sees 13 KB of graph, and the weights are put in afterwards, with their transposes folded.
Knows nothing of frames, argmax, precision or files.
"""

from __future__ import annotations

import contextlib
import io
import logging
from collections.abc import Iterator
from typing import Any

import keras
import numpy as np
import onnx
from onnx import helper

from edge_seg.errors import ConversionError
from edge_seg.versions import installed
from train.fcn8 import logits_model

from .draft import Draft, adopt, attributes, fresh_name
from .passes import Pass, is_depth_to_space, run_passes

SCALED, LOGITS = "scaled", "logits"
# Traced at one opset that tf2onnx supports well; the operators that remain mean the same in every opset on offer.
TRACE_OPSET = 15
MIN_OPSET, DEFAULT_OPSET, MAX_OPSET = 15, 17, 22


def convert(model: keras.Model, *, opset: int = DEFAULT_OPSET) -> Draft:
    """Turn a plain FCN8 into a draft from `scaled` (N, 3, H, W) float32 to `logits` (N, classes, H, W) float32.

    The batch size is free; height and width are the model's, though no node depends on them.

    Raises:
        ConversionError: TensorFlow, Keras and tf2onnx do not fit together, or the graph is not what the passes expect.
    """
    variables = list(model.trainable_variables)
    height, width = model.input_shape[1:3]
    draft = adopt(_trace(logits_model(model), (1, height or 224, width or 224, 3)))
    run_passes(draft, (_put_weights_in(variables), *PASSES))
    del draft.model.opset_import[:]
    draft.model.opset_import.append(helper.make_opsetid("", opset))
    # The oldest IR version that allows this opset, for old runtimes; new ones read it too.
    draft.model.ir_version = helper.find_min_ir_version_for(draft.model.opset_import)
    draft.model.producer_name, draft.model.producer_version = "edge_seg", ""
    # Viewers show both. tf2onnx writes a count of the process' traces there, so no two files would be alike.
    draft.graph.name, draft.graph.doc_string = "fcn8", ""
    return draft


def _view(variable: keras.Variable) -> np.ndarray:
    """A variable's values, not copied if TensorFlow lends its buffer: conv6 alone is 411 MB."""
    tensor = variable.value.read_value()
    try:
        return np.asarray(memoryview(tensor))
    except (TypeError, ValueError, BufferError):
        return np.asarray(tensor)


def _weight_names(count: int) -> list[str]:
    return [f"weight_{index}" for index in range(count)]


def _trace(model: keras.Model, shape: tuple[int, ...]) -> onnx.ModelProto:
    import tensorflow as tf
    import tf2onnx

    variables = model.trainable_variables
    names = _weight_names(len(variables))
    signature = [tf.TensorSpec(v.shape, tf.float32, name=name) for v, name in zip(variables, names, strict=True)]
    signature.append(tf.TensorSpec(shape, tf.float32, name=SCALED))

    def network(*values: Any) -> Any:
        return model.stateless_call(list(values[:-1]), [], values[-1], training=False)[0]

    try:
        with _quiet():
            traced = tf.function(network, input_signature=signature, autograph=False)
            proto, _ = tf2onnx.convert.from_function(traced, input_signature=signature, opset=TRACE_OPSET)
    except Exception as error:  # tf2onnx raises errors of any type; the versions are what a user needs
        packages = ("tf2onnx", "tensorflow", "keras", "onnx", "numpy")
        versions = installed(packages)
        found = ", ".join(f"{name} {versions.get(name, 'missing')}" for name in packages)
        raise ConversionError(
            f"tf2onnx could not convert the network ({type(error).__name__}: {str(error).strip()[:200]}). "
            f"Installed: {found}. Install the tested versions: pip install -r requirements/test.txt"
        ) from error
    return proto


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence tf2onnx, which logs every step of its optimizer."""
    logger = logging.getLogger("tf2onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def _put_weights_in(variables: list[keras.Variable]) -> Pass:
    def apply(draft: Draft) -> None:
        # Each array is folded before the next is read, so that there is never a second copy of all weights.
        for name, variable in zip(_weight_names(len(variables)), variables, strict=True):
            inputs = [value for value in draft.graph.input if value.name != name]
            del draft.graph.input[:]
            draft.graph.input.extend(inputs)
            draft.weights[name] = _view(variable)
            fold_constants(draft)

    return Pass(
        name="put the weights in",
        requires=frozenset({"weights outside"}),
        ensures=frozenset({"weights inside"}),
        apply=apply,
    )


def fold_constants(draft: Draft) -> None:
    """Compute the nodes that depend only on weights: transposes of kernels, reshapes of biases."""
    left = []
    for node in draft.nodes:
        operation = _FOLDS.get(node.op_type)
        arrays = [draft.weights.get(name) for name in node.input]
        if operation is None or any(array is None for array in arrays):
            left.append(node)
        else:
            draft.weights[node.output[0]] = np.ascontiguousarray(operation(node, *arrays))
    draft.set_nodes(left)


def _squeeze(node: onnx.NodeProto, array: np.ndarray, axes: np.ndarray | None = None) -> np.ndarray:
    return np.squeeze(array, None if axes is None else tuple(int(axis) for axis in axes))


_FOLDS: dict[str, Any] = {
    "Identity": lambda node, array: array,
    "Transpose": lambda node, array: array.transpose(attributes(node)["perm"]),
    "Reshape": lambda node, array, shape: array.reshape([int(size) for size in shape]),
    "Squeeze": _squeeze,
}


def take_channels_first(draft: Draft) -> None:
    """Drop the transposes at both ends, so that the graph reads and writes (N, C, H, W), with N free."""
    first, last = draft.consumers(draft.graph.input[0].name), draft.producer(draft.graph.output[0].name)
    ends = [*first, last]
    if any(node is None or node.op_type != "Transpose" for node in ends) or last is None:
        raise ConversionError("expected the traced network to begin and end with a change of layout; it does not.")
    shape = [dim.dim_value for dim in draft.graph.input[0].type.tensor_type.shape.dim]
    classes = draft.graph.output[0].type.tensor_type.shape.dim[3].dim_value
    for node in first:
        draft.rename(node.output[0], SCALED)
    scores = draft.producer(last.input[0])
    assert scores is not None
    scores.output[0] = LOGITS
    outputs = [output for node in ends if node is not None for output in node.output]
    draft.set_nodes(node for node in draft.nodes if node.output[0] not in outputs)
    _set_ends(draft, ["N", 3, *shape[1:3]], ["N", classes, *shape[1:3]])


def _set_ends(draft: Draft, shape_in: list[Any], shape_out: list[Any]) -> None:
    graph = draft.graph
    for values, name, shape in ((graph.input, SCALED, shape_in), (graph.output, LOGITS, shape_out)):
        del values[:]
        values.append(helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
    del graph.value_info[:]


def drop_idle_reshapes(draft: Draft) -> None:
    """Drop the reshapes that stand for layout changes of maps of one pixel (as 32x32 frames have) or of one channel."""
    left = []
    for node in draft.nodes:
        target = draft.weights.get(node.input[1]) if node.op_type == "Reshape" else None
        # All maps are channels first by now, and the values of such a map have the same order in either layout.
        if target is not None and target.size == 4 and target[0] == 1 and 1 in (target[1], target[3]):
            draft.rename(node.output[0], node.input[0])
        else:
            left.append(node)
    draft.set_nodes(left)


def rewrite_transposed_convolutions(draft: Draft) -> None:
    """Make those with stride = kernel a 1x1 Conv and a DepthToSpace: exact, as each output pixel has one source."""
    nodes = []
    for node in draft.nodes:
        exact = node.op_type == "ConvTranspose" and is_depth_to_space(node) and node.input[1] in draft.weights
        nodes += _as_depth_to_space(draft, node) if exact else [node]
    draft.set_nodes(nodes)


def _as_depth_to_space(draft: Draft, node: onnx.NodeProto) -> list[onnx.NodeProto]:
    kernel = draft.weights[node.input[1]]  # (in, out, block, block)
    inputs, block = kernel.shape[0], kernel.shape[2]
    name = fresh_name(draft, f"{node.name}.kernel")
    # DepthToSpace in CRD order reads channels as (out, row, column).
    draft.weights[name] = np.ascontiguousarray(kernel.reshape(inputs, -1).T)[:, :, None, None]
    scattered = [node.input[0], name]
    if len(node.input) == 3:
        bias = fresh_name(draft, f"{node.name}.bias")
        draft.weights[bias] = np.repeat(draft.weights[node.input[2]], block * block)
        scattered.append(bias)
    packed = fresh_name(draft, f"{node.name}.packed")
    convolution = helper.make_node("Conv", scattered, [packed], f"{node.name}.conv", kernel_shape=[1, 1])
    spread = helper.make_node(
        "DepthToSpace", [packed], list(node.output), f"{node.name}.spread", blocksize=block, mode="CRD"
    )
    return [convolution, spread]


def name_tensors(draft: Draft) -> None:
    """Name weights and tensors after their layers: `block1_conv1.kernel`, not `block1_conv1_1/BiasAdd__24:0`."""
    for node in draft.nodes:
        node.name = _layer(node.name)
        for role, source in zip(("kernel", "bias"), list(node.input)[1:], strict=False):
            if source in draft.weights and node.op_type in ("Conv", "ConvTranspose"):
                new = fresh_name(draft, f"{node.name.removesuffix('.conv')}.{role}")
                draft.weights[new] = draft.weights.pop(source)
                draft.rename(source, new)
        if node.output[0] != LOGITS:
            new = fresh_name(draft, node.name)
            old, node.output[0], node.name = node.output[0], new, new
            draft.rename(old, new)


def _layer(name: str) -> str:
    """ "block1_conv1_1/BiasAdd" -> "block1_conv1"; a Relu and the parts of an upsampling keep a suffix."""
    layer, _, operation = name.partition("/")
    base = layer.rsplit("_", 1)[0] if layer.rsplit("_", 1)[-1].isdigit() else layer
    if operation.startswith("Relu"):
        return f"{base}.relu"
    return f"{base}.{operation.split('.', 1)[1]}" if "." in operation else base


PASSES = (
    Pass(
        name="take channels first",
        requires=frozenset({"weights inside"}),
        ensures=frozenset({"weights inside", "channels first"}),
        apply=take_channels_first,
    ),
    Pass(
        name="drop idle reshapes",
        requires=frozenset({"channels first"}),
        ensures=frozenset({"weights inside", "plain operators"}),
        apply=drop_idle_reshapes,
    ),
    Pass(
        name="rewrite transposed convolutions",
        requires=frozenset({"weights inside", "channels first"}),
        ensures=frozenset({"no exact transposed convolution", "plain operators"}),
        apply=rewrite_transposed_convolutions,
    ),
    Pass(
        name="name tensors",
        requires=frozenset({"plain operators"}),
        ensures=frozenset({"weights inside", "plain operators"}),
        apply=name_tensors,
    ),
)
