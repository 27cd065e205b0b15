"""Batches drawn by processes: the same as by threads, errors as they are, and nothing left behind. No Keras here."""

from __future__ import annotations

import errno
import gc
import itertools
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_seg.errors import ConfigurationError, DatasetError
from train import batches as batches_module
from train import drawing, shared
from train.augmentation import Augmentation
from train.batches import TrainingBatches, drawing_processes
from train.dataset import find_samples
from train.drawing import Drawers, DrawingError, Packed, SharedScenes
from train.stores import PairStore, RenderedStore

SIZE = (32, 48)
# As `fit` takes it where nothing is asked for; the tests' own stand-in says 0.
BY_CORES = drawing_processes


def make(root: Path, **more: object) -> TrainingBatches:
    options = {"size": SIZE, "batch_size": 2, "seed": 1, "augmentation": Augmentation(), "rare": (2,), "fill": 11}
    return TrainingBatches(PairStore(find_samples(root)), **(options | more))  # type: ignore[arg-type]


def opinions(count: int) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [rng.integers(0, 256, (24, 32, 12), np.uint8) for _ in range(count)]


def drawn_by(
    processes: int, batches: TrainingBatches, first_epoch: int = 0
) -> Generator[tuple[np.ndarray, np.ndarray]]:
    batches.processes = processes
    return batches.stream(first_epoch)


def assert_same(ours: TrainingBatches, theirs: TrainingBatches, count: int = 9) -> None:
    """The streams of both are the same; the first is drawn by two processes."""
    with closing(drawn_by(2, ours, 2)) as stream, closing(drawn_by(0, theirs, 2)) as expected:
        for _ in range(count):
            for array, other in zip(next(stream), next(expected), strict=True):
                assert array.dtype == other.dtype
                np.testing.assert_array_equal(array, other)


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Nothing stays behind a test: no process, no thread, no descriptor of shared memory."""
    before, threads = shared_files(), drawing_threads()  # A test before this one may have left a stream to Keras.
    gc.freeze()  # What was there before is none of this test's, and takes longer to look through than most tests.
    yield
    assert not multiprocessing.active_children()
    assert drawing_threads() <= threads
    gc.collect()
    gc.unfreeze()
    assert shared_files() <= before


def drawing_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith("batches")}


def shared_files() -> int:
    """How many files without a name, of the folders where shared memory lies, this process has open."""
    folders = (shared.MEMORY_FOLDER, tempfile.gettempdir())
    found = 0
    for number in os.listdir("/proc/self/fd") if os.path.isdir("/proc/self/fd") else ():
        with suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{number}")
            found += target.endswith("(deleted)") and target.startswith(folders)
    return found


def test_a_process_loads_no_framework() -> None:
    script = (
        "import sys, train.drawing; "
        "print({name.partition('.')[0] for name in sys.modules} & {'keras', 'tensorflow', 'jax', 'matplotlib'})"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_what_a_process_is_sent_loads_no_framework_either(make_dataset: Callable[..., Path]) -> None:
    frames = [np.zeros((48, 64, 3), np.uint8)]
    pairs = PairStore(find_samples(make_dataset(count=2)), frames, 11)
    batches = TrainingBatches(pairs, size=(32, 32), batch_size=2, seed=1, augmentation=Augmentation())
    script = (
        "import pickle, sys; pickle.load(sys.stdin.buffer).unscaled(0, 0); "
        "print({name.partition('.')[0] for name in sys.modules} & {'keras', 'tensorflow', 'jax', 'matplotlib'})"
    )
    done = subprocess.run([sys.executable, "-c", script], input=pickle.dumps(batches), capture_output=True, check=True)
    assert done.stdout.strip() == b"set()"


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
    scenes = SharedScenes(store)
    np.testing.assert_array_equal(scenes[1][0], first[0])
    for index in range(len(scenes)):
        assert scenes[index][1].shape == (64, 80)
    assert asked == [1]


def test_a_street_that_failed_is_drawn_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = SharedScenes(RenderedStore(4, (64, 80), seed=3))
    with monkeypatch.context() as patch:
        patch.setattr(RenderedStore, "draw", lambda *_: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            scenes[2]
    assert scenes[2][0].shape == (64, 80, 3)


def test_what_is_packed_is_not_copied_for_each() -> None:
    arrays = [np.arange(5, dtype=np.uint8), np.ones((3, 4), np.float32), np.zeros((0, 2), np.uint8)]
    packed = Packed({"arrays": arrays, "same": arrays[1]})
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
    for processes in (0, 2):
        batches = make(root)
        with pytest.raises(DatasetError) as caught, batches.failures_raised():
            next(drawn_by(processes, batches))
        said.append(str(caught.value))
        assert batches._failure is caught.value
    assert said[0] == said[1]
    assert "not a readable image" in said[0]


def test_a_killed_process_is_one_clear_error(make_dataset: Callable[..., Path]) -> None:
    batches = make(make_dataset(count=5))
    stream = drawn_by(2, batches)
    next(stream)
    os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)
    with pytest.raises(DrawingError, match=r"was killed by SIGKILL.*--workers 0 draws by threads"):
        list(itertools.islice(stream, 50))


@contextmanager
def claimed_elsewhere(scenes: SharedScenes, street: int) -> Iterator[subprocess.Popen[bytes]]:
    """Another process is at drawing a street, and does not come to its end."""
    script = (
        "import fcntl, sys, time; fcntl.lockf(int(sys.argv[1]), fcntl.LOCK_EX, 1, int(sys.argv[2]))\n"
        "print('claimed', flush=True); time.sleep(600)"
    )
    file = scenes._memory.fileno()
    command = [sys.executable, "-c", script, str(file), str(street)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, pass_fds=[file]) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"claimed\n"
        try:
            yield process
        finally:
            process.kill()


def test_a_street_whose_process_died_is_drawn_by_the_next() -> None:
    scenes = SharedScenes(RenderedStore(8, (64, 80), seed=3))
    with claimed_elsewhere(scenes, 1) as process, ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(lambda: scenes[4])
        assert scenes[0][0].shape == (64, 80, 3)
        assert not waiting.done()
        process.kill()
        assert waiting.result(60)[0].shape == (64, 80, 3)


def test_nobody_waits_for_a_street_once_the_training_is_gone() -> None:
    scenes = SharedScenes(RenderedStore(4, (64, 80), seed=3))
    scenes._training = -1
    with claimed_elsewhere(scenes, 0), pytest.raises(EOFError, match="the training has ended"):
        scenes[0]


def test_a_process_killed_at_a_street_ends_the_wait_of_all(make_dataset: Callable[..., Path]) -> None:
    batches = make(make_dataset(count=5), rendered=RenderedStore(4, (64, 80), seed=3), rendered_share=1.0)
    with Drawers(batches, 3) as drawers, ThreadPoolExecutor(3) as pool:
        assert drawers._scenes is not None
        with claimed_elsewhere(drawers._scenes, 0):
            waiting = [pool.submit(drawers.batch, 0, index) for index in range(2)]
            time.sleep(1.0)
            assert not any(future.done() for future in waiting)
            drawers._workers[0].process.kill()
            said = {str(future.exception(60)) for future in waiting}
        assert len(said) == 1
        assert "was killed by SIGKILL" in said.pop()
        with pytest.raises(DrawingError, match="was killed by SIGKILL"):
            drawers.batch(0, 2)


def test_a_process_killed_while_it_draws_the_first_street(make_dataset: Callable[..., Path]) -> None:
    batches = make(make_dataset(count=5), rendered=RenderedStore(4, (360, 480), seed=3), rendered_share=1.0)
    with ThreadPoolExecutor(1) as pool, closing(drawn_by(2, batches)) as stream:
        first = pool.submit(next, stream)
        while not (children := multiprocessing.active_children()):
            time.sleep(0.01)
        time.sleep(1.0)
        children[0].kill()
        with pytest.raises(DrawingError, match="was killed by SIGKILL"):
            list(itertools.islice((first.result(60) and batch for batch in itertools.chain([0], stream)), 50))


def test_processes_that_wait_for_a_street_end_with_a_training_that_is_killed(make_dataset: Callable[..., Path]) -> None:
    script = (
        "import os, signal, sys, threading, time; from pathlib import Path\n"
        "from tests.train.test_drawing import Drawers, RenderedStore, claimed_elsewhere, make\n"
        "store = RenderedStore(4, (64, 80), seed=3)\n"
        "drawers = Drawers(make(Path(sys.argv[1]), rendered=store, rendered_share=1.0), 2)\n"
        "with claimed_elsewhere(drawers._scenes, 0) as process:\n"
        "    for index in range(2): threading.Thread(target=drawers.batch, args=(0, index), daemon=True).start()\n"
        "    time.sleep(1)\n"
        "    print(process.pid, *(worker.process.pid for worker in drawers._workers), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    command = [sys.executable, "-c", script, str(make_dataset(count=5))]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        holder, *workers = map(int, process.stdout.readline().split())
        try:
            # To the end: it comes when the last process that writes there has ended.
            assert process.stdout.read() == b""
            os.kill(holder, 0)  # It has the street still: nobody was let go on by its end.
        finally:
            os.kill(holder, signal.SIGKILL)
    assert len(workers) == 2


def test_signals_for_all_leave_the_word_to_the_training(make_dataset: Callable[..., Path]) -> None:
    batches = make(make_dataset(count=5))
    stream = drawn_by(2, batches)
    next(stream)
    for child in multiprocessing.active_children():
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(child.pid or 0, number)
    for _ in range(12):
        next(stream)
    stream.close()


def test_an_interrupted_training_ends_the_processes(make_dataset: Callable[..., Path]) -> None:
    batches = make(make_dataset(count=5))
    kept = drawn_by(2, batches)  # as a traceback may keep it
    next(kept)
    with suppress(KeyboardInterrupt), batches.failures_raised():
        raise KeyboardInterrupt
    assert not multiprocessing.active_children()
    assert len(list(kept)) < 9  # What had been drawn ahead, and then its end, which is no failure.


def test_processes_end_with_a_training_that_is_killed(make_dataset: Callable[..., Path]) -> None:
    script = (
        "import multiprocessing, os, signal, sys; from tests.train.test_drawing import make; from pathlib import Path\n"
        "stream = make(Path(sys.argv[1]), processes=2).stream(); next(stream)\n"
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


def test_nothing_stays_where_everything_is_killed(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from tests.train.test_drawing import RenderedStore, make, shared\n"
        "shared.MEMORY_FOLDER = sys.argv[2]\n"
        "scenes = RenderedStore(4, (64, 80), seed=3)\n"
        "batches = make(Path(sys.argv[1]), rendered=scenes, rendered_share=0.5, processes=2)\n"
        "stream = batches.stream(); next(stream); print(len(os.listdir(sys.argv[2])))\n"
        "sys.stdout.flush(); os.killpg(0, signal.SIGKILL)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, make_dataset(count=5), tmp_path],
        capture_output=True,
        text=True,
        start_new_session=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "0\n")
    assert not list(tmp_path.iterdir())


def test_a_script_without_a_guard_is_not_run_again(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    script.write_text(
        "import sys; from pathlib import Path; from tests.train.test_drawing import make\n"
        "print('run')\n"
        "stream = make(Path(sys.argv[1]), processes=2).stream(); print(next(stream)[0].shape)\n"
    )
    done = subprocess.run(
        [sys.executable, script, make_dataset(count=5)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert (done.stdout, done.stderr) == ("run\n(2, 32, 48, 3)\n", "")


def no_room(folder: str, size: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_without_room_processes_that_were_asked_for_are_an_error(
    make_dataset: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = make(make_dataset(count=5), processes=2)
    monkeypatch.setattr(shared, "_reserved", no_room)
    expected = (
        r"no room for [\d.]+ MB of memory to share: /dev/shm: No space left on device, .* free; .*"
        "--workers 0 draws by threads"
    )
    with pytest.raises(ConfigurationError, match=expected) as caught, batches.failures_raised():
        next(batches.stream())
    assert "\n" not in str(caught.value)
    assert batches._failure is caught.value


def test_without_room_threads_draw_where_nothing_was_asked_for(
    make_dataset: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    batches = make(make_dataset(count=5))
    monkeypatch.setattr(shared, "_reserved", no_room)
    monkeypatch.setattr(batches_module, "drawing_processes", lambda: 2)
    with closing(batches.stream()) as stream:
        np.testing.assert_array_equal(next(stream)[0], batches.batch(0, 0)[0])
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "No space left on device" in said
    assert said.endswith("Batches are drawn by threads.\n")


def test_a_process_that_cannot_be_begun_is_told(
    make_dataset: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = make(make_dataset(count=5))
    begin = drawing._Worker.__init__
    begun: list[int] = []

    def second_fails(self: object, *given: Any) -> None:
        if begun:
            raise OSError(errno.EAGAIN, "Resource temporarily unavailable")
        begun.append(1)
        begin(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(drawing._Worker, "__init__", second_fails)
    with pytest.raises(ConfigurationError, match=r"cannot be begun: .*Resource temporarily unavailable"):
        next(drawn_by(2, batches))
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("limit", ["RLIMIT_FSIZE", "RLIMIT_NOFILE"])
def test_a_systems_limits_are_told_in_a_line(make_dataset: Callable[..., Path], limit: str) -> None:
    script = (
        "import resource, sys; from pathlib import Path; from tests.train.test_drawing import make\n"
        "from edge_seg.errors import ConfigurationError; import train.drawing\n"
        "batches = make(Path(sys.argv[1]), processes=4); list(batches.pairs)\n"
        f"number, most = resource.{limit}, 1000 if {limit!r} == 'RLIMIT_FSIZE' else 8\n"
        "resource.setrlimit(number, (most, resource.getrlimit(number)[1]))\n"
        "try: next(batches.stream())\n"
        "except ConfigurationError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, make_dataset(count=5)], capture_output=True, text=True, check=True
    )
    assert {"RLIMIT_FSIZE": "File too large", "RLIMIT_NOFILE": "Too many open files"}[limit] in done.stdout
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""


def test_room_is_taken_where_a_file_system_reserves_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def unknown(*_: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "posix_fallocate", unknown)
    monkeypatch.setattr(shared, "MEMORY_FOLDER", str(tmp_path / "absent"))
    monkeypatch.setattr(shared, "STEP", 1000)
    memory = shared.Shared(4500)
    assert os.fstat(memory.fileno()).st_size == 4500
    assert not memory.array().any()


def test_where_no_process_can_be_begun_threads_draw_unless_some_are_asked_for(
    make_dataset: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches_module, "available_threads", lambda: 16)
    batches = make(make_dataset(count=5))
    with monkeypatch.context() as patch:
        patch.delattr(signal, "pthread_sigmask")
        assert BY_CORES() == 0
        with pytest.raises(ConfigurationError, match=r"Windows .* --workers 0 draws by threads"):
            next(drawn_by(2, batches))
    with monkeypatch.context() as patch:
        patch.setitem(multiprocessing.current_process()._config, "daemon", True)  # type: ignore[attr-defined]
        assert BY_CORES() == 0
        with pytest.raises(ConfigurationError, match=r"daemonic .* --workers 0 draws by threads"):
            next(drawn_by(2, batches))
    with pytest.raises(ConfigurationError, match=r"33 processes .* at most 32"):
        next(drawn_by(33, batches))


def test_masks_of_another_type_are_refused(make_dataset: Callable[..., Path]) -> None:
    batches = make(make_dataset(count=5))
    batches.pairs = [(image, mask.astype(np.int16)) for image, mask in batches.pairs]
    with (
        pytest.raises(ConfigurationError, match=r"expected uint8 .* got int16"),
        closing(drawn_by(1, batches)) as stream,
    ):
        next(stream)


def test_what_a_signal_raises_while_processes_begin_changes_nothing_for_good(monkeypatch: pytest.MonkeyPatch) -> None:
    main, change = sys.modules["__main__"], signal.pthread_sigmask
    before = change(signal.SIG_BLOCK, ())

    def interrupted(how: int, mask: Any) -> Any:
        held = change(how, mask)
        if how == signal.SIG_SETMASK or mask:
            raise KeyboardInterrupt
        return held

    with monkeypatch.context() as patch:
        patch.setattr(signal, "pthread_sigmask", interrupted)
        with pytest.raises(KeyboardInterrupt), drawing._beginning():
            pass
    assert sys.modules["__main__"] is main
    assert change(signal.SIG_BLOCK, ()) == before


def test_processes_by_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for cores in (1, 4, 5, 16, 200):
        monkeypatch.setattr(batches_module, "available_threads", lambda cores=cores: cores)
        found.append(BY_CORES())
    assert found == [0, 0, 4, 15, 32]


def test_more_threads_than_processes_take_turns(make_dataset: Callable[..., Path]) -> None:
    batches = make(make_dataset(count=5))
    with Drawers(batches, 1) as drawers, ThreadPoolExecutor(2) as pool:
        indices = (1, 0, 1, 0, 0, 1)
        for index, drawn in zip(indices, pool.map(lambda index: drawers.batch(3, index), indices), strict=True):
            for array, expected in zip(drawn, batches.batch(3, index), strict=True):
                np.testing.assert_array_equal(array, expected)
