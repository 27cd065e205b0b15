"""A network's operations, counted layer by layer from its ONNX file. Runs nothing and measures nothing.

Multiply-adds are counted in the usual way: each kernel weight at each output pixel, even where it meets padding. The
layers of an int8 file count the same as those of the float file it came from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_seg.errors import ModelFileError

CONVOLUTIONS = {"Conv": 1, "ConvInteger": 1, "QLinearConv": 3, "ConvTranspose": 1}
PRODUCTS = {"MatMul": 1, "MatMulInteger": 1, "Gemm": 1, "QLinearMatMul": 3}
# Bytes of a weight in each arithmetic.
WEIGHT_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "int8": 1}


@dataclass(frozen=True)
class Layer:
    """One layer that multiplies: its output's name, multiply-adds of one frame, and number of weights."""

    name: str
    macs: int
    weights: int


def count_operations(path: Path | str, size: tuple[int, int]) -> list[Layer]:
    """Layers of an ONNX file at an input of (height, width), in the order they run.

    Raises:
        ModelFileError: the file's shapes cannot be inferred, or no layer multiplies.
    """
    import onnx

    model = onnx.load(str(path))
    for place, length in enumerate((1, *size)):
        model.graph.input[0].type.tensor_type.shape.dim[place].dim_value = length
    model = onnx.shape_inference.infer_shapes(model)
    shapes = _shapes(model.graph)
    try:
        layers = [_layer(node, shapes) for node in model.graph.node if node.op_type in CONVOLUTIONS | PRODUCTS]
    except KeyError as error:
        raise ModelFileError(f"{path}: the shape of {error} cannot be told, so its operations cannot be.") from error
    if not layers:
        raise ModelFileError(f"{path}: no layer of it multiplies.")
    return layers


def gflop(layers: Sequence[Layer]) -> float:
    """Billions of operations of one frame, a multiply-add counted as two."""
    return 2e-9 * sum(layer.macs for layer in layers)


def limit_ms(layers: Sequence[Layer], *, batch: int, gflops: float, bandwidth_gb_s: float, weight_bytes: int) -> float:
    """The roofline limit: the least milliseconds a frame in which these layers can run one after another.

    Each layer takes at least the time of its operations at the peak, and at least the time to read its weights from
    memory once a batch. Activations may stay in the cache and cost nothing here.
    """
    seconds = 0.0
    for layer in layers:
        computing = 2e-9 * layer.macs * batch / gflops
        reading = 1e-9 * layer.weights * weight_bytes / bandwidth_gb_s
        seconds += max(computing, reading)
    return 1000.0 * seconds / batch


def _shapes(graph: Any) -> dict[str, tuple[int, ...]]:
    """Name -> shape of each tensor whose dimensions are all known."""
    found: dict[str, tuple[int, ...]] = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.output, *graph.value_info):
        sides = [side.dim_value for side in value.type.tensor_type.shape.dim]
        if all(sides):
            found[value.name] = tuple(sides)
    return found


def _layer(node: Any, shapes: Mapping[str, tuple[int, ...]]) -> Layer:
    name, given = node.output[0], shapes[node.input[0]]
    if node.op_type in CONVOLUTIONS:
        kernel = shapes[node.input[CONVOLUTIONS[node.op_type]]]
        # A convolution applies its kernel once for each output pixel, a transposed one once for each input pixel.
        pixels = given if node.op_type == "ConvTranspose" else shapes[name]
        # The kernel's second side is already divided by the groups.
        return Layer(name, math.prod(kernel) * math.prod(pixels[2:]) * pixels[0], math.prod(kernel))
    matrix = shapes[node.input[PRODUCTS[node.op_type]]]
    shared = given[0] if node.op_type == "Gemm" and _transposed(node) else given[-1]
    return Layer(name, math.prod(shapes[name]) * shared, math.prod(matrix))


def _transposed(node: Any) -> bool:
    return any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
