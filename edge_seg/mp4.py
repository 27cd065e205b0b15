"""An MP4 that was written here: its clock, a copy with its index first, and what of it plays. Encodes nothing."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error

from .boxes import top_level_boxes
from .errors import ConfigurationError, MediaError
from .files import reason
from .media import TAGS

MAX_TIMESCALE = 2**31 - 1


def timescales(time_base: Fraction) -> dict[str, str]:
    """MP4 options that keep pts and the start time exact instead of rounding them to milliseconds."""
    track = time_base.denominator
    movie = track if track >= 1000 else 1000
    if max(track, movie) > MAX_TIMESCALE:
        raise ConfigurationError(f"A time base of {time_base} s is finer than an MP4 can hold.")
    return {
        "video_track_timescale": str(track),
        "movie_timescale": str(movie),
        "avoid_negative_ts": "disabled",
    }


def remux(source: Path, target: Path, options: dict[str, str], last_s: Fraction, end_s: Fraction) -> None:
    """Copy every packet of an MP4 into a new one whose index comes first; nothing is encoded.

    A packet's duration is the time to the next one in decoding order, which runs some frames ahead of presentation
    order: a pause shortly before the end would make the file too long or too short. So the times at which the last
    frame begins and ends, in seconds, are given.
    """
    with (
        av.open(f"file:{source}") as given,
        av.open(f"file:{target}", "w", format="mp4", container_options={"movflags": "faststart", **options}) as made,
    ):
        made.metadata.update({key: text for key, text in given.metadata.items() if key in TAGS})
        streams = {stream.index: made.add_stream_from_template(stream, opaque=True) for stream in given.streams}
        for stream in streams.values():
            if stream.codec_context.name == "hevc":
                # Lost in the copy, and Apple's players take no other.
                stream.codec_context.codec_tag = "hvc1"
        for packet in _with_lengths(given.demux(), last_s, end_s):
            packet.stream = streams[packet.stream.index]
            made.mux(packet)


def _with_lengths(packets: Iterable[Any], last_s: Fraction, end_s: Fraction) -> Iterator[Any]:
    """The packets of `remux`, with no frame lasting beyond `end_s`. In decoding time, the last one ends no further
    ahead of `end_s` than the first one begins ahead of its presentation."""
    held, ahead = None, 0
    for packet in packets:
        if packet.size and packet.stream.type == "video":
            left = round((end_s - packet.pts * packet.time_base) / packet.time_base)
            last = packet.pts * packet.time_base >= last_s
            packet.duration = left if last else max(0, min(packet.duration or 0, left))
            if held is None:
                ahead = packet.pts - packet.dts
            else:
                yield held
            held = packet
        elif packet.size:
            yield packet
    if held is not None:
        end = round(end_s / held.time_base)
        held.dts = min(held.pts, max(held.dts, end - ahead - held.duration))
        yield held


def count_frames(path: Path) -> int:
    """The number of frames in a video, by its packets; raises `MediaError` if it cannot be opened or holds none."""
    return playable(path)[0]


def playable(path: Path) -> tuple[int, float]:
    """(frames, seconds) of a video that was written here; raises `MediaError` as `count_frames` does."""
    count, end_s = 0, 0.0
    try:
        with av.open(f"file:{path}") as container:
            for packet in container.demux(video=0):
                if packet.size:
                    count += 1
                    end_s = max(end_s, float(((packet.pts or 0) + (packet.duration or 0)) * packet.time_base))
    except (av.error.FFmpegError, OSError, IndexError) as error:
        raise MediaError(f"{path}: what was written cannot be opened again ({reason(error)}).") from error
    if not count:
        raise MediaError(f"{path}: what was written holds no picture.")
    return count, end_s


def cut_to_whole_fragments(path: Path) -> None:
    """Cut an unfinished last fragment off a fragmented MP4, so that every frame left in it is whole."""
    end = 0
    # No limit: we wrote this file.
    for box in top_level_boxes(path, most=sys.maxsize):
        if not box.whole:
            break
        if box.kind in (b"moov", b"mdat"):
            end = box.end
    if 0 < end < path.stat().st_size:
        os.truncate(path, end)
