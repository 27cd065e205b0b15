"""Multiplications at which optimized libraries are fast, each as a call to be timed. Times nothing itself.

A probe is (library, what it multiplies, operations of one call, the call), made for matrices of a given side. Making it
raises if the library is not installed or the processor lacks the units.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edge_seg.errors import DeviceError
from edge_seg.processor import cpu_features
from edge_seg.threads import available_threads

# A 3x3 convolution as large as the network's: channels in and out, height and width.
CHANNELS, PICTURE = 256, (88, 120)
Probe = tuple[str, str, float, Callable[[], object]]


def numpy_product(side: int) -> Probe:
    """numpy with its BLAS, float matrices."""
    left, right = (np.random.default_rng(seed).normal(size=(side, side)).astype(np.float32) for seed in (0, 1))
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]["name"]
    return f"numpy, {blas}", f"{side} x {side} product", 2.0 * side**3, lambda: left @ right


def ort_product(side: int) -> Probe:
    """onnxruntime, float matrices."""
    return _in_ort("MatMul", side, _product_model("MatMul", side, np.float32))


def ort_integer_product(side: int) -> Probe:
    """onnxruntime, uint8 times int8 matrices."""
    return _in_ort("MatMulInteger", side, _product_model("MatMulInteger", side, np.uint8))


def ort_convolution(side: int) -> Probe:
    """onnxruntime, a float convolution."""
    return _in_ort("Conv", side, convolution_model(quantized=False))


def ort_quantized(side: int) -> Probe:
    """onnxruntime, a convolution quantized as in edge_seg's int8 files."""
    return _in_ort("QLinearConv", side, convolution_model(quantized=True))


def _in_ort(operator: str, side: int, model: bytes) -> Probe:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = available_threads()
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    given = _inputs(session.get_inputs()[0].shape, session.get_inputs()[0].type == "tensor(uint8)")
    name = session.get_inputs()[0].name
    what, operations = _work(operator, side)
    return f"onnxruntime {operator}", what, operations, lambda: session.run(None, {name: given})


def openvino_convolution(side: int) -> Probe:
    """OpenVINO, a float convolution."""
    return _in_openvino(convolution_model(quantized=False), "f32")


def openvino_bf16(side: int) -> Probe:
    """OpenVINO in bf16, if the processor has the units."""
    need_features("avx512_bf16", "amx_bf16")
    return _in_openvino(convolution_model(quantized=False), "bf16")


def openvino_quantized(side: int) -> Probe:
    """OpenVINO, a convolution quantized as in edge_seg's int8 files."""
    return _in_openvino(convolution_model(quantized=True), "f32")


def _in_openvino(model: bytes, precision: str) -> Probe:
    import openvino

    core = openvino.Core()
    options = {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": available_threads()}
    compiled = core.compile_model(core.read_model(io.BytesIO(model)), "CPU", options)
    request = compiled.create_infer_request()
    given = _inputs(list(compiled.input(0).shape), compiled.input(0).element_type.to_string() == "u8")
    what, operations = _work("Conv", 0)
    return "OpenVINO", what, operations, lambda: request.infer([given])


def torch_product(side: int) -> Probe:
    """torch, float matrices."""
    return _in_torch(side, "float32")


def torch_bf16(side: int) -> Probe:
    """torch in bf16, if the processor has the units."""
    need_features("avx512_bf16", "amx_bf16")
    return _in_torch(side, "bfloat16")


def _in_torch(side: int, dtype: str) -> Probe:
    import torch

    torch.set_num_threads(available_threads())
    left, right = (torch.randn(side, side, dtype=getattr(torch, dtype)) for _ in range(2))
    return "torch", f"{side} x {side} product", 2.0 * side**3, lambda: left @ right


def need_features(*names: str) -> None:
    """Raise `DeviceError` unless the processor has one of the instruction sets; emulated arithmetic has no peak."""
    if not set(names) & set(cpu_features()):
        raise DeviceError(f"this processor has no such units ({', '.join(names)})")


def _work(operator: str, side: int) -> tuple[str, float]:
    """A probe's work in words, and its number of operations."""
    if "MatMul" in operator:
        return f"{side} x {side} product", 2.0 * side**3
    height, width = PICTURE
    return f"3x3 convolution, {CHANNELS} channels, {height}x{width}", 2.0 * 9 * CHANNELS**2 * height * width


def _inputs(shape: Sequence[int], integers: bool) -> np.ndarray:
    generator = np.random.default_rng(0)
    return generator.integers(0, 256, shape, np.uint8) if integers else generator.random(shape, np.float32)


def _product_model(operator: str, side: int, dtype: type) -> bytes:
    from onnx import TensorProto, helper, numpy_helper

    whole = operator == "MatMulInteger"
    generator = np.random.default_rng(1)
    right = generator.integers(-127, 128, (side, side), np.int8) if whole else _inputs((side, side), False)
    kinds = (TensorProto.UINT8, TensorProto.INT32) if whole else (TensorProto.FLOAT, TensorProto.FLOAT)
    graph = helper.make_graph(
        [helper.make_node(operator, ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", kinds[0], [side, side])],
        [helper.make_tensor_value_info("y", kinds[1], [side, side])],
        [numpy_helper.from_array(right, "w")],
    )
    return _bytes_of(graph)


def convolution_model(*, quantized: bool) -> bytes:
    """A 3x3 convolution with Relu; if `quantized`, uint8 in and out, per-channel int8 weights, as in int8 files."""
    from onnx import TensorProto, helper, numpy_helper

    kernel = np.random.default_rng(1).normal(size=(CHANNELS, CHANNELS, 3, 3)).astype(np.float32)
    shape = [1, CHANNELS, *PICTURE]
    if not quantized:
        nodes = [helper.make_node("Conv", ["x", "w"], ["c"], pads=[1] * 4), helper.make_node("Relu", ["c"], ["y"])]
        return _bytes_of(_graph(nodes, TensorProto.FLOAT, shape, [numpy_helper.from_array(kernel, "w")]))
    whole = np.clip(np.rint(kernel * 30), -127, 127).astype(np.int8)
    weights = {
        "w": whole,
        "w_scale": np.full(CHANNELS, 1 / 30, np.float32),
        "w_zero": np.zeros(CHANNELS, np.int8),
        "scale": np.float32(0.02),
        "zero": np.uint8(0),
        "y_scale": np.float32(0.5),
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["x", "scale", "zero"], ["xf"]),
        helper.make_node("DequantizeLinear", ["w", "w_scale", "w_zero"], ["wf"], axis=0),
        helper.make_node("Conv", ["xf", "wf"], ["c"], pads=[1] * 4),
        helper.make_node("QuantizeLinear", ["c", "y_scale", "zero"], ["y"]),
    ]
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()]
    return _bytes_of(_graph(nodes, TensorProto.UINT8, shape, tensors))


def _graph(nodes: list[Any], kind: int, shape: list[int], tensors: list[Any]) -> Any:
    from onnx import helper

    given, got = (helper.make_tensor_value_info(name, kind, shape) for name in ("x", "y"))
    return helper.make_graph(nodes, "convolution", [given], [got], tensors)


def _bytes_of(graph: Any) -> bytes:
    from onnx import helper

    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
