"""Rewrites of a float16 draft for GPUs: fewer passes over whole tensors for biases and Relus.

onnxruntime's CUDA provider adds a convolution's bias in a pass of its own and applies the Relu in another: half of the
bundled network's time on an H200 (docs/performance.md). Both commute with max pooling, so they move behind it, to a
quarter of the tensor. The first bias becomes a weight over a channel of ones, since tensor cores read eight channels
where frames have three. The other biases are subtracted, since an addition would be fused back into the convolution.
Calls no runtime.
"""

from __future__ import annotations

import numpy as np
from onnx import NodeProto, helper

from .convert import SCALED
from .draft import Draft
from .passes import Pass, run_passes

# Tensor cores read channels in eights.
CHANNELS = 8


def suit_gpu(draft: Draft) -> Draft:
    """Rewrite a float16 draft in place, to compute the same in fewer passes over its tensors."""
    kept = frozenset({"weights inside", "uint8 contract", "float16 weights"})
    steps = (
        Pass(name="biases and Relus behind poolings", requires=kept, ensures=kept, apply=_pool_first),
        Pass(name="first bias as a weight", requires=kept, ensures=kept, apply=_ones_beside_frames),
        Pass(name="other biases by subtraction", requires=kept, ensures=kept, apply=_subtract_biases),
    )
    return run_passes(draft, steps)


def _pool_first(draft: Draft) -> None:
    """Conv, Relu, MaxPool -> Conv without bias, MaxPool, Add, Relu: same result, as both keep the order of values."""
    for pool in [node for node in draft.nodes if node.op_type == "MaxPool"]:
        relu = draft.producer(pool.input[0])
        convolution = draft.producer(relu.input[0]) if relu is not None and relu.op_type == "Relu" else None
        if relu is None or convolution is None or not _is_biased(convolution):
            continue
        if len(draft.consumers(relu.output[0])) > 1 or len(draft.consumers(convolution.output[0])) > 1:
            continue
        name = convolution.output[0]
        late = [
            _renamed(pool, [name], [f"{name}.pooled"]),
            _addition(draft, convolution, f"{name}.pooled", f"{name}.biased"),
            helper.make_node("Relu", [f"{name}.biased"], list(pool.output), f"{name}.relu"),
        ]
        _replace(draft, {_id(convolution): [_without_bias(convolution)], _id(relu): [], _id(pool): late})


def _ones_beside_frames(draft: Draft) -> None:
    """Give the first convolution channels of ones beside the frames', and its bias as a weight over one of them."""
    (first,) = draft.consumers(SCALED)
    if not _is_biased(first):
        return
    kernel, bias = draft.weights[first.input[1]], draft.weights[first.input[2]]
    filters, channels, height, width = kernel.shape
    wide = np.zeros((filters, CHANNELS, height, width), kernel.dtype)
    wide[:, :channels] = kernel
    # In the middle of the kernel, which never meets the padding.
    wide[:, channels, height // 2, width // 2] = bias
    draft.weights[first.input[1]] = wide
    draft.weights["ones.sides"] = np.array([0, 0, 0, 0, 0, CHANNELS - channels, 0, 0], np.int64)
    draft.weights["ones.value"] = np.array(1, kernel.dtype)
    pad = helper.make_node("Pad", [SCALED, "ones.sides", "ones.value"], ["frames.ones"], "frames.ones")
    bare = _without_bias(first)
    bare.input[0] = "frames.ones"
    _replace(draft, {_id(first): [pad, bare]})


def _subtract_biases(draft: Draft) -> None:
    """Conv -> Conv without bias, Sub of the negative bias: onnxruntime's Sub kernel is faster than cuDNN's bias.

    onnxruntime would fuse an Add back into the Conv. The score layer is left alone, in float32.
    """
    last = draft.score_layer()
    for convolution in [node for node in draft.nodes if _is_biased(node) and node != last]:
        name, bias = convolution.output[0], convolution.input[2]
        bare = _renamed(convolution, list(convolution.input[:2]), [f"{name}.sums"])
        draft.weights[f"{bias}.negative"] = -draft.weights[bias].reshape(-1, 1, 1)
        taken = helper.make_node("Sub", [f"{name}.sums", f"{bias}.negative"], [name], name)
        _replace(draft, {_id(convolution): [bare, taken]})


def _is_biased(node: NodeProto) -> bool:
    return node.op_type == "Conv" and len(node.input) == 3


def _id(node: NodeProto) -> str:
    """A node's key within its graph: its first output's name."""
    return str(node.output[0])


def _without_bias(convolution: NodeProto) -> NodeProto:
    return _renamed(convolution, list(convolution.input[:2]), list(convolution.output))


def _renamed(node: NodeProto, inputs: list[str], outputs: list[str]) -> NodeProto:
    copied = NodeProto()
    copied.CopyFrom(node)
    del copied.input[:], copied.output[:]
    copied.input.extend(inputs)
    copied.output.extend(outputs)
    copied.name = outputs[0]
    return copied


def _addition(draft: Draft, convolution: NodeProto, source: str, target: str) -> NodeProto:
    """An Add of the convolution's bias to `source` (N, C, h, w)."""
    name = f"{convolution.input[2]}.planes"
    draft.weights[name] = draft.weights[convolution.input[2]].reshape(-1, 1, 1)
    return helper.make_node("Add", [source, name], [target], target)


def _replace(draft: Draft, nodes: dict[str, list[NodeProto]]) -> None:
    draft.set_nodes(new for node in draft.nodes for new in nodes.get(_id(node), [node]))
