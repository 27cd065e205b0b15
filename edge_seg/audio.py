"""A source's audio into an MP4: copied where browsers play its codec, else encoded as AAC.

The source is opened a second time, so that the video pipeline never waits for audio and damaged audio never costs a
frame. Knows nothing about video.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import av
import av.error
from av.bitstream import BitStreamFilterContext
from av.container import InputContainer, OutputContainer

from .clock import CLOCK_RESTART_S, ran_over
from .errors import MediaError
from .opening import CLOCKS_WITHOUT_ZERO, clock_origin_s, is_of, open_file

# What MP4 carries and browsers play. MP2, AC-3, ALAC and others fit into an MP4 too, but are silent in browsers.
COPIED = frozenset({"aac", "mp3", "opus", "flac"})
AAC_RATES = frozenset({8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000})


class AudioTrack:
    """Moves one audio track of a file into an open MP4, piece by piece. `summary` says in words what was done."""

    def __init__(self, source: InputContainer, target: OutputContainer) -> None:
        self._source, self._target = source, target
        track = source.streams.best("audio")
        assert track is not None
        self._track: Any = track
        context: Any = track.codec_context
        # The codec's name, not its decoder's, which for MP3 is mp3float.
        self.codec: str = context.codec.canonical_name
        # Below 16 kHz libav's MP4 muxer refuses MP3 (MPEG-2.5), and with it the whole file.
        slow_mp3 = self.codec == "mp3" and context.sample_rate < 16000
        self.copied = self.codec in COPIED and not slow_mp3
        self.summary = f"{self.codec} copied" if self.copied else f"{self.codec} encoded as AAC"
        if len(source.streams.audio) > 1:
            self.summary += f" (1 of {len(source.streams.audio)} tracks)"
        # MPEG-TS puts a header on every AAC packet; an MP4 states it once, so it is taken off.
        framed = self.codec == "aac" and not track.codec_context.extradata
        self._unframe = BitStreamFilterContext("aac_adtstoasc", track) if framed else None
        self._out: Any = self._copying_stream() if self.copied else self._encoding_stream()
        self._origin_s = clock_origin_s(source)
        self._packets = self._read()
        self._ahead: Any = None
        self._ended = False
        self._last_dts: int | None = None

    @classmethod
    def open(cls, path: str | Path, target: OutputContainer) -> Self | None:
        """The audio of `path`, or None if it has none that can be read."""
        try:
            source = open_file(path)
        except MediaError:
            return None
        track = source.streams.best("audio")
        if track is None or track.codec_context is None:
            source.close()
            return None
        try:
            return cls(source, target)
        except BaseException:
            source.close()
            raise

    def copy_until(self, end_s: float | None, *, shift_s: float) -> None:
        """Write the audio that begins before `end_s` on the source's clock (None: all the rest), moved by `shift_s`.

        Raises:
            av.error.FFmpegError, OSError: the output cannot be written.
        """
        while not self._ended:
            if self._ahead is None:
                self._ahead = next(self._packets, None)
            if self._ahead is None:
                self._ended = True
                if not self.copied:
                    self._mux(self._out.encode(None))
                return
            item, self._ahead = self._ahead, None
            if end_s is not None and item.pts is not None and _seconds(item) - self._origin_s >= end_s:
                self._ahead = item
                return
            self._write(item, shift_s)

    def close(self) -> None:
        """Close the source."""
        with contextlib.suppress(av.error.FFmpegError):
            self._source.close()

    def _copying_stream(self) -> Any:
        return self._target.add_stream_from_template(self._track, opaque=True)

    def _encoding_stream(self) -> Any:
        rate = self._track.codec_context.sample_rate
        stream: Any = self._target.add_stream("aac", rate=rate if rate in AAC_RATES else 48000)
        stream.layout = "mono" if self._track.codec_context.channels == 1 else "stereo"
        return stream

    def _read(self) -> Iterator[Any]:
        """Packets to copy, or frames to encode, without damaged ones.

        Ends early where the source breaks, its clock restarts or the audio format changes: an MP4 track cannot go on.
        """
        kind, latest_s = None, float("-inf")
        rounds = is_of(self._source, CLOCKS_WITHOUT_ZERO)
        try:
            for item in self._items():
                time_s = latest_s if item.pts is None else _seconds(item)
                kind = kind or self._kind(item)
                if latest_s - time_s > CLOCK_RESTART_S or (rounds and ran_over(latest_s, time_s)):
                    self.summary += ", cut short where its clock starts anew"
                    return
                if self._kind(item) != kind:
                    self.summary += ", cut short where its format changes"
                    return
                latest_s = max(latest_s, time_s)
                yield item
        except (av.error.FFmpegError, OSError):
            self.summary += ", cut short where the source is damaged"
        except IndexError:
            return  # From PyAV, at the end of a file in which a track appeared midway.

    def _items(self) -> Iterator[Any]:
        for packet in self._source.demux(self._track):
            if not self.copied:
                yield from self._decode(packet)
            elif packet.size and packet.dts is not None:
                yield from self._unframed(packet)

    def _unframed(self, packet: Any) -> list[Any]:
        try:
            return self._unframe.filter(packet) if self._unframe else [packet]
        except av.error.FFmpegError:
            return []

    def _kind(self, item: Any) -> tuple[Any, ...]:
        """The audio format, which an encoder cannot change midway; empty for packets, which do not state it."""
        return () if self.copied else (item.format.name, item.layout.name, item.sample_rate)

    def _decode(self, packet: Any) -> list[Any]:
        try:
            return list(packet.decode())
        except (av.error.FFmpegError, ValueError):
            return []

    def _write(self, item: Any, shift_s: float) -> None:
        moved = round((shift_s - self._origin_s) / (item.time_base or Fraction(1, 1000)))
        if item.pts is not None:
            item.pts += moved
        if self.copied:
            item.dts += moved
            item.stream = self._out
        self._mux([item] if self.copied else self._out.encode(item))

    def _mux(self, packets: list[Any]) -> None:
        """Write packets, except those not later than the last one, which MP4 refuses; damaged sources have them."""
        for packet in packets:
            if self._last_dts is None or packet.dts > self._last_dts:
                self._last_dts = packet.dts
                self._target.mux(packet)


def _seconds(item: Any) -> float:
    return float(item.pts * item.time_base)
