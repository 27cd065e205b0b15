"""Writing videos: exact times, sound, even sizes, and a final name that is whole or absent."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
import sys
from collections import defaultdict
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest

from edge_seg.audio import AudioTrack
from edge_seg.cli import main
from edge_seg.codecs import CODECS, EncodeOptions
from edge_seg.encode import VideoWriter, WrittenVideo
from edge_seg.errors import ConfigurationError, MediaError
from edge_seg.files import GONE
from edge_seg.mp4 import count_frames, playable
from edge_seg.names import partial_path
from edge_seg.outputs import VideoOutputs
from edge_seg.pipeline import STAGES
from edge_seg.spec import ModelSpec
from edge_seg.timings import Stopwatch
from edge_seg.video import VideoFile
from edge_seg.writers import OutputStyle, PictureTrack
from tests.edge_seg.clips import audio_packets, make_clip, paint_number, video_numbers, video_times


def copy(source: Path, target: Path, **options: object) -> WrittenVideo:
    """Decode a clip and write it again, as the pipeline does."""
    with VideoFile(source) as video:
        writer = None
        for frame in video:
            writer = writer or VideoWriter(
                target,
                size=frame.image.shape[:2],
                time_base=video.info.time_base,
                rate=video.info.rate,
                audio_from=source,
                **options,  # type: ignore[arg-type]
            )
            writer.write(frame.image, pts=frame.pts, duration=frame.duration)
        assert writer is not None
        return writer.close()


@pytest.mark.parametrize(
    ("time_base", "pts"),
    [
        (Fraction(1, 25), list(range(20))),
        (Fraction(1, 600), [0, 20, 50, 51, 90, 1200]),
        (Fraction(1, 90000), [2970, 5973, 8976, 30000, 30001]),
        (Fraction(1001, 30000), list(range(31))),
        (Fraction(1, 1000), [0, 33, 67, 100, 133, 167, 5000]),
    ],
)
def test_times_survive_exactly(tmp_path: Path, time_base: Fraction, pts: list[int]) -> None:
    writer = VideoWriter(tmp_path / "out.mp4", size=(48, 64), time_base=time_base, rate=Fraction(30))
    for number, value in enumerate(pts):
        writer.write(paint_number(number), pts=value, duration=1)
    assert writer.close().frames == len(pts)
    assert video_times(tmp_path / "out.mp4") == [value * time_base for value in pts]
    assert video_numbers(tmp_path / "out.mp4") == list(range(len(pts)))
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].time_base == Fraction(1, time_base.denominator)


def test_a_start_before_zero_moves_all_by_the_same(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "out.mp4", size=(48, 64), time_base=Fraction(1, 100))
    for number, value in enumerate([-50, -10, 0, 70]):
        writer.write(paint_number(number), pts=value, duration=10)
    writer.close()
    assert video_times(tmp_path / "out.mp4") == [Fraction(value, 100) for value in (0, 40, 50, 120)]


@pytest.mark.parametrize("start", [0, 2970])
def test_sound_is_copied_byte_for_byte(tmp_path: Path, start: int) -> None:
    pts = [start + 3600 * number for number in range(50)]
    source = make_clip(tmp_path / "in.mp4", count=50, audio="aac", pts=pts, time_base=Fraction(1, 90000))
    written = copy(source, tmp_path / "out.mp4")
    assert written.audio == "aac copied"
    given, got = audio_packets(source), audio_packets(tmp_path / "out.mp4")
    assert [data for _, data in got] == [data for _, data in given]
    assert [float(time) for time, _ in got] == pytest.approx([float(time) for time, _ in given], abs=1e-4)
    assert video_times(tmp_path / "out.mp4") == video_times(source)


@pytest.mark.parametrize(("codec", "name"), [("libmp3lame", "mp3"), ("flac", "flac"), ("libopus", "opus")])
def test_sound_that_browsers_play_is_copied(tmp_path: Path, codec: str, name: str) -> None:
    source = make_clip(tmp_path / "in.mkv", count=50, audio=codec)
    assert copy(source, tmp_path / "out.mp4").audio == f"{name} copied"
    assert [data for _, data in audio_packets(tmp_path / "out.mp4")] == [data for _, data in audio_packets(source)]


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [(".mkv", "pcm_s16le"), (".avi", "mp2"), (".ts", "mp2"), (".ts", "aac"), (".mp4", "ac3"), (".mp4", "alac")],
)
def test_sound_that_browsers_do_not_play_becomes_aac(tmp_path: Path, suffix: str, codec: str) -> None:
    source = make_clip(tmp_path / f"in{suffix}", count=50, audio=codec)
    written = copy(source, tmp_path / "out.mp4")
    assert written.audio == ("aac copied" if codec == "aac" else f"{codec} encoded as AAC")
    with av.open(str(tmp_path / "out.mp4")) as container:
        track = container.streams.audio[0]
        assert track.codec_context.name == "aac"
        samples = np.concatenate([frame.to_ndarray().mean(axis=0) for frame in container.decode(track)])
    assert len(samples) / 44100 == pytest.approx(2.0, abs=0.15)
    # The tone of the source, not silence and not noise.
    spectrum = np.abs(np.fft.rfft(samples[22050:66150]))
    assert abs(int(spectrum.argmax()) - 440) <= 2


@pytest.mark.parametrize("rate", [8000, 11025, 16000])
def test_mp3_that_no_mp4_takes_becomes_aac(tmp_path: Path, rate: int) -> None:
    source = make_clip(tmp_path / "in.mkv", count=50, audio="libmp3lame", audio_rate=rate)
    written = copy(source, tmp_path / "out.mp4")
    assert written.audio == ("mp3 copied" if rate == 16000 else "mp3 encoded as AAC")
    assert (written.whole, written.frames) == (True, 50)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert sum(frame.samples for frame in container.decode(audio=0)) / rate == pytest.approx(2.0, abs=0.2)


@pytest.mark.parametrize("sound", ["aac", "mp2"])
def test_sound_whose_clock_starts_anew_costs_no_picture(tmp_path: Path, sound: str) -> None:
    parts = [make_clip(tmp_path / f"{first}.ts", count=25, audio=sound, first=first) for first in (0, 25)]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    written = copy(joined, tmp_path / "out.mp4")
    assert written.audio.endswith(", cut short where its clock starts anew")
    assert video_numbers(tmp_path / "out.mp4") == list(range(50))
    assert float(video_times(tmp_path / "out.mp4")[-1]) == pytest.approx(1.96, abs=0.03)
    assert float(audio_packets(tmp_path / "out.mp4")[-1][0]) == pytest.approx(1.0, abs=0.1)


def test_sound_that_becomes_another_kind_costs_no_picture(tmp_path: Path) -> None:
    stereo = np.zeros((1, 2 * 1152), np.int16)
    source = make_clip(tmp_path / "in.mkv", count=50, audio="pcm_s16le")
    with VideoWriter(tmp_path / "o.mp4", size=(48, 64), time_base=Fraction(1, 25))._container as target:
        track = AudioTrack.open(source, target)
        assert track is not None
        frames = [*track._items()]
        frames[9] = av.AudioFrame.from_ndarray(stereo, format="s16", layout="stereo")
        frames[9].sample_rate, frames[9].pts, frames[9].time_base = 48000, frames[8].pts + 1, frames[8].time_base
        track._items = lambda: iter(frames)  # type: ignore[method-assign]
        assert len([*track._read()]) == 9
        assert track.summary.endswith(", cut short where its format changes")
        track.close()


def test_damaged_sound_costs_no_picture(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.ts", count=50, audio="aac")
    data = bytearray(source.read_bytes())
    # The header that AAC carries on each packet in a transport stream, in the middle of the file.
    place = data.index(b"\xff\xf1", len(data) // 2)
    data[place + 1 : place + 4] = bytes(3)
    source.write_bytes(data)
    written = copy(source, tmp_path / "out.mp4")
    assert (written.frames, written.audio) == (50, "aac copied")
    assert video_numbers(tmp_path / "out.mp4") == list(range(50))


def test_a_name_may_hold_a_colon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = Path("2026-11-26T10:00:00.mp4")
    copy(make_clip(tmp_path / "in.mp4"), name)
    assert video_numbers(name.absolute()) == list(range(30))


def test_no_sound_no_track(tmp_path: Path) -> None:
    assert copy(make_clip(tmp_path / "in.mp4"), tmp_path / "out.mp4").audio == ""
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert not container.streams.audio


@pytest.mark.parametrize(("size", "padding"), [((47, 63), (1, 1)), ((48, 63), (0, 1)), ((47, 64), (1, 0))])
def test_odd_sizes_repeat_the_edge_and_say_so(tmp_path: Path, size: tuple[int, int], padding: tuple[int, int]) -> None:
    writer = VideoWriter(tmp_path / "out.mp4", size=size, time_base=Fraction(1, 25), options=EncodeOptions(crf=1))
    image = np.full((*size, 3), 60, np.uint8)
    image[-1], image[:, -1] = 200, 200
    writer.write(image, pts=0, duration=1)
    assert writer.close().padding == padding
    with av.open(str(tmp_path / "out.mp4")) as container:
        picture = next(container.decode(video=0)).to_ndarray(format="bgr24").astype(int)
    assert picture.shape == (48, 64, 3)
    assert np.abs(picture[-1 - padding[0] :, 4:-4] - 200).max() < 40
    assert np.abs(picture[4:-4, -1 - padding[1] :] - 200).max() < 40


def test_it_plays_in_a_browser(tmp_path: Path) -> None:
    copy(make_clip(tmp_path / "in.mp4", audio="aac"), tmp_path / "out.mp4")
    data = (tmp_path / "out.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    assert b"moof" not in data
    with av.open(str(tmp_path / "out.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.name, context.pix_fmt) == ("h264", "yuv420p")
        assert (context.colorspace, context.color_range) == (1, 1)


@pytest.mark.parametrize("level", [30, 128, 220])
def test_colours_come_back(tmp_path: Path, level: int) -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[:, :32], image[:, 32:] = (level, 40, 200), (40, 200, level)
    writer = VideoWriter(tmp_path / "out.mp4", size=(64, 64), time_base=Fraction(1, 25), options=EncodeOptions(crf=1))
    writer.write(image, pts=0, duration=1)
    writer.close()
    with VideoFile(tmp_path / "out.mp4") as video:
        back = next(iter(video)).image.astype(int)
    assert np.abs(back[8:-8, 8:24] - image[8:-8, 8:24]).max() <= 6
    assert np.abs(back[8:-8, 40:56] - image[8:-8, 40:56]).max() <= 6


def test_colours_are_rounded_and_not_cut_off(tmp_path: Path) -> None:
    colours = np.random.default_rng(0).integers(0, 256, (60, 3))
    colours[:3] = [[level] * 3 for level in (255, 128, 64)]
    writer = VideoWriter(tmp_path / "out.mp4", size=(64, 64), time_base=Fraction(1, 25), options=EncodeOptions(crf=1))
    for number, colour in enumerate(colours):
        writer.write(np.full((64, 64, 3), colour, np.uint8), pts=number, duration=1)
    writer.close()
    found = []
    with av.open(str(tmp_path / "out.mp4")) as container:
        for frame in container.decode(video=0):
            planes = (np.frombuffer(plane, np.uint8).reshape(plane.height, -1) for plane in frame.planes)
            found.append([float(plane[: plane.shape[0] // 2, :16].mean()) for plane in planes])
    # ITU-R BT.709-6, items 3.2 to 3.4, limited range.
    blue, green, red = colours.T / 255
    luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    exact = np.stack([16 + 219 * luma, 128 + 224 * (blue - luma) / 1.8556, 128 + 224 * (red - luma) / 1.5748], axis=1)
    assert np.abs(np.mean(np.array(found) - exact, axis=0)).max() < 0.2
    np.testing.assert_allclose(np.array(found)[:3, 1:], 128, atol=0.01, err_msg="greys stay grey")


@pytest.mark.parametrize("codec", ["libx265", "libsvtav1"])
def test_other_codecs(tmp_path: Path, codec: str, capfd: pytest.CaptureFixture[str]) -> None:
    options = EncodeOptions(codec=codec, preset="ultrafast" if codec == "libx265" else "13")
    writer = VideoWriter(tmp_path / "out.mp4", size=(64, 128), time_base=Fraction(1, 25), options=options)
    for number in range(5):
        writer.write(paint_number(number, (64, 128)), pts=number, duration=1)
    if hasattr(os, "sched_getscheduler"):
        # SVT-AV1, run by root, makes real-time threads that starve the machine.
        threads = [int(name) for name in os.listdir("/proc/self/task")]
        assert {os.sched_getscheduler(thread) for thread in threads} == {os.SCHED_OTHER}
    assert writer.close().frames == 5
    assert video_numbers(tmp_path / "out.mp4") == list(range(5))
    # Apple's players take no HEVC under another tag.
    assert (b"hvc1" in (tmp_path / "out.mp4").read_bytes()) == (codec == "libx265")


def test_while_it_is_written_only_the_partial_name_exists(tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    writer = VideoWriter(out, size=(48, 64), time_base=Fraction(1, 25))
    for number in range(60):
        writer.write(paint_number(number), pts=number, duration=1)
    assert not out.exists()
    assert partial_path(out) == tmp_path / "out.partial.mp4"
    # Fragments of a second: what is on disk plays already.
    playable = count_frames(partial_path(out))
    assert 0 < playable < 60
    written = writer.close(whole=False)
    assert not out.exists()
    assert (written.path, written.frames, written.whole) == (partial_path(out), 60, False)
    assert video_numbers(written.path) == list(range(60))


def test_a_codec_this_build_lacks_is_named_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(CODECS, "libnone", (23, "fast"))
    options = EncodeOptions(codec="libnone")
    with pytest.raises(MediaError, match="This build of PyAV cannot encode with libnone"):
        VideoWriter(tmp_path / "out" / "a.mp4", size=(48, 64), time_base=Fraction(1, 25), options=options)
    assert not list((tmp_path / "out").iterdir())
    clip = make_clip(tmp_path / "clip.mp4", count=3)
    assert main(["predict", str(clip), "-o", str(tmp_path / "out"), "--codec", "libnone", "--device", "cpu"]) == 1
    said = capsys.readouterr().err
    assert f"error: {clip}: failed: This build of PyAV cannot encode with libnone" in said
    assert "--codec libx264" in said
    assert not list((tmp_path / "out").iterdir())


def test_a_picture_of_another_size_is_refused_and_the_rest_is_whole(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "out.mp4", size=(48, 64), time_base=Fraction(1, 25))
    writer.write(paint_number(1), pts=0, duration=1)
    with pytest.raises(ConfigurationError, match=r"pictures of \(48, 64, 3\); got \(64, 48, 3\)"):
        writer.write(paint_number(2, (64, 48)), pts=1, duration=1)
    writer.write(paint_number(2), pts=1, duration=1)
    assert writer.close().frames == 2
    assert video_numbers(tmp_path / "out.mp4") == [1, 2]


def test_what_is_on_disk_plays_up_to_its_last_second(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "out.mp4", size=(48, 64), time_base=Fraction(1, 25), rate=Fraction(25))
    missing = []
    for number in range(100):
        writer.write(paint_number(number), pts=number, duration=1)
        if number >= 25:
            missing.append(number + 1 - count_frames(writer.partial))
    writer.abort()
    assert max(missing) <= 25


def test_no_list_of_fragments_grows_while_it_is_written(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "x.mp4", size=(48, 64), time_base=Fraction(1, 25))
    for index in range(30):
        writer.write(paint_number(index), pts=index, duration=1)
    kept = writer.close(whole=False).path
    assert kept.read_bytes().count(b"moof") > 3
    assert b"mfra" not in kept.read_bytes(), "which is the list, kept in memory up to the end"
    assert video_numbers(kept) == list(range(30))


def test_a_video_whose_index_memory_does_not_hold_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = VideoWriter(tmp_path / "x.mp4", size=(48, 64), time_base=Fraction(1, 25))
    for index in range(5):
        writer.write(paint_number(index), pts=index, duration=1)
    monkeypatch.setattr("edge_seg.encode.available_memory", lambda: 600)
    with pytest.raises(MediaError, match=r"all 5 frames are in .*x\.partial\.mp4, which plays, but .* memory"):
        writer.close()
    assert video_numbers(writer.partial) == list(range(5))
    assert not writer.path.exists()


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("kind", ["overlay", "jsonl", "labels"])
def test_what_was_removed_while_it_was_written_is_not_said_to_be_there(tmp_path: Path, kind: str, whole: bool) -> None:
    path = tmp_path / "out" / ("x_labels" if kind == "labels" else f"x.{kind.replace('overlay', 'mp4')}")
    with VideoFile(make_clip(tmp_path / "x.mp4", count=3)) as video:
        sink = VideoOutputs({kind: path}, lambda: video.info, ModelSpec(input_size=(48, 64)), style=OutputStyle())
        watches = {stage: Stopwatch() for stage in STAGES}
        for frame in video:
            sink.write(frame, np.zeros((48, 64), np.uint8), watches)
        shutil.rmtree(path.parent)
    written, problems = sink.close(whole=whole)
    assert not written
    assert len(problems) == 1
    assert problems[0].endswith(f"were written to {partial_path(path)}, {GONE}")


@pytest.mark.parametrize("kind", ["overlay", "jsonl", "labels"])
def test_the_next_frame_notices_that_a_result_was_removed(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "out" / ("x_labels" if kind == "labels" else f"x.{kind.replace('overlay', 'mp4')}")
    with VideoFile(make_clip(tmp_path / "x.mp4", count=3)) as video:
        sink = VideoOutputs({kind: path}, lambda: video.info, ModelSpec(input_size=(48, 64)), style=OutputStyle())
        watches = {stage: Stopwatch() for stage in STAGES}
        frame = next(iter(video))
        sink.write(frame, np.zeros((48, 64), np.uint8), watches)
        shutil.rmtree(path.parent)
        with pytest.raises(MediaError, match=rf"were written to .*, {re.escape(GONE)}$"):
            sink.write(replace(frame, pts=frame.pts + 1), np.zeros((48, 64), np.uint8), watches)
    assert sink.close(whole=False) == ([], [])


def test_the_result_is_counted_before_it_gets_its_name(tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "out.mp4", size=(48, 64), time_base=Fraction(1, 25))
    for number in range(5):
        writer.write(paint_number(number), pts=number, duration=1)
    writer.frames += 1  # A frame that was taken but never reached the file.
    with pytest.raises(MediaError, match="6 frames were written, but the file holds 5"):
        writer.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.partial.mp4"]


def test_the_end_of_sound_follows_a_video_that_stops_early(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "in.mp4", count=100, audio="aac")
    with VideoFile(source) as video:
        writer = VideoWriter(tmp_path / "out.mp4", size=(48, 64), time_base=video.info.time_base, audio_from=source)
        for frame, _ in zip(video, range(25), strict=False):
            writer.write(frame.image, pts=frame.pts, duration=frame.duration)
        writer.close(all_audio=False)
    assert float(audio_packets(tmp_path / "out.mp4")[-1][0]) == pytest.approx(1.0, abs=0.05)


FILL_THE_DISK = """
import resource, sys
from fractions import Fraction
from pathlib import Path
import numpy as np
from edge_seg.encode import VideoWriter
from edge_seg.errors import MediaError
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
noise = np.random.default_rng(0)
writer = VideoWriter(Path(sys.argv[1]), size=(96, 128), time_base=Fraction(1, 25))
try:
    for number in range(500):
        writer.write(noise.integers(0, 255, (96, 128, 3), np.uint8), pts=number, duration=1)
    writer.close()
except MediaError as error:
    print(error)
    sys.exit(1)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files by POSIX means")
def test_a_full_disk_keeps_what_plays(tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    limit = 900_000
    child = subprocess.run(
        [sys.executable, "-c", FILL_THE_DISK, str(out), str(limit)], capture_output=True, text=True, timeout=60
    )
    assert child.returncode == 1, child.stderr
    assert "limit on the size of files" in child.stdout
    assert not out.exists()
    kept, seconds = playable(partial_path(out))
    assert kept > 20
    assert f"the first {kept} ({seconds:.1f} s) are kept" in child.stdout
    assert "out.partial.mp4" in child.stdout
    with VideoFile(partial_path(out)) as video:
        assert sum(not frame.corrupt for frame in video) == kept
    assert [path.name for path in tmp_path.iterdir()] == ["out.partial.mp4"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="mounting a small disk takes root")
def test_a_really_full_disk(tmp_path: Path) -> None:
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=700k", "tmpfs", str(tmp_path)], capture_output=True)
    if mounted.returncode:
        pytest.skip("this container may not mount")
    try:
        child = subprocess.run(
            [sys.executable, "-c", FILL_THE_DISK, str(tmp_path / "out.mp4"), str(10**9)],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert "the disk is full" in child.stdout, child.stderr
        assert count_frames(tmp_path / "out.partial.mp4") > 0
        assert not (tmp_path / "out.mp4").exists()
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_no_room_for_the_final_file_keeps_all_frames(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    writer = VideoWriter(tmp_path / "out.mp4", size=(48, 64), time_base=Fraction(1, 25))
    writer.write(paint_number(1), pts=0, duration=1)
    monkeypatch.setattr("edge_seg.encode.remux", full)
    with pytest.raises(MediaError, match=r"all 1 frames are in .*partial.*the disk is full"):
        writer.close()
    assert count_frames(tmp_path / "out.partial.mp4") == 1


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(MediaError, match="cannot be written"):
        VideoWriter(tmp_path / "file" / "out.mp4", size=(48, 64), time_base=Fraction(1, 25))


@pytest.mark.parametrize(
    "options",
    [{"codec": "mpeg4"}, {"crf": 52}, {"crf": -1}, {"preset": "hasty"}, {"codec": "libsvtav1", "preset": "fast"}],
)
def test_wrong_options_are_the_callers_fault(options: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        EncodeOptions(**options)  # type: ignore[arg-type]


def test_lossless_says_that_browsers_may_not_play_it(tmp_path: Path) -> None:
    profiles = []
    for crf in (0, 1):
        options = EncodeOptions(crf=crf)
        path = tmp_path / f"{crf}.mp4"
        writer = VideoWriter(path, size=(48, 64), time_base=Fraction(1, 25), options=options)
        writer.write(np.zeros((48, 64, 3), np.uint8), pts=0)
        writer.close()
        with av.open(str(path)) as video:
            profiles.append(video.streams.video[0].profile)
    assert profiles == ["High 4:4:4 Predictive", "High"]
    assert "browsers do not play" in EncodeOptions(crf=0).remark
    assert not EncodeOptions(crf=1).remark
    assert not EncodeOptions(codec="libsvtav1", crf=0).remark


def test_lower_crf_is_larger(tmp_path: Path) -> None:
    sizes = []
    for crf in (10, 40):
        writer = VideoWriter(
            tmp_path / f"{crf}.mp4", size=(96, 128), time_base=Fraction(1, 25), options=EncodeOptions(crf=crf)
        )
        noise = np.random.default_rng(0)
        for number in range(5):
            writer.write(noise.integers(0, 255, (96, 128, 3), np.uint8), pts=number, duration=1)
        sizes.append(writer.close().path.stat().st_size)
    assert all(larger > 1.5 * smaller for larger, smaller in pairwise(sizes))


@pytest.mark.parametrize("pause_after", [10, 40, 45, 46, 47, 48])
def test_the_headers_length_is_the_pictures_own(tmp_path: Path, pause_after: int) -> None:
    """A recorder that pauses shortly before the end; pictures are decoded in another order than they are shown."""
    length_s = 50 * 0.04 + 5
    times = [index * 40 + (5000 if index > pause_after else 0) for index in range(50)]
    writer = VideoWriter(tmp_path / "x.mp4", size=(48, 64), time_base=Fraction(1, 1000), rate=Fraction(25))
    for index, pts in enumerate(times):
        writer.write(paint_number(index), pts=pts, duration=40)
    writer.close()
    assert video_times(tmp_path / "x.mp4") == [Fraction(pts, 1000) for pts in times]
    with av.open(str(tmp_path / "x.mp4")) as container:
        assert container.duration is not None
        assert container.duration / av.time_base == pytest.approx(length_s, abs=0.001)
    assert header_length_s(tmp_path / "x.mp4") == pytest.approx(length_s, abs=0.001)


def header_length_s(path: Path) -> float:
    """What the movie's header (`mvhd`) says."""
    data = path.read_bytes()
    place = data.index(b"mvhd") + 4
    assert data[place] == 0
    timescale, length = struct.unpack(">II", data[place + 12 : place + 20])
    return float(length / timescale)


def tagged(clip: Path, target: Path, tags: dict[str, str], options: dict[str, str] | None = None) -> Path:
    """The same video in another file that says more of itself."""
    with av.open(str(clip)) as given, av.open(str(target), "w", container_options=options or {}) as made:
        made.metadata.update(tags)
        stream = made.add_stream_from_template(given.streams.video[0])
        for packet in given.demux(video=0):
            if packet.size:
                packet.stream = stream
                made.mux(packet)
    return target


def test_when_where_and_of_what_it_was_made_survives(tmp_path: Path) -> None:
    tags = {"creation_time": "2026-11-02T07:15:31.000000Z", "location": "+52.5200+013.4050/", "title": "Fahrt 12"}
    source = tagged(make_clip(tmp_path / "x.mp4", count=5), tmp_path / "y.mp4", {**tags, "comment": "not carried"})
    with VideoFile(source) as video:
        assert video.info.tags == tags
    copy(source, tmp_path / "out.mp4", tags=tags)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert {key: text for key, text in container.metadata.items() if key in tags} == tags
        assert "comment" not in container.metadata


@pytest.mark.parametrize(
    ("suffix", "name", "text"),
    [
        (".mov", "com.apple.quicktime.location.ISO6709", "+48.1375+011.5755+500/"),
        (".mkv", "location", "+48.1375+011.5755/"),
        (".mkv", "title", "Bus 7\nline 2"),
    ],
)
def test_other_containers_names_for_it(tmp_path: Path, suffix: str, name: str, text: str) -> None:
    options = {"movflags": "use_metadata_tags"} if suffix == ".mov" else {}
    source = tagged(make_clip(tmp_path / "x.mp4", count=3), tmp_path / f"y{suffix}", {name: text}, options)
    with VideoFile(source) as video:
        assert video.info.tags == {"title" if name == "title" else "location": text.replace("\n", " ")}


@pytest.mark.parametrize("text", ["1850-01-01T00:00:00Z", "2200-01-01T00:00:00Z"])
def test_a_time_that_no_mp4_holds_is_not_carried(tmp_path: Path, text: str) -> None:
    source = tagged(make_clip(tmp_path / "x.mp4", count=3), tmp_path / "y.mkv", {"creation_time": text})
    with av.open(str(source)) as container:
        assert container.metadata.get("creation_time", "")[:4] == text[:4]
    with VideoFile(source) as video:
        assert "creation_time" not in video.info.tags


def test_a_shortened_pause_is_told(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.ts", count=4, pts=[0, 1, 2, 8 * 3600 * 25])
    with VideoFile(source) as video:
        frames = list(video)
        spec, labels = ModelSpec(input_size=(32, 64)), np.zeros((32, 64), np.uint8)
        track = PictureTrack("mask", tmp_path / "m.mp4", video.info, spec, OutputStyle(), None, None)
        for frame in frames:
            track.add(frame, labels, defaultdict(float))
        (note,) = [note for note in track.close(True, True).notes if "pauses" in note]
    assert re.fullmatch(r"pauses shortened by \d{4} s, since no frame of an MP4 may last so long", note)


def test_a_pause_longer_than_an_mp4_can_hold_is_shown_as_long_as_it_can(tmp_path: Path) -> None:
    """A recorder's clock that is set ahead by seven hours, in units of 1/90000 s."""
    jump = 7 * 3600 * 90_000
    times = [3600 * index + jump * (index >= 5) for index in range(10)]
    writer = VideoWriter(tmp_path / "a.mp4", size=(48, 64), time_base=Fraction(1, 90_000))
    for index, pts in enumerate(times):
        writer.write(paint_number(index), pts=pts, duration=3600)
    written = writer.close()
    assert written.frames == 10
    assert video_numbers(tmp_path / "a.mp4") == list(range(10))
    shown = video_times(tmp_path / "a.mp4")
    assert shown[5] - shown[4] == pytest.approx(2**31 / 90_000, abs=15)
    assert shown[9] - shown[5] == pytest.approx(4 / 25)
    assert written.shortened_s == pytest.approx(7 * 3600 + 0.04 - float(shown[5] - shown[4]), abs=1e-3)
