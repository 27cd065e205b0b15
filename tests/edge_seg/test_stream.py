"""A source through a Segmenter, as a caller's loop sees it: what it gives, warns of, and says in its report."""

from __future__ import annotations

import gc
import multiprocessing
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest

from edge_seg import ConfigurationError, MediaError, ModelSpec, Segmenter, bundled_clip
from edge_seg.account import StreamReport
from edge_seg.fake import FakeSession, brightness_labels
from edge_seg.media import Frame, Source, SourceInfo
from edge_seg.sources import open_source
from edge_seg.stream import ResultStream
from tests.edge_seg.clips import make_clip, read_number, write_image


def pictures(count: int) -> np.ndarray:
    return np.random.default_rng(4).integers(0, 256, (count, 32, 64, 3), np.uint8)


def test_the_warning_of_each_source_names_it(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "x.mp4", count=6, container_options={"movflags": "faststart"})
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(clip.read_bytes()[:-500])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")  # Python's own filter, which shows a text once a line.
        for name in ("a.mp4", "b.mp4"):
            list(Segmenter(FakeSession()).stream(tmp_path / name))
    assert [str(warning.message).partition(" ended early")[0] for warning in said] == [
        str(tmp_path / "a.mp4"),
        str(tmp_path / "b.mp4"),
    ]


@pytest.mark.parametrize("batch_size", [1, 4])
def test_each_result_says_which_file_it_is_of(tmp_path: Path, batch_size: int) -> None:
    clips = [str(make_clip(tmp_path / f"{name}.mp4", count=3)) for name in "ab"]
    segmenter = Segmenter(FakeSession(), batch_size=batch_size)
    results = list(segmenter.stream(tmp_path))
    assert [result.name for result in results] == [name for name in clips for _ in range(3)]
    assert [result.index for result in results] == list(range(6))
    assert [result.time_s for result in results[3:]] == [result.time_s for result in results[:3]]
    (plain,) = segmenter.stream(pictures(1))
    assert plain.name == segmenter.segment(pictures(1)[0]).name == ""


@pytest.mark.parametrize("batch_size", [1, 4])
def test_what_came_before_an_error_is_given_whatever_the_batch(tmp_path: Path, batch_size: int) -> None:
    for number in range(3):
        write_image(tmp_path / f"{number}.png", number)
    (tmp_path / "3.png").write_bytes(b"no picture")

    def breaking() -> Iterator[np.ndarray]:
        yield from pictures(3)
        raise ZeroDivisionError("of the caller's own")

    for source, error in (
        (tmp_path, MediaError),
        ([*pictures(3), None], ConfigurationError),
        (breaking(), ZeroDivisionError),
    ):
        stream, results = Segmenter(FakeSession(), batch_size=batch_size).stream(source), []
        with pytest.raises(error):
            results += iter(stream)
        assert [result.index for result in results] == [0, 1, 2]
        assert stream.report.balanced
        assert stream.report.frames["segmented"] == 3


def test_an_account_names_one_of_a_thing_and_several() -> None:
    frames = dict.fromkeys(("read", "segmented", "skipped", "failed", "dropped", "corrupt", "resized", "retimed"), 0)
    once, twice = (
        StreamReport(source="camera", frames={**frames, "damaged_packets": count, "reconnects": count}).account_line()
        for count in (1, 2)
    )
    assert "; 1 damaged packet; 1 time opened again" in once
    assert "; 2 damaged packets; 2 times opened again" in twice


def test_a_folder_that_breaks_off_between_two_files_is_not_said_to_have_ended(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        make_clip(tmp_path / name, count=3)
    whole = Segmenter(FakeSession()).stream(tmp_path)
    assert len(list(whole)) == 6
    assert whole.report.ended_early is False
    (tmp_path / "b.mp4").write_bytes(b"no video")
    broken = Segmenter(FakeSession()).stream(tmp_path)
    with pytest.raises(MediaError, match=r"b\.mp4"):
        list(broken)
    assert (broken.report.frames["segmented"], broken.report.ended_early) == (3, None)


def test_another_thread_may_stop_the_source(tmp_path: Path) -> None:
    seen = threading.Event()
    with open_source(bundled_clip()) as source:
        stream, results = Segmenter(FakeSession()).stream(source), []

        def loop() -> None:
            for result in stream:
                results.append(result.index)
                seen.wait(10)

        thread = threading.Thread(target=loop)
        thread.start()
        source.stop()
        seen.set()
        thread.join(20)
    assert len(results) < 3
    assert stream.report.balanced


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("rtsp://user:canary@127.0.0.1:9/live", "rtsp://***@127.0.0.1:9/live"),
        (99, "camera 99"),
        (Path("no such.mp4"), "no such.mp4"),
    ],
)
def test_a_report_names_a_source_that_does_not_open_without_its_password(given: Any, name: str) -> None:
    stream = Segmenter(FakeSession()).stream(given)
    assert stream.report.source == name
    with pytest.raises(MediaError):
        next(stream)
    assert stream.report.source == name


def read_on(held: list[ResultStream]) -> str:
    try:
        return f"result {next(held[0]).index}"
    except MediaError as error:
        return str(error)


def close_it(held: list[ResultStream]) -> str:
    held[0].close()
    return "done"


def drop_it(held: list[ResultStream]) -> str:
    held.clear()
    gc.collect()
    return "done"


def answer(pipe: Any, use: Callable[[list[ResultStream]], str], held: list[ResultStream]) -> None:
    pipe.send(use(held))


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*")
@pytest.mark.parametrize(
    ("use", "told"),
    [
        (read_on, f"{bundled_clip()}: was opened before a fork; open it in the process that reads it."),
        (close_it, "done"),
        (drop_it, "done"),
    ],
)
def test_a_forked_worker_leaves_its_parents_stream_alone(use: Callable[[list[ResultStream]], str], told: str) -> None:
    held = [Segmenter(FakeSession()).stream(bundled_clip())]
    next(held[0])
    ours, theirs = multiprocessing.Pipe()
    worker = multiprocessing.get_context("fork").Process(target=answer, args=(theirs, use, held))
    worker.start()
    # The decoder's threads did not come along: what waits for them waits for ever.
    said = ours.recv() if ours.poll(20) else "nothing: it hangs"
    worker.kill()
    worker.join()
    assert said == told
    assert next(held[0]).index == 1, "the parent reads on"
    held[0].close()


def test_a_source_opened_before_a_fork_is_refused_before_its_first_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    with open_source(bundled_clip()) as source:
        with monkeypatch.context() as child:
            child.setattr("os.getpid", lambda: -1)
            with pytest.raises(MediaError, match="was opened before a fork"):
                iter(source)
        assert next(iter(source)).index == 0


def test_what_the_parent_holds_is_not_let_go_of_in_a_forked_child(monkeypatch: pytest.MonkeyPatch) -> None:
    released = []
    with open_source(bundled_clip()) as source:
        monkeypatch.setattr(type(source), "_release", lambda self: released.append(self))
        with monkeypatch.context() as child:
            child.setattr("os.getpid", lambda: -1)
            source.close()
        assert not released
        with open_source(bundled_clip()) as other:
            pass
        assert released == [other]


class Silent(Source):
    """A live source that gives two frames and then waits until it is stopped."""

    def __init__(self) -> None:
        super().__init__()
        self.info = SourceInfo(name="silent", kind="stream", live=True)
        self.woken = threading.Event()

    def _frames(self) -> Iterator[Frame]:
        for index, image in enumerate(pictures(2)):
            self.counts.read += 1
            yield Frame(image=image, index=index, pts=index, time_base=Fraction(1))
        assert self.woken.wait(20), "never stopped"

    def stop(self) -> None:
        self.woken.set()


def closed_amid(stream: ResultStream, after: int) -> list[int]:
    """The indices that a loop takes until another thread closes its stream, `after` so many results."""
    ready, found = threading.Event(), []

    def close() -> None:
        ready.wait(20)
        # Most often the loop is in the source or the session by now; it must be right either way.
        stream.close()
        stream.close()

    closer = threading.Thread(target=close)
    closer.start()
    for result in stream:
        found.append(result.index)
        if len(found) == after:
            ready.set()
    closer.join(20)
    assert not closer.is_alive()
    assert stream.report.balanced
    with pytest.raises(StopIteration):
        next(stream)
    return found


@pytest.mark.parametrize("batch_size", [1, 3])
def test_another_thread_may_close_a_stream_whose_source_never_ends(batch_size: int) -> None:
    def endless() -> Iterator[np.ndarray]:
        while True:
            yield pictures(1)[0]

    assert len(closed_amid(Segmenter(FakeSession(), batch_size=batch_size).stream(endless()), after=4)) >= 4


def test_another_thread_may_close_a_stream_that_waits_for_a_live_source(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Silent()
    monkeypatch.setattr("edge_seg.sources.open_source", lambda address, **_: source)
    assert closed_amid(Segmenter(FakeSession()).stream("rtsp://camera/1"), after=2) == [0, 1]
    assert source.woken.is_set()


def test_a_stream_that_is_closed_while_its_source_opens_gives_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    opening, closed = threading.Event(), threading.Event()

    def slow(address: str, **_: object) -> Source:
        opening.set()
        assert closed.wait(20)
        return Silent()

    monkeypatch.setattr("edge_seg.sources.open_source", slow)
    stream = Segmenter(FakeSession()).stream("rtsp://camera/1")

    def close() -> None:
        opening.wait(20)
        stream.close()
        closed.set()

    closer = threading.Thread(target=close)
    closer.start()
    assert list(stream) == []
    closer.join(20)


@pytest.mark.parametrize("batch_size", [1, 2, 4])
def test_a_camera_may_refill_one_array(batch_size: int) -> None:
    frames = pictures(7)

    def refilled() -> Iterator[np.ndarray]:
        buffer = np.empty_like(frames[0])
        for frame in frames:
            buffer[:] = frame
            yield buffer

    stream = Segmenter(FakeSession(ModelSpec(input_size=(32, 64))), batch_size=batch_size).stream(refilled())
    for result, frame in zip(stream, frames, strict=True):
        np.testing.assert_array_equal(result.labels, brightness_labels(frame[None], 12)[0])
        if batch_size > 1:
            np.testing.assert_array_equal(result.frame, frame)


def test_a_stream_that_is_closed_does_not_wait_for_its_batch_to_fill() -> None:
    taken = []

    def endless() -> Iterator[np.ndarray]:
        while True:
            taken.append(None)
            if len(taken) == 5:
                closer.start()
                closer.join(20)
            yield pictures(1)[0]

    stream = Segmenter(FakeSession(), batch_size=100).stream(endless())
    closer = threading.Thread(target=stream.close)
    for _ in stream:
        pass
    assert len(taken) == 5


def test_a_stream_that_was_closed_lets_go_of_what_it_was_given() -> None:
    said = []

    def camera() -> Iterator[np.ndarray]:
        try:
            while True:
                yield pictures(1)[0]
        finally:
            said.append("released")

    with Segmenter(FakeSession()).stream(camera()) as stream:
        next(stream)
    assert said == ["released"]
    assert stream.report.source == "generator"
    ours = camera()
    with Segmenter(FakeSession()).stream(ours) as stream:
        next(stream)
    assert said == ["released"]
    assert next(ours).shape == (32, 64, 3), "who holds it may read on"


def test_a_stream_that_is_kept_for_its_report_keeps_no_frames() -> None:
    class Watched(np.ndarray):
        """An array that a weak reference may point at."""

    frames = [picture.copy().view(Watched) for picture in pictures(3)]
    watched = [weakref.ref(frame) for frame in frames]
    stream = Segmenter(FakeSession()).stream(frames)
    for _ in stream:
        pass
    del frames, _
    assert [frame() for frame in watched] == [None] * 3
    assert stream.report.frames["segmented"] == 3


def test_a_named_tuple_may_be_an_item() -> None:
    """It has a method `index`, which is no field."""

    class Item(NamedTuple):
        image: np.ndarray
        time_s: float

    class Numbered(NamedTuple):
        image: np.ndarray
        index: int

    segmenter = Segmenter(FakeSession())
    results = list(segmenter.stream(Item(picture, place / 25) for place, picture in enumerate(pictures(3))))
    assert [(result.index, result.time_s) for result in results] == [(0, 0.0), (1, 0.04), (2, 0.08)]
    (result,) = segmenter.stream([Numbered(pictures(1)[0], 7)])
    assert result.index == 7


def test_a_stream_is_a_context_manager_and_says_what_it_is(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "x.mp4", count=6)
    with Segmenter(FakeSession()) as segmenter, segmenter.stream(clip) as results:
        next(results)
        assert repr(results) == f"ResultStream({str(clip)!r}, 1 frame segmented)"
    assert repr(results) == f"ResultStream({str(clip)!r}, closed)"
    assert list(results) == []
    assert results.report.frames["read"] == 1


@pytest.mark.parametrize("batch_size", [1, 3])
def test_a_capture_of_opencvs_is_a_source(tmp_path: Path, batch_size: int) -> None:
    clip = make_clip(tmp_path / "x.mp4", count=4)
    results = Segmenter(FakeSession(), batch_size=batch_size).stream(cv2.VideoCapture(str(clip)))
    assert [read_number(result.frame) for result in results] == list(range(4))
    assert results.report.frames["segmented"] == 4
    with pytest.raises(MediaError, match="The VideoCapture is not open"):
        list(Segmenter(FakeSession()).stream(cv2.VideoCapture(str(tmp_path / "missing.mp4"))))
