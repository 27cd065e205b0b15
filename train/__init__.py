"""Training of FCN8: dataset, network, fit, evaluation. Runs from a clone; the wheel contains only `edge_seg`."""

import edge_seg  # noqa: F401 - before onnxruntime, whose telemetry it switches off
