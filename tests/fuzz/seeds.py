"""Good files to begin with, small, made on the spot."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from tests.edge_seg.clips import make_clip, paint_number
from tests.fuzz.mutations import Case


def videos(folder: Path) -> list[bytes]:
    """MP4, fragmented MP4, MKV, AVI, MPEG-TS and GIF of a few numbered frames, some with sound."""
    make = [
        make_clip(folder / "a.mp4", count=12, audio="aac"),
        make_clip(folder / "b.mp4", count=8, container_options={"movflags": "frag_keyframe+empty_moov"}),
        make_clip(folder / "c.mkv", count=8),
        make_clip(folder / "d.avi", count=6, codec="mpeg4", options={}),
        make_clip(folder / "e.ts", count=8),
        make_clip(folder / "f.mov", count=6),
    ]
    return [path.read_bytes() for path in make]


def pictures() -> list[bytes]:
    """Each kind that is read, colour and grey."""
    image = paint_number(37)
    return [
        cv2.imencode(suffix, pixels)[1].tobytes()
        for suffix in (".png", ".jpg", ".bmp", ".webp", ".tiff")
        for pixels in (image, np.ascontiguousarray(image[:, :, 0] % 12))
    ]


def models() -> list[bytes]:
    """Small models with and without a confidence, a free size and golden frames, and one in int8."""
    from onnx import helper

    from edge_seg.golden import encode_golden
    from edge_seg.spec import GOLDEN_KEY, ModelSpec
    from tests.conftest import tiny_graph, tiny_labels

    made = []
    for outputs, dynamic in ((("labels",), False), (("labels", "confidence"), True)):
        spec = ModelSpec(input_size=(32, 64), outputs=outputs, dynamic_size=dynamic)
        model = tiny_graph(("H", "W") if dynamic else (32, 64), 12, outputs=outputs)
        metadata = spec.to_metadata()
        helper.set_model_props(model, metadata)
        made.append(model.SerializeToString())
        frames = np.random.default_rng(1).integers(0, 256, (1, 32, 64, 3), np.uint8)
        helper.set_model_props(model, metadata | {GOLDEN_KEY: encode_golden(frames, tiny_labels(frames, 12))})
        made.append(model.SerializeToString())
    return [*made, int8_model()]


def int8_model() -> bytes:
    """The operators of our int8 files in small: bytes in, quantized convolutions, pooling, DepthToSpace, a product."""
    from onnx import TensorProto, helper, numpy_helper

    from edge_seg.spec import ModelSpec

    random = np.random.default_rng(4)
    stored = {
        "kernel": random.integers(-64, 64, (8, 3, 3, 3)).astype(np.int8),
        "kernel.scale": np.full(8, 0.01, np.float32),
        "kernel.zero": np.zeros(8, np.int8),
        "bias": np.zeros(8, np.float32),
        "middles": random.normal(size=(32, 8, 1, 1)).astype(np.float32),
        "scores": random.normal(size=(8, 12)).astype(np.float32),
        "scale": np.float32(1 / 128),
        "middle": np.uint8(128),
        "zero": np.uint8(0),
        "shape": np.array([0, 0, 0, 12, 1], np.int64),
        "size": np.array([0, 32, 64], np.int64),
    }
    nodes = [
        helper.make_node("Transpose", ["frames"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("DequantizeLinear", ["planes", "scale", "middle"], ["scaled"]),
        helper.make_node("DequantizeLinear", ["kernel", "kernel.scale", "kernel.zero"], ["weights"], axis=0),
        helper.make_node("Conv", ["scaled", "weights", "bias"], ["sums"], pads=[1, 1, 1, 1], kernel_shape=[3, 3]),
        helper.make_node("Relu", ["sums"], ["active"]),
        helper.make_node("QuantizeLinear", ["active", "scale", "zero"], ["bytes"]),
        helper.make_node("DequantizeLinear", ["bytes", "scale", "zero"], ["again"]),
        helper.make_node("MaxPool", ["again"], ["pooled"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["pooled", "middles"], ["packed"], kernel_shape=[1, 1]),
        helper.make_node("DepthToSpace", ["packed"], ["spread"], blocksize=2, mode="CRD"),
        helper.make_node("Transpose", ["spread"], ["positions"], perm=[0, 2, 3, 1]),
        helper.make_node("MatMul", ["positions", "scores"], ["logits"]),
        helper.make_node("Reshape", ["logits", "shape"], ["squares"]),
        helper.make_node("ArgMax", ["squares"], ["ids"], axis=3, keepdims=0),
        helper.make_node("Cast", ["ids"], ["best"], to=TensorProto.UINT8),
        helper.make_node("Reshape", ["best", "size"], ["labels"]),
    ]
    graph = helper.make_graph(
        nodes,
        "int8",
        [helper.make_tensor_value_info("frames", TensorProto.UINT8, ["N", 32, 64, 3])],
        [helper.make_tensor_value_info("labels", TensorProto.UINT8, ["N", 32, 64])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in stored.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, ModelSpec(input_size=(32, 64), precision="int8", exact_sums=True).to_metadata())
    return bytes(model.SerializeToString())


def weights(folder: Path) -> list[bytes]:
    """HDF5 as Keras writes it, plain and compressed, old layout and new; an .npz."""
    import h5py

    kernel, bias = np.arange(24, dtype="f").reshape(2, 3, 4), np.ones(4, "f2")
    made = []
    for version in ("earliest", "latest"):
        path = folder / f"{version}.h5"
        with h5py.File(path, "w", libver=version) as file:
            file.attrs["layer_names"] = [b"conv"]
            file.create_dataset("layers/conv/vars/0", data=kernel)
            file.create_dataset("layers/conv/vars/1", data=bias, compression="gzip", shuffle=True)
        made.append(path.read_bytes())
    np.savez(folder / "w.npz", kernel=kernel, bias=bias)
    return [*made, (folder / "w.npz").read_bytes()]


def of(target: str, folder: Path) -> list[Case]:
    """The seeds of one of the targets; `folder` is for files that are made on the way."""
    make = {"model": models, "video": lambda: videos(folder), "weights": lambda: weights(folder)}
    return [Case(data) for data in make.get(target, pictures)()]
