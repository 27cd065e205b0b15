"""Throughput and IoU parity of edge_seg against Keras. Runs from a clone; the wheel holds only `edge_seg`."""

import edge_seg  # noqa: F401 - first, since it switches off onnxruntime's telemetry
