"""Sessions on the CPU provider: of a file, or of a draft with inner tensors as outputs. Knows nothing of frames."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import onnxruntime
from onnx import NodeProto, TensorProto, helper

from edge_seg.files import temporary_path
from edge_seg.threads import available_threads

from .draft import Draft, write_draft

PROVIDER = "CPUExecutionProvider"


def cpu_session(path: Path) -> onnxruntime.InferenceSession:
    """A session on the CPU provider, with the threads this process may use."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = available_threads()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=[PROVIDER])


@contextlib.contextmanager
def watched(
    draft: Draft, outputs: Iterable[str], folder: Path, *, nodes: Iterable[NodeProto] = ()
) -> Iterator[onnxruntime.InferenceSession]:
    """A CPU session over a fork of `draft` with more outputs.

    Args:
        draft: left unchanged.
        outputs: names of float32 tensors of the graph or of `nodes`.
        folder: an existing folder for a temporary file of the draft's size, deleted as soon as the session is open.
        nodes: to add to the graph.
    """
    fork = draft.fork()
    fork.set_nodes([*fork.nodes, *nodes])
    for name in outputs:
        fork.graph.output.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, None))
    with tempfile.TemporaryDirectory(prefix=f"{temporary_path(folder / 'watched').name}-", dir=folder) as scratch:
        path = Path(scratch) / "watched.onnx"
        write_draft(fork, path)
        session = cpu_session(path)
    yield session
