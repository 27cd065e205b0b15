"""Throughput and IoU parity of edge_seg against Keras. Runs from a clone; the wheel holds `edge_seg` alone."""

import edge_seg  # noqa: F401 - before onnxruntime, whose telemetry it switches off
