"""Batches drawn by processes: the same as by threads, errors as they are, and nothing left behind. No Keras here."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest

from edge_seg.errors import DatasetError
from train import batches as batches_module
from train.augment import Augmentation
from train.batches import PairStore, RenderedStore, TrainingBatches, drawing_processes
from train.dataset import find_samples
from train.drawing import Drawers, DrawingError, Packed, SharedScenes

SIZE = (32, 48)
# As `fit` takes it where nothing is asked for; the tests' own stand-in says 0.
BY_CORES = drawing_processes


def make(root: Path, **more: object) -> TrainingBatches:
    options = {"size": SIZE, "batch_size": 2, "seed": 1, "augmentation": Augmentation(), "rare": (2,), "fill": 11}
    return TrainingBatches(PairStore(find_samples(root)), **(options | more))  # type: ignore[arg-type]


def opinions(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [rng.integers(0, 256, (24, 32, 12), np.uint8) for _ in range(count)]


def assert_same(ours: TrainingBatches, theirs: TrainingBatches, count: int = 9) -> None:
    """The streams of both are the same; the first is drawn by two processes."""
    with closing(ours.stream(2, processes=2)) as stream, closing(theirs.stream(2, threads=2)) as expected:
        for _ in range(count):
            for array, other in zip(next(stream), next(expected), strict=True):
                assert array.dtype == other.dtype
                np.testing.assert_array_equal(array, other)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Nothing stays behind a test: no process, no thread, no shared memory with a name."""
    before = _shared()
    yield
    assert not multiprocessing.active_children()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("batches")]
    assert _shared() <= before


def _shared() -> set[str]:
    folder = Path("/dev/shm")
    return {path.name for path in folder.iterdir()} if folder.is_dir() else set()


def test_a_process_loads_no_framework() -> None:
    script = (
        "import sys, train.drawing; "
        "print({name.partition('.')[0] for name in sys.modules} & {'keras', 'tensorflow', 'jax', 'matplotlib'})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_processes_draw_what_threads_draw(make_dataset: Callable[..., Path]) -> None:
    root = make_dataset(count=5)
    read = make(root)
    list(read.pairs)  # Read already, as for the class weights: so the other way to a process is taken.
    assert_same(read, make(root))
    whole = {"augmentation": None, "batch_size": 4}  # the last batch of an epoch is shorter
    assert_same(make(root, **whole), make(root, **whole))


def test_a_teachers_opinions_and_frames_come_along(make_dataset: Callable[..., Path]) -> None:
    root = make_dataset(count=5)
    given = opinions(5)
    assert_same(make(root, opinions=given, view=(64, 96)), make(root, opinions=given, view=(64, 96)))


def test_rendered_scenes_are_drawn_once_for_all(make_dataset: Callable[..., Path]) -> None:
    root = make_dataset(count=5)
    stores = [RenderedStore(3, (64, 80), seed=3) for _ in range(2)]
    ours, theirs = (make(root, rendered=store, rendered_share=0.8, opinions=opinions(5)) for store in stores)
    assert_same(ours, theirs)
    # The store has them now, for the next training on the same.
    assert sorted(stores[0].drawn) == [0]
    for pair, other in zip(stores[0].drawn[0], stores[1].drawn[0], strict=True):
        for array, expected in zip(pair, other, strict=True):
            np.testing.assert_array_equal(array, expected)


def test_shared_scenes_take_over_what_was_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    store = RenderedStore(8, (64, 80), seed=3)
    first = store[1]
    asked: list[int] = []
    draw = RenderedStore.draw
    monkeypatch.setattr(RenderedStore, "draw", lambda self, street: asked.append(street) or draw(self, street))
    scenes = SharedScenes(store, multiprocessing.get_context("spawn"))
    np.testing.assert_array_equal(scenes[1][0], first[0])
    for index in range(len(scenes)):
        assert scenes[index][1].shape == (64, 80)
    assert asked == [1]


def test_a_street_that_failed_is_drawn_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = SharedScenes(RenderedStore(4, (64, 80), seed=3), multiprocessing.get_context("spawn"))
    with monkeypatch.context() as patch:
        patch.setattr(RenderedStore, "draw", lambda *_: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            scenes[2]
    assert scenes[2][0].shape == (64, 80, 3)


def test_what_is_packed_is_not_copied_for_each() -> None:
    arrays = [np.arange(5, dtype=np.uint8), np.ones((3, 4), np.float32), np.zeros((0, 2), np.uint8)]
    packed = Packed({"arrays": arrays, "same": arrays[1]}, multiprocessing.get_context("spawn"))
    first, second = packed.opened(), packed.opened()
    for array, expected in zip(first["arrays"], arrays, strict=True):
        np.testing.assert_array_equal(array, expected)
    assert first["same"] is first["arrays"][1]
    assert np.shares_memory(first["same"], second["same"])


def test_a_broken_image_is_the_same_error(make_dataset: Callable[..., Path]) -> None:
    root = make_dataset(count=4)
    for image in (root / "images_prepped_train").iterdir():
        image.write_bytes(b"no picture")
    said = []
    for how in ({"threads": 2}, {"processes": 2}):
        batches = make(root)
        with pytest.raises(DatasetError) as caught, batches.failures_raised():
            next(batches.stream(**how))
        said.append(str(caught.value))
        assert batches._failure is caught.value
    assert said[0] == said[1]
    assert "not a readable image" in said[0]


def test_a_killed_process_is_one_clear_error(make_dataset: Callable[..., Path]) -> None:
    batches = make(make_dataset(count=5))
    stream = batches.stream(processes=2)
    next(stream)
    os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)
    with pytest.raises(DrawingError, match=r"was killed by SIGKILL.*--workers 0 draws by threads"):
        list(itertools.islice(stream, 50))


def test_signals_for_all_leave_the_word_to_the_training(make_dataset: Callable[..., Path]) -> None:
    batches = make(make_dataset(count=5))
    stream = batches.stream(processes=2)
    next(stream)
    for child in multiprocessing.active_children():
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(child.pid or 0, number)
    for _ in range(12):
        next(stream)
    stream.close()


def test_an_interrupted_training_ends_the_processes(make_dataset: Callable[..., Path]) -> None:
    batches = make(make_dataset(count=5))
    kept = batches.stream(processes=2)  # as a traceback may keep it
    next(kept)
    with suppress(KeyboardInterrupt), batches.failures_raised():
        raise KeyboardInterrupt
    assert not multiprocessing.active_children()
    assert len(list(kept)) < 9  # What had been drawn ahead, and then its end, which is no failure.


def test_processes_end_with_a_training_that_is_killed(make_dataset: Callable[..., Path]) -> None:
    script = (
        "import multiprocessing, os, signal, sys; from tests.train.test_drawing import make; from pathlib import Path\n"
        "stream = make(Path(sys.argv[1])).stream(processes=2); next(stream)\n"
        "print(*(child.pid for child in multiprocessing.active_children()), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(make_dataset(count=5))], stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        # To the end: it comes when the last process that writes there has ended.
        said = process.stdout.read().split()
    assert process.returncode == -signal.SIGKILL
    assert len(said) == 2


def test_a_script_without_a_guard_is_not_run_again(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    script.write_text(
        "import sys; from pathlib import Path; from tests.train.test_drawing import make\n"
        "print('run')\n"
        "stream = make(Path(sys.argv[1])).stream(processes=2); print(next(stream)[0].shape)\n"
    )
    done = subprocess.run(
        [sys.executable, script, make_dataset(count=5)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert (done.stdout, done.stderr) == ("run\n(2, 32, 48, 3)\n", "")


def test_processes_by_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for cores in (1, 4, 5, 16, 200):
        monkeypatch.setattr(batches_module, "available_threads", lambda cores=cores: cores)
        found.append(BY_CORES())
    assert found == [0, 0, 4, 15, 32]


def test_more_threads_than_processes_take_turns(make_dataset: Callable[..., Path]) -> None:
    batches = make(make_dataset(count=5))
    with Drawers(batches, 1) as drawers:
        for index in (1, 0, 1):
            for array, expected in zip(drawers.batch(3, index), batches.batch(3, index), strict=True):
                np.testing.assert_array_equal(array, expected)
