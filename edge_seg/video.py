"""Videos in, through PyAV: files, pipes and network streams as frames with timestamps, upright, damage counted.

Knows nothing of models, live queues or the command line.

Policies: frames keep the source's own pts and time base, variable rate included; in formats whose clock has no zero
(MPEG program and transport streams, RTSP) time counts from the first timestamp. Where a clock restarts, as in joined
recordings, time goes on. The display matrix is applied here, once. If the size changes in mid-stream, frames are
resized to the first size, and counted. Damaged frames, and those predicted from them, are passed on and counted; a
frame that gives no picture is counted and leaves a gap in the indices.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.reformatter import Colorspace, VideoReformatter
from av.video.stream import VideoStream

from . import native, rotation
from .clock import Clock
from .diagnose import reading
from .errors import MediaError
from .extent import Extent, measure
from .ledger import DecoderLedger, GapWatch
from .media import STANDARD_INPUT, Frame, Source, SourceEnd
from .opening import (
    CLOCKS_WITHOUT_ZERO,
    READ_TIMEOUT_S,
    READABLE_BY_HTTP,
    READABLE_PIPED,
    StandardInput,
    clock_origin_s,
    is_of,
    open_address,
    open_file,
    reason_of,
)
from .preprocess import resize_frame
from .redact import redact
from .threads import MORE_THREADS
from .tracks import describe, pick_track, set_up_decoder, time_base

ONE_PICTURE_A_PACKET = frozenset({"h264", "hevc", "mjpeg"})
_UNSPECIFIED = 2  # AVCOL_SPC_UNSPECIFIED


class VideoFile(Source):
    """One video, from a file, an address or a pipe: every frame, in order.

    Args:
        location: a path, or an address if `network`; None for standard input.
        network: whether `location` is an address; it is decoded without frame threads, which hold pictures back.
        track: which of its video tracks, from 1; cover pictures do not count.
        open_timeout_s: how long each step of opening an address may take; None for the default.
        read_timeout_s: an address that gives no picture for this long has ended.
        stopped: whether to stop waiting for an address or for standard input.

    Raises:
        MediaError: no such file, not a video, no such video track, no decoder, or frames of more pixels than
            `media.MAX_PIXELS`.
    """

    def __init__(
        self,
        location: str | Path | None,
        *,
        network: bool = False,
        track: int = 1,
        open_timeout_s: float | None = None,
        read_timeout_s: float = READ_TIMEOUT_S,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        super().__init__()
        self.name = STANDARD_INPUT if location is None else redact(str(location))
        self._patience_s = read_timeout_s if network else float("inf")
        self._pipe: StandardInput | None = None
        if location is None:
            self._pipe = StandardInput(stopped)
            self._container = self._pipe.open()
        elif network:
            self._container = open_address(
                str(location), open_timeout_s=open_timeout_s, read_timeout_s=read_timeout_s, stopped=stopped
            )
        else:
            self._container = open_file(location)
        try:
            # For a download, the connection itself reports whether it was complete.
            with reading(self.name):
                self._extent = Extent() if network or location is None else measure(Path(location))
            self._stream = pick_track(self._container, track, self.name, cut=self._extent.cut, live=network)
            self._time_base = time_base(self._stream)
            set_up_decoder(self._stream, low_delay=network)
            rounds = is_of(self._container, CLOCKS_WITHOUT_ZERO)
            self._clock = Clock(self._time_base, clock_origin_s(self._container), rounds=rounds)
            self.info = describe(
                self._container,
                self._stream,
                name=self.name,
                kind="pipe" if self._pipe else "stream" if network else "video",
                location=str(location),
                number=track,
                indexed=self._extent.indexed,
            )
        except BaseException:
            self._container.close()
            raise
        # One converter for all frames: a picture's own would be set up again for each.
        self._converter = VideoReformatter()
        self._matrix: rotation.Matrix | None = None
        self._ledger = DecoderLedger(one_picture_a_packet=self._stream.codec_context.name in ONE_PICTURE_A_PACKET)
        # AVI stores decoding times alone, and libav guesses the others: a frame late, and wrong with B-frames. Pictures
        # come out in order, so they get the packets' decoding times in order.
        self._avi = is_of(self._container, frozenset({"avi"}))
        self._reordered = self._avi and bool(self._stream.codec_context.has_b_frames)
        self._decoding_times: list[int] = []
        self._broken = ""
        self._stopped = self._reading = False
        self._gaps = GapWatch(self.name)

    def _frames(self) -> Iterator[Frame]:
        delivered, last = 0, None
        for picture in self._pictures():
            if last is not None and self._late(picture):
                self._put_aside([picture])
                self._count(delivered)
                continue
            delivered += 1
            before, last = last, self._frame(picture, delivered, last)
            if not self.info.live:
                self._gaps.note(before, last, self.end, hurt=self._ledger.hurt)
            self.end.at_s = float((last.pts + last.duration) * last.time_base)
            yield last
            if self._stopped:
                return
        if self._pipe is not None and self._pipe.is_stopped():
            return
        self._ledger.close()
        self._count(delivered)
        self.end = self._judge_end(delivered)

    def stop(self) -> None:
        self._stopped = True
        if self._pipe is not None:
            self._pipe.stop()

    def _release(self) -> None:
        # On Windows a read of a pipe cannot be ended; the container that libav is still reading is not closed.
        if not (self._reading and os.name == "nt"):
            with contextlib.suppress(av.error.FFmpegError):
                self._container.close()
        del self._container, self._stream
        native.collector.file_closed()

    def _pictures(self) -> Iterator[VideoFrame]:
        """Decoded pictures; damage to the container ends them, damage to a packet costs only that packet."""
        packets = self._packets()
        while True:
            waiting_since = time.monotonic()
            pictures: list[VideoFrame] = []
            while not pictures:
                packet = next(packets, None)
                if packet is None:
                    yield from self._decode(None)
                    return
                pictures = self._decode(packet) if packet.stream_index == self._stream.index else []
                if time.monotonic() - waiting_since > self._patience_s:
                    # When a read times out, the parser gives the picture that it held back: too old by now.
                    self._put_aside(pictures)
                    self._broken = self._silence()
                    return
            yield from pictures

    def _packets(self) -> Iterator[Packet[Any]]:
        """Packets up to the end, damaged or not. Over a network audio's too, to notice when only the video stalls."""
        demux = self._container.demux(*([] if self._patience_s < float("inf") else [self._stream]))
        while True:
            try:
                self._reading = self._pipe is not None
                packet = next(demux, None)
                self._reading = False
            except IndexError:
                return  # PyAV raises it at the end of a file in which a track appeared after the header.
            except MemoryError as error:
                raise self._no_memory() from error
            except (av.error.FFmpegError, OSError) as error:
                self._broken = self._silence() if isinstance(error, av.error.ExitError) else reason_of(error)
                return
            # PyAV ends with empty packets, meant to flush the decoders.
            if packet is None or packet.size == 0:
                return
            if packet.stream_index == self._stream.index:
                if self._avi:
                    packet.pts = packet.dts
                if self._reordered and packet.dts is not None:
                    heapq.heappush(self._decoding_times, packet.dts)
                # Of reordered pictures the ledger cannot tell which packet each came from.
                pts = None if self._reordered else packet.pts
                self._ledger.put(pts, discard=packet.is_discard, corrupt=packet.is_corrupt)
            yield packet

    def _no_memory(self) -> MediaError:
        return MediaError(f"{self.name}: no memory is left to decode it. Free some, or scale the video down.")

    def _put_aside(self, pictures: list[VideoFrame]) -> None:
        for picture in pictures:
            self._ledger.take(picture.pts, key=bool(picture.key_frame), corrupt=picture.is_corrupt)
        self.counts.dropped += len(pictures)

    def _silence(self) -> str:
        return f"no picture for {self._patience_s:g} s"

    def _decode(self, packet: Packet[VideoStream] | None) -> list[VideoFrame]:
        """The pictures that a packet completes or, with None, those still held back; a refused packet is counted."""
        try:
            pictures = self._stream.decode(packet)
            for picture in pictures if self._reordered else ():
                picture.pts = heapq.heappop(self._decoding_times) if self._decoding_times else None
            return pictures
        except EOFError:
            return []
        except MemoryError as error:
            raise self._no_memory() from error
        except av.error.BlockingIOError as error:
            raise MediaError(f"{self.name}: its decoder can start no more threads. {MORE_THREADS}") from error
        except (av.error.FFmpegError, ValueError):
            if packet is not None:
                self._ledger.refuse()
                if self._reordered and packet.dts in self._decoding_times:
                    # No picture comes of it. With frame threads the refused one may be an earlier one: the times in
                    # between are a frame off then, and the later ones right.
                    self._decoding_times.remove(packet.dts)
                    heapq.heapify(self._decoding_times)
            return []

    def _frame(self, picture: VideoFrame, delivered: int, last: Frame | None) -> Frame:
        corrupt = self._ledger.take(
            picture.pts,
            key=bool(picture.key_frame),
            corrupt=picture.is_corrupt,
            field_coded=picture.interlaced_frame,
        )
        self.counts.corrupt += corrupt
        self._count(delivered)
        pts, duration = self._timing(picture)
        return Frame(
            image=self._upright(picture),
            index=max(self.counts.read - 1, last.index + 1 if last else 0),
            pts=pts,
            time_base=self._time_base,
            duration=duration,
            corrupt=corrupt,
            name=self.name,
        )

    def _count(self, delivered: int) -> None:
        self.counts.failed = self._ledger.failed
        self.counts.read = delivered + self.counts.dropped + self._ledger.failed
        self.counts.damaged_packets = self._ledger.damaged

    def _timing(self, picture: VideoFrame) -> tuple[int, int]:
        """(pts, duration) in the stream's time base, pts strictly increasing."""
        rate = self.info.rate
        duration = picture.duration or (max(1, round(1 / (rate * self._time_base))) if rate else 1)
        came = round(time.monotonic() / self._time_base) if self.info.live else None
        pts, anew, useless = self._clock.time(_own_time(picture), duration, came=came)
        # A live source without timestamps gets its times from the arrival of frames: that is no correction.
        self.counts.retimed += anew or (useless and (self.info.timed or not self.info.live))
        return pts, duration

    def _late(self, picture: VideoFrame) -> bool:
        """Whether a picture comes long after newer ones, as decoders give them out where packets are missing. If it
        also went into the decoder after them, the source's clock was restarted, and it is not late."""
        own = _own_time(picture)
        return own is not None and self._clock.falls_back(own) and self._ledger.went_in_before(own, self._clock.own)

    def _upright(self, picture: VideoFrame) -> np.ndarray:
        """The picture as (H, W, 3) uint8 BGR, turned by the display matrix, at the size of the first one."""
        try:
            # One thread: the pipeline's other stages already fill the cores.
            image: np.ndarray = self._converter.reformat(
                picture, format="bgr24", src_colorspace=_color_matrix(picture), threads=1
            ).to_ndarray()
        except MemoryError as error:
            raise self._no_memory() from error
        if self._matrix is None:
            self._matrix = rotation.matrix_of(picture)
            self._settle_geometry(image, self._matrix)
        image = rotation.upright(image, self._matrix)
        if image.shape[:2] != self.info.size:
            assert self.info.size is not None
            image = resize_frame(image, self.info.size)
            self.counts.resized += 1
        return image

    def _settle_geometry(self, image: np.ndarray, matrix: rotation.Matrix) -> None:
        """Set size, pixel aspect and rotation from the first frame, which decides; the header only announced them."""
        height, width = image.shape[:2]
        aspect = self.info.pixel_aspect
        if rotation.swaps_sides(matrix):
            height, width, aspect = width, height, 1 / aspect
        words = rotation.describe(matrix)
        self.info = replace(self.info, size=(height, width), pixel_aspect=aspect, rotation=words)

    def _judge_end(self, delivered: int) -> SourceEnd:
        """Compare the end reached with the one declared; tells a broken read, a cut file and a false header apart."""
        end = replace(self.end, expected_s=self.info.end_s, early=True, reason=self._broken)
        if self._broken:
            if self._pipe and not delivered:
                end.reason += f". {READABLE_PIPED}"
            elif not delivered and self.name.lower().startswith("http"):
                end.reason += f". {READABLE_BY_HTTP}"
            return end
        if not delivered:
            end.reason = "not one frame could be decoded"
        elif not self._all_listed():
            end.reason = self._extent.cut or self._falls_short(end)
        elif self._ledger.damaged or self._ledger.failed:
            # All listed packets are there, but the cut may go through the last one.
            end.reason = self._extent.cut
        end.reason = end.reason or self._extent.behind
        end.early = bool(end.reason)
        return end

    def _all_listed(self) -> bool:
        """Whether every packet in the index was read, even if the duration is longer: it may count trimmed frames."""
        return bool(self.info.frame_count) and self._ledger.packets >= (self.info.frame_count or 0)

    def _falls_short(self, end: SourceEnd) -> str:
        frame_s = float(1 / self.info.rate) if self.info.rate else 0.1
        # With an index of frames durations are exact; otherwise they are rounded, or estimated from the bit rate.
        slack = 0.75 * frame_s if self.info.frame_count else 0.25 + 2 * frame_s
        short = end.expected_s is not None and end.at_s < end.expected_s - slack
        return "the file declares more than it holds" if short else ""


def _own_time(picture: VideoFrame) -> int | None:
    return picture.pts if picture.pts is not None else picture.dts


def _color_matrix(picture: VideoFrame) -> int | None:
    """The matrix of its colours if the file leaves it open: BT.709 of HD, as players take it (mpv's rule)."""
    unsaid = picture.colorspace == _UNSPECIFIED
    return Colorspace.ITU709 if unsaid and (picture.width >= 1280 or picture.height > 576) else None
