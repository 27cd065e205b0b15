"""Keras run -> one proved ONNX file. Runs from a clone; the wheel holds `edge_seg` alone."""
