"""Reading videos: every frame, its time, its turn; damage is counted, never silent."""

from __future__ import annotations

import errno
import itertools
import os
import random
import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.stream import Disposition

from edge_seg import rotation
from edge_seg.clock import Clock
from edge_seg.encode import VideoWriter
from edge_seg.errors import MediaError
from edge_seg.media import Frame
from edge_seg.native import Collector
from edge_seg.threads import available_threads
from edge_seg.video import VideoFile
from tests.edge_seg.clips import lay_together, make_clip, paint_number, read_number, video_times

ONE = 65536
# Display matrices as files carry them, and the turn of the picture that undoes each.
TURNS = {
    "none": ((ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30), lambda image: image),
    "90 clockwise": ((0, ONE, 0, -ONE, 0, 0, 0, 0, 1 << 30), lambda image: np.rot90(image, 1)),
    "180": ((-ONE, 0, 0, 0, -ONE, 0, 0, 0, 1 << 30), lambda image: np.rot90(image, 2)),
    "90 counterclockwise": ((0, -ONE, 0, ONE, 0, 0, 0, 0, 1 << 30), lambda image: np.rot90(image, -1)),
    "mirrored": ((-ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30), lambda image: image[:, ::-1]),
}


def read(path: Path, **options: object) -> tuple[VideoFile, list[Frame]]:
    with VideoFile(path, **options) as video:  # type: ignore[arg-type]
        return video, list(video)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".mov", ".avi", ".ts"])
def test_every_frame_in_order(tmp_path: Path, suffix: str) -> None:
    clip = make_clip(tmp_path / f"clip{suffix}", count=40)
    video, frames = read(clip)
    assert [read_number(frame.image) for frame in frames] == list(range(40))
    assert [frame.index for frame in frames] == list(range(40))
    assert video.counts.read == 40
    assert video.counts.failed == video.counts.corrupt == 0
    assert video.end.early is False
    steps = {round(later.time_s - sooner.time_s, 3) for sooner, later in itertools.pairwise(frames)}
    assert steps == {0.04}
    assert frames[0].time_s == pytest.approx(0, abs=0.081)


def test_variable_rate_is_kept(tmp_path: Path) -> None:
    pts = [0, 3000, 4500, 20000, 20100, 50000, 91234]
    clip = make_clip(tmp_path / "vfr.mp4", count=7, pts=pts, time_base=Fraction(1, 90000))
    _, frames = read(clip)
    assert [frame.pts * frame.time_base for frame in frames] == [Fraction(value, 90000) for value in pts]
    assert [frame.pts * frame.time_base for frame in frames] == video_times(clip)


def test_time_goes_on_where_recordings_were_joined(tmp_path: Path) -> None:
    parts = [make_clip(tmp_path / f"{first}.ts", count=25, first=first) for first in (0, 25, 50)]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    video, frames = read(joined)
    assert [read_number(frame.image) for frame in frames] == list(range(75))
    assert [frame.time_s for frame in frames] == pytest.approx([0.04 * number for number in range(75)], abs=0.001)
    assert (video.counts.read, video.counts.failed, video.counts.retimed) == (75, 0, 2)


def test_an_mp4_behind_another_is_told_and_not_taken_for_the_end(tmp_path: Path) -> None:
    part = make_clip(tmp_path / "part.mp4", count=12)
    joined = tmp_path / "joined.mp4"
    joined.write_bytes(part.read_bytes() * 2)
    video, frames = read(joined)
    assert len(frames) == 12
    assert video.end.early
    assert f"another recording begins at byte {part.stat().st_size} and is not read" in video.end.reason
    video, _ = read(part)
    assert not video.end.early


def test_fragments_behind_others_are_told_too(tmp_path: Path) -> None:
    """Those whose times were there already are passed over by libav."""
    flags = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
    part = make_clip(tmp_path / "part.mp4", count=12, container_options=flags)
    joined = tmp_path / "joined.mp4"
    joined.write_bytes(part.read_bytes() * 2)
    video, frames = read(joined)
    assert len(frames) < 24
    assert f"another recording begins at byte {part.stat().st_size} and may lack frames" in video.end.reason
    video, _ = read(part)
    assert not video.end.early


def test_a_single_time_that_falls_back_a_little_moves_nothing_else() -> None:
    clock = Clock(Fraction(1, 1000), 0.0, rounds=False)
    found = [clock.time(own, 40) for own in (0, 40, 40, 120, 100, 200)]
    assert [pts for pts, _, _ in found] == [0, 40, 41, 120, 121, 200]
    assert [useless for _, _, useless in found] == [False, False, True, False, True, False]
    assert not any(anew for _, anew, _ in found)
    assert [clock.time(own, 40) for own in (None, 900)] == [(240, False, True), (900, False, False)]
    assert [clock.time(own, 40) for own in (100, 140)] == [(940, True, False), (980, False, False)], "started anew"


def test_what_a_live_clock_does_not_tell_is_taken_from_when_frames_come() -> None:
    def times(*frames: tuple[int | None, int]) -> list[int]:
        clock = Clock(Fraction(1, 1000), 0.0, rounds=True)
        return [clock.time(own, 40, came=came)[0] for own, came in frames]

    assert times((None, 5000), (None, 5200), (None, 5400)) == [0, 200, 400], "no times at all"
    assert times((7, 5000), (7, 5200), (7, 5400), (7, 5700), (7, 5900)) == [7, 207, 407, 707, 907], "it stands still"
    assert times((0, 5000), (None, 5050), (80, 5080)) == [0, 50, 80], "only key frames have times"
    assert times((None, 5000), (0, 5036), (40, 5080)) == [0, 36, 76], "the first frame has none"
    assert times((None, 5000), (35, 5036), (75, 5080)) == [0, 35, 75], "the first frame has none"
    assert Clock(Fraction(1, 1000), 0.0, rounds=True).time(None, 40, came=5000) == (0, False, False)
    # The frame before the pause comes with the first after it.
    assert times((900, 5000), (940, 8000), (0, 8000), (40, 8040)) == [900, 940, 3900, 3940], "it began anew"
    assert times((0, 5000), (9000, 5500), (0, 5540), (40, 5580)) == [0, 9000, 9040, 9080], "and had run fast"


def test_a_track_that_appears_on_the_way_is_no_error(tmp_path: Path) -> None:
    """At the end PyAV asks for tracks that were not there at the beginning (PyAV#692)."""

    class Late:
        def __init__(self, container: Any) -> None:
            self._container = container

        def demux(self, streams: Any) -> Iterator[Any]:
            yield from (packet for packet in self._container.demux(streams) if packet.size)
            raise IndexError("list index out of range")

        def __getattr__(self, name: str) -> Any:
            return getattr(self._container, name)

    with VideoFile(make_clip(tmp_path / "a.mp4", count=20)) as video:
        video._container = Late(video._container)  # type: ignore[assignment]
        assert [read_number(frame.image) for frame in video] == list(range(20))
    assert video.end.early is False


@pytest.mark.parametrize("seconds", [30, 80, 90000])
def test_time_goes_on_where_a_clock_falls_back_far(tmp_path: Path, seconds: int) -> None:
    """Past a minute libav takes that for a clock of 33 bits which ran over, and adds a day."""
    start = seconds * 25
    first = make_clip(tmp_path / "first.ts", count=40, pts=[start + index for index in range(40)])
    second = make_clip(tmp_path / "second.ts", count=40, first=40)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(first.read_bytes() + second.read_bytes())
    video, frames = read(joined)
    assert [read_number(frame.image) for frame in frames] == list(range(80))
    assert [frame.time_s for frame in frames] == pytest.approx([index / 25 for index in range(80)], abs=0.003)
    assert video.counts.retimed == 1


@pytest.mark.parametrize("place", [30, 31, 33, 34, 35, 48, 55])
def test_a_hole_among_b_frames_moves_no_later_time(tmp_path: Path, place: int) -> None:
    """A decoder may hand out a picture from before the hole after those that follow it."""
    clip = make_clip(tmp_path / "x.ts", count=250, options={"g": "25"})
    data = clip.read_bytes()
    packets = len(data) // 188
    clip.write_bytes(data[: packets * place // 100 * 188] + data[packets * (place + 30) // 100 * 188 :])
    video, frames = read(clip)
    whole = [(read_number(frame.image), frame.time_s) for frame in frames if not frame.corrupt]
    assert len(whole) > 100
    assert max(number for number, _ in whole) == 249
    # B-frames beside the hole may be built on what is missing, and not be known to be.
    wrong = [(number, time_s) for number, time_s in whole if abs(time_s - number / 25) > 0.002]
    assert len(wrong) <= 3, wrong
    assert video.end.at_s == pytest.approx(10.0, abs=0.01)
    assert video.counts.retimed == 0


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv", ".avi"])
def test_names_in_any_encoding_are_no_damage(tmp_path: Path, suffix: str) -> None:
    clip = make_clip(tmp_path / f"clip{suffix}", count=5, audio="aac", title="A TITLE OF OLD")
    data = clip.read_bytes()
    assert b"A TITLE OF OLD" in data
    clip.write_bytes(data.replace(b"A TITLE OF OLD", "行车记录仪文件".encode("gb18030")))
    _, frames = read(clip)
    assert [read_number(frame.image) for frame in frames] == list(range(5))
    writer = VideoWriter(tmp_path / "out.mp4", size=(48, 64), time_base=Fraction(1, 25), audio_from=clip)
    writer.write(frames[0].image, pts=0, duration=1)
    assert writer.close().audio == "aac copied"


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_each_track_of_a_camera_with_two_lenses_can_be_read(tmp_path: Path, suffix: str) -> None:
    front = make_clip(tmp_path / "front.mp4", count=6)
    rear = make_clip(tmp_path / "rear.mp4", count=4, first=100, size=(32, 96))
    both = lay_together(tmp_path / f"both{suffix}", front, rear)
    for track, first, count, size in ((1, 0, 6, (48, 64)), (2, 100, 4, (32, 96))):
        video, frames = read(both, track=track)
        assert [read_number(frame.image) for frame in frames] == list(range(first, first + count))
        assert (video.info.track, video.info.tracks, video.info.size) == (track, 2, size)
        assert video.end.early is False
    for track in (0, 3):
        with pytest.raises(MediaError, match=rf"both{suffix}: has 2 video tracks, and track {track} was asked for"):
            VideoFile(both, track=track)


@pytest.mark.parametrize("suffix", [".mp4", ".m4a"])
def test_a_cover_is_no_video(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"clip{suffix}"
    with av.open(str(path), "w", format="mp4") as container:
        cover: Any = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = Disposition.attached_pic
        moving: Any = container.add_stream("libx264", rate=25) if suffix == ".mp4" else None
        if moving is not None:
            moving.width, moving.height, moving.pix_fmt = 64, 48, "yuv420p"
        container.mux(cover.encode(av.VideoFrame.from_ndarray(np.full((64, 64, 3), 255, np.uint8), "bgr24")))
        container.mux(cover.encode(None))
        if moving is not None:
            for index in range(3):
                container.mux(moving.encode(av.VideoFrame.from_ndarray(paint_number(index, (48, 64)), "bgr24")))
            container.mux(moving.encode(None))
    with av.open(str(path)) as container:
        assert any(track.disposition & Disposition.attached_pic for track in container.streams.video)
    if suffix == ".m4a":
        with pytest.raises(MediaError, match="holds no video track"):
            VideoFile(path)
        return
    video, frames = read(path)
    assert [read_number(frame.image) for frame in frames] == [0, 1, 2]
    assert video.info.tracks == 1


@pytest.mark.parametrize("turn", list(TURNS))
def test_display_matrix_is_applied_once(tmp_path: Path, turn: str) -> None:
    matrix, undo = TURNS[turn]
    clip = make_clip(tmp_path / "turned.mp4", count=1, matrix=matrix)
    stored, upright = read(make_clip(tmp_path / "plain.mp4", count=1))[1][0].image, read(clip)
    # `undo` turns the upright picture back into the stored one.
    assert np.array_equal(undo(upright[1][0].image), stored)
    assert upright[0].info.size == upright[1][0].image.shape[:2]
    assert bool(upright[0].info.rotation) == (turn != "none")


def test_a_turn_by_an_odd_angle_is_left_alone() -> None:
    half = round(ONE * 0.7071)
    data = np.array([half, half, 0, -half, half, 0, 0, 0, 1 << 30], np.int32).tobytes()
    assert rotation.parse_matrix(data) == rotation.IDENTITY


@pytest.mark.parametrize("size", [(47, 63), (48, 63), (47, 64)])
def test_odd_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    video, frames = read(make_clip(tmp_path / "odd.mp4", count=5, size=size))
    assert video.info.size == size
    assert {frame.image.shape for frame in frames} == {(*size, 3)}
    assert [read_number(frame.image) for frame in frames] == list(range(5))


def test_size_change_in_mid_stream_is_resized_and_counted(tmp_path: Path) -> None:
    small = make_clip(tmp_path / "a.h264", count=12, size=(48, 64))
    large = make_clip(tmp_path / "b.h264", count=9, size=(96, 128), first=12)
    joined = tmp_path / "joined.h264"
    joined.write_bytes(small.read_bytes() + large.read_bytes())
    video, frames = read(joined)
    assert [read_number(frame.image) for frame in frames] == list(range(21))
    assert {frame.image.shape for frame in frames} == {(48, 64, 3)}
    assert video.counts.resized == 9


def faststart(path: Path, count: int) -> Path:
    return make_clip(path, count=count, size=(96, 128), container_options={"movflags": "faststart"})


def test_truncation_is_told_from_the_end(tmp_path: Path) -> None:
    whole = faststart(tmp_path / "whole.mp4", 100).read_bytes()
    media = whole.index(b"mdat") + 4
    generator = random.Random(11)
    for _ in range(8):
        cut = generator.randrange(media + len(whole) // 20, len(whole) - 400)
        path = tmp_path / "cut.mp4"
        path.write_bytes(whole[:cut])
        video, frames = read(path)
        assert video.end.early is True, f"cut at {cut} of {len(whole)}"
        assert video.end.at_s < (video.end.expected_s or 0) == 4.0
        assert video.counts.read == len(frames) + video.counts.failed
        good = [frame for frame in frames if not frame.corrupt]
        assert [read_number(frame.image) for frame in good] == list(range(len(good)))
        assert video.end.at_s == pytest.approx(len(frames) * 0.04)


def test_flipped_bits_are_counted(tmp_path: Path) -> None:
    whole = bytearray(faststart(tmp_path / "whole.mp4", 100).read_bytes())
    media = whole.index(b"mdat") + 4
    generator = random.Random(5)
    hurt = 0
    for _ in range(6):
        data = bytearray(whole)
        for _ in range(40):
            data[generator.randrange(media, len(data))] ^= 1 << generator.randrange(8)
        path = tmp_path / "flipped.mp4"
        path.write_bytes(data)
        video, frames = read(path)
        counts = video.counts
        assert counts.read == len(frames) + counts.failed == 100
        assert counts.corrupt == sum(frame.corrupt for frame in frames)
        hurt += counts.failed + counts.corrupt
    assert hurt > 0


def test_missing_index_names_the_file_and_the_reason(tmp_path: Path) -> None:
    data = make_clip(tmp_path / "whole.mp4").read_bytes()
    path = tmp_path / "dashcam.mp4"
    path.write_bytes(data[: data.index(b"moov") - 4])
    with pytest.raises(MediaError, match=r"dashcam\.mp4: no moov atom"):
        VideoFile(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n/etc/hostname\n#EXT-X-ENDLIST\n", "playlist"),
        (b"ffconcat version 1.0\nfile /etc/hostname\n", "playlist"),
        (b"just some words, and more of them " * 40, "not a video"),
    ],
)
def test_files_that_are_no_videos(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "thing.mp4"
    path.write_bytes(content)
    with pytest.raises(MediaError, match=words) as caught:
        VideoFile(path)
    assert "thing.mp4" in str(caught.value)


def test_playlists_are_refused_whatever_they_are_called(tmp_path: Path) -> None:
    make_clip(tmp_path / "real.ts")
    path = tmp_path / "list.m3u8"
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nreal.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(MediaError, match="playlist"):
        VideoFile(path)


def test_names_are_never_protocols(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_clip(tmp_path / "a.ts")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(MediaError, match="no such file"):
        VideoFile("concat:a.ts|a.ts")


def test_frame_size_is_capped_from_the_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = make_clip(tmp_path / "large.mp4", count=2, size=(96, 128))
    monkeypatch.setattr("edge_seg.tracks.MAX_PIXELS", 96 * 128 - 1)
    with pytest.raises(MediaError, match="128x96"):
        VideoFile(clip)
    monkeypatch.setattr("edge_seg.tracks.MAX_PIXELS", 96 * 128)
    assert len(read(clip)[1]) == 2


def test_sound_alone_is_no_video(tmp_path: Path) -> None:
    import av

    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.int16), format="s16", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(MediaError, match="no video track"):
        VideoFile(path)


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="counts threads the Linux way")
def test_closing_lets_go_of_threads_and_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = make_clip(tmp_path / "a.mp4", count=10)
    # Each file collected at once, and, as in a program whose collections take long, only when enough of them wait.
    for share, most in ((1e9, 16), (1e-9, 4)):
        collector = Collector()
        monkeypatch.setattr(collector, "SHARE", share)
        monkeypatch.setattr(collector, "MOST_WAITING", most)
        monkeypatch.setattr("edge_seg.native.collector", collector)
        held = []
        for _ in range(13):
            read(clip)
            held.append((len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd"))))
        assert held[0] == held[4] == held[8] == held[12]
        assert max(threads for threads, _ in held) <= held[0][0] + 2 * most * available_threads()


def test_the_numbers_survive_compression() -> None:
    assert [read_number(paint_number(number)) for number in range(256)] == list(range(256))


@pytest.mark.data
@pytest.mark.slow
def test_real_clips_are_read_whole() -> None:
    folder = os.environ.get("EDGE_SEG_DATA")
    if not folder:
        pytest.skip("EDGE_SEG_DATA is not set")
    for path in sorted((Path(folder) / "videos").glob("*.mp4")):
        if path.name.startswith("broken"):
            with pytest.raises(MediaError, match="no moov"):
                VideoFile(path)
            continue
        with VideoFile(path) as video:
            count = sum(1 for _ in video)
        assert count == video.info.frame_count == video.counts.read, path.name
        assert video.end.early is False


def test_frames_that_memory_does_not_hold_are_refused_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = make_clip(tmp_path / "large.mp4", count=2, size=(720, 1280))
    monkeypatch.setattr("edge_seg.tracks.available_memory", lambda: 10_000_000)
    with pytest.raises(
        MediaError, match=r"decoding its frames of 0\.9 million pixels needs about .*, and 10 MB are free"
    ):
        VideoFile(clip)
    monkeypatch.setattr("edge_seg.tracks.available_memory", lambda: None)
    VideoFile(clip).close()


def test_a_decoder_that_gets_no_threads_is_no_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Starved:
        def decode(self, packet: Any) -> None:
            raise av.error.BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    with VideoFile(make_clip(tmp_path / "clip.mp4", count=2)) as video:
        monkeypatch.setattr(video, "_stream", Starved())
        with pytest.raises(MediaError, match=r"clip\.mp4: its decoder can start no more threads\. Raise the limit"):
            video._decode(None)


def test_the_containers_pixel_aspect_counts(tmp_path: Path) -> None:
    """As in players, before what the codec says, which of VP9 is nothing."""
    clip = make_clip(tmp_path / "a.mp4", count=3, pixel_aspect=Fraction(2))
    with VideoFile(clip) as video:
        assert video.info.pixel_aspect == 2
    data = bytearray(clip.read_bytes())
    place = data.index(b"pasp") + 4
    data[place : place + 8] = struct.pack(">II", 4, 3)
    clip.write_bytes(data)
    with VideoFile(clip) as video:
        assert video.info.pixel_aspect == Fraction(4, 3)


@pytest.mark.parametrize("b_frames", [0, 2])
def test_avi_whose_pictures_are_reordered_is_whole_and_in_time(tmp_path: Path, b_frames: int) -> None:
    clip = make_clip(tmp_path / "a.avi", count=30, options={"preset": "medium", "g": "12", "bf": str(b_frames)})
    video, frames = read(clip)
    assert [read_number(frame.image) for frame in frames] == list(range(30))
    assert [frame.time_s for frame in frames] == [pytest.approx(index / 25) for index in range(30)]
    assert (video.counts.corrupt, video.counts.retimed, video.counts.failed, video.end.early) == (0, 0, 0, False)


def test_times_of_an_avi_with_reordered_pictures_stay_right_behind_a_packet_that_is_refused(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.avi", count=40, options={"preset": "medium", "g": "10", "bf": "2"})
    with av.open(str(clip)) as container:
        sizes = [packet.size for packet in container.demux(video=0) if packet.size]
        place = clip.read_bytes().index(b"00dc", clip.read_bytes().index(b"movi")) + 8
    for size in sizes[:13]:
        place += size + size % 2 + 8
    with clip.open("r+b") as file:
        file.seek(place)
        file.write(bytes(sizes[13]))
    video, frames = read(clip)
    assert (video.counts.failed, video.counts.read, video.counts.retimed) == (1, 40, 0)
    late = [frame for frame in frames if read_number(frame.image) >= 30]
    assert [frame.time_s for frame in late] == [pytest.approx(number / 25) for number in range(30, 40)]


@pytest.mark.parametrize("suffix", [".mkv", ".webm", ".wmv", ".avi", ".mp4", ".ts"])
def test_a_later_segment_of_a_recording_ends_where_it_says(tmp_path: Path, suffix: str) -> None:
    """Its times go on from the segment before, and what the file calls its duration may be its end."""
    codec = {".webm": "libvpx-vp9", ".wmv": "wmv2"}.get(suffix, "libx264")
    plain = {} if codec == "libx264" else {"options": {"g": "10"}}
    clip = make_clip(tmp_path / f"a{suffix}", count=25, codec=codec, pts=range(60, 85), **plain)
    video, frames = read(clip)
    assert len(frames) == 25
    assert (video.end.early, video.end.reason) == (False, "")


@pytest.mark.parametrize(("size", "tag", "meant"), [((720, 1280), 2, 1), ((720, 1280), 5, 5), ((360, 640), 2, 5)])
def test_colours_that_a_file_leaves_open_are_bt709_in_hd(
    tmp_path: Path, size: tuple[int, int], tag: int, meant: int
) -> None:
    image = np.full((*size, 3), (200, 40, 30), np.uint8)
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream: Any = container.add_stream("libx264", rate=25, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = size[1], size[0], "yuv420p"
        stream.codec_context.colorspace = tag
        frame = av.VideoFrame.from_ndarray(image, "bgr24").reformat(format="yuv420p", dst_colorspace=meant)
        frame.colorspace, frame.pts, frame.time_base = tag, 0, Fraction(1, 25)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    (frame,) = read(tmp_path / "a.mp4")[1]
    assert np.abs(frame.image.astype(int) - image).max() <= 4


def test_a_thumbnail_without_a_mark_is_no_video_track(tmp_path: Path) -> None:
    thumbnail = make_clip(tmp_path / "t.mp4", count=1, first=99)
    both = lay_together(tmp_path / "both.mp4", thumbnail, make_clip(tmp_path / "v.mp4", count=5))
    video, frames = read(both)
    assert [read_number(frame.image) for frame in frames] == list(range(5))
    assert video.info.tracks == 1
    assert len(read(thumbnail)[1]) == 1, "alone it is a video"


@pytest.mark.parametrize(("trc", "hdr"), [(16, "PQ"), (18, "HLG"), (1, "")])
def test_high_dynamic_range_is_named(tmp_path: Path, trc: int, hdr: str) -> None:
    name = {16: "smpte2084", 18: "arib-std-b67"}.get(trc, "bt709")
    options = {"preset": "ultrafast", "x264-params": f"transfer={name}"}
    assert read(make_clip(tmp_path / "a.mp4", count=2, options=options))[0].info.hdr == hdr
