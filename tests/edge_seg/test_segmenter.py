"""Segmenter: one frame, a batch and a stream give the same labels, at any size, from any thread."""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import pickle
import threading
import tracemalloc
import warnings
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from edge_seg import (
    ConfigurationError,
    DeviceError,
    MediaError,
    ModelFileError,
    ModelSpec,
    OutOfMemoryError,
    Segmentation,
    Segmenter,
    bundled_clip,
    bundled_model,
)
from edge_seg.errors import raise_if_interrupted
from edge_seg.fake import FakeSession, brightness_labels
from edge_seg.media import Frame, Source, SourceEnd, SourceInfo
from edge_seg.session import open_session
from edge_seg.sources import open_source
from tests.edge_seg.clips import make_clip, write_image

BAD_SIZES: tuple[Any, ...] = ((32,), "32x64", 64, (32.0, 64.5), (32, 64, 3))


def pictures(count: int, size: tuple[int, int] = (32, 64)) -> np.ndarray:
    return np.random.default_rng(4).integers(0, 256, (count, *size, 3), np.uint8)


@pytest.fixture
def fake() -> FakeSession:
    return FakeSession(ModelSpec(input_size=(32, 64)))


def test_frame_batch_and_stream_agree_with_the_reference(tiny_model, tiny_reference):
    frames = pictures(5)
    expected = tiny_reference(frames, 12)
    with Segmenter(tiny_model(), device="cpu", batch_size=2) as segmenter:
        one = np.stack([segmenter.segment(frame).labels for frame in frames])
        batch = np.stack([result.labels for result in segmenter.segment_batch(list(frames))])
        stream = np.stack([result.labels for result in segmenter.stream(frames)])
        raw = segmenter.predict_labels(frames)
    assert np.mean(one == expected) > 0.9999
    for other in (batch, stream, raw):
        np.testing.assert_array_equal(other, one)


def test_short_batches_are_filled_up_and_cut(fake):
    segmenter = Segmenter(fake, batch_size=4)
    frames = pictures(6)
    assert len(segmenter.segment_batch(list(frames))) == 6
    assert segmenter.segment_batch([]) == []
    np.testing.assert_array_equal(segmenter.predict_labels(frames), brightness_labels(frames, 12))
    segmenter.segment(frames[0])
    assert set(fake.batch_sizes) == {4}


def test_where_no_shape_is_the_favourite_a_short_batch_costs_what_it_holds() -> None:
    fake = FakeSession(ModelSpec(input_size=(32, 64)), whole_batches=False)
    segmenter = Segmenter(fake, batch_size=4)
    frames = pictures(6)
    segmenter.segment_batch(list(frames))
    segmenter.segment(frames[0])
    np.testing.assert_array_equal(segmenter.predict_labels(frames[:3]), brightness_labels(frames[:3], 12))
    assert fake.batch_sizes == [4, 2, 1, 3]


def test_the_cpu_has_no_favourite_shape_but_a_file_may(tiny_model) -> None:
    assert not open_session(tiny_model(), device="cpu", batch_size=2).whole_batches
    with Segmenter(tiny_model(batch=2), device="cpu", batch_size=2) as segmenter:
        assert segmenter.segment(pictures(1)[0]).labels.shape == (32, 64)


@pytest.mark.parametrize("size", [(1, 1), (7, 301), (32, 64), (200, 100), (1081, 3)])
def test_labels_come_back_at_the_frames_own_size_by_nearest_neighbour(fake, size):
    frame = pictures(1, size)[0]
    result = Segmenter(fake).segment(frame)
    small = brightness_labels(cv2.resize(frame, (64, 32), interpolation=cv2.INTER_LINEAR), 12)
    np.testing.assert_array_equal(result.labels, cv2.resize(small, size[::-1], interpolation=cv2.INTER_NEAREST_EXACT))
    assert result.labels.dtype == np.uint8
    assert result.frame is frame


def test_a_batch_may_mix_sizes(fake):
    frames = [pictures(1, size)[0] for size in ((20, 30), (50, 10), (32, 64))]
    results = Segmenter(fake, batch_size=2).segment_batch(frames)
    assert [result.labels.shape for result in results] == [(20, 30), (50, 10), (32, 64)]
    assert [result.index for result in results] == [0, 1, 2]
    again = Segmenter(fake, batch_size=2).segment_batch(deque(frames))
    assert [result.labels.shape for result in again] == [(20, 30), (50, 10), (32, 64)], "any sequence, slices or not"


def test_a_results_numbers_are_those_of_its_labels(fake):
    frame = np.zeros((32, 64, 3), np.uint8)
    frame[:, 32:, 0] = 255
    result = Segmenter(fake).segment(frame, index=7, time_s=1.5)
    share = result.class_share()
    assert list(share) == list(fake.spec.classes)
    assert (share["sky"], share["unlabelled"], sum(share.values())) == (0.5, 0.5, 1.0)
    assert (result.index, result.time_s) == (7, 1.5)
    assert set(result.speed_ms) == {"preprocess", "inference", "postprocess"}
    assert all(milliseconds >= 0 for milliseconds in result.speed_ms.values())
    assert result.confidence is None
    np.testing.assert_array_equal(result.plot(0.0), frame)
    np.testing.assert_array_equal(result.plot(1.0), result.mask())
    assert tuple(result.mask()[0, 0][::-1]) == fake.spec.palette[0]
    with pytest.raises(FrozenInstanceError):
        result.index = 3


@pytest.mark.parametrize("size", [(33, 65), (4096, 4100)])
def test_shares_are_exact_on_small_and_huge_frames(size):
    labels = np.zeros(size, np.uint8)
    labels.flat[:1001] = 3
    share = Segmentation(labels=labels, frame=np.empty(0), spec=ModelSpec()).class_share()
    assert share["road"] == 1001 / labels.size
    assert share["sky"] == 1 - 1001 / labels.size


def test_shares_of_a_huge_frame_take_no_memory() -> None:
    result = Segmentation(labels=np.zeros((4096, 4100), np.uint8), frame=np.empty(0), spec=ModelSpec())
    tracemalloc.start()
    try:
        result.class_share()
        assert tracemalloc.get_traced_memory()[1] < result.labels.nbytes / 10
    finally:
        tracemalloc.stop()


def test_confidence_comes_back_at_the_frames_size(tiny_model):
    path = tiny_model(outputs=("labels", "confidence"))
    result = Segmenter(path, device="cpu").segment(pictures(1, (50, 70))[0])
    assert (result.confidence.shape, result.confidence.dtype) == ((50, 70), np.float32)
    assert 1 / 12 <= result.confidence.min() <= result.confidence.max() <= 1


def test_save_keeps_ids_exactly_and_whole(fake, tmp_path):
    result = Segmenter(fake).segment(pictures(1, (40, 30))[0])
    path = result.save(tmp_path / "labels.png")
    np.testing.assert_array_equal(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), result.labels)
    with pytest.raises(ConfigurationError, match="PNG"):
        result.save(tmp_path / "labels.jpg")
    with pytest.raises(MediaError, match="cannot be written"):
        result.save(tmp_path / "no such folder" / "labels.png")
    with pytest.raises(MediaError, match="name too long"):
        result.save(tmp_path / f"{'n' * 252}.png")
    assert [file.name for file in tmp_path.iterdir()] == ["labels.png"]


def test_a_failing_rename_leaves_the_old_file_and_nothing_else(fake, tmp_path, monkeypatch):
    target = tmp_path / "labels.png"
    target.write_bytes(b"old")

    def fail(source, destination):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edge_seg.segmenter.os.replace", fail)
    with pytest.raises(MediaError, match="the disk is full"):
        Segmenter(fake).segment(pictures(1)[0]).save(target)
    assert (target.read_bytes(), len(list(tmp_path.iterdir()))) == (b"old", 1)


def test_a_stream_is_lazy_and_holds_one_batch(fake):
    alive: list[weakref.ref] = []
    most = 0

    def source():
        nonlocal most
        for _ in range(40):
            frame = pictures(1)[0]
            alive.append(weakref.ref(frame))
            yield frame
            del frame
            gc.collect()
            most = max(most, sum(reference() is not None for reference in alive))

    # What other tests have imported is no frame, and to look through all of it 40 times takes long.
    gc.freeze()
    try:
        stream = Segmenter(fake, batch_size=4).stream(source())
        assert not alive, "nothing is read before it is asked for"
        next(stream)
        assert len(alive) == 4
        assert sum(1 for _ in stream) == 39
        assert most <= 10
    finally:
        gc.unfreeze()


def test_a_stream_carries_the_sources_index_and_time(fake):
    items = [SimpleNamespace(image=frame, index=10 * n, time_s=n / 4) for n, frame in enumerate(pictures(5))]
    results = list(Segmenter(fake, batch_size=2).stream(items))
    assert [(result.index, result.time_s) for result in results] == [(10 * n, n / 4) for n in range(5)]


def test_an_early_end_is_said_aloud(fake):
    class Cut(Source):
        info = SourceInfo(name="cut.mp4", kind="video")

        def _frames(self):
            for index, picture in enumerate(pictures(2)):
                yield Frame(image=picture, index=index, pts=index, time_base=Fraction(1))
            self.end = SourceEnd(at_s=1.25, early=True, reason="the file breaks off")

    stream = Segmenter(fake).stream(Cut())
    with pytest.warns(RuntimeWarning, match=r"cut\.mp4 ended early, at 1\.25 s: the file breaks off"):
        assert len(list(stream)) == 2


def test_an_iterable_of_the_callers_own_may_call_anything_its_end(fake):
    class Excerpt(list):
        end = 2

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(list(Segmenter(fake).stream(Excerpt(pictures(2))))) == 2


def test_a_stream_of_an_image_file(fake, tmp_path):
    frame = pictures(1, (40, 50))[0]
    cv2.imwrite(str(tmp_path / "frame.png"), frame)
    (result,) = Segmenter(fake).stream(tmp_path / "frame.png")
    np.testing.assert_array_equal(result.frame, frame)


@pytest.mark.parametrize(
    ("frame", "cure"),
    [
        (np.zeros((8, 8), np.uint8), "COLOR_GRAY2BGR"),
        (np.zeros((8, 8, 1), np.uint8), "COLOR_GRAY2BGR"),
        (np.zeros((8, 8, 4), np.uint8), "COLOR_BGRA2BGR"),
        (np.zeros((8, 8, 3), np.float32), r"astype\(np\.uint8\)"),
        (np.zeros((3, 8, 8), np.uint8), r"transpose\(1, 2, 0\)"),
        (np.zeros((2, 8, 8, 3), np.uint8), "segment_batch"),
        (np.zeros((0, 8, 3), np.uint8), r"got shape \(0, 8, 3\)\.$"),
        (None, "got NoneType. cv2.imread"),
        ("drive.mp4", r"got str\. `stream\(path\)` reads a video"),
        ([[1, 2, 3]], "got list"),
        (SimpleNamespace(image=np.zeros((8, 8, 3), np.uint8)), r"got SimpleNamespace. Pass its \.image\."),
    ],
)
def test_what_is_no_frame_is_named_with_its_own_cure(fake, frame, cure):
    with pytest.raises(ConfigurationError, match=f"Expected a frame .*{cure}"):
        Segmenter(fake).segment(frame)


def test_predict_labels_wants_the_models_size(fake):
    with pytest.raises(ConfigurationError, match=r"\(N, 32, 64, 3\), uint8; got uint8 \(1, 32, 32, 3\)"):
        Segmenter(fake).predict_labels(pictures(1, (32, 32)))
    with pytest.raises(ConfigurationError):
        Segmenter(fake).predict_labels(pictures(1)[:0])


def test_closing_twice_is_fine_and_use_after_is_an_error(fake):
    with Segmenter(fake) as segmenter:
        segmenter.segment(pictures(1)[0])
    segmenter.close()
    assert fake.closed
    for use in (segmenter.segment, segmenter.stream, segmenter.predict_labels):
        with pytest.raises(ConfigurationError, match="closed"):
            use(pictures(1)[0])
    with pytest.raises(ConfigurationError, match="closed"):
        segmenter.__enter__()
    assert "closed" in repr(segmenter)


def test_a_segmenter_cannot_be_pickled(fake):
    with pytest.raises(ConfigurationError, match="Pass the model's path"):
        pickle.dumps(Segmenter(fake))


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"batch_size": "2"}, {"input_size": (64, 64)}])
def test_wrong_options_are_wrong_calls(fake, options):
    with pytest.raises(ConfigurationError):
        Segmenter(fake, **options)


def test_a_named_device_is_a_promise_of_an_open_session_too():
    for device in ("auto", "cuda", "cuda:0"):
        assert Segmenter(FakeSession(name="cuda:0"), device=device).device.name == "cuda:0"
    with pytest.raises(DeviceError, match="device cuda was asked for, and the session that was given is on cpu"):
        Segmenter(FakeSession(name="cpu"), device="cuda")
    with pytest.raises(ConfigurationError, match="device must be"):
        Segmenter(FakeSession(), device="gpu")


def test_what_is_no_model_is_named():
    with pytest.raises(ConfigurationError, match="path, bytes or a session; got int"):
        Segmenter(7)
    with pytest.raises(ConfigurationError, match=r"no name \(a variable that is not set\?\)"):
        Segmenter("")
    with pytest.raises(ConfigurationError, match=r"No file can have the name 'a\\x00\.onnx'"):
        Segmenter("a\0.onnx")


def test_failures_of_the_device_come_through_typed():
    with pytest.warns(RuntimeWarning), pytest.raises(OutOfMemoryError, match="batch of 1") as caught:
        Segmenter(FakeSession(memory_frames=0), batch_size=8).segment(pictures(1)[0])
    assert isinstance(caught.value, (DeviceError, MemoryError))
    with pytest.raises(DeviceError, match=r"libcudnn\.so\.9 is missing"):
        Segmenter(FakeSession(missing_library="libcudnn.so.9")).segment(pictures(1)[0])


def test_memory_that_opencv_cannot_get_is_a_memory_error(fake: FakeSession, monkeypatch: pytest.MonkeyPatch) -> None:
    """An application catches that one, as it does numpy's."""
    segmenter = Segmenter(fake)
    result = segmenter.segment(pictures(1, (50, 70))[0])
    error = cv2.error("Insufficient memory")

    def fail(*arguments: Any, **options: Any) -> Any:
        raise error

    for name in ("resize", "applyColorMap"):
        monkeypatch.setattr(cv2, name, fail)
    for call in (lambda: segmenter.segment(result.frame), result.plot, result.mask):
        error.code = cv2.Error.StsNoMem
        with pytest.raises(MemoryError):
            call()
        error.code = cv2.Error.StsBadArg
        with pytest.raises(cv2.error):
            call()


def test_a_dynamic_model_takes_another_size(tiny_model, tiny_reference):
    with Segmenter(tiny_model(dynamic=True), device="cpu", input_size=(64, 96)) as segmenter:
        frames = pictures(2, (64, 96))
        assert segmenter.input_size == (64, 96)
        assert np.mean(segmenter.predict_labels(frames) == tiny_reference(frames, 12)) > 0.9999
        assert segmenter.segment(pictures(1, (33, 21))[0]).labels.shape == (33, 21)


def test_a_batch_the_memory_stops_holding_is_halved_and_that_is_said():
    fake = FakeSession(ModelSpec(input_size=(32, 64)))
    segmenter = Segmenter(fake, batch_size=8)
    frames = pictures(11)
    expected = segmenter.predict_labels(frames)
    fake.memory_frames = 3  # Another program took the rest.
    with pytest.warns(
        RuntimeWarning, match=r"fake has no memory for a batch of \d.*; going on with \d at a time"
    ) as said:
        np.testing.assert_array_equal(segmenter.predict_labels(frames), expected)
    assert len(said) == 2, "8 to 4, 4 to 2"
    assert {warning.filename for warning in said} == {__file__}, "it points at the line that called"
    assert segmenter.batch_size == 2
    fake.batch_sizes.clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results = segmenter.segment_batch(list(frames))
    assert len(results) == 11
    assert set(fake.batch_sizes) == {2}
    fake.memory_frames = 0
    with pytest.warns(RuntimeWarning), pytest.raises(OutOfMemoryError, match="batch of 1; try a smaller one"):
        segmenter.segment(frames[0])


def test_a_batch_halved_on_the_way_leaves_no_frame_out():
    segmenter = Segmenter(FakeSession(ModelSpec(input_size=(32, 64)), memory_frames=3), batch_size=8)
    frames = pictures(19)
    with pytest.warns(RuntimeWarning, match=r"going on with [42] at a time"):
        results = segmenter.segment_batch(list(frames))
    assert [result.index for result in results] == list(range(19))
    np.testing.assert_array_equal([result.labels for result in results], brightness_labels(frames, 12))


def run_in_threads(count: int, work: Callable[[int], None]) -> list[BaseException]:
    """Call `work(0)` to `work(count - 1)` at once; what they raised."""
    raised: list[BaseException] = []
    start = threading.Barrier(count)

    def guarded(number: int) -> None:
        start.wait()
        try:
            work(number)
        except BaseException as error:
            raised.append(error)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return raised


@pytest.mark.parametrize("batch_size", [1, 3])
def test_eight_threads_give_the_serial_result_bit_for_bit(tiny_model, batch_size):
    frames = [pictures(1, (40 + number, 80))[0] for number in range(8)]
    with Segmenter(tiny_model(outputs=("labels", "confidence")), device="cpu", batch_size=batch_size) as segmenter:
        expected = [segmenter.segment(frame) for frame in frames]

        def work(offset: int) -> None:
            for step in range(16):
                place = (offset + step) % 8
                one = segmenter.segment(frames[place])
                np.testing.assert_array_equal(one.labels, expected[place].labels)
                np.testing.assert_array_equal(one.confidence, expected[place].confidence)
            together = segmenter.segment_batch(frames[offset:] + frames[:offset])
            for step, result in enumerate(together):
                np.testing.assert_array_equal(result.labels, expected[(offset + step) % 8].labels)

        assert run_in_threads(8, work) == []


@pytest.mark.slow
def test_eight_threads_on_the_bundled_model_give_the_serial_result():
    with Segmenter(bundled_model(), device="cpu") as segmenter, open_source(bundled_clip()) as clip:
        frames = [frame.image for frame, _ in zip(clip, range(8), strict=False)]
        expected = [segmenter.segment(frame).labels for frame in frames]

        def work(offset: int) -> None:
            for step in range(4):
                place = (offset + step) % 8
                np.testing.assert_array_equal(segmenter.segment(frames[place]).labels, expected[place])

        assert run_in_threads(8, work) == []


def test_a_thread_that_would_get_another_result_is_seen(fake):
    segmenter, wrong = Segmenter(fake), pictures(1)[0]

    def work(number: int) -> None:
        np.testing.assert_array_equal(segmenter.segment(wrong).labels, np.zeros((32, 64), np.uint8))

    assert len(run_in_threads(8, work)) == 8


def use_it(pipe: Any, segmenter: Segmenter) -> None:
    """What a forked worker does with the parent's Segmenter."""
    try:
        pipe.send(segmenter.segment(pictures(1)[0]).labels)
    except BaseException as error:
        pipe.send((type(error).__name__, str(error)))
    segmenter.close()


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*")
def test_a_worker_made_by_fork_is_told_the_cure(tiny_model):
    with Segmenter(tiny_model(), device="cpu") as segmenter:
        before = segmenter.segment(pictures(1)[0]).labels
        # Several, since to destroy what came along hangs only now and then.
        for _ in range(4):
            ours, theirs = multiprocessing.Pipe()
            worker = multiprocessing.get_context("fork").Process(target=use_it, args=(theirs, segmenter))
            worker.start()
            assert ours.poll(60)
            name, message = ours.recv()
            worker.join(30)
            worker.kill()
            assert worker.exitcode == 0, "it closed its Segmenter and ended by itself"
            assert name == "DeviceError"
            assert "made before a fork" in message
            assert 'multiprocessing.get_context("spawn")' in message
        np.testing.assert_array_equal(segmenter.segment(pictures(1)[0]).labels, before)


def test_a_worker_made_by_spawn_is_given_a_path(tiny_model):
    with Segmenter(tiny_model(), device="cpu") as segmenter:
        worker = multiprocessing.get_context("spawn").Process(target=use_it, args=(None, segmenter))
        with pytest.raises(ConfigurationError, match=r"cannot be pickled: .*Pass the model's path, open it there\."):
            worker.start()
        # Results travel.
        result = segmenter.segment(pictures(1)[0])
        again = pickle.loads(pickle.dumps(result))
        np.testing.assert_array_equal(again.labels, result.labels)
        assert again.class_share() == result.class_share()


@pytest.mark.parametrize(
    ("source", "words"),
    [(None, "got NoneType"), (2.5, "got float"), (np.zeros((4, 6, 3), np.uint8), "a single frame")],
)
def test_what_is_no_source_is_told_at_once(fake: FakeSession, source: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        Segmenter(fake).stream(source)


def test_values_of_wrong_kinds_are_named(tiny_model, fake):
    dynamic, frame = tiny_model(dynamic=True), pictures(1)[0]
    segmenter = Segmenter(fake)
    result = segmenter.segment(frame)
    calls: list[tuple[Callable[[], Any], str]] = [
        *(
            (lambda size=size: Segmenter(dynamic, device="cpu", input_size=size), "input_size must be")
            for size in BAD_SIZES
        ),
        (lambda: Segmenter(dynamic, device="cpu", threads=10**6), "threads must be .* to 1024"),
        (lambda: segmenter.segment_batch(frame for _ in range(2)), "list of frames; got generator"),
        (lambda: segmenter.segment_batch(None), "list of frames; got NoneType"),
        (lambda: segmenter.segment_batch(frame), r"single frame; `segment\(frame\)` takes one"),
        (lambda: segmenter.predict([frame]), r"\(N, 32, 64, 3\), uint8; got list"),
        (lambda: segmenter.stream(b"drive.mp4"), "got bytes"),
        (lambda: list(segmenter.stream("drive\0.mp4")), "zero byte"),
        (lambda: list(segmenter.stream(-1)), "index is 0 or more; got -1"),
        *((lambda path=path: result.save(path), "path of a picture") for path in (None, 3, b"labels.png")),
        *((lambda path=path: result.save(path), "No file can") for path in ("a\0.png", Path("a\0.png"), "\ud800.png")),
        *((lambda alpha=alpha: result.plot(alpha), "alpha must lie") for alpha in ("0.5", None, [0.5])),
    ]
    for call, told in calls:
        with pytest.raises(ConfigurationError, match=told):
            call()
    assert (result.plot(True) == result.mask()).all()
    segmenter.close()
    with pytest.raises(ConfigurationError, match="closed"):
        segmenter.segment_batch([])


def test_a_source_is_read_once(fake, tmp_path):
    clip = make_clip(tmp_path / "drive.mp4", count=3)
    write_image(tmp_path / "frame.png", 1)
    for name in ("drive.mp4", "frame.png", ""):
        with open_source(tmp_path / name) as source:
            assert list(Segmenter(fake).stream(source))
            with pytest.raises(MediaError, match="was read already; open it again"):
                list(Segmenter(fake).stream(source))
        with pytest.raises(MediaError, match="is closed; open it again"):
            list(Segmenter(fake).stream(source))
    with open_source(clip) as source:
        assert next(iter(source)).index == 0
        with pytest.raises(MediaError, match=r"drive\.mp4: was read already"):
            next(iter(source))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc")
def test_a_loop_that_is_left_closes_its_file(fake, tmp_path):
    clip = make_clip(tmp_path / "drive.mp4", count=3)
    segmenter = Segmenter(fake)
    before = len(os.listdir("/proc/self/fd"))
    gc.disable()
    try:
        for _ in range(5):
            for result in segmenter.stream(clip):
                assert result.index == 0
                break
            assert len(os.listdir("/proc/self/fd")) == before
    finally:
        gc.enable()


# Sessions of the caller's own


class Own:
    """A network that another program runs: what the tests below take away from it, or make wrong."""

    def __init__(self, **wrong: Any) -> None:
        self.spec = ModelSpec(input_size=(32, 64))
        self.device = FakeSession().device
        self.closed = False
        self.__dict__.update(wrong)

    def run(self, batch: np.ndarray) -> Any:
        return {"labels": batch[..., 0] % 12}

    def close(self) -> None:
        self.closed = True


def test_a_session_of_ones_own_needs_no_more_than_four_names() -> None:
    own, frames = Own(), pictures(3)
    with Segmenter(own, batch_size=2) as segmenter:
        results = segmenter.segment_batch(frames)
    assert np.array_equal(np.stack([result.labels for result in results]), frames[..., 0] % 12)
    assert own.closed


@pytest.mark.parametrize("batch_size", [1, 2])
def test_a_session_of_ones_own_may_refill_one_array(batch_size: int) -> None:
    refilled = np.empty((batch_size, 32, 64), np.uint8)

    def run(batch: np.ndarray) -> dict[str, np.ndarray]:
        np.remainder(batch[..., 0], 12, out=refilled)
        return {"labels": refilled}

    frames = pictures(4)
    with Segmenter(Own(run=run), batch_size=batch_size) as segmenter:
        results = [*segmenter.segment_batch(frames[:2]), *segmenter.segment_batch(frames[2:])]
        assert np.array_equal(np.stack([result.labels for result in results]), frames[..., 0] % 12)
        assert np.array_equal(segmenter.predict_labels(frames), frames[..., 0] % 12)


def test_threads_take_turns_with_a_session_that_refills_one_array() -> None:
    refilled, both_inside = np.empty((1, 32, 64), np.uint8), threading.Barrier(2)

    def run(batch: np.ndarray) -> dict[str, np.ndarray]:
        refilled[...] = batch[..., 0]
        # Waits for the other thread, which would overwrite the array, until it is clear that it does not come.
        with contextlib.suppress(threading.BrokenBarrierError):
            both_inside.wait(0.2)
        return {"labels": refilled}

    with Segmenter(Own(run=run)) as segmenter:

        def work(number: int) -> None:
            labels = segmenter.segment(np.full((32, 64, 3), number, np.uint8)).labels
            np.testing.assert_array_equal(labels, number)

        assert run_in_threads(2, work) == []


def test_the_results_of_a_model_of_ours_are_not_copied(tiny_model, monkeypatch: pytest.MonkeyPatch) -> None:
    with Segmenter(tiny_model(), device="cpu") as segmenter:
        given, run = [], segmenter._session.run
        monkeypatch.setattr(segmenter._session, "run", lambda batch: given.append(run(batch)) or given[-1])
        assert np.shares_memory(segmenter.segment(pictures(1)[0]).labels, given[0]["labels"])


@pytest.mark.parametrize(
    ("wrong", "named"),
    [({"device": "cpu"}, "device"), ({"spec": None}, "spec"), ({"run": None, "close": None}, "run, close")],
)
def test_what_a_session_lacks_is_named(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^Own is no session: expected .*; it has no such {named}\\.$"):
        Segmenter(Own(**wrong))
    with pytest.raises(ConfigurationError, match="A model is a path, bytes or a session; got dict"):
        Segmenter({})


@pytest.mark.parametrize("size", [(32, 64, 3), (32.0, 64), (0, 64)])
def test_the_size_that_a_session_of_ones_own_claims_is_looked_at(size: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"^input_size must be two whole numbers from 1 to 8192; got "):
        Segmenter(Own(spec=ModelSpec(input_size=size)))


@pytest.mark.parametrize(
    ("given", "came"),
    [
        (lambda batch: {"labels": batch[:, :16, :, 0]}, r"uint8 \(1, 16, 64\)"),
        (lambda batch: {"labels": batch[..., 0].astype(np.int64)}, r"int64 \(1, 32, 64\)"),
        (lambda batch: {"labels": batch[:0, ..., 0]}, r"uint8 \(0, 32, 64\)"),
        (lambda batch: {"logits": batch}, "dict"),
        (lambda batch: batch[..., 0], "ndarray"),
    ],
)
def test_what_a_session_gives_is_looked_at(given: Callable[[np.ndarray], Any], came: str) -> None:
    with pytest.raises(ModelFileError, match=rf'"labels" as uint8 of shape \(1, 32, 64\); got {came}\.$'):
        Segmenter(Own(run=given)).segment(pictures(1)[0])


@pytest.mark.parametrize(
    ("confidence", "came"),
    [(np.ones((1, 8, 8)), r"\(1, 8, 8\)"), (np.ones((1, 32, 64, 1)), r"\(1, 32, 64, 1\)"), (1.0, "float")],
)
def test_what_confidence_a_session_gives_is_looked_at(confidence: Any, came: str) -> None:
    own = Own(run=lambda batch: {"labels": batch[..., 0], "confidence": confidence})
    with pytest.raises(ModelFileError, match=rf'"confidence" as an array of shape \(1, 32, 64\); got {came}\.$'):
        Segmenter(own).segment(pictures(1)[0])


def test_colours_of_ones_own(fake: FakeSession) -> None:
    result = Segmenter(fake).segment(np.full((32, 64, 3), 255, np.uint8))
    colours = [(index, 100, 200) for index in range(12)]
    assert np.array_equal(result.mask(palette=colours), np.full((32, 64, 3), (200, 100, 11), np.uint8))
    assert np.array_equal(result.plot(1.0, palette=colours), result.mask(palette=colours))
    assert np.array_equal(result.mask(), result.mask(palette=fake.spec.palette))
    with pytest.raises(ConfigurationError, match="12 classes need as many colours, got 2"):
        result.plot(palette=colours[:2])
    for wrong in ((0, 0, 400), (0, 0), (0, 0, 0.5), (True, 0, 0), 1, None):
        with pytest.raises(ConfigurationError, match=r"one \(R, G, B\) of 0\.\.255 a class; got "):
            result.mask(palette=[wrong] * 12)  # type: ignore[list-item]
    with pytest.raises(ConfigurationError, match="a class; got 5"):
        result.plot(palette=5)  # type: ignore[arg-type]
    assert np.array_equal(result.mask(palette=np.uint8(colours)), result.mask(palette=colours))


def test_an_interrupt_while_a_native_module_loads_stays_one() -> None:
    """pybind11 makes an ImportError of it, and a supervisor would read of a broken installation."""
    loaded = ImportError("initialization failed")
    loaded.__cause__ = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        raise_if_interrupted(loaded)
    raise_if_interrupted(ImportError("libGL.so.1"))
