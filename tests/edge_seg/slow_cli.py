"""`edge-seg predict` with a model that takes its time, for tests that interrupt it: slow_cli.py MS ARGUMENT..."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from edge_seg import Segmenter, bundled_model, cli, predict_command
from edge_seg.fake import FakeSession
from edge_seg.native import end_program
from edge_seg.spec import ModelSpec


def main() -> int:
    pause_s = int(sys.argv[1]) / 1000

    def labels(batch: np.ndarray) -> np.ndarray:
        time.sleep(pause_s)
        return batch[..., 0] // 22

    class SlowSegmenter(Segmenter):
        def __init__(self, model: object, *, batch_size: int = 1, **options: object) -> None:
            super().__init__(FakeSession(ModelSpec(input_size=(32, 32)), labels=labels), batch_size=batch_size)

    predict_command.Segmenter = SlowSegmenter  # type: ignore[misc]
    return cli.main(["predict", *sys.argv[2:], "-m", str(bundled_model())])


if __name__ == "__main__":
    end_program(main())
