"""Which track of an opened video is read, by what decoder settings, and what its header says. Decodes no picture."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from .errors import MediaError
from .extent import WITHOUT_LENGTH
from .media import MAX_PIXELS, TAGS, SourceInfo
from .memory import amount, available_memory
from .opening import WITHOUT_END, clock_origin_s, is_of
from .phrases import counted
from .threads import available_threads

_NO_TIMESTAMPS = 1 << 7  # AVFMT_NOTIMESTAMPS
_OUTPUT_CORRUPT = 1 << 3  # AV_CODEC_FLAG_OUTPUT_CORRUPT: give damaged frames, flagged, instead of discarding them
_DURATION_FROM_ZERO = frozenset({"matroska", "webm", "asf"})
_TAG_NAMES = {"com.apple.quicktime.location.iso6709": "location", "com.apple.quicktime.title": "title"}
# Transfer functions of high dynamic range, by their numbers in ITU-T H.273.
_HDR = {16: "PQ", 18: "HLG"}


def video_tracks(container: InputContainer) -> list[VideoStream]:
    """The tracks that can be decoded and are not a cover picture."""
    tracks = [stream for stream in container.streams.video if stream.codec_context is not None]
    tracks = [stream for stream in tracks if not stream.disposition & Disposition.attached_pic]
    # Cameras store a thumbnail as a track of one frame, without that mark.
    return [stream for stream in tracks if stream.frames != 1] or tracks


def pick_track(container: InputContainer, number: int, name: str, *, cut: str, live: bool) -> VideoStream:
    """The video track with a number, from 1.

    Args:
        container: an open container.
        number: of the track, among `video_tracks`.
        name: the source's name in errors.
        cut: where the file breaks off, in words; "" if nothing is missing.
        live: whether it is a connection, which was probed only briefly.

    Raises:
        MediaError: there is no such track, or its frame size is unknown or too large.
    """
    tracks = video_tracks(container)
    if not tracks:
        raise MediaError(f"{name}: holds no video track that can be decoded{cut and f': {cut}'}.")
    if not 1 <= number <= len(tracks):
        raise MediaError(f"{name}: has {counted(len(tracks), 'video track')}, and track {number} was asked for.")
    track = tracks[number - 1]
    width, height = track.codec_context.width, track.codec_context.height
    if width <= 0 or height <= 0:
        why = "no key frame had come" if live else "the file is damaged or cut short"
        raise MediaError(f"{name}: its header gives no frame size; {why}.")
    if width * height > MAX_PIXELS:
        raise MediaError(
            f"{name}: frames of {width}x{height} exceed the limit of {MAX_PIXELS} pixels; scale the video down first."
        )
    _check_memory(width * height, name)
    return track


def _check_memory(pixels: int, name: str) -> None:
    """Raise `MediaError` if decoding needs more memory than is free, as a header of a kilobyte can demand."""
    # Six pictures that the decoder keeps (as many as codecs allow at the largest sizes) and one per thread, at 1.5
    # bytes a pixel, and three BGR images.
    needed, free = int(pixels * (1.5 * (6 + available_threads()) + 3 * 3)), available_memory()
    if free is not None and needed > free:
        raise MediaError(
            f"{name}: decoding its frames of {pixels / 1e6:.1f} million pixels needs about {amount(needed)}, "
            f"and {amount(free)} are free. Scale the video down first."
        )


def describe(
    container: InputContainer, track: VideoStream, *, name: str, kind: str, location: str, number: int, indexed: bool
) -> SourceInfo:
    """What is known about a source before its first frame.

    Args:
        container: an open container.
        track: the track that is read.
        name: the source's name.
        kind: "video", "pipe", or "stream" for an address.
        location: the address of a stream.
        number: of the track, from 1.
        indexed: whether counts and durations are those of the whole file, not only of the part that is there.
    """
    endless = not container.duration or location.partition("://")[0].lower() in WITHOUT_END
    live = kind == "stream" and (endless or _made_as_it_is_sent(container, track))
    timed = not container.format.flags & _NO_TIMESTAMPS
    audio = next((sound for sound in container.streams.audio if sound.codec_context is not None), None)
    return SourceInfo(
        name=name,
        kind=kind,
        size=(track.codec_context.height, track.codec_context.width),
        # A live stream was probed only briefly, so a guessed rate would just be the codec's clock; if its frames carry
        # no timestamps, the average rate is libav's invention too.
        rate=(track.average_rate if timed or not live else None) or (None if live else track.guessed_rate),
        time_base=time_base(track),
        frame_count=(track.frames or None) if indexed else None,
        end_s=_declared_end_s(container, track) if indexed else None,
        live=live,
        # The container's value takes precedence over the codec's, as in ffmpeg and players.
        pixel_aspect=track.sample_aspect_ratio or Fraction(1),
        hdr=_HDR.get(track.codec_context.color_trc, ""),
        audio=audio.codec_context.name if audio else None,
        timed=timed,
        tags=_tags(container.metadata),
        track=number,
        tracks=len(video_tracks(container)),
    )


def _made_as_it_is_sent(container: InputContainer, track: VideoStream) -> bool:
    """Whether it is a fragmented MP4 without a length, as cameras send it: the duration is that of what was probed."""
    return is_of(container, frozenset({"mp4"})) and not track.frames and container.size < 0


def set_up_decoder(track: VideoStream, *, low_delay: bool) -> None:
    """Set the decoder's threads and limits; `low_delay` goes without frame threads, which hold pictures back."""
    context = track.codec_context
    context.thread_type = "SLICE" if low_delay else "AUTO"
    context.thread_count = available_threads()
    context.flags |= _OUTPUT_CORRUPT
    context.options = {"max_pixels": str(MAX_PIXELS)}


def time_base(track: VideoStream) -> Fraction:
    """Seconds per unit of the track's timestamps."""
    return track.time_base or Fraction(1, 90000)


def _declared_end_s(container: InputContainer, track: VideoStream) -> float | None:
    if is_of(container, WITHOUT_LENGTH):
        return None
    tracks = len(container.streams.video) + len(container.streams.audio)
    if is_of(container, _DURATION_FROM_ZERO):
        # Where the first frame is not at 0, as in a recorder's later segments, the duration is the end on the file's
        # clock if FFmpeg wrote it, and the length if others did: the earlier of the two raises no false alarm. It is
        # that of the longest track.
        return container.duration / av.time_base if container.duration and tracks == 1 else None
    origin_s = clock_origin_s(container)
    if track.duration:
        return float(((track.start_time or 0) + track.duration) * time_base(track)) - origin_s
    if container.duration and tracks == 1:
        return ((container.start_time or 0) + container.duration) / av.time_base - origin_s
    return None


def _tags(metadata: Mapping[str, str]) -> dict[str, str]:
    """The file's `TAGS`, by FFmpeg's names for them; a line break becomes a space, other control characters none."""
    found: dict[str, str] = {}
    for key, text in metadata.items():
        name, text = _TAG_NAMES.get(key.lower(), key.lower()), " ".join(text.split())
        # An MP4 counts seconds from 1904 to 2040.
        timely = name != "creation_time" or re.match(r"(?:19[1-9]\d|20[0-3]\d)-\d\d-\d\dT\d\d:\d\d:\d\d", text)
        if name in TAGS and text.isprintable() and timely:
            found.setdefault(name, text)
    return found
