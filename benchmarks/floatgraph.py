"""The plain float graph of a stamped fp32 file: what a newcomer's own export of the same network would look like.

    python -m benchmarks.floatgraph MODEL.onnx FLOAT.onnx

From scaled frames (N, 3, H, W) float32, u / 127.5 - 1, to scores (N, classes, H, W) float32, without a softmax, since
labels need none: the caller does the scaling and the argmax that edge_seg's files contain. The weights are the file's
own, bit for bit, except that the factor which the file's scaling put into the first kernel is taken out again.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from edge_seg.errors import ModelFileError
from edge_seg.files import replacing
from edge_seg.spec import ModelSpec

INPUT, OUTPUT = "scaled_frames", "scores"
KERAS_STEP = 127.5


def write_float_graph(source: Path, target: Path) -> None:
    """Cut the graph out of a stamped fp32 file and write it atomically.

    Raises:
        ModelFileError: the file is not an fp32 file of edge_seg.
    """
    import onnx

    graph = cut_float_graph(onnx.load(str(source)), source.name)
    with replacing(target) as temporary:
        onnx.save(graph, str(temporary))


def cut_float_graph(model: Any, name: str) -> Any:
    """The float graph of a loaded ModelProto, as a new ModelProto; see the module's docstring."""
    import onnx
    from onnx import helper, numpy_helper

    nodes = {output: node for node in model.graph.node for output in node.output}
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type in ("Conv", "MatMul")]
    try:
        first, last = convolutions[0], _as_convolution(convolutions[-1], nodes, weights)
        step, shift = nodes[first.input[0]], nodes[nodes[first.input[0]].input[0]]
        if (step.op_type, shift.op_type) != ("Mul", "Sub"):
            raise KeyError(f"{shift.op_type}, {step.op_type} before its first convolution")
        scale, middle = (float(numpy_helper.to_array(weights[node.input[1]])) for node in (step, shift))
        kernel = numpy_helper.to_array(weights[first.input[1]])
    except (IndexError, KeyError) as error:
        raise ModelFileError(
            f"{name} has no float graph to cut out ({error}); it takes an fp32 file of ours."
        ) from error
    if middle != KERAS_STEP:
        raise ModelFileError(f"{name} scales its frames by another middle than {KERAS_STEP}: {middle}.")
    height, width = (dim.dim_value or dim.dim_param for dim in model.graph.input[0].type.tensor_type.shape.dim[1:3])
    classes, factor = _classes(last, weights, model)
    kept = [*_between(model.graph.node, first.input[0], last.input[0]), last]
    used = {item for node in kept for item in node.input}
    tail = helper.make_node("DepthToSpace", [last.output[0]], [OUTPUT], blocksize=factor, mode="CRD")
    for node in kept:
        node.input[:] = [INPUT if item == first.input[0] else item for item in node.input]
    tensors = [tensor for tensor in weights.values() if tensor.name in used and tensor.name != first.input[1]]
    tensors.append(numpy_helper.from_array((kernel * np.float32(scale * KERAS_STEP)), first.input[1]))
    graph = helper.make_graph(
        [*kept, tail],
        "fcn8_float",
        [helper.make_tensor_value_info(INPUT, onnx.TensorProto.FLOAT, ["N", 3, height, width])],
        [helper.make_tensor_value_info(OUTPUT, onnx.TensorProto.FLOAT, ["N", classes, height, width])],
        tensors,
    )
    return helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)


def _as_convolution(last: Any, nodes: dict[str, Any], weights: dict[str, Any]) -> Any:
    """The last layer as a 1x1 convolution, as in a newcomer's file; edge_seg's has a channels-last matrix product."""
    from onnx import helper, numpy_helper

    if last.op_type == "Conv":
        return last
    kernel = numpy_helper.to_array(weights[last.input[1]]).T[:, :, None, None]
    weights[last.input[1]] = numpy_helper.from_array(np.ascontiguousarray(kernel), last.input[1])
    source = nodes[last.input[0]].input[0]
    return helper.make_node("Conv", [source, last.input[1]], list(last.output), kernel_shape=[1, 1])


def _classes(last: Any, weights: dict[str, Any], model: Any) -> tuple[int, int]:
    """Number of classes and factor of the last upsampling; the last kernel has classes x factor x factor planes."""
    classes = len(ModelSpec.from_metadata({item.key: item.value for item in model.metadata_props}).classes)
    planes = weights[last.input[1]].dims[0]
    return classes, round((planes / classes) ** 0.5)


def _between(nodes: Any, start: str, end: str) -> list[Any]:
    """The nodes, in their order, that lead from one tensor to another."""
    needed, kept = {end}, []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            kept.append(node)
            needed.update(item for item in node.input if item != start)
    return kept[::-1]


if __name__ == "__main__":
    write_float_graph(Path(sys.argv[1]), Path(sys.argv[2]))
