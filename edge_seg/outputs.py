"""Where results go: the sinks for a video and for pictures. Knows nothing of models or of where frames come from.

Kinds: `overlay` and `mask` (MP4 for a video, PNG for a picture), `labels` (PNG of class ids at the source's own size,
in a folder for a video), `jsonl` (a line per frame: index, time, share of each class). Under its final name a result is
whole or absent; while it is being written, its name has `.partial` in it.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from collections.abc import Callable, Container, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from .errors import MediaError
from .files import DISK_FULL, Claim, Seal, reason, write_atomically
from .media import Frame, SourceInfo
from .names import Plan
from .opencv import cv2, python_memory_error
from .overlay import Painter
from .preprocess import resize_labels
from .segmentation import class_share
from .spec import ModelSpec
from .timings import Stopwatch
from .writers import LabelFolder, OutputStyle, PictureTrack, ShareLines, Spent, Writer, Written, record, share_line

PATIENCE_S = 0.5


class MadeElsewhere(MediaError):
    """Another run is making this result, or has just made it."""


class VideoOutputs:
    """A pipeline's sink for one video, stream or camera: every kind of result asked for.

    Args:
        paths: kind -> final path.
        info: called once the first frame has come, since only that frame settles some of it (size, rotation).
        spec: classes and palette.
        style: how results look.
        audio_from: file whose audio the overlay carries.
        seal: called with each finished result just before it takes its final name.
        replaces: the existing results that may be replaced.

    Raises:
        MadeElsewhere: another run is writing one of the results, or has just made it.
        MediaError: a result's folder cannot be made or takes no file.
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
        replaces: Container[Path] = (),
    ) -> None:
        self._paths, self._info, self._spec = paths, info, spec
        self._style, self._audio_from, self._seal = style, audio_from, seal
        self._writers: list[Writer] = []
        self._claims: list[Claim] = []
        try:
            for path in paths.values():
                self._claims.append(_claimed(path, may_replace=path in replaces))
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
        record(spent, watches)

    def close(self, *, whole: bool, all_audio: bool = True) -> tuple[list[Written], list[str]]:
        """Finish every result; `whole` gives them their final names. A failure of one does not stop the others.

        Audio goes to its own end, or, without `all_audio`, to the end of the last frame.

        Returns:
            What was written, and what went wrong, one line per failed result.
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
        """Close every file as it is, and remove those with nothing in them."""
        for writer in self._writers:
            writer.abort()
        self._writers = []
        self._let_go()

    def _let_go(self) -> None:
        for claim in self._claims:
            claim.release()
        self._claims = []

    def _open(self, kind: str, path: Path) -> Writer:
        info = self._info()
        assert info.size is not None
        if kind == "labels":
            return LabelFolder(path, info.size, self._seal)
        if kind == "jsonl":
            return ShareLines(path, self._spec, info.size, self._seal)
        return PictureTrack(kind, path, info, self._spec, self._style, self._audio_from, self._seal)


def _claimed(path: Path, *, may_replace: bool) -> Claim:
    """Claim a result for this run alone; unless it may be replaced, it must not exist yet."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        claim = _patiently(path)
    except BlockingIOError as error:
        raise MadeElsewhere(f"{path}: {reason(error)}.") from error
    except OSError as error:
        raise MediaError(f"{path}: cannot be written ({reason(error)}).") from error
    if not may_replace and os.path.lexists(path):
        claim.release()
        raise _made_meanwhile(path)
    return claim


def _patiently(path: Path) -> Claim:
    """Claim a result, retrying for `PATIENCE_S`: a run with `--resume` holds a claim briefly while it checks one."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return Claim(path)
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _made_meanwhile(path: Path) -> MadeElsewhere:
    return MadeElsewhere(f"{path}: was made meanwhile by another run. Replace it with --overwrite.")


class ImageOutputs:
    """A pipeline's sink for pictures: each result is written whole, under its final name, as soon as it is ready.

    `written` holds the results written, `problems` why some of a picture's are missing; both by the picture's name.
    Only a full disk is raised as an error, because no other picture could be written either.

    Args:
        paths: name of the picture -> kind -> final path.
        spec: classes and palette.
        style: how results look.
        seals: name of the picture -> what to call just before one of its results takes its final name.
        replaces: the existing results that may be replaced.
    """

    def __init__(
        self,
        paths: dict[str, Plan],
        spec: ModelSpec,
        *,
        style: OutputStyle,
        seals: Mapping[str, Seal],
        replaces: Container[Path],
    ) -> None:
        self._replaces = replaces
        self._paths, self._spec, self._seals = paths, spec, seals
        self._painter = Painter(spec.palette, alpha=style.alpha)
        self.written: dict[str, list[Written]] = {}
        self.problems: dict[str, str] = {}

    def write(self, frame: Frame, labels: np.ndarray, watches: dict[str, Stopwatch]) -> None:
        spent: Spent = defaultdict(float)
        try:
            with python_memory_error():
                for kind, path in self._paths[frame.name].items():
                    self._write_one(kind, path, frame, labels, spent)
        except MediaError as error:
            if getattr(error.__cause__, "errno", None) in DISK_FULL:
                raise
            self.problems[frame.name] = str(error)
        except MemoryError:
            self.problems[frame.name] = f"{frame.name}: no memory is left to draw it. Free some, or scale it down."
        record(spent, watches)

    def _write_one(self, kind: str, path: Path, frame: Frame, labels: np.ndarray, spent: Spent) -> None:
        started = time.perf_counter()
        data = self._render(kind, frame, labels)
        painted = time.perf_counter()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise MediaError(f"{path.parent}: the folder cannot be made ({reason(error)}).") from error
        if path not in self._replaces and os.path.lexists(path):
            raise _made_meanwhile(path)
        write_atomically(path, data, seal=self._seals[frame.name])
        spent["paint"] += painted - started
        spent["write"] += time.perf_counter() - painted
        self.written.setdefault(frame.name, []).append(Written(kind=kind, path=path, frames=1))

    def _render(self, kind: str, frame: Frame, labels: np.ndarray) -> bytes:
        size = frame.image.shape[:2]
        if kind == "jsonl":
            share = class_share(resize_labels(labels, size), self._spec.classes)
            return share_line(replace(frame, index=0, pts=0), share).encode()
        if kind == "labels":
            picture = resize_labels(labels, size)
        elif kind == "mask":
            picture = self._painter.mask(labels, size)
        else:
            picture = self._painter.overlay(frame.image, labels)
        return cv2.imencode(".png", picture)[1].tobytes()
