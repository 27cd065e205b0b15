"""Writers for one kind of result of one video: MP4 by `encode`, a folder of PNG, lines of JSON. Knows no pipeline.

Under its final name a result is whole or absent; while it is being written, its name has `.partial` in it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from .codecs import EncodeOptions
from .encode import VideoWriter
from .errors import MediaError
from .files import GONE, Seal, create_anew, is_gone, other_file, publish, reason
from .media import Frame, SourceInfo
from .names import partial_path
from .opencv import cv2
from .overlay import Painter
from .preprocess import resize_labels
from .segmentation import class_share
from .spec import ModelSpec
from .timings import Stopwatch


@dataclass(frozen=True, kw_only=True)
class OutputStyle:
    """How results look: weight of the colours in the overlay (0..1), and how videos are compressed."""

    alpha: float = 0.5
    encode: EncodeOptions = field(default_factory=EncodeOptions)


@dataclass(frozen=True, kw_only=True)
class Written:
    """One result: its kind, its path (final or partial), frames in it, and remarks for the user."""

    kind: str
    path: Path
    frames: int
    notes: tuple[str, ...] = ()


# Stage -> seconds that one frame took, all kinds of results together.
Spent = defaultdict[str, float]


def record(spent: Spent, watches: dict[str, Stopwatch]) -> None:
    """Add one frame's times to the stages' stopwatches."""
    for stage, seconds in spent.items():
        watches[stage].add(seconds)


class Writer(Protocol):
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
        self._kind, self._info, self._remark = kind, info, style.encode.remark
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
        notes = [self._remark] if self._remark else []
        if any(result.padding):
            sides = [f"1 {side}" for side, added in zip(("column", "row"), result.padding[::-1], strict=True) if added]
            notes.append(f"padded by {' and '.join(sides)} to an even size, as H.264's 4:2:0 needs")
        if result.shortened_s:
            notes.append(f"pauses shortened by {result.shortened_s:.0f} s, since no frame of an MP4 may last so long")
        if result.audio:
            notes.append(f"audio: {result.audio}")
        return Written(kind=self._kind, path=result.path, frames=result.frames, notes=tuple(notes))

    def abort(self) -> None:
        self._writer.abort()


def _give_name(made: Path, final: Path, seal: Seal | None, content: str) -> None:
    """Give a whole result its final name; an error says where it is, as a sync may fail even after the rename."""
    try:
        publish(made, final, seal=seal)
    except OSError as error:
        place = final if is_gone(made) else made
        if is_gone(place):
            raise MediaError(f"{final}: {content} were written to {made}, {GONE}") from error
        why = f"{other_file(error, made, final)}{reason(error)}"
        raise MediaError(
            f"{final}: all {content} are in {place}, but could not be given their name for good ({why})."
        ) from error


def _kept(content: str, partial: Path) -> str:
    """Where what was written before an error is, as the end of a sentence."""
    if is_gone(partial):
        return f"the first {content} were written to {partial}, {GONE}"
    return f"the first {content} are kept in {partial}."


def _left(kind: str, path: Path, partial: Path, content: str, count: int, *, told: bool) -> Written:
    """What an ended run leaves of a result; raises `MediaError` if it is gone, unless an error has `told` that."""
    if not is_gone(partial):
        return Written(kind=kind, path=partial, frames=count)
    if count and not told:
        raise MediaError(f"{path}: {_kept(content, partial)}")
    return Written(kind=kind, path=partial, frames=0)


class LabelFolder:
    """Labels of a video, one PNG per frame, named by the frame's index."""

    def __init__(self, path: Path, size: tuple[int, int], seal: Seal | None) -> None:
        self._path, self._partial, self._size, self._seal = path, partial_path(path), size, seal
        self._count = 0
        self._failed = False
        self._labels: np.ndarray | None = None
        self._png = b""
        try:
            if self._partial.is_symlink():
                self._partial.unlink()
            shutil.rmtree(self._partial, ignore_errors=True)
            self._partial.mkdir(parents=True)
        except OSError as error:
            raise MediaError(f"{path}: the folder cannot be made ({reason(error)}).") from error

    def add(self, frame: Frame, labels: np.ndarray, spent: Spent) -> None:
        started = time.perf_counter()
        # With a stride most frames come with the same array as the frame before.
        if labels is not self._labels:
            self._labels, self._png = labels, cv2.imencode(".png", resize_labels(labels, self._size))[1].tobytes()
        target = self._partial / f"{frame.index:06d}.png"
        try:
            target.write_bytes(self._png)
        except OSError as error:
            self._failed = True
            target.unlink(missing_ok=True)
            kept = _kept(f"{self._count} pictures", self._partial)
            raise MediaError(f"{self._path}: {reason(error)} after {self._count} frames; {kept}") from error
        self._count += 1
        spent["write"] += time.perf_counter() - started

    def close(self, whole: bool, all_audio: bool) -> Written:
        if whole:
            _give_name(self._partial, self._path, self._seal, f"{self._count} pictures")
            return Written(kind="labels", path=self._path, frames=self._count)
        return _left("labels", self._path, self._partial, f"{self._count} pictures", self._count, told=self._failed)

    def abort(self) -> None:
        if not self._count:
            shutil.rmtree(self._partial, ignore_errors=True)


class ShareLines:
    """One line per frame, a JSON object: index, time_s, and the share of each class.

    A frame that was not segmented (with a stride, most are not) has the shares of the last one that was, and that one's
    index as `labels_of`.

    Each line is written whole and unbuffered, so that a kill leaves no incomplete line.
    """

    def __init__(self, path: Path, spec: ModelSpec, size: tuple[int, int], seal: Seal | None) -> None:
        self._path, self._partial, self._size, self._seal = path, partial_path(path), size, seal
        self._classes = spec.classes
        self._count = self._bytes = 0
        self._failed = False
        self._labels: np.ndarray | None = None
        self._labels_of = 0
        self._share: dict[str, float] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = create_anew(self._partial)
        except OSError as error:
            raise MediaError(f"{path}: cannot be written ({reason(error)}).") from error

    def add(self, frame: Frame, labels: np.ndarray, spent: Spent) -> None:
        started = time.perf_counter()
        held = labels is self._labels
        if not held:
            self._labels, self._labels_of = labels, frame.index
            self._share = class_share(resize_labels(labels, self._size), self._classes)
        line = share_line(frame, self._share, labels_of=self._labels_of if held else None).encode()
        try:
            left = line
            while left:
                left = left[self._file.write(left) or 0 :]
        except OSError as error:
            raise self._cut_short(error) from error
        self._count += 1
        self._bytes += len(line)
        if is_gone(self._partial):
            self._failed = True
            raise MediaError(f"{self._path}: {_kept(f'{self._count} lines', self._partial)}")
        spent["write"] += time.perf_counter() - started

    def close(self, whole: bool, all_audio: bool) -> Written:
        try:
            if not self._failed:
                os.fsync(self._file.fileno())
            self._file.close()
        except OSError as error:
            raise self._cut_short(error) from error
        if whole:
            _give_name(self._partial, self._path, self._seal, f"{self._count} lines")
            return Written(kind="jsonl", path=self._path, frames=self._count)
        return _left("jsonl", self._path, self._partial, f"{self._count} lines", self._count, told=self._failed)

    def abort(self) -> None:
        self._file.close()
        if not self._count:
            self._partial.unlink(missing_ok=True)

    def _cut_short(self, error: OSError) -> MediaError:
        """Cut the file after its last whole line; returns an error that says how many lines it has."""
        self._failed = True
        with contextlib.suppress(OSError):
            os.truncate(self._partial, self._bytes)
        kept = _kept(f"{self._count} lines", self._partial)
        return MediaError(f"{self._path}: {reason(error)} after {self._count} frames; {kept}")


def share_line(frame: Frame, share: dict[str, float], *, labels_of: int | None = None) -> str:
    """One line of JSON for a frame and the share of each class (0..1) in it, rounded to 6 places.

    `labels_of` is the index of the frame whose labels were counted, if that is another frame.
    """
    shares = {name: round(part, 6) for name, part in share.items()}
    values = {"index": frame.index, "time_s": round(frame.time_s, 6), "share": shares}
    if labels_of is not None:
        values["labels_of"] = labels_of
    if frame.corrupt:
        values["corrupt"] = True
    return json.dumps(values) + "\n"
