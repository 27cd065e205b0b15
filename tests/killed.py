"""Runs a piece of work in forked children that are killed at every turn, and looks each time at what lies there.

    killed.py WORK MANNER,... FOLDER SEED -> a line of JSON for each manner: how often it died, and how often the old
                                             and the new were found; or how it failed

MANNER: `calls` kills before and after each fsync, rename, truncate, unlink, mkdir and os.write, counted through the
whole work; `bytes` kills at the first write past a random size of file, in C libraries too (the kernel's limit on the
size of files, whose signal is deadly again); `moments` kills at random times; `order` kills nothing and checks that
what is renamed was synced before and its folder after. A work called NAME! is the same with the rename's care planted
away, to show that the looking finds it. The parent forks and imports, and nothing more: no thread of it can be missed.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import resource
import shutil
import signal
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ["KERAS_BACKEND"] = "tensorflow" if "export" in sys.argv else "numpy"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

CALLS = ("fsync", "replace", "rename", "unlink", "remove", "mkdir", "rmdir", "truncate", "ftruncate", "write")
OLD, NEW = "old", "new"


class Work:
    """`make(OLD)` then `make(NEW)` over it; `look()` says which is there, or raises if it is neither."""

    absent_allowed = False
    rounds = 24

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make(self, version: str) -> None:
        raise NotImplementedError

    def look(self) -> str:
        raise NotImplementedError


class Picture(Work):
    """Class ids of a frame, saved by the library."""

    def make(self, version: str) -> None:
        import numpy as np

        from edge_seg.segmentation import Segmentation
        from edge_seg.spec import ModelSpec

        labels = np.random.default_rng(len(version)).integers(0, 12, (200, 200)).astype(np.uint8)
        labels[0, 0] = 1 if version == NEW else 0
        Segmentation(labels=labels, frame=np.empty(0), spec=ModelSpec()).save(self.folder / "labels.png")

    def look(self) -> str:
        import cv2

        labels = cv2.imread(str(self.folder / "labels.png"), cv2.IMREAD_UNCHANGED)
        assert labels is not None
        assert labels.shape == (200, 200)
        return NEW if labels[0, 0] else OLD


class Table(Work):
    """A table of training, as history.csv and the tables of an evaluation are written."""

    def make(self, version: str) -> None:
        from train.files import write_csv

        write_csv(self.folder / "table.csv", ("version", "number"), [(version, number) for number in range(3000)])

    def look(self) -> str:
        rows = (self.folder / "table.csv").read_text().split()
        assert len(rows) == 3001
        return rows[-1].split(",")[0]


class Checkpoint(Work):
    """A training's checkpoint and the one before: the newest that is whole is taken."""

    def _model(self, value: float) -> Any:
        from types import SimpleNamespace

        import numpy as np

        class Variable(np.ndarray):
            path = "kernel"

            def assign(self, array: Any) -> None:
                self[...] = array

        arrays = [np.full((100, 100), value, np.float32).view(Variable) for _ in range(4)]
        return SimpleNamespace(variables=arrays, optimizer=SimpleNamespace(variables=[]))

    def make(self, version: str) -> None:
        from train.checkpoint import save_checkpoint

        save_checkpoint(self.folder, self._model(len(version)), {"epoch": 1 if version == OLD else 2})
        if version == OLD:  # So that a damaged one that is taken for the one before would show.
            save_checkpoint(self.folder, self._model(0.5), {"epoch": 1})

    def look(self) -> str:
        import numpy as np

        from train.checkpoint import load_checkpoint

        model = self._model(-1)
        record, note = load_checkpoint(self.folder, model)
        assert all(np.ptp(array) == 0 and array[0, 0] > 0 for array in model.variables)
        assert not note or "checkpoint.npz: missing" in note, note
        return OLD if record["epoch"] == 1 else NEW


class Weights(Work):
    """A finished run's config and Keras weights."""

    rounds = 12

    def _model(self) -> Any:
        from train.fcn8 import Fcn8Config, fcn8

        return fcn8(Fcn8Config(input_size=(32, 32), block_widths=(4, 4, 4, 4, 4), head_widths=(4, 4)))

    def make(self, version: str) -> None:
        from train.run import save_run

        model = self._model()
        model.set_weights([array * 0 + len(version) + (version == NEW) for array in model.get_weights()])
        save_run(self.folder, {"fcn8": {}, "version": version}, model)

    def look(self) -> str:
        import numpy as np

        from train.run import open_run

        assert open_run(self.folder).config["version"] in (OLD, NEW)
        model = self._model()
        model.load_weights(self.folder / "model.weights.h5")
        values = {float(value) for array in model.get_weights() for value in np.unique(array)}
        assert len(values) == 1, values
        return NEW if values == {4.0} else OLD


class Video(Work):
    """One video, written frame by frame."""

    def make(self, version: str) -> None:
        from fractions import Fraction

        from edge_seg.encode import VideoWriter
        from tests.edge_seg.clips import paint_number

        writer = VideoWriter(self.folder / "out.mp4", size=(48, 64), time_base=Fraction(1, 25))
        for number in range(20 if version == OLD else 30):
            writer.write(paint_number(number), pts=number, duration=1)
        writer.close()

    def look(self) -> str:
        from tests.edge_seg.clips import video_numbers

        numbers = video_numbers(self.folder / "out.mp4")
        assert numbers in (list(range(20)), list(range(30))), numbers
        return OLD if len(numbers) == 20 else NEW


class Predict(Work):
    """`edge-seg predict` of a clip and a picture, every kind of result, over those of an earlier run."""

    # A folder of labels steps aside before the new one takes its name.
    absent_allowed = True

    def make(self, version: str) -> None:
        from edge_seg import Segmenter, cli, predict_command
        from edge_seg.fake import FakeSession
        from edge_seg.spec import ModelSpec
        from tests.edge_seg.clips import make_clip, write_image

        given = self.folder / "given"
        if not given.exists():
            given.mkdir()
            make_clip(given / "clip.mp4", count=12, size=(48, 64))
            write_image(given / "still.png", 7)
            self._write_model()

        class Stand(Segmenter):
            def __init__(self, model: object, *, batch_size: int = 1, **options: object) -> None:
                super().__init__(FakeSession(ModelSpec(input_size=(32, 32))), batch_size=batch_size)

        predict_command.Segmenter = Stand  # type: ignore[misc]
        options = ["--limit", "5", "--alpha", "1"] if version == OLD else ["--alpha", "0"]
        out = ["-o", str(self.folder / "out"), "--overwrite", "--save", "overlay,mask,labels,jsonl"]
        nowhere = io.StringIO()
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            code = cli.main(["predict", str(given), *out, *options, "-m", str(self.folder / "model.onnx")])
        assert code == 0, nowhere.getvalue()

    def _write_model(self) -> None:
        """A model of few nodes, since each round reads what is said in it; `Stand` computes instead of it."""
        import onnx

        from edge_seg.spec import ModelSpec
        from tests.conftest import tiny_graph

        spec = ModelSpec(input_size=(32, 32))
        model = tiny_graph(spec.input_size, len(spec.classes))
        onnx.helper.set_model_props(model, spec.to_metadata())
        onnx.save(model, self.folder / "model.onnx")

    def look(self) -> str:
        import cv2

        from tests.edge_seg.clips import video_times

        out = self.folder / "out"
        counts = [len(video_times(out / f"clip_{kind}.mp4")) for kind in ("overlay", "mask")]
        rows = [json.loads(line) for line in (out / "clip.jsonl").read_text().splitlines()]
        assert [row["index"] for row in rows] == list(range(len(rows)))
        counts.append(len(rows))
        for name in ("still.png", "still_overlay.png", "still_mask.png"):
            assert cv2.imread(str(out / name), cv2.IMREAD_UNCHANGED) is not None, name
        assert len((out / "still.jsonl").read_text().splitlines()) == 1
        pictures = sorted((out / "clip_labels").glob("*"))
        if pictures:
            assert all(cv2.imread(str(path), cv2.IMREAD_UNCHANGED) is not None for path in pictures)
            counts.append(len(pictures))
        assert set(counts) <= {5, 12}, counts
        return "absent" if not pictures else OLD if 5 in counts else NEW


class Export(Work):
    """A model and its report, from the writing on: Keras is asked once, before any child is made."""

    rounds = 8

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        from export.convert import convert
        from export.evidence import ask_keras, golden_evidence, rendered_pictures
        from export.wrap import wrap
        from train.fcn8 import Fcn8Config, fcn8
        from train.run import save_run

        config = Fcn8Config(input_size=(32, 64), block_widths=(4, 4, 4, 4, 4), head_widths=(4, 4))
        model = fcn8(config)
        self.run = save_run(folder.with_name("run"), {"fcn8": config.to_dict()}, model)
        self.draft = wrap(convert(model, opset=17), size=(32, 64))
        pictures = rendered_pictures(self.run.classes, (32, 64), 2)
        self.evidence, self.golden = ask_keras(model, pictures), golden_evidence(model, pictures, 1)

    def make(self, version: str) -> None:
        from export.options import ExportOptions
        from export.publish import Job, publish
        from export.record import Stages

        options = ExportOptions(out=self.folder / "model.onnx", name=version)
        job = Job(run=self.run, size=(32, 64), options=options, gate_on="rendered", stages=Stages(lambda line: None))
        publish(job, self.draft.fork(), self.golden, self.evidence, None)

    def look(self) -> str:
        import hashlib

        from edge_seg.modelfile import read_model_header
        from edge_seg.session import open_session

        path = self.folder / "model.onnx"
        open_session(path, device="cpu").close()
        version = read_model_header(path).spec.name
        report = json.loads((self.folder / "model.report.json").read_text())
        assert report["spec"]["name"] in (OLD, version), "a report of a model that is not there"
        if report["spec"]["name"] == version:
            assert report["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        return version


WORKS: dict[str, type[Work]] = {
    work.__name__.lower(): work for work in (Picture, Table, Checkpoint, Weights, Video, Predict, Export)
}


def fork(action: Callable[[], None]) -> int:
    """Run something in a child and come back with its wait status; an exception in it is exit code 3."""
    child = os.fork()
    if child == 0:
        try:
            action()
        except BaseException:
            os.write(2, traceback.format_exc().encode())
            os._exit(3)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm_calls(deadly: int) -> None:
    """Die at turn number `deadly`; each call has two, one before it and one after."""
    turns = 0

    def turn() -> None:
        nonlocal turns
        turns += 1
        if turns == deadly:
            die()

    def wrapped(real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            turn()
            result = real(*arguments, **options)
            turn()
            return result

        return call

    for name in CALLS:
        setattr(os, name, wrapped(getattr(os, name)))


def arm_bytes(size: int) -> None:
    """Die at the first write beyond `size` bytes of any file."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)


def arm_moment(seconds: float) -> None:
    """Die after a while, whatever is being done."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def check_order(work: Work) -> None:
    """Make the new one, noting syncs and renames, and hold their order to what survives a power cut."""
    events: list[tuple[str, str]] = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(handle: int) -> None:
        fsync(handle)
        events.append(("sync", os.readlink(f"/proc/self/fd/{handle}")))

    def noted_replace(source: Any, target: Any) -> None:
        replace(source, target)
        events.append(("rename", f"{os.path.abspath(source)}\n{os.path.abspath(target)}"))

    os.fsync, os.replace = noted_fsync, noted_replace
    work.make(NEW)
    renames = [(place, *what.split("\n")) for place, (kind, what) in enumerate(events) if kind == "rename"]
    published = [(place, source, target) for place, source, target in renames if "partial" in Path(source).name]
    assert published, events
    for place, source, target in published:
        before = {what for kind, what in events[:place] if kind == "sync"}
        after = {what for kind, what in events[place:] if kind == "sync"}
        assert source in before, f"{source} was renamed before it was synced"
        assert os.path.dirname(target) in after, f"the folder of {target} was not synced after the rename"


def plant_a_fault() -> None:
    """Write under the final name at once, as careless code does."""
    from contextlib import contextmanager

    from edge_seg import files, segmenter

    @contextmanager
    def careless(path: Path, **_: Any) -> Any:
        yield path

    files.replacing = segmenter.replacing = careless  # type: ignore[assignment]


def largest_file(folder: Path) -> int:
    return max(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def duration_s(work: Work) -> float:
    """How long a child takes to make the new one, its start left out; the shortest of three."""
    took = work.folder.with_name("took")

    def timed() -> None:
        began = time.perf_counter()
        work.make(NEW)
        took.write_text(str(time.perf_counter() - began))

    durations = []
    for _ in range(3):
        assert fork(timed) == 0
        durations.append(float(took.read_text()))
    return min(durations)


def manners(manner: str, work: Work, draw: random.Random, took_s: float) -> Callable[[int], Callable[[], None]]:
    """Round number -> how the child of that round is armed."""
    if manner == "calls":
        return lambda number: lambda: arm_calls(number + 1)
    if manner == "bytes":
        sizes = [0, 1, *(draw.randrange(largest_file(work.folder)) for _ in range(work.rounds))]
        return lambda number: lambda: arm_bytes(sizes[number % len(sizes)])
    return lambda number: (lambda seconds: lambda: arm_moment(seconds))(draw.uniform(0.0005, took_s))


def run(work: Work, name: str, manner: str, folder: Path, seed: int) -> dict[str, Any]:
    """Kill until the work gets through (`calls`), or `rounds` times; AssertionError where neither old nor new lies."""
    work.folder = folder / "work"
    pristine = folder / "pristine"

    def prepare() -> None:
        work.folder.mkdir(parents=True)
        work.make(OLD)

    assert fork(prepare) == 0
    shutil.copytree(work.folder, pristine)
    if name.endswith("!"):
        plant_a_fault()
    if manner == "order":
        assert fork(lambda: check_order(work)) == 0, "order"
        return {"deaths": 0}
    arm = manners(manner, work, random.Random(seed), duration_s(work))
    found: Counter[str] = Counter()
    deaths, number = 0, 0
    while True:
        shutil.rmtree(work.folder)
        shutil.copytree(pristine, work.folder)

        def doomed(number: int = number) -> None:
            arm(number)()
            work.make(NEW)

        status = fork(doomed)
        deaths += os.WIFSIGNALED(status)
        for version in ("absent", OLD, NEW):
            (folder / version).unlink(missing_ok=True)
        looked = fork(lambda: (folder / work.look()).touch())
        assert looked == 0, f"{name}, {manner}: neither old nor new after death {deaths}, round {number}, seed {seed}"
        found.update(version for version in ("absent", OLD, NEW) if (folder / version).exists())
        number += 1
        if (manner == "calls" and not os.WIFSIGNALED(status)) or (manner != "calls" and number == work.rounds):
            break
    assert work.absent_allowed or not found["absent"]
    return {"deaths": deaths, **found}


def preload() -> None:
    """Import here what every child needs, without starting a thread."""
    import av
    import cv2
    import numpy

    import edge_seg.cli
    import edge_seg.commands
    import edge_seg.fake
    import edge_seg.predict_command
    import edge_seg.video
    import tests.edge_seg.clips

    assert all((av, cv2, numpy, edge_seg, tests))


if __name__ == "__main__":
    what, how, where, chance = sys.argv[1:]
    preload()
    if what.rstrip("!") in ("checkpoint", "weights"):
        import train.checkpoint
        import train.run  # noqa: F401
    if what == "predict":
        import onnxruntime  # noqa: F401
    # Begun once for all manners: for some, Keras and a network take longer than all the killing.
    begun = WORKS[what.rstrip("!")](Path(where) / "work")
    for manner in how.split(","):
        try:
            told = run(begun, what, manner, Path(where) / manner, int(chance))
        except AssertionError:
            told = {"failed": traceback.format_exc()}
        print(json.dumps({"manner": manner, **told}), flush=True)
