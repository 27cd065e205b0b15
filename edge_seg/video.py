"""Videos in, through PyAV: files and network streams as frames with timestamps, upright, damage counted.

With `audio.py` and `encode.py` the only importer of av. Knows nothing of models, live queues or the command line.

Policies: frames keep the source's own pts and time base, variable rate included; formats whose clock has no zero (MPEG
program and transport streams, RTSP) are counted from the first timestamp. The display matrix is applied here, once. A
size that changes in mid-stream is brought back to the first one and counted. Damaged frames are passed on and counted.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from . import rotation
from .diagnose import explain_file
from .errors import MediaError, MissingDependencyError
from .media import MAX_PIXELS, Frame, Source, SourceEnd, SourceInfo
from .opencv import cv2
from .redact import redact, remember_secrets
from .threads import available_threads

try:
    import av
    import av.error
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream
except ImportError as import_error:  # pragma: no cover - av is a hard dependency of the package
    raise MissingDependencyError(
        f"PyAV cannot be loaded ({import_error}). Install it: pip install av"
    ) from import_error

# What may be opened at all. No playlists (hls, dash, concat, sdp files): they open other files and addresses.
FORMATS = (
    "mov,mp4,matroska,webm,avi,mpeg,mpegts,mpegvideo,flv,asf,ogg,gif,mxf,dv,ivf,obu,"
    "h264,hevc,m4v,mjpeg,mpjpeg,rtsp,jpeg_pipe"
)
FILE_PROTOCOLS = "file"
NETWORK_PROTOCOLS = "http,https,tcp,tls,udp,rtp,rtsp,rtsps,httpproxy"
CLOCKS_WITHOUT_ZERO = frozenset({"mpeg", "mpegts", "rtsp"})
ONE_PICTURE_A_PACKET = frozenset({"h264", "hevc", "mjpeg"})
OPEN_TIMEOUT_S = 15.0
READ_TIMEOUT_S = 10.0
_OUTPUT_CORRUPT = 1 << 3  # AV_CODEC_FLAG_OUTPUT_CORRUPT: show damaged frames, flagged, rather than swallow them


def open_container(
    location: str, *, network: bool = False, max_pixels: int = MAX_PIXELS, read_timeout_s: float = READ_TIMEOUT_S
) -> InputContainer:
    """Open a local path or an address for reading, with only the formats and protocols listed above.

    Raises:
        MediaError: it cannot be opened; the message names it (credentials redacted) and says what is wrong with it.
    """
    options = {
        "format_whitelist": FORMATS,
        "protocol_whitelist": NETWORK_PROTOCOLS if network else FILE_PROTOCOLS,
        "rtsp_transport": "tcp",
    }
    if network:
        remember_secrets(location)
    # A name like "concat:a|b" is a file's name here, never a protocol.
    target = location if network else f"file:{location}"
    timeout = (OPEN_TIMEOUT_S, read_timeout_s) if network else None
    problem = ""
    try:
        # `options` also reach the decoders that look at the first frames, before any size is known here.
        return av.open(target, container_options=options, options={"max_pixels": str(max_pixels)}, timeout=timeout)
    except (av.error.FFmpegError, OSError, ValueError) as error:
        problem = _explain_network(location, error) if network else explain_file(Path(location), _reason(error))
    # Raised out here so that the native error, whose text holds the bare address, is not chained to it.
    raise MediaError(problem)


def clock_origin_s(container: InputContainer) -> float:
    """Seconds on the source's clock that count as zero, the same for all its tracks."""
    if not CLOCKS_WITHOUT_ZERO.intersection(container.format.name.split(",")):
        return 0.0
    return (container.start_time or 0) / av.time_base


class VideoFile(Source):
    """One video, from a file or an address, lossless and in order.

    Args:
        location: a path, or an address if `network`.
        network: whether `location` is an address.
        max_pixels: frames with more are refused from their header.
        read_timeout_s: how long a network read may block.
        low_delay: decode frame by frame, for live sources (frame threads hold pictures back).

    Raises:
        MediaError: no such file, not a video, no video track, no decoder, or a frame size above `max_pixels`.
    """

    def __init__(
        self,
        location: str | Path,
        *,
        network: bool = False,
        max_pixels: int = MAX_PIXELS,
        read_timeout_s: float = READ_TIMEOUT_S,
        low_delay: bool = False,
    ) -> None:
        super().__init__()
        self.name = redact(str(location))
        self._container = open_container(
            str(location), network=network, max_pixels=max_pixels, read_timeout_s=read_timeout_s
        )
        try:
            self._stream = self._pick_stream(max_pixels)
            self._time_base = self._stream.time_base or Fraction(1, 90000)
            context = self._stream.codec_context
            context.thread_type = "SLICE" if low_delay else "AUTO"
            context.thread_count = available_threads()
            context.flags |= _OUTPUT_CORRUPT
            context.options = {"max_pixels": str(max_pixels)}
            self.origin_s = clock_origin_s(self._container)
            self._origin = round(self.origin_s / self._time_base)
            self.info = self._describe(network)
        except BaseException:
            self._container.close()
            raise
        self._matrix: rotation.Matrix | None = None
        self._packets = 0
        self._trimmed = 0
        self._interlaced = False
        self._broken = ""
        self._stopped = self._closed = False

    def __iter__(self) -> Iterator[Frame]:
        index, last_pts = 0, None
        for picture in self._pictures():
            frame = self._frame(picture, index, last_pts)
            index, last_pts = index + 1, frame.pts
            self.end.at_s = float((frame.pts + frame.duration) * frame.time_base)
            yield frame
            if self._stopped:
                return
        self._finish(index)

    def stop(self) -> None:
        self._stopped = True

    def close(self) -> None:
        if self._closed:
            return
        self._closed = self._stopped = True
        with contextlib.suppress(av.error.FFmpegError):
            self._container.close()
        # PyAV's container and streams hold each other, and with them the decoder's threads and pictures. A collector
        # that counts objects sees two small ones and lets them wait, two threads a file.
        del self._container, self._stream
        gc.collect()

    # Opening

    def _pick_stream(self, max_pixels: int) -> VideoStream:
        streams = [stream for stream in self._container.streams.video if stream.codec_context is not None]
        if not streams:
            raise MediaError(f"{self.name}: holds no video track that can be decoded.")
        stream = streams[0]
        width, height = stream.codec_context.width, stream.codec_context.height
        if width <= 0 or height <= 0:
            raise MediaError(f"{self.name}: its header gives no frame size; the file is damaged or cut short.")
        if width * height > max_pixels:
            raise MediaError(
                f"{self.name}: frames of {width}x{height} exceed the limit of {max_pixels} pixels; "
                "scale the video down first."
            )
        return stream

    def _describe(self, network: bool) -> SourceInfo:
        stream, container = self._stream, self._container
        audio = next((track for track in container.streams.audio if track.codec_context is not None), None)
        return SourceInfo(
            name=self.name,
            kind="stream" if network else "video",
            size=(stream.codec_context.height, stream.codec_context.width),
            rate=stream.average_rate or stream.guessed_rate,
            time_base=self._time_base,
            frame_count=stream.frames or None,
            end_s=self._expected_end(),
            live=network and (not container.duration or container.format.name == "rtsp"),
            pixel_aspect=stream.codec_context.sample_aspect_ratio or Fraction(1),
            audio=audio.codec_context.name if audio else None,
        )

    def _expected_end(self) -> float | None:
        stream, container = self._stream, self._container
        if stream.duration:
            end = float(((stream.start_time or 0) + stream.duration) * self._time_base)
            return end - self.origin_s
        if container.duration and not container.streams.audio:
            return ((container.start_time or 0) + container.duration) / av.time_base - self.origin_s
        return None

    # Reading

    def _pictures(self) -> Iterator[VideoFrame]:
        """Decoded pictures; damage to the container ends them, damage to a packet costs that packet alone."""
        demux = self._container.demux(self._stream)
        while True:
            try:
                packet = next(demux, None)
            except (av.error.FFmpegError, OSError) as error:
                self._broken = _reason(error)
                packet = None
            if packet is None or packet.size == 0:
                yield from self._decode(None)
                return
            self._packets += 1
            self._trimmed += packet.is_discard
            yield from self._decode(packet)

    def _decode(self, packet: Packet[VideoStream] | None) -> list[VideoFrame]:
        """The pictures one packet completes, or with None those still held back; a damaged packet is counted."""
        try:
            return self._stream.decode(packet)
        except EOFError:
            return []
        except (av.error.FFmpegError, ValueError):
            if packet is not None:
                self.counts.failed += 1
                self.counts.read += 1
            return []

    def _frame(self, picture: VideoFrame, index: int, last_pts: int | None) -> Frame:
        self._interlaced |= picture.interlaced_frame
        self.counts.read += 1
        self.counts.corrupt += picture.is_corrupt
        pts, duration = self._timing(picture, last_pts)
        return Frame(
            image=self._upright(picture),
            index=index,
            pts=pts,
            time_base=self._time_base,
            duration=duration,
            corrupt=picture.is_corrupt,
            name=self.name,
        )

    def _timing(self, picture: VideoFrame, last_pts: int | None) -> tuple[int, int]:
        """(pts, duration) in the stream's time base, pts strictly increasing."""
        rate = self.info.rate
        duration = picture.duration or (max(1, round(1 / (rate * self._time_base))) if rate else 1)
        pts = picture.pts if picture.pts is not None else picture.dts
        if pts is not None:
            pts -= self._origin
        if pts is None or (last_pts is not None and pts <= last_pts):
            # libx264 and MP4 refuse time that stands still or runs backwards.
            missing = pts is None
            pts = 0 if last_pts is None else last_pts + (duration if missing else 1)
            self.counts.retimed += 1
        return pts, duration

    def _upright(self, picture: VideoFrame) -> np.ndarray:
        """The picture as (H, W, 3) uint8 BGR, turned as its display matrix says, at the size of the first one."""
        image: np.ndarray = picture.to_ndarray(format="bgr24")
        if self._matrix is None:
            self._matrix = _display_matrix(picture)
            self._settle_geometry(image, self._matrix)
        image = rotation.upright(image, self._matrix)
        if image.shape[:2] != self.info.size:
            assert self.info.size is not None
            height, width = self.info.size
            image = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
            self.counts.resized += 1
        return image

    def _settle_geometry(self, image: np.ndarray, matrix: rotation.Matrix) -> None:
        """The first frame decides what the header only announced: upright size, and pixel aspect turned with it."""
        height, width = image.shape[:2]
        aspect = self.info.pixel_aspect
        if rotation.swaps_sides(matrix):
            height, width, aspect = width, height, 1 / aspect
        words = rotation.describe(matrix)
        self.info = replace(self.info, size=(height, width), pixel_aspect=aspect, rotation=words)

    def _finish(self, delivered: int) -> None:
        """Account for packets that gave no picture, and compare the end with the one announced."""
        codec = self._stream.codec_context.name
        if codec in ONE_PICTURE_A_PACKET and not self._interlaced:
            # The decoder drops some damaged packets without an error; in these codecs each should have been a picture.
            silent = max(0, self._packets - self._trimmed - delivered - self.counts.failed)
            self.counts.failed += silent
            self.counts.read += silent
        self.end = self._judge_end(delivered)

    def _judge_end(self, delivered: int) -> SourceEnd:
        expected, at = self.info.end_s, self.end.at_s
        end = SourceEnd(at_s=at, expected_s=expected, early=bool(self._broken), reason=self._broken)
        if delivered == 0 and not self._broken:
            return SourceEnd(expected_s=expected, early=True, reason="not one frame could be decoded")
        declared = self.info.frame_count
        if declared is not None and self._packets >= declared:
            return end  # Every packet the index lists was there; its duration may well count trimmed frames too.
        frame_s = float(1 / self.info.rate) if self.info.rate else 0.1
        # An index of frames makes durations exact; elsewhere they are rounded, or estimated from the bit rate.
        slack = 0.75 * frame_s if declared is not None else 0.25 + 2 * frame_s
        if expected is not None and at < expected - slack:
            end.early = True
            end.reason = self._broken or "the file was cut short"
        return end


def _display_matrix(picture: VideoFrame) -> rotation.Matrix:
    side_data: Any = picture.side_data  # by position too, which its type does not say
    for place in range(len(side_data)):
        data = side_data[place]
        if data.type.name == "DISPLAYMATRIX":
            return rotation.parse_matrix(bytes(data))
    return rotation.IDENTITY


def _explain_network(location: str, error: Exception) -> str:
    """One line on an address that could not be opened, without credentials."""
    name = redact(location)
    if isinstance(error, av.error.ExitError):
        return f"{name}: did not answer within {OPEN_TIMEOUT_S:g} s. Check the address and that the camera is on."
    if isinstance(error, av.error.HTTPUnauthorizedError):
        return f"{name}: refused the user name or password (401)."
    return f"{name}: cannot be opened ({_reason(error)}). Playlists (HLS, DASH) are not followed."


def _reason(error: Exception) -> str:
    """What the library said, without the file name it repeats and without credentials."""
    return redact(str(getattr(error, "strerror", None) or type(error).__name__)).lower()
