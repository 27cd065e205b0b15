"""Other runtimes on the same weights, each called as in its own tutorial. Runs only in a worker's process.

Knows the plain float graph (`floatgraph`), the TensorFlow Lite files (`litertfile`) and the project's own files, and
imports a runtime only when its contender is loaded: if it is not installed, the error names the command that installs
it. The float graphs go from scaled frames to scores, so numpy does the scaling and the argmax, as for a newcomer.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module, util
from pathlib import Path
from typing import Any

import numpy as np

from edge_seg.errors import MissingDependencyError, ModelFileError
from edge_seg.preprocess import scale_frames
from edge_seg.threads import available_threads

from .cases import Contender
from .floatgraph import INPUT
from .litertfile import file_of

Predict = Callable[[np.ndarray], np.ndarray]
# The function, a detail on what runs it, and the arithmetic; see `runners.build`.
Loaded = tuple[Predict, str, str]


def need(module: str, package: str) -> Any:
    """Import a runtime, or raise `MissingDependencyError` with the command that installs it."""
    try:
        return import_module(module)
    except ImportError as error:
        raise MissingDependencyError(f"{module} is not installed. Install it: pip install {package}") from error


def plain_onnxruntime(contender: Contender, batch: int) -> Loaded:
    """onnxruntime with default options, but the CPU provider named: a GPU build would otherwise take the GPU."""
    ort = need("onnxruntime", "onnxruntime")
    session = ort.InferenceSession(contender.path, providers=["CPUExecutionProvider"])

    def predict(frames: np.ndarray) -> np.ndarray:
        (scores,) = session.run(None, {INPUT: scale_frames(frames).transpose(0, 3, 1, 2)})
        return scores.argmax(axis=1).astype(np.uint8)

    return predict, f"onnxruntime {ort.__version__}, {session.get_providers()[0]}, default options", "fp32"


def opencv_dnn(contender: Contender, batch: int) -> Loaded:
    """OpenCV's dnn module: `readNetFromONNX`, `blobFromImages`, `forward`."""
    cv2 = need("cv2", "opencv-python-headless")
    try:
        net = cv2.dnn.readNetFromONNX(contender.path)
    except cv2.error as error:
        raise ModelFileError(f"OpenCV {cv2.__version__} does not read the float graph: {error.err}") from error

    def predict(frames: np.ndarray) -> np.ndarray:
        net.setInput(cv2.dnn.blobFromImages(list(frames), 1 / 127.5, mean=(127.5, 127.5, 127.5)))
        return net.forward().argmax(axis=1).astype(np.uint8)

    return predict, f"OpenCV {cv2.__version__}, {cv2.getNumThreads()} thread(s)", "fp32"


def litert(contender: Contender, batch: int) -> Loaded:
    """TensorFlow Lite: the interpreter of ai-edge-litert if installed, else tensorflow's."""
    if util.find_spec("ai_edge_litert"):
        interpreter_class, named = need("ai_edge_litert.interpreter", "ai-edge-litert").Interpreter, "ai-edge-litert"
    else:
        interpreter_class, named = need("tensorflow", "ai-edge-litert").lite.Interpreter, "tensorflow.lite"
    path = file_of(Path(contender.path), batch)
    if not path.is_file():
        raise ModelFileError(f"{path} is not there: the conversion to TensorFlow Lite failed.")
    threads = contender.threads or available_threads()
    interpreter = interpreter_class(str(path), num_threads=threads)
    interpreter.allocate_tensors()
    given, got = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]

    def predict(frames: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(given, scale_frames(frames))
        interpreter.invoke()
        return interpreter.get_tensor(got).argmax(axis=-1).astype(np.uint8)

    return predict, f"{named}, XNNPACK, {threads} thread(s)", "fp32"


def native_openvino(contender: Contender, batch: int) -> Loaded:
    """OpenVINO without onnxruntime: the same ONNX file, at a fixed shape, with the latency hint."""
    openvino = need("openvino", "openvino")
    core = openvino.Core()
    model = core.read_model(contender.path)
    model.reshape([batch, *contender.size, 3])
    threads = contender.threads or available_threads()
    compiled = core.compile_model(model, "CPU", {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads})
    # If the processor has the units, OpenVINO computes a float file in bf16 by default.
    computed = {"bf16": "bf16", "f16": "fp16"}.get(
        compiled.get_property("INFERENCE_PRECISION_HINT").to_string(), "fp32"
    )
    request = compiled.create_infer_request()

    def predict(frames: np.ndarray) -> np.ndarray:
        request.infer([frames])
        return request.get_output_tensor(0).data.copy()

    detail = f"OpenVINO {openvino.__version__.split('-')[0]}, {threads} thread(s)"
    return predict, detail, "int8" if contender.precision == "int8" else computed
