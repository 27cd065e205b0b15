"""Reports held against pixels: clips whose frames carry their number, cut, flipped, mixed, turned, of changing size.

What a report says must be what a reader of the pixels finds: no frame lost without a word, none shown as good that is
not, and an end only where the end is.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import struct
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from edge_seg import Segmenter
from edge_seg.account import StreamReport, losses
from edge_seg.boxes import boxes_between
from edge_seg.errors import DeviceError, MediaError
from edge_seg.fake import FakeSession
from edge_seg.ledger import DecoderLedger
from edge_seg.media import Frame
from edge_seg.sources import open_source
from edge_seg.video import VideoFile
from tests.edge_seg.clips import make_clip, read_number, video_numbers, video_times
from tests.edge_seg.test_video import TURNS

COUNT = 30
LENGTH_S = COUNT / 25
LAYOUTS = {
    "index first": ("clip.mp4", {"movflags": "faststart"}),
    "index last": ("clip.mp4", {}),
    "fragments": ("clip.mp4", {"movflags": "frag_keyframe+empty_moov"}),
    "fragments after a first": ("clip.mp4", {"movflags": "frag_keyframe"}),
}
INSIDE = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"edts", b"dinf", b"mvex", b"moof", b"traf", b"udta"}


@dataclass
class Outcome:
    """What one source gave: its report, the numbers in its pixels, and which frames called themselves damaged."""

    report: StreamReport
    indices: list[int]
    numbers: list[int]
    damaged: list[bool]

    def check(self) -> None:
        """What holds of every report, whatever was done to the file."""
        frames = self.report.frames
        assert self.report.balanced
        assert frames["segmented"] == len(self.numbers)
        assert frames["corrupt"] == sum(self.damaged)
        assert self.indices == sorted(set(self.indices)), "an index is given once, in order"
        assert len(self.indices) + frames["failed"] + frames["dropped"] == frames["read"]

    @property
    def good(self) -> list[tuple[int, int]]:
        """(index, number drawn) of the frames that claim to be undamaged."""
        return [
            (index, number)
            for index, number, damaged in zip(self.indices, self.numbers, self.damaged, strict=True)
            if not damaged
        ]


class NotingVideo(VideoFile):
    """Remembers which of its frames called themselves damaged."""

    def _frames(self) -> Iterator[Frame]:
        self.damaged: list[bool] = []
        for frame in super()._frames():
            self.damaged.append(frame.corrupt)
            yield frame


def run_through(path: Path) -> Outcome:
    """A source through the library's own loop."""
    with NotingVideo(path) as source, warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        stream = Segmenter(FakeSession()).stream(source)
        results = [(result.index, read_number(result.frame)) for result in stream]
    indices, numbers = [index for index, _ in results], [number for _, number in results]
    return Outcome(stream.report, indices, numbers, source.damaged)


def attempt(path: Path) -> Outcome | str:
    """What a source gave, or the one line that says why it gives nothing."""
    try:
        outcome = run_through(path)
    except MediaError as error:
        return str(error)
    outcome.check()
    return outcome


def check_line(line: str, path: Path) -> None:
    assert line.startswith(f"{path}: ")
    assert "\n" not in line


def box_edges(path: Path) -> list[int]:
    """Every offset at which a box begins or ends, nested ones included."""
    edges, ranges = set(), [(0, path.stat().st_size)]
    while ranges:
        for box in boxes_between(path, *ranges.pop()):
            edges |= {box.start, box.end}
            if box.kind in INSIDE:
                ranges.append((box.start + 8, box.end))
    return sorted(edges)


def whole_clip(folder: Path, layout: str) -> Path:
    name, options = LAYOUTS[layout]
    return make_clip(folder / name, count=COUNT, size=(96, 128), container_options=options)


def hold_cut_to_its_pixels(whole: Path, cut: int) -> None:
    """Cut a clip at an offset; what is left must be told apart from the whole, and every frame of it be right."""
    data = whole.read_bytes()
    path = whole.with_name("cut.mp4")
    path.write_bytes(data[:cut])
    outcome = attempt(path)
    if isinstance(outcome, str):
        return check_line(outcome, path)
    report, shown = outcome.report, len(outcome.numbers)
    assert outcome.good == [(number, number) for number in range(len(outcome.good))], f"cut at {cut}"
    if shown:
        assert report.ended_at_s == pytest.approx((outcome.indices[-1] + 1) / 25, abs=1e-3)
    if shown < COUNT and not report.ended_early:
        # Between two fragments of a file without an index nothing tells a cut from an end: then no length is claimed.
        assert b"moof" in data
        assert report.expected_end_s is report.declared_frames is None, f"cut at {cut}"
    if cut == len(data):
        assert (shown, report.ended_early, report.expected_end_s) == (COUNT, False, LENGTH_S)


@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_a_cut_at_every_box_edge_is_told_from_the_end(tmp_path: Path, layout: str) -> None:
    whole = whole_clip(tmp_path, layout)
    edges = box_edges(whole)
    assert len(edges) > 20
    for cut in edges:
        hold_cut_to_its_pixels(whole, cut)


@pytest.mark.parametrize("count", [15, pytest.param(200, marks=pytest.mark.slow)])
@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_a_cut_at_random_offsets_is_told_from_the_end(tmp_path: Path, layout: str, count: int) -> None:
    whole = whole_clip(tmp_path, layout)
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    generator = random.Random(seed)
    for _ in range(count):
        hold_cut_to_its_pixels(whole, generator.randrange(whole.stat().st_size))


@pytest.mark.parametrize("suffix", [".mkv", ".avi", ".ts", ".flv"])
def test_other_containers_tell_a_cut_too(tmp_path: Path, suffix: str) -> None:
    whole = make_clip(tmp_path / f"whole{suffix}", count=COUNT, size=(96, 128))
    assert run_through(whole).report.ended_early is False
    data = whole.read_bytes()
    generator = random.Random(7)
    told = 0
    for _ in range(12):
        path = tmp_path / f"cut{suffix}"
        # Never where a packet of a transport stream ends, which nothing can tell from the end.
        cut = generator.randrange(len(data) // 3, len(data) - 300) // 188 * 188 + 77
        path.write_bytes(data[:cut])
        outcome = attempt(path)
        if isinstance(outcome, str):
            assert "cut short" in outcome or "damaged" in outcome
            check_line(outcome, path)
            continue
        told += 1
        assert len(outcome.numbers) == COUNT or outcome.report.ended_early is True, f"cut at {cut}"
        assert [number for _, number in outcome.good] == list(range(len(outcome.good)))
    assert told >= 5 or suffix == ".avi", "most of them can be read in part"


def test_a_length_that_nobody_declares_is_not_made_up(tmp_path: Path) -> None:
    for name in ("clip.ts", "clip.h264"):
        report = run_through(make_clip(tmp_path / name, count=20)).report
        assert (report.expected_end_s, report.declared_frames) == (None, None)
        assert "no length declared" in report.account_line()


@pytest.mark.parametrize(("declared", "early"), [(5, False), (1000, True)])
def test_a_frame_count_that_lies(tmp_path: Path, declared: int, early: bool) -> None:
    path = make_clip(tmp_path / "clip.avi", count=COUNT)
    data = bytearray(path.read_bytes())
    for field in (data.index(b"avih") + 8 + 16, data.index(b"strh") + 8 + 32):
        data[field : field + 4] = struct.pack("<I", declared)
    path.write_bytes(data)
    outcome = run_through(path)
    outcome.check()
    assert outcome.numbers == list(range(COUNT)), "the count is for display"
    assert outcome.report.declared_frames == declared
    # Too high a count cannot be told from a loss, and is said.
    assert outcome.report.ended_early is early


@pytest.mark.parametrize("rounds", [12, pytest.param(120, marks=pytest.mark.slow)])
@pytest.mark.parametrize("b_frames", [0, 3])
def test_flipped_bits_are_not_shown_as_good(tmp_path: Path, rounds: int, b_frames: int) -> None:
    options = {"preset": "veryfast", "g": "15", "bf": str(b_frames)}
    whole = make_clip(
        tmp_path / "whole.mp4",
        count=COUNT,
        size=(96, 128),
        options=options,
        container_options={"movflags": "faststart"},
    )
    data = whole.read_bytes()
    media = data.index(b"mdat") + 4
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    generator = random.Random(seed)
    wrong = hurt = 0
    for _ in range(rounds):
        damaged = bytearray(data)
        for _ in range(6):
            damaged[generator.randrange(media, len(damaged))] ^= 1 << generator.randrange(8)
        path = tmp_path / "flipped.mp4"
        path.write_bytes(damaged)
        outcome = run_through(path)
        outcome.check()
        assert outcome.report.frames["read"] == COUNT, "what gives no picture is counted where it was"
        wrong += sum(index != number for index, number in outcome.good)
        hurt += outcome.report.frames["failed"] + outcome.report.frames["corrupt"]
    assert hurt > rounds
    # Some flips turn into other valid bits, and B-frames come before the damaged picture they are built on.
    assert wrong <= 0.06 * rounds * COUNT, f"{wrong} wrong frames of {rounds * COUNT} were shown as good"


def test_damaged_frames_can_be_left_out_and_are_counted(predict: Any, tmp_path: Path) -> None:
    whole = make_clip(tmp_path / "x.mp4", count=COUNT, size=(96, 128), container_options={"movflags": "faststart"})
    with av.open(str(whole)) as container:
        packets = sorted((packet.pts, packet.pos, packet.size) for packet in container.demux(video=0) if packet.size)
    data = bytearray(whole.read_bytes())
    # The second half of the slice of frame 13, of which 14 to 19, up to the next key frame, are made.
    _, place, size = packets[13]
    data[place + size // 2 : place + size] = random.Random(5).randbytes(size - size // 2)
    (tmp_path / "hurt.mp4").write_bytes(data)
    code, summary, _ = predict(tmp_path / "hurt.mp4", "--alpha", "0")
    (kept,) = summary["sources"]
    assert kept["frames"]["corrupt"] + kept["frames"]["failed"] == 7
    assert code == (1 if kept["frames"]["failed"] else 0)
    code, summary, err = predict(tmp_path / "hurt.mp4", "--alpha", "0", "--drop-corrupt", "--overwrite")
    (report,) = summary["sources"]
    frames = report["frames"]
    assert frames["read"] == COUNT == frames["segmented"] + frames["failed"] + frames["dropped"]
    assert frames["dropped"] == frames["corrupt"] > 0
    assert code == (1 if frames["failed"] else 0)
    shown = video_numbers(Path(report["outputs"]["overlay"]))
    assert shown == [number for number in range(COUNT) if not 13 <= number < 20]
    assert f"{frames['dropped']} dropped" in err
    assert f"{frames['corrupt']} damaged, concealed by the decoder or built on one that was" in err


@pytest.mark.parametrize("rounds", [4, pytest.param(60, marks=pytest.mark.slow)])
def test_flipped_bits_anywhere_leave_an_account_or_one_line(tmp_path: Path, rounds: int) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    generator = random.Random(seed)
    for suffix in (".mp4", ".mkv", ".avi", ".ts", ".flv"):
        data = make_clip(tmp_path / f"whole{suffix}", count=20).read_bytes()
        for _ in range(rounds):
            damaged = bytearray(data)
            for _ in range(8):
                damaged[generator.randrange(len(damaged))] ^= 1 << generator.randrange(8)
            path = tmp_path / f"flipped{suffix}"
            path.write_bytes(damaged)
            if isinstance(outcome := attempt(path), str):
                check_line(outcome, path)


def test_a_last_packet_made_of_nothing_is_counted(tmp_path: Path) -> None:
    whole = make_clip(tmp_path / "x.mp4", count=COUNT, size=(96, 128), container_options={"movflags": "faststart"})
    with av.open(str(whole)) as container:
        last = max((packet.pos, packet.size) for packet in container.demux(video=0) if packet.size)
    data = bytearray(whole.read_bytes())
    data[last[0] : sum(last)] = bytes(last[1])
    whole.write_bytes(data)
    outcome = run_through(whole)
    outcome.check()
    assert (outcome.report.frames["read"], outcome.report.frames["failed"]) == (COUNT, 1)
    assert outcome.good == [(number, number) for number in range(COUNT - 1)]


def test_frames_lost_to_the_model_are_counted(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "x.mp4", count=10)
    stream = Segmenter(FakeSession(missing_library="libcuda.so"), batch_size=4).stream(clip)
    with pytest.raises(DeviceError, match=r"libcuda\.so"):
        list(stream)
    assert stream.report.balanced
    assert (stream.report.frames["read"], stream.report.frames["failed"]) == (4, 4)


def test_the_ledger_knows_where_a_frame_is_missing() -> None:
    ledger = DecoderLedger(one_picture_a_packet=True)
    for pts in (0, 3, 1, 2, 4, 5):
        ledger.put(pts)
    assert not ledger.take(0, key=True, corrupt=False)
    assert ledger.failed == 0
    assert ledger.take(2, key=False, corrupt=False), "built on the one that is missing"
    assert ledger.failed == 1
    assert ledger.take(3, key=False, corrupt=False)
    assert not ledger.take(4, key=True, corrupt=False), "a key frame is built on nothing"
    assert ledger.take(1, key=False, corrupt=True)
    assert ledger.failed == 0, "it came after all"
    ledger.close()
    assert ledger.failed == 1


def unreadable(folder: Path, whole: bytes) -> dict[str, tuple[str, Callable[[Path], object]]]:
    """Kinds of files nobody can read: words of the line each must get, and how to make it."""
    return {
        "empty.mp4": ("empty", lambda path: path.write_bytes(b"")),
        "pointer.mp4": ("git lfs pull", lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")),
        "text.mkv": ("not a video", lambda path: path.write_text("words " * 100)),
        "no_moov.mp4": ("untrunc", lambda path: path.write_bytes(whole[: whole.index(b"moov") - 4])),
        "list.mp4": ("give the video itself", lambda path: path.write_text("#EXTM3U\n#EXTINF:2,\nx.ts\n")),
        "noise.avi": ("not a video", lambda path: path.write_bytes(random.Random(1).randbytes(4000))),
        "pipe.mp4": ("pipe", os.mkfifo),
        "gone.mp4": ("no such file", lambda path: path.symlink_to(folder / "nowhere")),
        "half.png": ("damaged", lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x20\0\0\0\x20")),
    }


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="makes a named pipe")
def test_unreadable_files_in_a_batch_are_named_and_the_rest_is_done(
    predict: Any,
    tmp_path: Path,
) -> None:
    whole = make_clip(tmp_path / "whole.mp4", count=12).read_bytes()
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    sources, bad = [], unreadable(tmp_path, whole)
    for name, (_, make) in bad.items():
        make(tmp_path / name)
        sources.append(tmp_path / name)
    for number in range(6):
        sources.append(make_clip(tmp_path / f"good{number}.mp4", count=5 + number))
    random.Random(seed).shuffle(sources)
    code, summary, err = predict(*sources)
    assert code == summary["exit_code"] == 1
    assert [Path(report["source"]).name for report in summary["sources"]] == [path.name for path in sources]
    errors = [line for line in err.splitlines() if line.startswith("error:")]
    for report in summary["sources"]:
        name, frames = Path(report["source"]).name, report["frames"]
        assert frames["read"] == sum(frames[key] for key in ("segmented", "failed", "dropped", "skipped"))
        if name in bad:
            assert report["status"] == "failed"
            assert [bad[name][0] in line for line in errors if name in line] == [True], name
        else:
            assert report["status"] == "done"
            assert video_numbers(Path(report["outputs"]["overlay"])) == list(range(5 + int(name[4])))
    assert len(errors) == len(bad)
    assert len(list((tmp_path / "out").glob("*.mp4"))) == 6


def test_one_line_and_one_json_object_say_the_same(
    predict: Any,
    tmp_path: Path,
) -> None:
    whole = make_clip(tmp_path / "whole.mp4", count=COUNT, size=(96, 128), container_options={"movflags": "faststart"})
    data = bytearray(whole.read_bytes())
    # One packet made of nothing, and the end cut off.
    place = data.index(b"mdat") + 4 + (len(data) - data.index(b"mdat")) // 3
    data[place : place + 60] = bytes(60)
    (tmp_path / "hurt.mp4").write_bytes(data[: len(data) * 3 // 4])
    code, summary, err = predict(whole, tmp_path / "hurt.mp4", "--stride", "2", "--alpha", "0")
    good, hurt = summary["sources"]
    assert (code, good["status"], hurt["status"]) == (1, "done", "incomplete")
    line = f"{whole}: 30 frames read: 15 segmented, 15 skipped, 0 failed, 0 dropped; ended at 1.20 s of 1.20 s"
    assert line in err.splitlines()
    frames = hurt["frames"]
    assert frames["read"] == frames["segmented"] + frames["skipped"] + frames["failed"] + frames["dropped"]
    assert frames["corrupt"] + frames["failed"] > 0
    assert hurt["declared_frames"] == COUNT > frames["read"]
    assert hurt["ended_early"] is True
    (line,) = [
        line for line in err.splitlines() if line.startswith(f"{tmp_path / 'hurt.mp4'}: {frames['read']} frames")
    ]
    for key in ("segmented", "skipped", "failed", "dropped"):
        assert f"{frames[key]} {key}" in line
    assert f"{frames['corrupt']} damaged" in line
    assert f"ended at {hurt['ended_at_s']:.2f} s of {LENGTH_S:.2f} s" in line
    shown = video_numbers(Path(hurt["outputs"]["overlay"]))
    with VideoFile(tmp_path / "hurt.mp4") as video:
        read = list(video)
    assert len(shown) == frames["segmented"] + frames["skipped"] == len(read)
    assert all(frame.corrupt or frame.index == number for frame, number in zip(read, shown, strict=True))
    assert any(not frame.corrupt for frame in read)


def test_a_folder_as_one_stream_names_the_file_that_was_cut(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        make_clip(tmp_path / name, count=COUNT, size=(96, 128), container_options={"movflags": "faststart"})
    (tmp_path / "a.mp4").write_bytes((tmp_path / "b.mp4").read_bytes()[:-500])
    stream = Segmenter(FakeSession()).stream(tmp_path)
    with pytest.warns(
        RuntimeWarning, match=r"ended early, at .* s: .*a\.mp4: the file ends \d+ bytes before its mdat box"
    ):
        results = list(stream)
    assert (stream.report.balanced, stream.report.ended_early) == (True, True)
    assert results[-1].index == stream.report.frames["read"] - 1, "frames that gave no picture leave a gap"
    left = Segmenter(FakeSession()).stream(tmp_path)
    next(left)
    left.close()
    assert left.report.balanced
    assert (left.report.frames["segmented"], left.report.ended_early) == (1, None)


def test_the_library_accounts_for_every_frame_and_warns(tmp_path: Path) -> None:
    whole = make_clip(tmp_path / "x.mp4", count=COUNT, size=(96, 128), container_options={"movflags": "faststart"})
    (tmp_path / "cut.mp4").write_bytes(whole.read_bytes()[:-500])
    stream = Segmenter(FakeSession(), batch_size=4).stream(tmp_path / "cut.mp4")
    with pytest.warns(RuntimeWarning, match=r"ended early, at .* bytes before its mdat box"):
        results = list(stream)
    report = stream.report
    assert report.balanced
    assert report.frames["segmented"] == len(results) < COUNT
    assert (report.expected_end_s, report.declared_frames, report.ended_early) == (LENGTH_S, COUNT, True)
    left = Segmenter(FakeSession(), batch_size=4).stream(whole)
    assert [next(left).index for _ in range(6)] == list(range(6))
    left.close()
    assert left.report.balanced
    assert (left.report.frames["read"], left.report.ended_early) == (8, None)
    assert "stopped at" in left.report.account_line()
    arrays = Segmenter(FakeSession()).stream([np.zeros((8, 8, 3), np.uint8)] * 3)
    assert len(list(arrays)) == arrays.report.frames["read"] == 3
    assert arrays.report.balanced


@pytest.mark.parametrize("turn", list(TURNS))
def test_turned_clips_come_out_upright_once(
    predict: Any,
    tmp_path: Path,
    turn: str,
) -> None:
    matrix, undo = TURNS[turn]
    clip = make_clip(tmp_path / "turned.mp4", count=12, matrix=matrix)
    code, summary, err = predict(clip, "--alpha", "0")
    (report,) = summary["sources"]
    assert (code, report["frames"]["read"], report["frames"]["segmented"]) == (0, 12, 12)
    with VideoFile(Path(report["outputs"]["overlay"])) as video:
        assert [read_number(undo(frame.image)) for frame in video] == list(range(12))
        assert video.info.rotation == "", "turned once, and not asked for again"
    assert ("as the file asks" in err) == (turn != "none")


def test_a_size_that_changes_is_reported_as_the_pixels_are(
    predict: Any,
    tmp_path: Path,
) -> None:
    parts = [
        make_clip(tmp_path / f"{first}.h264", count=9, size=size, first=first)
        for first, size in ((0, (48, 64)), (9, (96, 128)), (18, (48, 64)))
    ]
    joined = tmp_path / "joined.h264"
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    code, summary, err = predict(joined, "--alpha", "0")
    (report,) = summary["sources"]
    assert code == 0
    assert (report["frames"]["read"], report["frames"]["resized"]) == (27, 9)
    assert "9 of another size, brought to the first one's" in err
    assert video_numbers(Path(report["outputs"]["overlay"])) == list(range(27))


def test_variable_rate_and_sound_survive_a_run(
    predict: Any,
    tmp_path: Path,
) -> None:
    generator = random.Random(3)
    pts = list(itertools.accumulate((generator.randrange(900, 9000) for _ in range(39)), initial=0))
    clip = make_clip(tmp_path / "vfr.mp4", count=40, pts=pts, time_base=Fraction(1, 90000), audio="aac", size=(47, 63))
    code, summary, _ = predict(clip, "--alpha", "0")
    (report,) = summary["sources"]
    overlay = Path(report["outputs"]["overlay"])
    assert code == 0
    with VideoFile(overlay) as video:
        assert [read_number(frame.image[:47, :63]) for frame in video] == list(range(40))
    assert video_times(overlay) == video_times(clip) == [Fraction(value, 90000) for value in pts]
    assert "audio: aac copied" in report["notes"]
    assert any("padded by 1 column and 1 row" in note for note in report["notes"])
    assert report["frames"]["read"] == report["frames"]["segmented"] == 40


@pytest.mark.parametrize("suffix", [".mkv", ".ts", ".mp4"])
def test_a_hole_is_named_and_no_success(predict: Any, tmp_path: Path, suffix: str) -> None:
    clip = make_clip(tmp_path / f"x{suffix}", count=250, size=(96, 128), options={"g": "25", "bf": "0"})
    data = bytearray(clip.read_bytes())
    start, end = len(data) * 4 // 10, len(data) * 6 // 10
    data[start:end] = random.Random(3).randbytes(end - start)
    clip.write_bytes(data)
    code, summary, err = predict(clip, "--save", "jsonl")
    (report,) = summary["sources"]
    assert (code, report["status"]) == (1, "incomplete")
    numbers = [json.loads(line)["time_s"] for line in Path(report["outputs"]["jsonl"]).read_text().splitlines()]
    gaps = [(after - before - 0.04, before + 0.04) for before, after in itertools.pairwise(numbers)]
    gap_s, at_s = max(gaps)
    assert gap_s > 1
    assert (report["gap_s"], report["gap_at_s"]) == pytest.approx((gap_s, at_s), abs=0.002)
    assert f"no frame for {gap_s:.2f} s at {at_s:.2f} s" in err
    if suffix != ".mp4":  # Whose index says how many there were.
        assert f"frames are missing for {gap_s:.2f} s" in report["message"]
        with pytest.warns(RuntimeWarning, match=f"frames are missing for {gap_s:.2f} s"):
            list(Segmenter(FakeSession()).stream(clip))


def test_a_pause_is_said_and_is_no_damage(predict: Any, tmp_path: Path) -> None:
    times = [index * 40 + (3000 if index > 30 else 0) for index in range(60)]
    clip = make_clip(tmp_path / "x.mkv", count=60, pts=times, time_base=Fraction(1, 1000))
    code, summary, err = predict(clip, "--save", "jsonl")
    (report,) = summary["sources"]
    assert (code, report["status"]) == (0, "done")
    assert "no frame for 3.00 s at 1.24 s" in err
    assert (report["gap_s"], report["gap_at_s"]) == (3.0, 1.24)


def test_a_pause_beside_damage_elsewhere_is_a_pause(tmp_path: Path) -> None:
    times = [index * 40 + (30_000 if index > 100 else 0) for index in range(200)]
    clip = make_clip(
        tmp_path / "x.mkv", count=200, pts=times, time_base=Fraction(1, 1000), options={"g": "10", "bf": "0"}
    )
    data = bytearray(clip.read_bytes())
    place = len(data) * 2 // 10
    data[place : place + 20] = random.Random(3).randbytes(20)
    clip.write_bytes(data)
    outcome = run_through(clip)
    assert outcome.report.frames["corrupt"] + outcome.report.frames["damaged_packets"] > 0
    assert outcome.report.gap_s == 30
    assert losses_of(clip) == ""


def losses_of(path: Path) -> str:
    with open_source(path) as source:
        for _ in source:
            pass
        return losses(source)


def test_a_hole_in_the_first_of_two_files_is_named_with_it(tmp_path: Path) -> None:
    first = make_clip(tmp_path / "a.mkv", count=250, size=(96, 128), options={"g": "25", "bf": "0"})
    data = bytearray(first.read_bytes())
    data[len(data) * 4 // 10 : len(data) * 6 // 10] = bytes(len(data) * 6 // 10 - len(data) * 4 // 10)
    first.write_bytes(data)
    make_clip(tmp_path / "b.mkv", count=10)
    assert re.fullmatch(
        rf"frames are missing for \d\.\d\d s at \d\.\d\d s of {re.escape(str(first))}", losses_of(tmp_path)
    )


def test_a_ledger_of_which_nothing_comes_out_costs_no_more_with_time() -> None:
    ledger = DecoderLedger(one_picture_a_packet=True)
    for pts in range(200_000):
        ledger.put(pts)
        ledger.refuse()
    ledger.close()
    assert ledger.failed == 200_000


def test_what_an_earlier_clip_lost_is_no_damage_of_a_joined_one() -> None:
    ledger = DecoderLedger(one_picture_a_packet=True)
    for pts in range(8):
        ledger.put(pts)
    ledger.take(4, key=False, corrupt=False)
    assert [ledger.take(pts, key=False, corrupt=False) for pts in (5, 6, 7)] == [True] * 3
    for pts in range(8):
        ledger.put(pts)
    assert not any(ledger.take(pts, key=pts == 0, corrupt=False) for pts in range(8))
    assert ledger.failed == 4


def test_pictures_of_two_fields_are_not_counted_by_packets() -> None:
    """Each field may come in a packet of its own, and one of the two never gives a picture."""
    ledger = DecoderLedger(one_picture_a_packet=True)
    for time in range(8):
        ledger.put(time)
    for time in range(0, 8, 2):
        assert not ledger.take(time, key=time == 0, corrupt=False, field_coded=True)
    ledger.close()
    assert ledger.failed == 0
