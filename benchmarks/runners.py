"""How each kind of contender turns frames into labels. Runs only in a worker's process.

Every runner goes all the way from uint8 BGR frames (N, H, W, 3) to uint8 labels (N, H, W): scaling and argmax count for
Keras and torch too, since the exported graph contains them. Each imports only its own libraries, so that the worker's
peak memory is its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edge_seg.preprocess import scale_frames
from edge_seg.threads import available_threads

from . import peers
from .cases import Contender
from .peers import Loaded, Predict


def build(contender: Contender, batch: int) -> Loaded:
    """Load a contender for batches of `batch` frames and warm it up.

    Returns:
        A function from frames to labels, a detail on what really runs it ("" if the name says it all), and the
        arithmetic it computes in: "fp32", "bf16", "fp16" or "int8".
    """
    builders: dict[str, Callable[[Contender, int], Loaded]] = {
        "keras-predict": _keras_predict,
        "keras-compiled": _keras_compiled,
        "session": _session,
        "torch": _torch,
        "onnxruntime": peers.plain_onnxruntime,
        "opencv": peers.opencv_dnn,
        "litert": peers.litert,
        "openvino": peers.native_openvino,
        "cuda-bound": _cuda_bound,
    }
    predict, detail, arithmetic = builders[contender.kind](contender, batch)
    warm_up(predict, np.zeros((batch, *contender.size, 3), np.uint8))
    return predict, detail, arithmetic


def warm_up(predict: Predict, frames: np.ndarray) -> None:
    """Call `predict` so that tracing, compiling and first allocations are not timed; check the labels."""
    for _ in range(3):
        labels = predict(frames)
    if labels.shape != frames.shape[:3] or labels.dtype != np.uint8:
        raise ValueError(f"expected uint8 labels {frames.shape[:3]}, got {labels.dtype} {labels.shape}")


def _keras_predict(contender: Contender, batch: int) -> Loaded:
    model = keras_model(contender)

    def predict(frames: np.ndarray) -> np.ndarray:
        probabilities = model.predict(scale_frames(frames), batch_size=batch, verbose=0)
        return probabilities.argmax(axis=-1).astype(np.uint8)

    return predict, "", "fp32"


def _keras_compiled(contender: Contender, batch: int) -> Loaded:
    whole = keras_model(contender)
    import tensorflow as tf

    from train.fcn8 import logits_model

    # Without the softmax, which labels do not need and no other contender but `predict` computes.
    model = logits_model(whole)

    @tf.function(input_signature=[tf.TensorSpec((batch, *contender.size, 3), tf.uint8)])
    def labels(frames: Any) -> Any:
        scaled = tf.cast(frames, tf.float32) / 127.5 - 1.0
        return tf.cast(tf.argmax(model(scaled, training=False), axis=-1), tf.uint8)

    return lambda frames: labels(tf.constant(frames)).numpy(), "", "fp32"


def keras_model(contender: Contender) -> Any:
    """The run's network, on the contender's device."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if contender.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import tensorflow as tf

    if contender.device != "cpu" and not tf.config.list_physical_devices("GPU"):
        raise RuntimeError("TensorFlow sees no GPU; install it with `pip install tensorflow[and-cuda]`")
    # TensorFlow heeds CPU affinity but no cgroup quota; `available_threads` heeds both.
    tf.config.threading.set_intra_op_parallelism_threads(contender.threads or available_threads())
    from train.run import load_model, open_run

    return load_model(open_run(Path(contender.path)), input_size=contender.size)


def _session(contender: Contender, batch: int) -> Loaded:
    from edge_seg.session import open_session

    # `contender.size` is the file's own, unless a dynamic file is measured at another size.
    session = open_session(
        contender.path,
        device=contender.device,
        batch_size=batch,
        threads=contender.threads,
        input_size=contender.size,
    )
    report = session.device
    detail = f"{report.providers[0]}, {report.arithmetic}, {report.threads} thread(s)"
    return lambda frames: session.run(frames)["labels"], detail, report.arithmetic


def _torch(contender: Contender, batch: int) -> Loaded:
    from .torch_peer import torch_predictor

    predict, detail = torch_predictor(contender, batch)
    return predict, detail, contender.precision


def _cuda_bound(contender: Contender, batch: int) -> Loaded:
    from .cuda_peer import bound_session

    return bound_session(contender, batch)
