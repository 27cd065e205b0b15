"""Keras run -> one proved ONNX file. Runs from a clone; the wheel holds `edge_seg` alone."""

import edge_seg  # noqa: F401 - before onnxruntime, whose telemetry it switches off
