"""Throughput and IoU parity of edge_seg against Keras. Runs from a clone; the wheel holds `edge_seg` alone."""
