"""Clips made on the spot: each frame's number is drawn in its pixels, so that reports can be held to them."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

BITS = 8


def paint_number(number: int, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    """A picture (H, W, 3) uint8: `number` as white and black blocks in its upper half, a grey ramp below."""
    height, width = size
    image = np.full((height, width, 3), 90, np.uint8)
    image[height // 2 :, :, 1] = np.linspace(40, 200, width, dtype=np.uint8)
    block = width // BITS
    for bit in range(BITS):
        image[: height // 2, bit * block : (bit + 1) * block] = 235 if number >> bit & 1 else 16
    return image


def read_number(image: np.ndarray) -> int:
    """The number `paint_number` drew, whatever compression did to it."""
    height, width = image.shape[:2]
    block = width // BITS
    middles = [
        image[height // 8 : height // 4, bit * block + block // 3 : bit * block + 2 * block // 3] for bit in range(BITS)
    ]
    return sum(1 << bit for bit, part in enumerate(middles) if part.mean() > 128)


def lay_together(path: Path, *clips: Path) -> Path:
    """A video with the picture of each clip as a track of its own, as cameras with two lenses write."""
    with contextlib.ExitStack() as stack:
        target = stack.enter_context(av.open(str(path), "w"))
        given = [stack.enter_context(av.open(str(clip))) for clip in clips]
        tracks: list[Any] = [target.add_stream_from_template(one.streams.video[0]) for one in given]
        for one, track in zip(given, tracks, strict=True):
            for packet in one.demux(video=0):
                if packet.size:
                    packet.stream = track
                    target.mux(packet)
    return path


def make_clip(
    path: Path,
    *,
    count: int = 30,
    size: tuple[int, int] = (48, 64),
    rate: Fraction = Fraction(25),
    time_base: Fraction | None = None,
    pts: Sequence[int] | None = None,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    audio: str | None = None,
    audio_rate: int | None = None,
    pixel_aspect: Fraction | None = None,
    matrix: Sequence[int] | None = None,
    container_options: dict[str, str] | None = None,
    first: int = 0,
    title: str = "",
) -> Path:
    """Write a clip of `count` numbered frames; `pts` in `time_base`, one a frame of `rate` by default.

    `title` is that of the file and of its picture, whose handler's name it is too.
    """
    time_base = time_base or 1 / rate
    pts = pts if pts is not None else [round(index / rate / time_base) for index in range(count)]
    with av.open(str(path), "w", container_options=container_options or {}) as container:
        stream: Any = container.add_stream(codec, rate=rate, options=options or {"preset": "ultrafast", "g": "10"})
        stream.width, stream.height, stream.pix_fmt = (
            size[1],
            size[0],
            "yuv444p" if size[0] % 2 or size[1] % 2 else "yuv420p",
        )
        stream.codec_context.time_base = time_base
        if title:
            container.metadata["title"] = title
            stream.metadata.update(title=title, handler_name=title)
        if pixel_aspect is not None:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        audio_rate = audio_rate or (48000 if audio == "libopus" else 44100)
        sound: Any = container.add_stream(audio, rate=audio_rate) if audio else None
        if sound is not None:
            sound.layout = "mono"
        for index in range(count):
            frame = av.VideoFrame.from_ndarray(paint_number(first + index & 255, size), "bgr24")
            frame.pts, frame.time_base = pts[index], time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            _add_tone(container, sound, float(pts[-1] * time_base) + float(1 / rate))
    if matrix is not None:
        _write_matrix(path, matrix)
    return path


def _write_matrix(path: Path, matrix: Sequence[int]) -> None:
    """Put a display matrix into an MP4's track header, where cameras write it."""
    data = bytearray(path.read_bytes())
    # After the box's name: version and flags, five 32-bit fields, two reserved ones, four 16-bit ones.
    place = data.index(b"tkhd") + 4 + 4 + 20 + 8 + 8
    data[place : place + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(data)


def _add_tone(container: Any, sound: Any, seconds: float) -> None:
    rate = sound.rate
    total, step = int(rate * seconds), 960
    for start in range(0, total, step):
        time = np.arange(start, min(start + step, total)) / rate
        wave = (8000 * np.sin(2 * np.pi * 440 * time)).astype(np.int16)[None]
        frame = av.AudioFrame.from_ndarray(wave, format="s16", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
        container.mux(sound.encode(frame))
    container.mux(sound.encode(None))


def video_times(path: Path) -> list[Fraction]:
    """Presentation times in seconds of a video's frames, as a plain decoder gives them."""
    with av.open(str(path)) as container:
        return [frame.pts * frame.time_base for frame in container.decode(video=0)]


def video_numbers(path: Path) -> list[int]:
    """The numbers drawn in a video's frames."""
    with av.open(str(path)) as container:
        return [read_number(frame.to_ndarray(format="bgr24")) for frame in container.decode(video=0)]


def audio_packets(path: Path) -> list[tuple[Fraction, bytes]]:
    """(time, bytes) of each packet of a file's sound."""
    with av.open(str(path)) as container:
        return [(packet.pts * packet.time_base, bytes(packet)) for packet in container.demux(audio=0) if packet.size]


def write_image(path: Path, number: int, size: tuple[int, int] = (48, 64)) -> Path:
    """A numbered picture as a file."""
    assert cv2.imwrite(str(path), paint_number(number, size))
    return path
