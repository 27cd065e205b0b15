"""Frames through the pipeline: order, accounting, stops and failures."""

from __future__ import annotations

import itertools
import threading
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from edge_seg.account import OUTCOMES
from edge_seg.channel import Channel
from edge_seg.errors import ConfigurationError, DeviceError, MediaError, OutOfMemoryError
from edge_seg.fake import FakeSession
from edge_seg.labelling import PipelineOptions
from edge_seg.live import LiveSource
from edge_seg.media import Event, Frame, Source, SourceEnd, SourceInfo
from edge_seg.overlay import Painter, colorize, overlay
from edge_seg.pipeline import Pipeline, PipelineReport
from edge_seg.preprocess import resize_labels
from edge_seg.segmenter import Segmenter
from edge_seg.spec import CAMVID_PALETTE_RGB, ModelSpec
from edge_seg.timings import SAMPLE_SIZE, Stopwatch

SIZE = (32, 32)


class NumberedFrames(Source):
    """`count` frames whose blue channel is their index times `step`; `broken_at` raises there."""

    def __init__(
        self, count: int, *, corrupt: tuple[int, ...] = (), broken_at: int | None = None, live: bool = False
    ) -> None:
        super().__init__()
        self.info = SourceInfo(name="numbered", kind="video", size=SIZE, frame_count=count, live=live)
        self._count, self._corrupt, self._broken_at = count, corrupt, broken_at
        self.stopped = False

    def _frames(self) -> Iterator[Frame]:
        for index in range(self._count):
            if self.stopped:
                return
            if index == self._broken_at:
                raise OSError("the cable came out")
            self.counts.read += 1
            corrupt = index in self._corrupt
            self.counts.corrupt += corrupt
            image = np.full((*SIZE, 3), index % 256, np.uint8)
            yield Frame(image=image, index=index, pts=index, time_base=Fraction(1, 25), corrupt=corrupt)
        self.end = SourceEnd(at_s=self._count / 25, early=False)

    def stop(self) -> None:
        self.stopped = True


@dataclass
class Collected:
    """A sink that remembers which frames came with which labels."""

    pairs: list[tuple[int, int]] = field(default_factory=list)
    fail_at: int | None = None
    pause_s: float = 0.0

    def write(self, frame: Frame, labels: np.ndarray, watches: dict[str, Stopwatch]) -> None:
        if frame.index == self.fail_at:
            raise OSError("the disk is full")
        time.sleep(self.pause_s)
        assert labels.shape == SIZE
        self.pairs.append((frame.index, int(labels[0, 0])))
        watches["write"].add(0.001)


def segmenter(batch_size: int = 1, **options: object) -> Segmenter:
    """Labels say what the blue channel was."""
    options.setdefault("labels", lambda batch: batch[..., 0].copy())
    session = FakeSession(ModelSpec(input_size=SIZE), **options)  # type: ignore[arg-type]
    return Segmenter(session, batch_size=batch_size)


def run(source: Source, sink: Collected, **options: object) -> PipelineReport:
    settings = PipelineOptions(**options)  # type: ignore[arg-type]
    return Pipeline(source, segmenter(settings.batch_size), sink, options=settings).run()


def balanced(report: PipelineReport) -> bool:
    return report.frames["read"] == sum(report.frames[key] for key in OUTCOMES)


@pytest.mark.parametrize("batch_size", [1, 3, 4, 8])
@pytest.mark.parametrize("stride", [1, 2, 5, 30])
@pytest.mark.parametrize("count", [0, 1, 7, 61])
def test_every_frame_once_in_order_with_the_right_labels(batch_size: int, stride: int, count: int) -> None:
    sink = Collected()
    report = run(NumberedFrames(count), sink, batch_size=batch_size, stride=stride)
    # Between segmented frames, the last segmented one's labels are shown.
    assert sink.pairs == [(index, index - index % stride) for index in range(count)]
    assert report.frames["segmented"] == len(range(0, count, stride))
    assert (report.frames["read"], report.frames["failed"], report.frames["dropped"]) == (count, 0, 0)
    assert balanced(report)
    assert (report.error, report.interrupted, report.limited) == (None, False, False)


def test_the_model_always_sees_full_batches() -> None:
    session = FakeSession(ModelSpec(input_size=SIZE))
    Pipeline(
        NumberedFrames(10), Segmenter(session, batch_size=4), Collected(), options=PipelineOptions(batch_size=4)
    ).run()
    assert session.batch_sizes == [4, 4, 4]


@pytest.mark.parametrize("limit", [1, 5, 9, 10, 50])
def test_limit(limit: int) -> None:
    source, sink = NumberedFrames(10), Collected()
    report = run(source, sink, limit=limit, batch_size=2)
    assert len(sink.pairs) == report.frames["read"] == min(limit, 10)
    assert report.limited == (limit <= 10)
    assert not report.interrupted


def test_corrupt_frames_are_kept_or_left_out_but_counted() -> None:
    kept, left = Collected(), Collected()
    assert run(NumberedFrames(10, corrupt=(3, 4)), kept).frames["dropped"] == 0
    report = run(NumberedFrames(10, corrupt=(3, 4)), left, drop_corrupt=True)
    assert len(kept.pairs) == 10
    assert [index for index, _ in left.pairs] == [0, 1, 2, 5, 6, 7, 8, 9]
    assert (report.frames["read"], report.frames["segmented"], report.frames["dropped"]) == (10, 8, 2)
    assert balanced(report)


def test_a_full_disk_ends_it_and_the_lost_frames_are_counted() -> None:
    sink = Collected(fail_at=20)
    report = run(NumberedFrames(1000), sink, batch_size=4)
    assert str(report.error) == "the disk is full"
    assert [index for index, _ in sink.pairs] == list(range(20))
    assert report.frames["segmented"] == 20
    assert report.frames["failed"] == report.frames["read"] - 20 > 0
    assert balanced(report)


def test_a_device_that_fails_ends_it() -> None:
    pipeline = Pipeline(NumberedFrames(100), segmenter(missing_library="libcuda.so"), Collected())
    report = pipeline.run()
    assert isinstance(report.error, DeviceError)
    assert report.frames["segmented"] == 0
    assert balanced(report)


def test_a_source_that_breaks_still_gives_what_it_gave() -> None:
    report = run(NumberedFrames(100, broken_at=30), sink := Collected())
    assert str(report.error) == "the cable came out"
    assert report.frames["read"] == 30
    assert balanced(report)
    assert [index for index, _ in sink.pairs] == list(range(len(sink.pairs)))


def test_a_stop_finishes_what_is_under_way() -> None:
    sink = Collected(pause_s=0.002)
    pipeline = Pipeline(NumberedFrames(100_000), segmenter(), sink)
    threading.Timer(0.15, pipeline.request_stop).start()
    report = pipeline.run()
    assert report.interrupted
    assert report.error is None
    assert 0 < len(sink.pairs) == report.frames["read"] < 100_000
    assert report.frames["failed"] == 0
    assert balanced(report)


class Piped(NumberedFrames):
    """Its writer gives five frames and waits; a stop ends it, and the decoder holds nothing back."""

    def __init__(self) -> None:
        super().__init__(100)
        self.info = replace(self.info, kind="pipe")
        self.waits, self.woken = threading.Event(), threading.Event()

    def _frames(self) -> Iterator[Frame]:
        for frame in super()._frames():
            if frame.index == 5:
                self.waits.set()
                assert self.woken.wait(20)
                return
            yield frame

    def stop(self) -> None:
        self.woken.set()


def test_a_pipe_that_is_stopped_is_interrupted_not_at_its_end() -> None:
    source, sink = Piped(), Collected()
    pipeline = Pipeline(source, segmenter(), sink, options=PipelineOptions())

    def stop() -> None:
        source.waits.wait(20)
        pipeline.request_stop()

    threading.Thread(target=stop, daemon=True).start()
    report = pipeline.run()
    assert report.interrupted
    assert [index for index, _ in sink.pairs] == list(range(5))


def test_labels_pass_through_one_place() -> None:
    seen: list[int] = []

    def change(labels: np.ndarray, image: np.ndarray) -> np.ndarray:
        assert image.shape == (*SIZE, 3)
        seen.append(int(image[0, 0, 0]))
        return labels + 100

    sink = Collected()
    options = PipelineOptions(stride=3, batch_size=2)
    Pipeline(NumberedFrames(10), segmenter(2), sink, options=options, postprocess=change).run()
    assert seen == [0, 3, 6, 9]
    assert [label for _, label in sink.pairs] == [100 + index - index % 3 for index in range(10)]


@pytest.mark.parametrize("batch_size", [1, 4])
@pytest.mark.parametrize("stride", [1, 3])
def test_flicker_compares_segmented_frames(batch_size: int, stride: int) -> None:
    class Corners(NumberedFrames):
        """Frame i has i + 1 rows that are not as in the frame before."""

        def _frames(self) -> Iterator[Frame]:
            image = np.zeros((*SIZE, 3), np.uint8)
            for frame in super()._frames():
                image = image.copy()
                image[: frame.index + 1] += 1
                yield Frame(image=image, index=frame.index, pts=frame.pts, time_base=frame.time_base)

    report = run(Corners(10), Collected(), batch_size=batch_size, stride=stride)
    changed = [index + 1 for index in range(10)][stride::stride]
    assert report.flicker == pytest.approx(sum(changed) / len(changed) / SIZE[0])
    assert run(NumberedFrames(1), Collected()).flicker is None


def test_memory_does_not_grow_with_length() -> None:
    class Heavy(NumberedFrames):
        def _frames(self) -> Iterator[Frame]:
            for frame in super()._frames():
                yield Frame(image=np.zeros((256, 256, 3), np.uint8), index=frame.index, pts=0, time_base=Fraction(1))

    tracemalloc.start()
    try:
        report = run(Heavy(400), Collected(pause_s=0.0005), stride=7, batch_size=2)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert report.frames["segmented"] + report.frames["skipped"] == 400
    # 400 frames are 79 MB; queues and a window of them are all that may be alive at once.
    assert peak < 60 * 256 * 256 * 3


def test_stages_and_speed_are_reported() -> None:
    report = run(NumberedFrames(50), Collected(pause_s=0.001))
    assert set(report.stages) == {"decode", "resize", "inference", "write"}
    assert report.stages["write"].count == 50
    assert report.stages["write"].mean_ms == pytest.approx(1.0)
    assert 50 / report.wall_s == pytest.approx(report.frames_per_s)


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"stride": 0}, {"limit": 0}])
def test_impossible_options(options: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError):
        PipelineOptions(**options)


def test_threads_end() -> None:
    before = threading.active_count()
    for sink in (Collected(), Collected(fail_at=3)):
        run(NumberedFrames(20), sink)
    assert threading.active_count() == before


@pytest.mark.parametrize("place", ["sink", "progress", "source", "model"])
def test_whatever_a_callback_raises_ends_all_threads(place: str) -> None:
    def leave(*_: object) -> Any:
        raise SystemExit(3)

    source, sink, model = NumberedFrames(20), Collected(), segmenter()
    if place == "source":
        source._frames = leave  # type: ignore[method-assign]
    elif place == "sink":
        sink.write = leave  # type: ignore[method-assign]
    elif place == "model":
        model = segmenter(labels=leave)
    before, ended = threading.active_count(), []
    pipeline = Pipeline(source, model, sink, on_progress=leave if place == "progress" else None)

    def work() -> None:
        with pytest.raises(SystemExit):
            pipeline.run()
        ended.append(True)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(10)
    assert ended
    assert threading.active_count() == before


def test_a_thread_that_cannot_be_started_is_an_error_and_leaves_none(monkeypatch: pytest.MonkeyPatch) -> None:
    start = threading.Thread.start

    def refuse(thread: threading.Thread) -> None:
        if thread.name == "edge_seg-write":
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    before = threading.active_count()
    report = run(NumberedFrames(50), Collected())
    assert str(report.error) == "can't start new thread"
    assert balanced(report)
    assert threading.active_count() == before


class Connection(NumberedFrames):
    """A live connection: a frame every `pace_s`, then silence, an error, or the end."""

    def __init__(self, count: int, *, pace_s: float = 0.0, then: str = "end") -> None:
        super().__init__(count)
        self._pace_s, self._then = pace_s, then
        self.released = threading.Event()

    def _frames(self) -> Iterator[Frame]:
        for frame in super()._frames():
            yield frame
            time.sleep(self._pace_s)
        if self._then == "hang":
            self.released.wait(5)


def test_a_slow_consumer_gets_the_newest_frame_and_drops_are_counted() -> None:
    live = LiveSource(lambda: Connection(0), Connection(60, pace_s=0.005), give_up_s=0.3)
    sink = Collected(pause_s=0.03)
    with live:
        report = run(live, sink)
    assert report.frames["dropped"] > 5
    assert report.frames["read"] == 60
    assert balanced(report)
    assert [index for index, _ in sink.pairs] == sorted({index for index, _ in sink.pairs})
    # Never older than the few frames under way, however long the stream.
    assert report.age is not None
    assert report.age.p95_ms < 500
    assert live.end.early is True
    assert "no frame for 0.3 s" in live.end.reason


def test_a_broken_connection_is_opened_again_and_time_goes_on() -> None:
    events: list[Event] = []
    connections = iter([Connection(5), Connection(5)])
    live = LiveSource(lambda: next(connections), Connection(5), give_up_s=2.0, on_event=events.append)
    frames = []
    with live:
        for frame in live:
            frames.append(frame)
            time.sleep(0.001)
            if live.counts.reconnects == 2 and live.counts.read == 15:
                live.stop()
    assert live.counts.reconnects == 2
    times = [frame.time_s for frame in frames]
    assert times == sorted(times)
    assert times[-1] > 0.9, "two pauses of half a second and a second lie in between"
    assert live.counts.read == len(frames) + live.counts.dropped
    assert any("trying again" in event.text for event in events)


class Clocked(Source):
    """A connection whose camera says these times, in seconds, the first after `wait_s`."""

    def __init__(self, *times_s: float, wait_s: float = 0.0) -> None:
        super().__init__()
        self.info = SourceInfo(name="clocked", kind="stream", size=SIZE, live=True)
        self._times_s, self.released, self._wait_s = times_s, False, wait_s

    def _frames(self) -> Iterator[Frame]:
        image = np.zeros((*SIZE, 3), np.uint8)
        time.sleep(self._wait_s)
        for index, time_s in enumerate(self._times_s):
            self.counts.read += 1
            yield Frame(image=image, index=index, pts=round(1000 * time_s), time_base=Fraction(1, 1000))
            time.sleep(0.05)

    def _release(self) -> None:
        self.released = True


def test_a_camera_that_sets_its_clock_moves_time_by_what_passed() -> None:
    connection = Clocked(100.0, 100.05, 3.0, 3.05, 9000.0, 9000.05)
    with LiveSource(lambda: Clocked(), connection, give_up_s=0.3) as live:
        times_s = [frame.time_s for frame in live]
    steps_s = [later - sooner for sooner, later in itertools.pairwise(times_s)]
    assert len(times_s) == 6
    assert min(steps_s) >= 0.04
    assert max(steps_s) < 2
    assert live.counts.retimed == 2


def test_frames_that_a_server_kept_for_who_connects_do_not_move_time_ahead_each_time() -> None:
    connections = iter([Clocked(0.0, 0.6) for _ in range(4)])
    with LiveSource(lambda: next(connections, Clocked()), Clocked(0.0, 0.6), give_up_s=1.5) as live:
        frames = [(frame.time_s, frame.captured_at or 0.0) for frame in live]
    assert len(frames) == 10
    assert frames[-1][0] - (frames[-1][1] - frames[0][1]) < 1.2
    assert min(later[0] - sooner[0] for sooner, later in itertools.pairwise(frames)) >= 0.04


def test_the_wait_for_the_first_frame_is_no_part_of_the_time() -> None:
    connections = iter([Clocked(0.0, 0.05)])
    first = Clocked(100.0, 9000.0, 9000.05, wait_s=1.5)
    with LiveSource(lambda: next(connections, Clocked()), first, give_up_s=2.0) as live:
        frames = [(frame.time_s, frame.captured_at or 0.0) for frame in live]
    assert len(frames) == 5
    assert frames[-1][0] == pytest.approx(frames[-1][1] - frames[0][1], abs=0.3)


def test_a_camera_whose_clock_ran_fast_costs_no_time_when_it_is_opened_again() -> None:
    connections = iter([Clocked(0.0, 0.05, 0.1)])
    with LiveSource(lambda: next(connections, Clocked()), Clocked(0.0, 20.0, 40.0), give_up_s=2.0) as live:
        times_s = [frame.time_s for frame in live]
    assert len(times_s) == 6
    assert min(later - sooner for sooner, later in itertools.pairwise(times_s)) >= 0.04


@pytest.mark.parametrize("state", ["lost", "live", "ended"])
def test_what_a_callback_of_events_raises_reaches_whoever_takes_the_frames(state: str) -> None:
    def complain(event: Event) -> None:
        if event.state == state:
            raise ZeroDivisionError(event.state)

    connections = iter([Clocked(0.0)])
    live = LiveSource(lambda: next(connections), Clocked(0.0), give_up_s=1.5, on_event=complain)
    with live, pytest.raises(ZeroDivisionError, match=state):
        list(live)


def test_a_live_source_that_nobody_reads_lets_go_of_its_connection() -> None:
    connection = Clocked(0.0)
    with LiveSource(lambda: Clocked(), connection):
        pass
    assert connection.released


def test_a_hanging_connection_is_disowned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_seg.live.LONGEST_OPENING_S", 0.1)
    events: list[Event] = []
    hanging = Connection(3, then="hang")
    live = LiveSource(lambda: Connection(3, pace_s=0.01), hanging, stall_s=0.1, give_up_s=5.0, on_event=events.append)
    with live:
        for _ in live:
            if live.counts.reconnects:
                break
    hanging.released.set()
    assert any("no sign of life" in event.text for event in events)
    assert live.counts.reconnects >= 1


def test_a_live_source_without_a_frame_is_an_error() -> None:
    live = LiveSource(lambda: Connection(0), Connection(0), give_up_s=0.2)
    with live, pytest.raises(OSError, match="not one frame came"):
        list(live)


def test_a_stop_wakes_a_silent_live_source() -> None:
    live = LiveSource(lambda: Connection(0), Connection(1, then="hang"), give_up_s=30)
    sink = Collected()
    with live:
        pipeline = Pipeline(live, segmenter(), sink)
        threading.Timer(0.2, pipeline.request_stop).start()
        started = time.monotonic()
        report = pipeline.run()
    assert time.monotonic() - started < 20, "give_up_s, which would end it too, is 30"
    assert (report.frames["segmented"], report.error) == (1, None)


def test_a_cancelled_channel_lets_both_sides_go() -> None:
    channel: Channel[int] = Channel(1)
    assert channel.put(1)
    blocked = threading.Thread(target=channel.put, args=(2,))
    blocked.start()
    channel.cancel()
    blocked.join(2)
    assert not blocked.is_alive()
    assert list(channel) == []
    assert channel.put(3) is False


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("size", [(64, 96), (33, 47)])
def test_the_painter_paints_as_the_plain_functions_do(alpha: float, size: tuple[int, int]) -> None:
    generator = np.random.default_rng(4)
    painter = Painter(CAMVID_PALETTE_RGB, alpha=alpha)
    for _ in range(3):
        frame = generator.integers(0, 256, (*size, 3), np.uint8)
        labels = generator.integers(0, 12, (16, 24), np.uint8)
        full = resize_labels(labels, size)
        assert np.array_equal(painter.overlay(frame, labels), overlay(frame, full, CAMVID_PALETTE_RGB, alpha))
        assert np.array_equal(painter.mask(labels, size), colorize(full, CAMVID_PALETTE_RGB))


def test_stopwatches_are_exact_in_the_mean_and_bounded() -> None:
    watch, other = Stopwatch(), Stopwatch()
    for number in range(10_000):
        watch.add(number / 1e6)
    other.add(0.5, frames=2)
    other.absorb(watch)
    summary = other.summary()
    assert summary is not None
    assert summary.count == 10_002
    assert summary.mean_ms == pytest.approx((sum(range(10_000)) / 1e6 + 0.5) / 10_002 * 1000)
    assert summary.median_ms == pytest.approx(5.0, rel=0.1)
    assert summary.p95_ms == pytest.approx(9.5, rel=0.05)


def test_each_stopwatch_has_its_share_of_what_is_kept() -> None:
    long, short = Stopwatch(), Stopwatch()
    for watch, seconds, count in ((long, 1.0, 45_000), (short, 2.0, 5_000)):
        for _ in range(count):
            watch.add(seconds)
    together = Stopwatch()
    together.absorb(long)
    together.absorb(short)
    summary = together.summary()
    assert summary is not None
    assert (summary.median_ms, summary.p95_ms, summary.mean_ms) == (1000, 2000, 1100)
    assert len(together._sample) == SAMPLE_SIZE
    assert together._sample.count(1.0) / SAMPLE_SIZE == pytest.approx(0.9, abs=0.001)


class TwoAtOnce(FakeSession):
    """Each run waits until another one is under way (or a second has passed), and earlier frames take longer."""

    def __init__(self, **options: Any) -> None:
        super().__init__(ModelSpec(input_size=SIZE), labels=self._slowly, runs_at_once=2, **options)
        self._inside, self.most = 0, 0
        self._meeting = threading.Condition()

    def _slowly(self, batch: np.ndarray) -> np.ndarray:
        with self._meeting:
            self._inside += 1
            self.most = max(self.most, self._inside)
            self._meeting.notify_all()
            self._meeting.wait_for(lambda: self._inside > 1, timeout=1.0 if self.most < 2 else 0.0)
        time.sleep(0.01 if int(batch[0, 0, 0, 0]) % 2 == 0 else 0.0)
        with self._meeting:
            self._inside -= 1
        return batch[..., 0] // 16


@pytest.mark.parametrize("stride", [1, 3])
def test_two_batches_at_once_keep_the_order_of_the_frames(stride):
    session, sink = TwoAtOnce(), Collected()
    options = PipelineOptions(batch_size=2, stride=stride)
    report = Pipeline(NumberedFrames(41), Segmenter(session, batch_size=2), sink, options=options).run()
    assert report.error is None
    assert session.most == 2
    assert sink.pairs == [(index, (index - index % stride) // 16) for index in range(41)]


def test_an_error_of_one_of_two_runs_ends_the_pipeline_with_both():
    # Not even one frame fits: a smaller batch does not help.
    session, sink = TwoAtOnce(memory_frames=0), Collected()
    pipeline = Pipeline(
        NumberedFrames(20), Segmenter(session, batch_size=2), sink, options=PipelineOptions(batch_size=2)
    )
    with pytest.warns(RuntimeWarning, match="1 at a time"):
        report = pipeline.run()
    assert isinstance(report.error, OutOfMemoryError)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("edge_seg-infer")]


def test_a_live_source_is_never_given_two_runs_at_once():
    session = TwoAtOnce()
    report = Pipeline(NumberedFrames(4, live=True), Segmenter(session), Collected()).run()
    assert report.error is None
    assert session.most == 1


@pytest.mark.parametrize("batch_size", [1, 4])
def test_a_live_frame_is_not_taken_before_its_turn(batch_size: int) -> None:
    """One that waited for the frames before it, or for its batch to fill, would no longer be the newest."""
    source, taken = NumberedFrames(10, live=True), []

    def labels(batch: np.ndarray) -> np.ndarray:
        time.sleep(0.02)
        taken.append(source.counts.read)
        return batch[..., 0].copy()

    options = PipelineOptions(batch_size=batch_size)
    report = Pipeline(source, segmenter(labels=labels), Collected(), options=options).run()
    assert (report.error, report.frames["segmented"]) == (None, 10)
    assert taken == list(range(1, 11))


def test_a_batch_of_pictures_that_memory_does_not_hold_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_seg.pipeline.available_memory", lambda: 100 * 32 * 32 * 3)
    session = FakeSession(ModelSpec(input_size=SIZE))
    with pytest.raises(MediaError, match=r"numbered: \d+ frames of 32x32 .* Take a smaller batch"):
        Pipeline(NumberedFrames(200), Segmenter(session), Collected(), options=PipelineOptions(batch_size=64))
    few = PipelineOptions(batch_size=64, limit=5)
    assert Pipeline(NumberedFrames(200), Segmenter(session), Collected(), options=few).run().frames["segmented"] == 5
    assert Pipeline(NumberedFrames(200), Segmenter(session), Collected()).run().frames["segmented"] == 200


def test_large_pictures_do_not_pile_up_before_a_slow_writer(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as a batch needs, and of large ones as many as `QUEUE_BYTES` hold."""
    for queue_bytes, most in ((1 << 28, 4 * 8 + 8), (1, 2 * 8 + 8)):
        monkeypatch.setattr("edge_seg.pipeline.QUEUE_BYTES", queue_bytes)
        source, ahead = NumberedFrames(100), []

        class Slow(Collected):
            def write(self, frame: Frame, labels: np.ndarray, watches: dict[str, Stopwatch]) -> None:
                time.sleep(0.005)
                ahead.append(source.counts.read - frame.index)  # noqa: B023

        segmenter = Segmenter(FakeSession(ModelSpec(input_size=SIZE)), batch_size=8)
        report = Pipeline(source, segmenter, Slow(), options=PipelineOptions(batch_size=8)).run()
        assert report.frames["segmented"] == 100
        assert 8 <= max(ahead) <= most
