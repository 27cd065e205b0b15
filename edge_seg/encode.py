"""Videos out, through PyAV: an MP4 that plays in a browser, H.264 by default, with the source's own timestamps.

Knows nothing about models or overlays: it is given finished frames.

While being written, the file is NAME.partial.mp4, in fragments of a quarter second, so that what survives a kill or a
full disk still plays. At the end it is rewritten with its index first (nothing is encoded again), reopened, its frames
are counted, and only then does it get its final name.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import NoReturn, cast

import av
import av.error
import numpy as np
from av.container import OutputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from av.video.stream import VideoStream

from .audio import AudioTrack
from .codecs import EncodeOptions
from .errors import ConfigurationError, MediaError
from .files import DISK_FULL, GONE, Seal, create_anew, is_gone, other_file, reason, replacing
from .memory import amount, available_memory
from .mp4 import count_frames, cut_to_whole_fragments, playable, remux, timescales
from .names import partial_path
from .opencv import cv2
from .threads import available_threads, usual_scheduling

# Short, since frames not yet in a fragment are lost in a kill. The encoder also holds frames back: four with the
# default preset, dozens with the slow ones.
FRAGMENT_US = 250_000
# Of one frame, in units of the file's clock, with some room for the order in which frames are coded.
MAX_DURATION = 2**31 - 2**20
# From BGR to YUV each value is rounded, not cut off, which would darken and tint pictures by half a step; chroma from
# every pixel of a row costs less time than from every second.
ROUNDED = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP
_FRAME_DURATION = 1 << 8  # AV_CODEC_FLAG_FRAME_DURATION: the encoder carries each frame's duration to its packet
_BT709 = 1
_LIMITED_RANGE = 1

# Memory per frame that the rewriting of a finished file takes, as measured with a million: 0.3 GB a day of a camera.
INDEX_BYTES = 130


@dataclass(frozen=True, kw_only=True)
class WrittenVideo:
    """The video that was written.

    Attributes:
        path: the file, under its final name if `whole`, else the playable partial one.
        frames: how many frames it has, counted in the file.
        whole: whether it has its final name.
        audio: what became of the audio, in words; empty if there is none.
        padding: (rows, columns) added at the bottom and the right, since 4:2:0 needs even sizes.
        shortened_s: seconds by which pauses between frames were shortened, since an MP4 holds none longer than 2^31
            units of its clock: 6.6 hours at 90 kHz.
    """

    path: Path
    frames: int
    whole: bool
    audio: str = ""
    padding: tuple[int, int] = (0, 0)
    shortened_s: float = 0.0


class VideoWriter:
    """Writes one MP4, frame by frame.

    Args:
        path: the final name.
        size: (height, width) of the frames; odd sizes are padded by repeating the last row or column.
        time_base: seconds a unit of pts; kept exactly.
        rate: average frames a second, for the codec's rate control only.
        pixel_aspect: width of a pixel over its height.
        options: codec, crf, preset.
        tags: metadata for the file's header, such as "creation_time".
        audio_from: file whose audio goes along, copied where an MP4 can carry it, else as AAC.
        seal: called with the finished file just before it takes the final name.

    Raises:
        MediaError: the file cannot be created.
    """

    def __init__(
        self,
        path: Path,
        *,
        size: tuple[int, int],
        time_base: Fraction,
        rate: Fraction | None = None,
        pixel_aspect: Fraction = Fraction(1),
        options: EncodeOptions | None = None,
        tags: Mapping[str, str] | None = None,
        audio_from: str | Path | None = None,
        seal: Seal | None = None,
    ) -> None:
        self.path, self.partial = path, partial_path(path)
        self.size = size
        self.padding = (size[0] % 2, size[1] % 2)
        self.frames = 0
        self._time_base = time_base
        self._options, self._seal = options or EncodeOptions(), seal
        self._padded = np.empty((size[0] + self.padding[0], size[1] + self.padding[1], 3), np.uint8)
        self._converter = VideoReformatter()
        self._shift = 0
        self._shortened = 0
        # When the last frame begins, and when it ends.
        self._last_pts = self._end_pts = 0
        self._audio: AudioTrack | None = None
        self._held: Packet[VideoStream] | None = None
        self._kept: int | None = None
        self._timescales = timescales(time_base)
        self._container = self._create()
        try:
            self._container.metadata.update(tags or {})
            self._stream = self._add_video(rate, pixel_aspect)
            self._audio = AudioTrack.open(audio_from, self._container) if audio_from is not None else None
        except BaseException:
            self.abort()
            raise

    def write(self, image: np.ndarray, *, pts: int, duration: int = 0) -> None:
        """Append a frame (H, W, 3) uint8 BGR of the writer's size, shown from `pts` for `duration` units.

        Raises:
            MediaError: the disk is full or the encoder failed; the partial file is closed and kept. Or it was removed.
        """
        if image.shape != (*self.size, 3):
            raise ConfigurationError(f"The writer takes pictures of {(*self.size, 3)}; got {image.shape}.")
        if self.frames == 0:
            # Players drop what lies before zero, so a source that starts earlier is shifted as a whole.
            self._shift = max(0, -pts)
        elif (beyond := pts + self._shift - self._last_pts - MAX_DURATION // self._time_base.numerator) > 0:
            self._shift -= beyond
            self._shortened += beyond
        frame = self._to_frame(image)
        frame.pts, frame.time_base, frame.duration = pts + self._shift, self._time_base, duration
        self._last_pts, self._end_pts = pts + self._shift, pts + self._shift + duration
        try:
            if self._audio is not None:
                self._audio.copy_until(float(pts * self._time_base), shift_s=float(self._shift * self._time_base))
            # The first frame opens the encoder, which may make threads real-time ones.
            with usual_scheduling() if self.frames == 0 else contextlib.nullcontext():
                packets = self._stream.encode(frame)
            self._mux(packets)
        except (av.error.FFmpegError, OSError, ValueError) as error:
            self._fail(error)
        self.frames += 1
        if is_gone(self.partial):
            self._kept = 0
            self.abort()
            raise self._gone()

    def close(self, *, whole: bool = True, all_audio: bool = True) -> WrittenVideo:
        """Finish the file; after a failed `write`, only report what is kept of it.

        Args:
            whole: the source was read to its end: check the result and give it its final name. Otherwise it stays
                NAME.partial.mp4, playable.
            all_audio: copy the audio to its own end; otherwise to the end of the last frame.

        Raises:
            MediaError: the disk is full, or the file does not hold what was written; the partial file is kept.
        """
        if self._kept is not None:
            return self._written(self.partial, self._kept, whole=False, audio="")
        try:
            if self._audio is not None and self.frames:
                end_s = None if whole and all_audio else float((self._end_pts - self._shift) * self._time_base)
                self._audio.copy_until(end_s, shift_s=float(self._shift * self._time_base))
            self._mux([*self._stream.encode(None), None])
            self._shut()
        except (av.error.FFmpegError, OSError, ValueError) as error:
            self._fail(error)
        audio = self._audio.summary if self._audio is not None else ""
        if self.frames and is_gone(self.partial):
            raise self._gone()
        if not whole:
            return self._written(self.partial, count_frames(self.partial), whole=False, audio=audio)
        self._publish()
        return self._written(self.path, self.frames, whole=True, audio=audio)

    def abort(self) -> None:
        """Close the file as it is. What was written stays under the partial name; an empty file is deleted."""
        with contextlib.suppress(Exception):
            self._shut()
        if not self.frames:
            self.partial.unlink(missing_ok=True)

    def _written(self, path: Path, frames: int, *, whole: bool, audio: str) -> WrittenVideo:
        shortened_s = float(self._shortened * self._time_base)
        return WrittenVideo(
            path=path, frames=frames, whole=whole, audio=audio, padding=self.padding, shortened_s=shortened_s
        )

    def _create(self) -> OutputContainer:
        options = {
            # delay_moov: the index waits for the first packets, whose timing and audio set-up belong in it.
            # skip_trailer: a list of all fragments would grow in memory, by 13 MB a day of a camera.
            "movflags": "frag_keyframe+delay_moov+default_base_moof+skip_trailer",
            "frag_duration": str(FRAGMENT_US),
            "flush_packets": "1",
            "max_interleave_delta": str(FRAGMENT_US),
            **self._timescales,
        }
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Created here so that a folder without permission is an error now, not after the first second.
            create_anew(self.partial).close()
            # Without "file:", libav would take what stands before a colon in a name for a protocol.
            return av.open(f"file:{self.partial}", "w", format="mp4", container_options=options)
        except (av.error.FFmpegError, OSError) as error:
            raise MediaError(f"{self.path} cannot be written ({reason(error)}).") from error

    def _add_video(self, rate: Fraction | None, pixel_aspect: Fraction) -> VideoStream:
        height, width = self._padded.shape[:2]
        if self._options.codec == "libsvtav1":
            os.environ.setdefault("SVT_LOG", "1")  # Otherwise it prints its banner to stderr.
        try:
            added = self._container.add_stream(
                self._options.codec, rate=_sane_rate(rate), options=self._options.codec_options()
            )
        except (av.error.FFmpegError, ValueError) as error:
            raise MediaError(
                f"This build of PyAV cannot encode with {self._options.codec} ({error}). Take --codec libx264, or "
                "install PyAV's own build: pip install --force-reinstall av"
            ) from error
        stream = cast(VideoStream, added)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = self._time_base
        context = stream.codec_context
        context.time_base = self._time_base
        context.flags |= _FRAME_DURATION
        context.thread_count = available_threads()
        context.sample_aspect_ratio = pixel_aspect
        # Stated explicitly, since players otherwise guess from the frame size.
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _LIMITED_RANGE
        if self._options.codec == "libx265":
            context.codec_tag = "hvc1"
        return stream

    def _to_frame(self, image: np.ndarray) -> VideoFrame:
        rows, columns = self.padding
        if rows or columns:
            cv2.copyMakeBorder(image, 0, rows, 0, columns, cv2.BORDER_REPLICATE, dst=self._padded)
            image = self._padded
        picture = VideoFrame.from_numpy_buffer(np.ascontiguousarray(image), format="bgr24")
        # One thread: the pipeline's other stages already fill the cores.
        return self._converter.reformat(
            picture,
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
            interpolation=ROUNDED,
            threads=1,
        )

    def _publish(self) -> None:
        """Rewrite the fragments as one plain MP4 with its index first, count its frames, and give it its name."""
        needed, free = INDEX_BYTES * self.frames, available_memory()
        if free is not None and needed > free:
            raise MediaError(
                f"{self.path}: all {self.frames} frames are in {self.partial}, which plays, but the final file could "
                f"not be made: its index needs about {amount(needed)} of memory, and {amount(free)} are free."
            )
        try:
            with replacing(self.path, seal=self._seal) as finishing:
                last_s, end_s = (pts * self._time_base for pts in (self._last_pts, self._end_pts))
                remux(self.partial, finishing, self._timescales, last_s, end_s)
                found = count_frames(finishing)
                if found != self.frames:
                    raise MediaError(
                        f"{self.path}: {self.frames} frames were written, but the file holds {found}; "
                        f"it stays {self.partial}."
                    )
        except (av.error.FFmpegError, OSError) as error:
            if isinstance(error, MediaError):
                raise
            if is_gone(self.partial):
                raise self._gone() from error
            # "file:...", from libav, is the video under either name.
            other = other_file(error, self.path)
            other = "" if other.startswith("file:") else other
            full = error.errno in (*DISK_FULL, errno.EFBIG)
            raise MediaError(
                f"{self.path}: all {self.frames} frames are in {self.partial}, but the final file could not be made "
                f"({other}{reason(error)}).{' It takes as much space again.' if full else ''}"
            ) from error
        self.partial.unlink(missing_ok=True)

    def _mux(self, packets: Iterable[Packet[VideoStream] | None]) -> None:
        """Write packets, one behind: each lasts until the next one; None at the end writes the last.

        If the duration of a fragment's last frame is only a guess, libav moves the next fragment's first frame to fit.
        """
        for packet in packets:
            held, self._held = self._held, packet
            if held is None:
                continue
            if packet is not None and packet.dts is not None and held.dts is not None:
                held.duration = packet.dts - held.dts
            self._container.mux(held)

    def _shut(self) -> None:
        if self._audio is not None:
            self._audio.close()
        self._container.close()

    def _fail(self, error: Exception) -> NoReturn:
        """Close the file and raise `MediaError`, saying how much of it plays."""
        self.abort()
        if self.frames and is_gone(self.partial):
            self._kept = 0
            raise self._gone() from error
        try:
            cut_to_whole_fragments(self.partial)
            kept, seconds = playable(self.partial)
            self._kept = kept
        except (MediaError, OSError):
            self._kept = 0
            self.partial.unlink(missing_ok=True)
            raise MediaError(
                f"{self.path}: {reason(error)} before anything playable was on disk; nothing is kept."
            ) from error
        raise MediaError(
            f"{self.path}: {reason(error)} after {self.frames} frames; "
            f"the first {kept} ({seconds:.1f} s) are kept, playable, in {self.partial}."
        ) from error

    def _gone(self) -> MediaError:
        return MediaError(f"{self.path}: {self.frames} frames were written to {self.partial}, {GONE}")


def _sane_rate(rate: Fraction | None) -> Fraction:
    return rate.limit_denominator(100_000) if rate and 0 < rate <= 1000 else Fraction(25)
