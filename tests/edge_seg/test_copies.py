"""Full-size conversions and copies of a frame on its way, counted."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from av.video.reformatter import VideoReformatter

from edge_seg.fake import FakeSession
from edge_seg.outputs import VideoOutputs
from edge_seg.pipeline import Pipeline
from edge_seg.preprocess import resize_frame, stack_frames
from edge_seg.segmenter import Segmenter
from edge_seg.video import VideoFile
from edge_seg.writers import OutputStyle
from tests.edge_seg.clips import make_clip

FRAMES = 8


@pytest.mark.parametrize(("kind", "encoded"), [("overlay", FRAMES), ("jsonl", 0), ("labels", 0)])
def test_each_frame_is_converted_once_each_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind, encoded):
    calls = {"video": 0, "encode": 0}

    class Counting:
        def __init__(self, module: str) -> None:
            self._module, self._real = module, VideoReformatter()

        def reformat(self, *args: Any, **options: Any) -> Any:
            calls[self._module] += 1
            assert options["threads"] == 1, "the other stages already fill the cores"
            return self._real.reformat(*args, **options)

    for module in calls:
        monkeypatch.setattr(f"edge_seg.{module}.VideoReformatter", lambda module=module: Counting(module))
    clip = make_clip(tmp_path / "clip.mp4", count=FRAMES)
    with VideoFile(clip) as source:
        segmenter = Segmenter(FakeSession())
        sink = VideoOutputs({kind: tmp_path / kind}, lambda: source.info, segmenter.spec, style=OutputStyle())
        report = Pipeline(source, segmenter, sink).run()
        sink.close(whole=True)
    assert (report.error, report.written) == (None, FRAMES)
    assert calls == {"video": FRAMES, "encode": encoded}


def test_frames_are_resized_straight_into_the_batch():
    frames = [np.random.default_rng(seed).integers(0, 256, (270, 480, 3), np.uint8) for seed in range(2)]
    size = (224, 224)
    tracemalloc.start()
    batch = stack_frames(frames, size)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    np.testing.assert_array_equal(batch, [resize_frame(frame, size) for frame in frames])
    assert peak < batch.nbytes + batch[0].nbytes // 2, "no picture besides the batch"
