"""A Keras run as TensorFlow Lite files, one for each batch size, as a newcomer would convert the same weights.

    python -m benchmarks.litertfile RUN HEIGHTxWIDTH 1,4 FOLDER

From scaled frames (N, H, W, 3) float32 to scores (N, H, W, classes) float32, without a softmax, since labels need none.
The batch is fixed in each file: with a dynamic one, XNNPACK, the interpreter's fast path, is not used.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from edge_seg.files import replacing
from train.arguments import size


def file_of(folder: Path, batch: int) -> Path:
    """Path of the file for batches of `batch` frames."""
    return folder / f"batch{batch}.tflite"


def write_litert_files(run: Path, input_size: tuple[int, int], batches: list[int], folder: Path) -> None:
    """Convert a run for each batch size; each file is written atomically."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import tensorflow as tf
    from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2

    from train.fcn8 import logits_model
    from train.run import load_model, open_run

    model = logits_model(load_model(open_run(run), input_size=input_size))
    folder.mkdir(parents=True, exist_ok=True)
    for batch in batches:
        shape = tf.TensorSpec((batch, *input_size, 3), tf.float32)
        traced = tf.function(lambda frames: model(frames, training=False)).get_concrete_function(shape)
        # Unless frozen, Keras 3's variables are left out of the file, and every output is NaN.
        frozen = convert_variables_to_constants_v2(traced)
        data = tf.lite.TFLiteConverter.from_concrete_functions([frozen]).convert()
        with replacing(file_of(folder, batch)) as temporary:
            temporary.write_bytes(data)


if __name__ == "__main__":
    write_litert_files(
        Path(sys.argv[1]), size(sys.argv[2]), [int(n) for n in sys.argv[3].split(",")], Path(sys.argv[4])
    )
