"""Fixtures that every package's tests may use. Nothing heavy at the top: onnx comes with the first model asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest


def tiny_graph(
    size: tuple[Any, Any], classes: int, *, outputs: tuple[str, ...] = ("labels",), opset: int = 17, batch: Any = "N"
) -> Any:
    """An ONNX model of one 3x3 convolution: frames (N, H, W, 3) uint8 -> labels (N, H, W) uint8, and a confidence."""
    from onnx import TensorProto, helper, numpy_helper

    kernel = np.random.default_rng(3).normal(size=(classes, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Cast", ["frames"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["floats", "half"], ["scaled"]),
        helper.make_node("Sub", ["scaled", "one"], ["centered"]),
        helper.make_node("Transpose", ["centered"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["planes", "kernel"], ["logits"], pads=[1, 1, 1, 1]),
        helper.make_node("ArgMax", ["logits"], ["ids"], axis=1, keepdims=0),
        helper.make_node("Cast", ["ids"], ["labels"], to=TensorProto.UINT8),
    ]
    shape = [batch, *size]
    results = [helper.make_tensor_value_info("labels", TensorProto.UINT8, shape)]
    if "confidence" in outputs:
        nodes += [
            helper.make_node("Softmax", ["logits"], ["shares"], axis=1),
            helper.make_node("ReduceMax", ["shares"], ["top"], axes=[1], keepdims=0),
            helper.make_node("Cast", ["top"], ["confidence"], to=TensorProto.FLOAT16),
        ]
        results.append(helper.make_tensor_value_info("confidence", TensorProto.FLOAT16, shape))
    weights = {"half": np.float32(127.5), "one": np.float32(1), "kernel": kernel}
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, [*shape, 3])],
        results,
        [numpy_helper.from_array(np.asarray(array), name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def tiny_labels(frames: np.ndarray, classes: int) -> np.ndarray:
    """What `tiny_graph` computes, by plain numpy in float64: (N, H, W, 3) uint8 -> (N, H, W) uint8."""
    kernel = np.random.default_rng(3).normal(size=(classes, 3, 3, 3)).astype(np.float32)
    scaled = np.pad(frames / 127.5 - 1, ((0, 0), (1, 1), (1, 1), (0, 0)))
    height, width = frames.shape[1:3]
    logits = sum(
        scaled[:, dy : dy + height, dx : dx + width] @ kernel[:, :, dy, dx].T.astype(np.float64)
        for dy in range(3)
        for dx in range(3)
    )
    return np.argmax(logits, axis=-1).astype(np.uint8)


@pytest.fixture
def tiny_model(tmp_path: Path) -> Callable[..., Path]:
    """A factory of small model files of ours: `tiny_model(size=(32, 64), precision="fp32", golden="right")` -> path.

    `golden` is "right", "wrong" (labels that no device gives) or None; `outputs`, `dynamic`, `opset`, `batch` and
    `change` (a function that edits the ModelProto before it is saved) say the rest; `spec` keywords go to ModelSpec.
    """
    made = 0

    def make(
        *,
        size: tuple[int, int] = (32, 64),
        precision: str = "fp32",
        golden: str | None = "right",
        outputs: tuple[str, ...] = ("labels",),
        dynamic: bool = False,
        opset: int = 17,
        batch: Any = "N",
        change: Callable[[Any], None] | None = None,
        **spec: Any,
    ) -> Path:
        import onnx

        from edge_seg.golden import encode_golden
        from edge_seg.spec import GOLDEN_KEY, ModelSpec

        contract = ModelSpec(input_size=size, precision=precision, outputs=outputs, dynamic_size=dynamic, **spec)
        classes = len(contract.classes)
        model = tiny_graph(("H", "W") if dynamic else size, classes, outputs=outputs, opset=opset, batch=batch)
        metadata = contract.to_metadata()
        if golden:
            frames = np.random.default_rng(5).integers(0, 256, (3, *size, 3), np.uint8)
            labels = tiny_labels(frames, classes)
            metadata[GOLDEN_KEY] = encode_golden(frames, labels if golden == "right" else (labels + 1) % classes)
        onnx.helper.set_model_props(model, metadata)
        if change:
            change(model)
        nonlocal made
        made += 1
        path = tmp_path / f"tiny{made}.onnx"
        onnx.save(model, path)
        return path

    return make


@pytest.fixture
def tiny_reference() -> Callable[[np.ndarray, int], np.ndarray]:
    """The labels that a `tiny_model` must give, by numpy: (frames (N, H, W, 3) uint8, classes) -> (N, H, W) uint8."""
    return tiny_labels


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A `tests.browser.Browser`; tests that ask for it are skipped where chromium is absent."""
    from tests.browser import Browser

    try:
        chromium = Browser(tmp_path_factory.mktemp("profile"))
    except FileNotFoundError as error:
        pytest.skip(str(error))
    yield chromium
    chromium.close()
