"""Export of a Keras run to one ONNX file with proved parity. Runs from a clone; the wheel holds only `edge_seg`."""

import edge_seg  # noqa: F401 - first, since it switches off onnxruntime's telemetry
