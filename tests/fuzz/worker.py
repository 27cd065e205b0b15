"""A child that handles cases one after another: `python -m tests.fuzz.worker TARGET FOLDER`.

Reads cases from stdin (8 bytes of length, then the bytes), writes one JSON line a case. The address space is bounded
here; processor time and the peak of resident memory are measured for each case, and its parent judges them.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import sys
import time
import traceback
from pathlib import Path
from typing import Any

# Above what the process has mapped once everything is imported: threads' stacks and heaps are mapped, not used.
ADDRESS_ROOM = 3 * 2**30


def main() -> None:
    target_name, folder = sys.argv[1], Path(sys.argv[2])
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print shall not be taken for an answer
    from tests.fuzz.targets import PLANTED, TARGETS

    if target_name not in PLANTED:
        import_everything()
    limit = _status("VmSize") + ADDRESS_ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    print(json.dumps({"ready": _status("VmRSS")}), file=answers, flush=True)
    path = folder / f"case-{target_name}"
    while len(head := sys.stdin.buffer.read(8)) == 8:
        path.write_bytes(sys.stdin.buffer.read(int.from_bytes(head, "little")))
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        began = time.process_time()
        answer = _run(TARGETS[target_name], path)
        took = {"cpu_seconds": time.process_time() - began, "peak_bytes": _status("VmHWM")}
        print(json.dumps(answer | took), file=answers, flush=True)


def import_everything() -> None:
    """So that no case pays for imports."""
    names = "cv2 h5py edge_seg.images edge_seg.segmenter edge_seg.session edge_seg.verify edge_seg.video"
    for name in (*names.split(), "train.preflight", "train.stored"):
        importlib.import_module(name)
    sys.modules["edge_seg.session"].load_runtime()


def _run(target: Any, path: Path) -> dict[str, Any]:
    from edge_seg.errors import EdgeSegError

    try:
        target(path)
    except EdgeSegError as error:
        return {"outcome": type(error).__name__, "text": str(error)}
    except BaseException:
        return {"outcome": "raw", "text": traceback.format_exc()}
    return {"outcome": "good", "text": ""}


def _status(name: str) -> int:
    """One of the kernel's figures on this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(name)


if __name__ == "__main__":
    main()
