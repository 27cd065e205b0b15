"""Runs whole clips in a worker: by the pipeline of `edge-seg predict`, or by the loop that a newcomer would write.

Each runner turns a clip into an overlay video and returns frames, seconds, milliseconds by stage and peak memory.
Knows nothing of repeats or other contenders.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from edge_seg.errors import MediaError
from edge_seg.preprocess import scale_frames, stack_frames
from edge_seg.spec import palette_for
from edge_seg.timings import Stopwatch

from .cases import Contender
from .environment import peak_memory_mb

# Decoded frames kept to run stages alone: two seconds of video, tens of megabytes.
KEPT_FRAMES = 48


def clip_runner(contender: Contender, batch: int) -> PipelineRunner | NaiveLoop:
    """The runner for a contender's kind."""
    return NaiveLoop(contender) if contender.kind == "naive" else PipelineRunner(contender, batch)


class PipelineRunner:
    """Runs clips through a model on a device, by the pipeline of `edge-seg predict`."""

    def __init__(self, contender: Contender, batch: int) -> None:
        from edge_seg.segmenter import Segmenter

        self._segmenter = Segmenter(contender.path, device=contender.device, batch_size=batch, overlapped=True)
        self._batch = batch

    def run(
        self, clip: Path, limit: int | None, target: Path, *, kind: str = "overlay", stride: int = 1
    ) -> dict[str, Any]:
        """Turn one clip into one output of a kind; every `stride`th frame is segmented. The time includes opening and
        closing both files.

        Raises:
            MediaError: the clip cannot be read, or the output not be written to its end.
        """
        from edge_seg.labelling import PipelineOptions
        from edge_seg.outputs import VideoOutputs
        from edge_seg.pipeline import Pipeline
        from edge_seg.video import VideoFile
        from edge_seg.writers import OutputStyle

        began = time.perf_counter()
        with VideoFile(clip) as source:
            sink = VideoOutputs(
                {kind: target},
                lambda: source.info,
                self._segmenter.spec,
                style=OutputStyle(),
                audio_from=clip,
                replaces=[target],
            )
            options = PipelineOptions(batch_size=self._batch, limit=limit, stride=stride)
            report = Pipeline(source, self._segmenter, sink, options=options).run()
            if report.error is not None:
                sink.abort()
                raise report.error
            written, _ = sink.close(whole=True)
        seconds = time.perf_counter() - began
        if not written or written[0].frames != report.written:
            raise MediaError(f"{clip}: {report.written} frames were segmented, but not all are in the {kind}.")
        stage_ms = {stage: spent.mean_ms for stage, spent in report.stages.items()}
        return {"frames": report.written, "seconds": seconds, "stage_ms": stage_ms, "peak_mb": peak_memory_mb()}

    def alone(self, clip: Path, limit: int | None, target: Path) -> dict[str, float]:
        """Stage -> milliseconds of CPU time a frame, over all threads, with each stage run alone."""
        from edge_seg.outputs import VideoOutputs
        from edge_seg.video import VideoFile
        from edge_seg.writers import OutputStyle

        spec, size = self._segmenter.spec, self._segmenter.input_size
        with VideoFile(clip) as source:
            count, decode_s = cpu_s(lambda: sum(1 for _ in itertools.islice(source, limit)))
        with VideoFile(clip) as source:
            kept = list(itertools.islice(source, min(limit or KEPT_FRAMES, KEPT_FRAMES)))
            kept = kept[: max(self._batch, len(kept) // self._batch * self._batch)]
            batches = [kept[first : first + self._batch] for first in range(0, len(kept), self._batch)]
            inputs, resize_s = cpu_s(lambda: [stack_frames([one.image for one in part], size) for part in batches])
            labels, inference_s = cpu_s(lambda: [self._segmenter.predict_labels(part) for part in inputs])
            sink = VideoOutputs({"overlay": target}, lambda: source.info, spec, style=OutputStyle(), replaces=[target])

            def paint_and_encode() -> None:
                watches = {stage: Stopwatch() for stage in ("paint", "write")}
                for frame, found in zip(kept, np.concatenate(labels), strict=False):
                    sink.write(frame, found, watches)
                sink.close(whole=True)

            _, output_s = cpu_s(paint_and_encode)
        each = 1000.0 / len(kept)
        return {
            "decode": 1000.0 * decode_s / count,
            "resize": each * resize_s,
            "inference": each * inference_s,
            "paint and encode": each * output_s,
        }


def cpu_s(work: Callable[[], Any]) -> tuple[Any, float]:
    """The result of `work`, and the CPU seconds that this process spent on it."""
    began = time.process_time()
    result = work()
    return result, time.process_time() - began


class NaiveLoop:
    """The loop that a newcomer would write: cv2 reads, Keras predicts a frame at a time, cv2 blends and writes."""

    def __init__(self, contender: Contender) -> None:
        from .runners import keras_model
        from .settings import run_classes

        self._model = keras_model(contender)
        self._size = contender.size
        # The palette is RGB; cv2 needs BGR.
        palette = palette_for(run_classes(Path(contender.path)).names)
        self._colours = np.asarray(palette, np.uint8)[:, ::-1]
        self._model.predict(np.zeros((1, *self._size, 3), np.float32), verbose=0)

    def run(self, clip: Path, limit: int | None, target: Path) -> dict[str, Any]:
        """Turn one clip into one overlay; raises `MediaError` if the clip cannot be read or the overlay not opened."""
        from edge_seg.opencv import cv2

        watches = {stage: Stopwatch() for stage in ("decode", "inference", "paint", "write")}
        began = time.perf_counter()
        capture = cv2.VideoCapture(str(clip))
        width, height = (int(capture.get(key)) for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        code = cv2.VideoWriter.fourcc(*"mp4v")
        writer = cv2.VideoWriter(str(target), code, capture.get(cv2.CAP_PROP_FPS), (width, height))
        if not capture.isOpened() or not writer.isOpened():
            raise MediaError(f"{clip}: OpenCV cannot read it or cannot write {target}.")
        frames = 0
        while limit is None or frames < limit:
            times = [time.perf_counter()]
            there, frame = capture.read()
            if not there:
                break
            times.append(time.perf_counter())
            scaled = scale_frames(cv2.resize(frame, self._size[::-1])[None])
            labels = self._model.predict(scaled, verbose=0)[0].argmax(axis=-1).astype(np.uint8)
            times.append(time.perf_counter())
            large = cv2.resize(labels, (width, height), interpolation=cv2.INTER_NEAREST)
            picture = cv2.addWeighted(frame, 0.5, np.ascontiguousarray(self._colours[large]), 0.5, 0)
            times.append(time.perf_counter())
            writer.write(picture)
            times.append(time.perf_counter())
            for watch, start, end in zip(watches.values(), times, times[1:], strict=False):
                watch.add(end - start)
            frames += 1
        writer.release()
        capture.release()
        if not frames:
            raise MediaError(f"{clip}: OpenCV read no frame of it.")
        summaries = {stage: watch.summary() for stage, watch in watches.items()}
        stage_ms = {stage: summary.mean_ms for stage, summary in summaries.items() if summary}
        seconds = time.perf_counter() - began
        return {"frames": frames, "seconds": seconds, "stage_ms": stage_ms, "peak_mb": peak_memory_mb()}
