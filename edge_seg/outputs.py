"""Where results go: their names, and the sinks that write them. Knows nothing of models or how frames came about.

Kinds: `overlay` and `mask` (MP4 for a video, PNG for a picture), `labels` (PNG of class ids at the source's own size,
in a folder for a video), `jsonl` (a line a frame: index, time, share of each class). A final name is whole or absent;
what is being written carries `.partial` in its name.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import NoReturn, Protocol

import numpy as np

from .codecs import EncodeOptions
from .encode import VideoWriter
from .errors import MediaError
from .files import DISK_FULL, Claim, Seal, publish, reason
from .media import Frame, SourceInfo
from .names import Plan, partial_path
from .opencv import cv2
from .overlay import Painter
from .preprocess import resize_labels
from .segmenter import write_atomically
from .spec import ModelSpec
from .timings import Stopwatch

PATIENCE_S = 0.5


@dataclass(frozen=True, kw_only=True)
class OutputStyle:
    """How results look: share of the colours in the overlay (0..1), and how videos are compressed."""

    alpha: float = 0.5
    encode: EncodeOptions = field(default_factory=EncodeOptions)


@dataclass(frozen=True, kw_only=True)
class Written:
    """One result: its path (the partial one unless `whole`), frames in it, and remarks for the user."""

    kind: str
    path: Path
    frames: int
    whole: bool
    notes: tuple[str, ...] = ()


# Stage -> seconds that one frame took, all kinds of results together.
Spent = defaultdict[str, float]


def _note(spent: Spent, watches: dict[str, Stopwatch]) -> None:
    for stage, seconds in spent.items():
        watches[stage].add(seconds)


class _Writer(Protocol):
    """One kind of result of one video."""

    def add(self, frame: Frame, labels: np.ndarray, spent: Spent) -> None: ...

    def close(self, whole: bool, all_audio: bool) -> Written: ...

    def abort(self) -> None: ...


class PictureTrack:
    """The overlay or the mask of a video, as an MP4."""

    def __init__(
        self,
        kind: str,
        path: Path,
        info: SourceInfo,
        spec: ModelSpec,
        style: OutputStyle,
        audio_from: Path | None,
        seal: Seal | None,
    ) -> None:
        self._kind, self._info = kind, info
        self._painter = Painter(spec.palette, alpha=style.alpha)
        assert info.size is not None
        self._writer = VideoWriter(
            path,
            size=info.size,
            time_base=info.time_base,
            rate=info.rate,
            pixel_aspect=info.pixel_aspect,
            options=style.encode,
            tags=info.tags,
            audio_from=audio_from if kind == "overlay" else None,
            seal=seal,
        )

    def add(self, frame: Frame, labels: np.ndarray, spent: Spent) -> None:
        started = time.perf_counter()
        if self._kind == "overlay":
            picture = self._painter.overlay(frame.image, labels)
        else:
            picture = self._painter.mask(labels, self._writer.size)
        painted = time.perf_counter()
        self._writer.write(picture, pts=frame.pts, duration=frame.duration)
        spent["paint"] += painted - started
        spent["write"] += time.perf_counter() - painted

    def close(self, whole: bool, all_audio: bool) -> Written:
        result = self._writer.close(whole=whole, all_audio=all_audio)
        notes = []
        if any(result.padding):
            sides = [f"1 {side}" for side, added in zip(("column", "row"), result.padding[::-1], strict=True) if added]
            notes.append(f"padded by {' and '.join(sides)} to an even size, as H.264's 4:2:0 needs")
        if result.audio:
            notes.append(f"audio: {result.audio}")
        return Written(kind=self._kind, path=result.path, frames=result.frames, whole=result.whole, notes=tuple(notes))

    def abort(self) -> None:
        self._writer.abort()


class LabelFolder:
    """Class ids of a video, one PNG a frame, named by the frame's index."""

    def __init__(self, path: Path, size: tuple[int, int], seal: Seal | None) -> None:
        self._path, self._partial, self._size, self._seal = path, partial_path(path), size, seal
        self._count = 0
        try:
            shutil.rmtree(self._partial, ignore_errors=True)
            self._partial.mkdir(parents=True)
        except OSError as error:
            raise MediaError(f"{path}: the folder cannot be made ({reason(error)}).") from error

    def add(self, frame: Frame, labels: np.ndarray, spent: Spent) -> None:
        started = time.perf_counter()
        data = cv2.imencode(".png", resize_labels(labels, self._size))[1].tobytes()
        target = self._partial / f"{frame.index:06d}.png"
        try:
            target.write_bytes(data)
        except OSError as error:
            target.unlink(missing_ok=True)
            raise MediaError(
                f"{self._path}: {reason(error)} after {self._count} frames; "
                f"the first {self._count} pictures are kept in {self._partial}."
            ) from error
        self._count += 1
        spent["write"] += time.perf_counter() - started

    def close(self, whole: bool, all_audio: bool) -> Written:
        if whole:
            try:
                publish(self._partial, self._path, seal=self._seal)
            except OSError as error:
                raise MediaError(
                    f"{self._path}: all {self._count} pictures are in {self._partial}, but the folder could not be "
                    f"given its name ({reason(error)})."
                ) from error
        return Written(kind="labels", path=self._path if whole else self._partial, frames=self._count, whole=whole)

    def abort(self) -> None:
        if not self._count:
            shutil.rmtree(self._partial, ignore_errors=True)


class ShareLines:
    """A JSON object a line and frame: index, time_s, and the share of each class.

    A frame that was not segmented, as most with a stride are not, has the shares of the last one that was, and its
    index as `labels_of`.

    Each line is written at once and whole, so that a kill leaves no half of one.
    """

    def __init__(self, path: Path, spec: ModelSpec, size: tuple[int, int], seal: Seal | None) -> None:
        self._path, self._partial, self._size, self._seal = path, partial_path(path), size, seal
        self._classes = spec.classes
        self._count = self._bytes = 0
        self._failed = False
        self._labels: np.ndarray | None = None
        self._labels_of = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._partial.open("wb", buffering=0)
        except OSError as error:
            raise MediaError(f"{path}: cannot be written ({reason(error)}).") from error

    def add(self, frame: Frame, labels: np.ndarray, spent: Spent) -> None:
        started = time.perf_counter()
        held = labels is self._labels
        if not held:
            self._labels, self._labels_of = labels, frame.index
        labels_of = self._labels_of if held else None
        line = share_line(frame, resize_labels(labels, self._size), self._classes, labels_of=labels_of).encode()
        try:
            left = line
            while left:
                left = left[self._file.write(left) or 0 :]
        except OSError as error:
            self._fail(error)
        self._count += 1
        self._bytes += len(line)
        spent["write"] += time.perf_counter() - started

    def close(self, whole: bool, all_audio: bool) -> Written:
        try:
            if not self._failed:
                os.fsync(self._file.fileno())
            self._file.close()
            if whole:
                publish(self._partial, self._path, seal=self._seal)
        except OSError as error:
            self._fail(error)
        return Written(kind="jsonl", path=self._path if whole else self._partial, frames=self._count, whole=whole)

    def abort(self) -> None:
        self._file.close()
        if not self._count:
            self._partial.unlink(missing_ok=True)

    def _fail(self, error: OSError) -> NoReturn:
        """Leave whole lines only, and say how many."""
        self._failed = True
        os.truncate(self._partial, self._bytes)
        raise MediaError(
            f"{self._path}: {reason(error)} after {self._count} frames; "
            f"the first {self._count} lines are kept in {self._partial}."
        ) from error


def share_line(frame: Frame, labels: np.ndarray, classes: tuple[str, ...], *, labels_of: int | None = None) -> str:
    """One line of JSON for a frame and its labels (H, W) uint8 at its size; shares are rounded to 6 places.

    `labels_of` is the index of the frame that they are of, if it is another.
    """
    counts = cv2.calcHist([labels], [0], None, [256], [0, 256]).ravel()
    shares = {name: round(float(count) / labels.size, 6) for name, count in zip(classes, counts, strict=False)}
    values = {"index": frame.index, "time_s": round(frame.time_s, 6), "share": shares}
    if labels_of is not None:
        values["labels_of"] = labels_of
    if frame.corrupt:
        values["corrupt"] = True
    return json.dumps(values) + "\n"


class VideoOutputs:
    """A pipeline's sink for one video, stream or camera: every kind of result asked for.

    Args:
        paths: kind -> final path.
        info: asked for when the first frame has come, and so what only that frame can tell is known.
        spec: classes and palette.
        style: how results look.
        audio_from: file whose sound the overlay carries.
        seal: called with each finished result just before it takes its final name.
        replaces: results that are there already may be replaced.

    Raises:
        MediaError: another run is writing one of the results, or has just made it.
    """

    def __init__(
        self,
        paths: dict[str, Path],
        info: Callable[[], SourceInfo],
        spec: ModelSpec,
        *,
        style: OutputStyle,
        audio_from: Path | None = None,
        seal: Seal | None = None,
        replaces: bool = False,
    ) -> None:
        self._paths, self._info, self._spec = paths, info, spec
        self._style, self._audio_from, self._seal = style, audio_from, seal
        self._writers: list[_Writer] = []
        self._claims: list[Claim] = []
        try:
            for path in paths.values():
                self._claims.append(_claimed(path, replaces=replaces))
        except BaseException:
            self._let_go()
            raise

    def write(self, frame: Frame, labels: np.ndarray, watches: dict[str, Stopwatch]) -> None:
        if not self._writers:
            for kind, path in self._paths.items():
                self._writers.append(self._open(kind, path))
        spent: Spent = defaultdict(float)
        for writer in self._writers:
            writer.add(frame, labels, spent)
        _note(spent, watches)

    def close(self, *, whole: bool, all_audio: bool = True) -> tuple[list[Written], list[str]]:
        """Finish every result; `whole` gives them their final names. One that cannot be finished keeps none back.

        Sound goes to its own end, or, without `all_audio`, to the end of the last frame.

        Returns:
            What there is now, and what went wrong, a line a result.
        """
        results, problems = [], []
        for writer in self._writers:
            try:
                results.append(writer.close(whole, all_audio))
            except (MediaError, OSError) as error:
                writer.abort()
                problems.append(str(error))
        self._writers = []
        self._let_go()
        return [result for result in results if result.frames], problems

    def abort(self) -> None:
        """Let go of every file as it is; of those with nothing in them, altogether."""
        for writer in self._writers:
            writer.abort()
        self._writers = []
        self._let_go()

    def _let_go(self) -> None:
        for claim in self._claims:
            claim.release()
        self._claims = []

    def _open(self, kind: str, path: Path) -> _Writer:
        info = self._info()
        assert info.size is not None
        if kind == "labels":
            return LabelFolder(path, info.size, self._seal)
        if kind == "jsonl":
            return ShareLines(path, self._spec, info.size, self._seal)
        return PictureTrack(kind, path, info, self._spec, self._style, self._audio_from, self._seal)


def _claimed(path: Path, *, replaces: bool) -> Claim:
    """A result for this run alone, which is not there yet unless it may be replaced."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        claim = _patiently(path)
    except OSError as error:
        raise MediaError(f"{path}: cannot be written ({reason(error)}).") from error
    if not replaces and os.path.lexists(path):
        claim.release()
        raise _made_meanwhile(path)
    return claim


def _patiently(path: Path) -> Claim:
    """Claim a result; a run with `--resume` holds one for a moment, to look at it."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return Claim(path)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _made_meanwhile(path: Path) -> MediaError:
    return MediaError(f"{path}: was made meanwhile by another run. Replace it with --overwrite.")


class ImageOutputs:
    """A pipeline's sink for pictures: each result is written whole, under its final name, as soon as it is there.

    `written` holds what there is, `problems` why a picture's results are not all there; both by the picture's name. A
    full disk alone is an error, for it is one for all.

    Args:
        paths: name of the picture -> kind -> final path.
        spec: classes and palette.
        style: how results look.
        seals: name of the picture -> what to call just before one of its results takes its final name.
        replaces: results that are there already may be replaced.
    """

    def __init__(
        self,
        paths: dict[str, Plan],
        spec: ModelSpec,
        *,
        style: OutputStyle,
        seals: Mapping[str, Seal] | None = None,
        replaces: bool = False,
    ) -> None:
        self._replaces = replaces
        self._paths, self._spec, self._seals = paths, spec, seals or {}
        self._painter = Painter(spec.palette, alpha=style.alpha)
        self.written: dict[str, list[Written]] = {}
        self.problems: dict[str, str] = {}

    def write(self, frame: Frame, labels: np.ndarray, watches: dict[str, Stopwatch]) -> None:
        spent: Spent = defaultdict(float)
        try:
            for kind, path in self._paths[frame.name].items():
                self._write_one(kind, path, frame, labels, spent)
        except MediaError as error:
            if getattr(error.__cause__, "errno", None) in DISK_FULL:
                raise
            self.problems[frame.name] = str(error)
        _note(spent, watches)

    def _write_one(self, kind: str, path: Path, frame: Frame, labels: np.ndarray, spent: Spent) -> None:
        started = time.perf_counter()
        data = self._render(kind, frame, labels)
        painted = time.perf_counter()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MediaError(f"{path.parent}: the folder cannot be made ({error.strerror}).") from error
        if not self._replaces and os.path.lexists(path):
            raise _made_meanwhile(path)
        write_atomically(path, data, seal=self._seals.get(frame.name))
        spent["paint"] += painted - started
        spent["write"] += time.perf_counter() - painted
        self.written.setdefault(frame.name, []).append(Written(kind=kind, path=path, frames=1, whole=True))

    def _render(self, kind: str, frame: Frame, labels: np.ndarray) -> bytes:
        size = frame.image.shape[:2]
        if kind == "jsonl":
            single = Frame(
                image=frame.image, index=0, pts=0, time_base=Fraction(1), corrupt=frame.corrupt, name=frame.name
            )
            return share_line(single, resize_labels(labels, size), self._spec.classes).encode()
        if kind == "labels":
            picture = resize_labels(labels, size)
        elif kind == "mask":
            picture = self._painter.mask(labels, size)
        else:
            picture = self._painter.overlay(frame.image, labels)
        return cv2.imencode(".png", picture)[1].tobytes()
