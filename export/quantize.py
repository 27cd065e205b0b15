"""float32 -> int8 as QDQ: U8 activations, S8 weights with a scale for each output channel, every Relu folded away.

The score layers, a thousandth of the arithmetic, stay float32: argmax compares their sums, and steps of 1/255 there
would decide pixels. The first convolution reads the frames' own bytes through a DequantizeLinear with scale 1/128 and
zero point 128; its bias makes up for the half step between 128 and 127.5.

The average error that rounded weights cause in a channel's sum is subtracted from its bias (Nagel and others, 2019,
arXiv 1906.04721, section 4.2, with means over the calibration frames).

x86 processors without VNNI add two products in 16 bits and saturate. The scales are chosen so that no sum saturates
(`sums`), and every processor computes the same.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto

from edge_seg.errors import ConversionError

from .calibrate import Calibration, Means, Ranges, observe
from .convert import SCALED
from .draft import Draft, adopt
from .passes import Pass, run_passes
from .sums import exact_scales
from .wrap import MIDDLE, STEP

# These and the last upsampling stay float32.
SCORE_LAYERS = ("pool3_conv", "pool4_conv", "pool4_upsample2", "conv7_upsample4")
ZERO_POINT = 128
QUANTIZED_OPERATORS = ["Conv", "Relu", "MaxPool"]


def quantize(
    draft: Draft, frames: Iterable[np.ndarray], folder: Path, *, calibration: Calibration
) -> tuple[Draft, int]:
    """Make the int8 draft of a wrapped float32 draft, which is consumed.

    Args:
        draft: from `wrap`, float32.
        frames: calibration frames, each (H, W, 3) uint8 BGR at the draft's size; read once, one at a time.
        folder: an existing folder for a temporary file of the draft's size.
        calibration: how activation ranges are found.

    Returns:
        The int8 draft, and the number of frames it was calibrated on.
    """
    convolutions = quantized_convolutions(draft)
    inputs = [node.input[0] for node in convolutions]
    ranges, means, count = observe(draft, _observed(draft, convolutions), frames, calibration, folder, averaged=inputs)
    _correct_biases(draft, convolutions, means)
    run_passes(draft, [_CENTER])
    quantized = _insert_qdq(draft, convolutions, _shared_by_pools(draft, ranges))
    return run_passes(quantized, [_READ_BYTES]), count


def quantized_convolutions(draft: Draft) -> list[NodeProto]:
    """The convolutions that become int8: all but the score layers."""
    last = draft.score_layer()
    convolutions = [node for node in draft.nodes if node.op_type == "Conv" and node != last]
    return [node for node in convolutions if not node.name.startswith(SCORE_LAYERS)]


def _observed(draft: Draft, convolutions: list[NodeProto]) -> list[str]:
    """Names of the tensors whose range is needed: the outputs of the convolutions' Relus."""
    names = []
    for node in convolutions:
        readers = draft.consumers(node.output[0])
        if len(readers) != 1 or readers[0].op_type != "Relu":
            raise ConversionError(f"expected a Relu alone after {node.name}; int8 folds it into the convolution.")
        names.append(readers[0].output[0])
    return names


def _correct_biases(draft: Draft, convolutions: list[NodeProto], means: Means) -> None:
    """Subtract from each bias the average error that rounded weights cause in its channel's sum."""
    for node in convolutions:
        kernel, bias = draft.weights[node.input[1]], draft.weights[node.input[2]]
        scales = exact_scales(kernel)[:, None, None, None]
        error = np.rint(kernel / scales).astype(np.float64) * scales - kernel
        # Every position of a kernel sees the same mean, as all meet every input pixel except at the picture's edge.
        draft.weights[node.input[2]] = (bias - error.sum(axis=(2, 3)) @ means[node.input[0]]).astype(np.float32)


def _shared_by_pools(draft: Draft, ranges: Ranges) -> Ranges:
    """Every quantized tensor's range: a pooling has its input's, a convolution its Relu's; the frames' is known."""
    every = dict(ranges)
    for node in draft.nodes:
        if node.op_type in ("MaxPool", "Relu"):
            source, target = node.input[0], node.output[0]
            if node.op_type == "MaxPool" and source in every:
                every[target] = every[source]
            elif target in every:
                every[source] = every[target]
    every[SCALED] = (-ZERO_POINT / STEP, (255 - ZERO_POINT) / STEP)
    return every


def _center_on_zero_point(draft: Draft) -> None:
    """Scale frames as (u - 128) / 128, not (u - 127.5) / 128; the first convolution's bias makes up the difference."""
    (first,) = draft.consumers(SCALED)
    kernel, bias = draft.weights[first.input[1]], draft.weights[first.input[2]]
    missing = np.float32((ZERO_POINT - MIDDLE) / STEP)
    draft.weights[first.input[2]] = bias + missing * kernel.sum(axis=(1, 2, 3), dtype=np.float64).astype(np.float32)
    draft.weights["scaling.middle"] = np.array(ZERO_POINT, np.float32)


def _insert_qdq(draft: Draft, convolutions: list[NodeProto], ranges: Ranges) -> Draft:
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    relus = [reader.name for node in convolutions for reader in draft.consumers(node.output[0])]
    pools = [node.name for node in draft.nodes if node.op_type == "MaxPool"]
    bounds = {name: (np.float32(low), np.float32(high)) for name, (low, high) in ranges.items()}
    kernels = [node.input[1] for node in convolutions]
    scales = {name: _scale_settings(draft.weights[name]) for name in kernels}
    model = _typed(draft)
    draft.weights.clear()
    quantizer = QDQQuantizer(
        model,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, bounds),
        nodes_to_quantize=[node.name for node in convolutions] + relus + pools,
        nodes_to_exclude=[],
        op_types_to_quantize=QUANTIZED_OPERATORS,
        extra_options={"WeightSymmetric": True, "ActivationSymmetric": False, "TensorQuantOverrides": scales},
    )
    level = logging.root.level
    logging.root.setLevel(logging.ERROR)
    try:
        quantizer.quantize_model()
        quantizer.model.topological_sort()
    finally:
        logging.root.setLevel(level)
    result = adopt(quantizer.model.model)
    result.logits, result.block = draft.logits, draft.block
    result.model.producer_name, result.model.producer_version = "edge_seg", ""
    return result


def _scale_settings(kernel: np.ndarray) -> list[dict[str, Any]]:
    """A kernel's scales in the quantizer's format, one entry for each output channel."""
    return [{"axis": 0, "scale": scale, "zero_point": np.int8(0)} for scale in exact_scales(kernel)]


def _typed(draft: Draft) -> onnx.ModelProto:
    """The whole model with every tensor's type, as the quantizer needs; types are inferred without the weights."""
    inferred = onnx.shape_inference.infer_shapes(draft.skeleton())
    model = draft.skeleton(values=True)
    model.graph.value_info.extend(inferred.graph.value_info)
    return model


def _read_bytes(draft: Draft) -> None:
    """Feed the first DequantizeLinear the frames' bytes: casting, scaling and quantizing them gave the same bytes."""
    (quantizer,) = draft.consumers(SCALED)
    scale, zero_point = (draft.weights[name] for name in quantizer.input[1:3])
    if quantizer.op_type != "QuantizeLinear" or float(scale) != 1 / STEP or int(zero_point) != ZERO_POINT:
        raise ConversionError(f"expected frames quantized by 1/128 around 128, got {scale} around {zero_point}.")
    draft.rename(quantizer.output[0], "frames.planes")
    draft.rename("frames.real", "frames")
    # The recorded types: `frames.planes` is now uint8.
    del draft.graph.value_info[:]
    gone = {"frames.real", "frames.centered", SCALED, quantizer.output[0]}
    draft.set_nodes(node for node in draft.nodes if node.output[0] not in gone)


def count_operators(draft: Draft) -> dict[str, int]:
    """How many nodes of each operator a draft has, in alphabetical order."""
    names = sorted(node.op_type for node in draft.nodes)
    return {name: names.count(name) for name in dict.fromkeys(names)}


_CENTER = Pass(
    name="center frames on 128",
    requires=frozenset({"weights inside", "uint8 contract"}),
    ensures=frozenset({"weights inside", "uint8 contract"}),
    apply=_center_on_zero_point,
)
_READ_BYTES = Pass(
    name="read bytes",
    requires=frozenset({"weights inside", "uint8 contract"}),
    ensures=frozenset({"weights inside", "uint8 contract", "int8 convolutions", "exact int8 sums"}),
    apply=_read_bytes,
)
