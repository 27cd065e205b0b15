"""What a killed run leaves plays; `--resume` checks finished results and makes the others again."""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edge_seg import predict as predict_module
from edge_seg import records
from edge_seg.cli import main
from edge_seg.files import Claim
from edge_seg.items import Item, expand_sources
from edge_seg.mp4 import count_frames
from edge_seg.names import partial_path, plan_outputs
from edge_seg.record_lines import RECORDS_NAME
from edge_seg.records import Records
from tests.edge_seg.clips import lay_together, make_clip, video_numbers, video_times, write_image
from tests.edge_seg.servers import QuietHandler, WebCamera, web_server

SEED = int(os.environ.get("EDGE_SEG_TEST_SEED", random.SystemRandom().randrange(2**31)))
Predict = Callable[..., tuple[int, Any, str]]


@pytest.fixture
def model(tiny_model: Callable[..., Path]) -> Path:
    return tiny_model(size=(32, 64))


@pytest.fixture
def predict(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Predict:
    """Run `edge-seg predict ... --json` in this process: (exit code, status of each source by its stem, stderr)."""

    def run(*arguments: object, model: Path = model) -> tuple[int, Any, str]:
        capsys.readouterr()
        options = ["-m", str(model), "--device", "cpu", "--json", "-o", str(tmp_path / "out")]
        code = main(["predict", *map(str, arguments), *options])
        printed = capsys.readouterr()
        sources = json.loads(printed.out).get("sources", []) if printed.out else []
        return code, {Path(source["source"]).stem: source for source in sources}, printed.err

    return run


@pytest.fixture
def clips(tmp_path: Path) -> list[Path]:
    (tmp_path / "in").mkdir()
    return [make_clip(tmp_path / "in" / f"{name}.mp4", count=8, first=index) for index, name in enumerate("abc")]


def stamps(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("[!.]*")}


def made_again(before: dict[str, int], folder: Path) -> set[str]:
    return {name for name, stamp in stamps(folder).items() if before.get(name) != stamp}


def statuses(sources: dict[str, Any]) -> list[str]:
    return [source["status"] for source in sources.values()]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_killed_run_leaves_a_clip_that_plays_to_its_last_second_and_is_gone_on_with(
    model: Path, predict: Predict, tmp_path: Path
) -> None:
    clip = make_clip(tmp_path / "long.mp4", count=2500, options={"preset": "ultrafast", "g": "50"})
    out = tmp_path / "out"
    options = ["--save", "overlay,jsonl", "-m", model, "--device", "cpu"]
    child = subprocess.Popen(
        [sys.executable, "-m", "edge_seg", "predict", clip, "-o", out, *options],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    lines, wanted = out / "long.partial.jsonl", random.Random(SEED).randrange(100, 900)
    while not (lines.exists() and lines.read_bytes().count(b"\n") >= wanted):
        assert child.poll() is None, child.communicate()
        time.sleep(0.002)
    child.kill()
    child.communicate()
    written = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [row["index"] for row in written] == list(range(len(written)))
    partial = out / "long_overlay.partial.mp4"
    times = video_times(partial)
    print(f"seed {SEED}: {len(written)} frames were written, {len(times)} play")
    # The last frames on disk may be ahead of those shown before them, which are encoded after them: three at most.
    assert times[:-3] == video_times(clip)[: len(times) - 3]
    assert times == sorted(times)
    assert set(times) <= set(video_times(clip))
    assert len(written) - 25 <= len(times) <= len(written) + 1, f"seed {SEED}: all but the last second plays"
    # And two locks that nobody holds any more.
    assert {path.name for path in out.glob("[!.]*")} == {partial.name, lines.name}

    code, _, err = predict(clip, "--save", "overlay,jsonl")
    assert code == 2
    assert f"Already there: {partial}, {lines}. --resume keeps what is finished and makes the rest, " in err
    code, sources, err = predict(clip, "--save", "overlay,jsonl", "--resume")
    assert (code, statuses(sources)) == (0, ["done"])
    played = f"{len(times)} frames ({float(times[-1]) + 0.04:.1f} s) of it play"
    assert f"{partial}: left by a run that was stopped, {played};" in err
    assert f"long_overlay.mp4 is made anew from the start of {clip}." in err
    assert f"{lines}: left by a run that was stopped, {len(written)} lines are in it" in err
    assert count_frames(out / "long_overlay.mp4") == 2500
    assert not list(out.glob("*partial*"))


def test_what_is_finished_and_verified_is_left_alone(predict: Predict, clips: list[Path], tmp_path: Path) -> None:
    write_image(clips[0].with_name("still.png"), 3)
    assert predict(clips[0].parent, "--save", "overlay,labels,jsonl", "--limit", "5")[0] == 0
    before = stamps(tmp_path / "out")
    assert len(before) == 12
    code, sources, err = predict(clips[0].parent, "--save", "overlay,labels,jsonl", "--limit", "5", "--resume")
    assert (code, statuses(sources)) == (0, ["already there"] * 4)
    assert not made_again(before, tmp_path / "out")
    assert "made again" not in err


def test_it_goes_on_where_a_run_stopped(predict: Predict, clips: list[Path], tmp_path: Path) -> None:
    assert predict(clips[0], "--save", "overlay")[0] == 0
    (tmp_path / "out" / "b_overlay.partial.mp4").write_bytes(b"left by a crash")
    before = stamps(tmp_path / "out")
    code, sources, err = predict(*clips, "--save", "overlay,jsonl", "--resume")
    assert (code, statuses(sources)) == (0, ["done"] * 3)
    assert [set(source["outputs"]) for source in sources.values()] == [{"jsonl"}, *[{"overlay", "jsonl"}] * 2]
    assert "a_overlay.mp4" not in made_again(before, tmp_path / "out")
    assert "b_overlay.partial.mp4: left by a run that was stopped, nothing in it plays; b_overlay.mp4 is made" in err
    assert not list((tmp_path / "out").glob("*partial*"))
    for index, clip in enumerate(clips):
        assert video_numbers(tmp_path / "out" / f"{clip.stem}_overlay.mp4") == [index + number for number in range(8)]


def truncate(clips: list[Path], out: Path) -> str:
    path = out / "b_overlay.mp4"
    size = path.stat().st_size
    os.truncate(path, size // 2)
    return f"b_overlay.mp4: it is not as it was written ({size} bytes then, {size // 2} now); it is made again."


def flip(clips: list[Path], out: Path) -> str:
    path = out / "b_overlay.mp4"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    return f"b_overlay.mp4: it is not as it was written ({len(data)} bytes then, {len(data)} now); it is made again."


def touch_source(clips: list[Path], out: Path) -> str:
    os.utime(clips[1])
    return "b_overlay.mp4: its source has changed since; it is made again."


@pytest.mark.parametrize("spoil", [truncate, flip, touch_source])
def test_a_result_that_cannot_be_relied_on_is_made_again_and_that_is_said(
    predict: Predict, clips: list[Path], tmp_path: Path, spoil: Callable[[list[Path], Path], str]
) -> None:
    out = tmp_path / "out"
    assert predict(*clips)[0] == 0
    complaint = spoil(clips, out)
    before = stamps(out)
    code, sources, err = predict(*clips, "--resume")
    assert (code, statuses(sources)) == (0, ["already there", "done", "already there"])
    assert complaint in err
    assert made_again(before, out) == {"b_overlay.mp4"}
    assert video_numbers(out / "b_overlay.mp4") == list(range(1, 9))
    assert predict(*clips, "--resume")[2].count("again") == 0


def test_another_model_and_other_options_make_it_again(
    predict: Predict, clips: list[Path], tiny_model: Callable[..., Path]
) -> None:
    first = ("--save", "overlay,jsonl")
    assert predict(clips[0], *first)[0] == 0
    code, sources, err = predict(clips[0], *first, "--crf", "40", "--resume")
    assert (code, set(sources["a"]["outputs"])) == (0, {"overlay"}), "the lines do not depend on it"
    assert "a_overlay.mp4: it was made with other options (--crf was 23, is 40 now); it is made again." in err
    code, sources, err = predict(clips[0], *first, "--crf", "40", "--stride", "2", "--limit", "6", "--resume")
    assert (code, set(sources["a"]["outputs"])) == (0, {"overlay", "jsonl"})
    assert "a.jsonl: it was made with other options (--limit was None, is 6 now, --stride was 1, is 2 now)" in err
    other = tiny_model(size=(64, 64))
    code, sources, err = predict(clips[0], *first, "--stride", "2", "--limit", "6", "--resume", model=other)
    assert (code, set(sources["a"]["outputs"])) == (0, {"overlay", "jsonl"})
    assert "a_overlay.mp4: it was made by another model; it is made again." in err


def test_a_source_that_was_cut_short_stays_incomplete(predict: Predict, tmp_path: Path) -> None:
    whole = make_clip(tmp_path / "x.mp4", count=100, size=(96, 128), container_options={"movflags": "faststart"})
    (tmp_path / "cut.mp4").write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    code, sources, _ = predict(tmp_path / "cut.mp4")
    assert (code, statuses(sources)) == (1, ["incomplete"])
    said = sources["cut"]["message"]
    before = stamps(tmp_path / "out")
    code, sources, _ = predict(tmp_path / "cut.mp4", "--resume")
    assert (code, statuses(sources)) == (1, ["incomplete"])
    assert sources["cut"]["message"] == f"already there; {said}"
    assert not made_again(before, tmp_path / "out")


def test_a_file_nobody_knows_is_never_replaced(predict: Predict, clips: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "a_overlay.mp4").write_bytes(b"my own film")
    code, sources, err = predict(*clips, "--resume")
    assert (code, statuses(sources)) == (1, ["failed", "done", "done"])
    assert f"{out / 'a_overlay.mp4'} is already there, and nothing beside it says what it was made from." in err
    assert "--overwrite" in err
    assert (out / "a_overlay.mp4").read_bytes() == b"my own film"
    assert predict(*clips, "--overwrite")[0] == 0


def test_a_partial_beside_a_whole_result_is_removed(predict: Predict, clips: list[Path], tmp_path: Path) -> None:
    assert predict(*clips)[0] == 0
    partial = tmp_path / "out" / "b_overlay.partial.mp4"
    partial.write_bytes(b"the process died between the rename and this")
    code, _, err = predict(*clips, "--resume")
    assert code == 0
    assert f"{partial}: left by a run that was stopped; {tmp_path / 'out' / 'b_overlay.mp4'} is whole" in err
    assert not partial.exists()


def test_a_result_that_cannot_be_read_is_made_again_and_the_others_left(
    predict: Predict, clips: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert predict(*clips)[0] == 0
    locked, content_of = tmp_path / "out" / "b_overlay.mp4", records.content_of

    def unreadable(path: Path) -> dict[str, Any]:
        if path == locked:
            raise PermissionError(13, "Permission denied", str(path))
        return content_of(path)

    monkeypatch.setattr(records, "content_of", unreadable)
    code, sources, err = predict(*clips, "--resume")
    assert (code, statuses(sources)) == (0, ["already there", "done", "already there"])
    assert f"{locked}: it cannot be read (permission denied); it is made again." in err


def test_half_a_line_of_the_records_costs_one_result(predict: Predict, clips: list[Path], tmp_path: Path) -> None:
    assert predict(*clips)[0] == 0
    file = tmp_path / "out" / RECORDS_NAME
    data = file.read_bytes()
    file.write_bytes(data[: len(data) - 40])
    assert predict(clips[2], "--overwrite")[0] == 0
    rows = file.read_text().splitlines()
    assert len(rows) == 4
    assert json.loads(rows[-1])["result"] == "c_overlay.mp4", "a new line after the broken one"
    code, sources, _ = predict(*clips, "--resume")
    assert (code, statuses(sources)) == (0, ["already there"] * 3)


def test_a_line_that_no_parser_ends_costs_nothing(predict: Predict, clips: list[Path], tmp_path: Path) -> None:
    """In a folder of sources, and in that of results."""
    assert predict(clips[0])[0] == 0
    for folder in (tmp_path / "in", tmp_path / "out"):
        with (folder / RECORDS_NAME).open("a") as file:
            file.write("[" * 200_000 + "\n")
    code, sources, _ = predict(tmp_path / "in", "--resume")
    assert (code, statuses(sources)) == (0, ["already there", "done", "done"])


def pipe(records: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(records)


def link(records: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records.symlink_to(records.with_name("theirs.txt"))


def dangling_link(records: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records.symlink_to(records.with_name("nowhere"))


def folder(records: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records.mkdir()


def anothers(records: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another user's file; root, who may run the tests, may write to any."""
    records.touch()
    opened = os.open

    def refusing(path: Any, flags: int, *more: Any, **options: Any) -> int:
        if path == records and flags & os.O_RDWR:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return opened(path, flags, *more, **options)

    monkeypatch.setattr(os, "open", refusing)


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX pipes, links and permissions")
@pytest.mark.parametrize(
    ("put", "why"),
    [
        (pipe, "not a file"),
        (link, "a link, which is not followed"),
        (dangling_link, "a link, which is not followed"),
        (folder, "is a directory"),
        (anothers, "permission denied"),
    ],
)
def test_records_that_cannot_be_written_are_named_before_anything_is_made(
    predict: Predict, clips: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, put: Any, why: str
) -> None:
    """Each clip used to be made in full first; a pipe hung, and through a link its target was appended to."""
    out = tmp_path / "out"
    out.mkdir()
    (out / "theirs.txt").write_text("theirs\n")
    put(out / RECORDS_NAME, monkeypatch)
    before = sorted(out.iterdir())
    pictures = [write_image(tmp_path / f"{name}.png", 1) for name in "pq"]
    for options in ([], ["--resume"]):
        code, sources, err = predict(clips[0], *pictures, *options)
        assert (code, statuses(sources)) == (1, ["failed"] * 3)
        words = f"{out / RECORDS_NAME}, which records what results are made from, cannot be written ({why}). Choose"
        assert err.count(words) == 3
        assert not any(source["wall_s"] for source in sources.values())
    assert sorted(out.iterdir()) == before
    assert (out / "theirs.txt").read_text() == "theirs\n"


def test_records_that_can_no_longer_be_written_are_named_by_every_result(
    predict: Predict, clips: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(path: Path, line: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("edge_seg.records.append_line", refusing)
    picture = write_image(tmp_path / "p.png", 1)
    code, sources, _ = predict(clips[0], picture, "--save", "overlay,labels,jsonl")
    assert (code, statuses(sources)) == (1, ["failed"] * 2)
    named = f"({tmp_path / 'out' / RECORDS_NAME}: permission denied)"
    clip, still = sources.values()
    assert (clip["message"].count(named), still["message"].count(named)) == (3, 1)


def test_a_folder_of_sources_with_a_pipe_for_records_is_read(clips: list[Path]) -> None:
    os.mkfifo(clips[0].with_name(RECORDS_NAME))
    assert len(expand_sources([clips[0].parent])) == 3


def test_the_line_is_on_disk_before_the_result_has_its_name(tmp_path: Path, clips: list[Path]) -> None:
    from edge_seg.files import publish

    (item,) = expand_sources([clips[0]])
    entry = Records("model", lambda item, kind: {}).begin(item, {"mask": tmp_path / "m.mp4"})

    def seal(made: Path, final: Path) -> None:
        entry.seal(made, final)
        assert not final.exists()
        assert json.loads((tmp_path / RECORDS_NAME).read_text())["result"] == "m.mp4"

    (tmp_path / "made").write_bytes(b"frames")
    publish(tmp_path / "made", tmp_path / "m.mp4", seal=seal)
    assert (tmp_path / "m.mp4").exists()
    assert not Records("model", lambda item, kind: {}).find(item, "mask", tmp_path / "m.mp4").doubt


def test_the_tracks_of_one_file_have_results_of_their_own(predict: Predict, tmp_path: Path, clips: list[Path]) -> None:
    (tmp_path / "two").mkdir()
    both = lay_together(tmp_path / "two" / "both.mp4", clips[0], make_clip(tmp_path / "r.mp4", count=5, first=60))
    code, sources, _ = predict(both, "--save", "overlay,jsonl")
    assert (code, sources["both"]["notes"][0]) == (0, "video track 1 of 2")
    code, sources, _ = predict(both, "--save", "overlay,jsonl", "--track", 2)
    assert (code, sources["both"]["notes"][0]) == (0, "video track 2 of 2")
    assert {path.name for path in (tmp_path / "out").glob("[!.]*")} == {
        "both.jsonl", "both_overlay.mp4", "both_track2.jsonl", "both_track2_overlay.mp4",
    }  # fmt: skip
    lines = [len((tmp_path / "out" / f"{name}.jsonl").read_text().splitlines()) for name in ("both", "both_track2")]
    assert lines == [8, 5]
    before = stamps(tmp_path / "out")
    code, sources, _ = predict(both, "--save", "overlay,jsonl", "--track", 2, "--resume")
    assert statuses(sources) == ["already there"]
    assert not made_again(before, tmp_path / "out")
    assert {Path(path).name for path in sources["both"]["outputs"].values()} == {
        "both_track2.jsonl", "both_track2_overlay.mp4",
    }  # fmt: skip
    code, sources, _ = predict(both, "--track", 3)
    assert (code, statuses(sources)) == (1, ["failed"])
    assert sources["both"]["message"].endswith("both.mp4: has 2 video tracks, and track 3 was asked for.")


def test_another_track_under_the_same_name_is_made_again(model: Path, tmp_path: Path, clips: list[Path]) -> None:
    both = lay_together(tmp_path / "both.mp4", clips[0], make_clip(tmp_path / "rear.mp4", count=5, first=60))
    call = ["predict", str(both), "-m", str(model), "--device", "cpu", "--alpha", "0", "-o", str(tmp_path / "out.mp4")]
    assert main(call) == 0
    assert video_numbers(tmp_path / "out.mp4") == list(range(8))
    assert main([*call, "--track", "2", "--resume"]) == 0
    assert video_numbers(tmp_path / "out.mp4") == list(range(60, 65))


def test_another_track_never_takes_the_first_ones_results(predict: Predict, tmp_path: Path, clips: list[Path]) -> None:
    """Not even where a second clip of the same name makes both names longer."""
    rear = make_clip(tmp_path / "rear.mp4", count=5, first=60)
    for day in ("day1", "day2"):
        (tmp_path / day).mkdir()
        lay_together(tmp_path / day / "both.mp4", clips[0], rear)
    assert predict(tmp_path / "day1" / "both.mp4")[0] == 0
    before = stamps(tmp_path / "out")
    assert predict(tmp_path / "day1" / "both.mp4", "--track", 2, "--resume")[0] == 0
    assert predict(tmp_path / "day*" / "both.mp4", "--track", 2, "--resume")[0] == 0
    assert made_again(before, tmp_path / "out") == {"both_track2_overlay.mp4", "day2_both_mp4_track2_overlay.mp4"}


def test_a_second_clip_of_a_name_leaves_the_first_ones_results_alone(predict: Predict, tmp_path: Path) -> None:
    for index, day in enumerate(("day2", "day1", "day3")):
        (tmp_path / day).mkdir()
        make_clip(tmp_path / day / "0001.mp4", count=5, first=index)
    days, out = tmp_path / "day*" / "0001.mp4", tmp_path / "out"
    once = ("--save", "overlay,jsonl", "--resume")
    assert predict(tmp_path / "day2" / "0001.mp4", *once)[0] == 0
    first = stamps(out)
    assert set(first) == {"0001_overlay.mp4", "0001.jsonl"}
    assert predict(days, *once)[0] == 0
    second = stamps(out)
    assert {name: second[name] for name in first} == first
    others = {f"day{number}_0001_mp4{tail}" for number in (1, 3) for tail in ("_overlay.mp4", ".jsonl")}
    assert set(second) == {*first, *others}
    code, _, _ = predict(days, *once)
    assert code == 0
    assert made_again(second, out) == set()
    assert video_numbers(out / "0001_overlay.mp4") != video_numbers(out / "day1_0001_mp4_overlay.mp4")


def test_results_keep_their_names_though_the_others_of_the_run_are_gone(predict: Predict, tmp_path: Path) -> None:
    """A rolling folder: one of two clips of a name is deleted, and later a third one comes."""
    for index, day in enumerate(("day1", "day2", "day3")):
        (tmp_path / day).mkdir()
        make_clip(tmp_path / day / "x.mp4", count=3, first=index)
    once = ("--save", "overlay,jsonl", "--resume")
    assert predict(tmp_path / "day1" / "x.mp4", tmp_path / "day2" / "x.mp4", *once)[0] == 0
    before = stamps(tmp_path / "out")
    assert len(before) == 4
    code, sources, _ = predict(tmp_path / "day2" / "x.mp4", *once)
    assert (code, statuses(sources)) == (0, ["already there"])
    assert made_again(before, tmp_path / "out") == set()
    assert predict(tmp_path / "day1" / "x.mp4", tmp_path / "day3" / "x.mp4", *once)[0] == 0
    assert made_again(before, tmp_path / "out") == {"day3_x_mp4_overlay.mp4", "day3_x_mp4.jsonl"}


def test_a_result_never_gives_way_to_that_of_another_source(
    predict: Predict, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cameras number their files alike, and one command a camera may name one folder."""
    for index, camera in enumerate(("front", "rear")):
        (tmp_path / camera).mkdir()
        make_clip(tmp_path / camera / "x.mp4", count=3, first=index)
    front, rear = (tmp_path / camera / "x.mp4" for camera in ("front", "rear"))
    # Cameras that write files of one size, at times that are rounded.
    size = max(front.stat().st_size, rear.stat().st_size) + 8
    for clip in (front, rear):
        room = size - clip.stat().st_size
        clip.write_bytes(clip.read_bytes() + room.to_bytes(4, "big") + b"free" + bytes(room - 8))
        os.utime(clip, (1_700_000_000, 1_700_000_000))
    once = ("--save", "jsonl", "--resume")
    assert predict(front, *once)[0] == 0
    before = stamps(tmp_path / "out")
    call = ["predict", str(rear), *once, "-m", str(model), "--device", "cpu", "-o", str(tmp_path / "out" / "x.jsonl")]
    assert main(call) == 1
    said = capsys.readouterr().err
    assert f"x.jsonl is already there, and was made from {front}. Move it away, choose another OUT, or" in said
    assert predict(rear, *once)[0] == 0
    assert made_again(before, tmp_path / "out") == {"x_mp4.jsonl"}
    code, sources, _ = predict(front, rear, *once)
    assert (code, statuses(sources)) == (0, ["already there"])
    assert made_again(before, tmp_path / "out") == {"x_mp4.jsonl"}
    # Moved with its archive it is the same file; changed where it lies, it is made again.
    (tmp_path / "archive").mkdir()
    front.rename(tmp_path / "archive" / "x.mp4")
    code, sources, _ = predict(tmp_path / "archive" / "x.mp4", *once)
    assert (code, statuses(sources)) == (0, ["already there"])
    make_clip(rear, count=5)
    code, sources, err = predict(tmp_path / "archive" / "x.mp4", rear, *once)
    assert (code, statuses(sources)) == (0, ["done"]), "two sources of one stem"
    assert "x_mp4.jsonl: its source has changed since; it is made again." in err


def run_apart(clip: Path, model: Path, out: Path) -> None:
    """Another process makes the JSON lines of a clip."""
    words = ["predict", clip, "--save", "jsonl", "--resume", "-m", model, "-o", out, "--device", "cpu"]
    subprocess.run([sys.executable, "-m", "edge_seg", *map(str, words)], check=True, capture_output=True)


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable[[], object]], None]:
    """Have something happen when it is the turn of the clip of this stem."""

    def plan(stem: str, happens: Callable[[], object]) -> None:
        made = predict_module.Run._video

        def turn(run: Any, item: Item, results: dict[str, Path]) -> Any:
            if item.stem == stem:
                monkeypatch.setattr(predict_module.Run, "_video", made)
                happens()
            return made(run, item, results)

        monkeypatch.setattr(predict_module.Run, "_video", turn)

    return plan


def test_what_another_run_finishes_meanwhile_is_not_made_again(
    predict: Predict, clips: list[Path], model: Path, tmp_path: Path, beside: Any
) -> None:
    """Hourly runs over a backlog: the second begins while the first is at an early source, and finishes a later one."""
    then: dict[str, int] = {}

    def other_run() -> None:
        run_apart(clips[2], model, tmp_path / "out")
        then.update(stamps(tmp_path / "out"))

    beside("a", other_run)
    code, sources, _ = predict(*clips, "--save", "jsonl", "--resume")
    assert (code, statuses(sources)) == (0, ["done", "done", "already there"])
    assert set(then) == {"c.jsonl"}
    assert "c.jsonl" not in made_again(then, tmp_path / "out")


@pytest.mark.skipif(sys.platform == "win32", reason="files are not locked there")
@pytest.mark.parametrize("finished", [True, False])
def test_what_another_run_is_at_is_looked_at_again_at_the_end(
    predict: Predict, clips: list[Path], model: Path, tmp_path: Path, beside: Any, finished: bool
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    theirs = Claim(out / "a.jsonl")

    def end() -> None:
        theirs.release()
        run_apart(clips[0], model, out)

    beside("c", end if finished else list)
    code, sources, err = predict(*clips, "--save", "jsonl", "--resume")
    assert code == (0 if finished else 1)
    assert {stem: source["status"] for stem, source in sources.items()} == {
        "b": "done", "c": "done", "a": "already there" if finished else "made elsewhere",
    }  # fmt: skip
    assert finished or f"{out / 'a.jsonl'}: another run is writing it." in err
    theirs.release()


def test_copies_of_one_file_have_results_of_their_own(predict: Predict, tmp_path: Path) -> None:
    for day in ("day1", "day2"):
        (tmp_path / day).mkdir()
    clip = make_clip(tmp_path / "day1" / "x.mp4", count=3)
    assert predict(clip, "--save", "jsonl", "--resume")[0] == 0
    shutil.copy2(clip, tmp_path / "day2" / "x.mp4")
    assert predict(tmp_path / "day*" / "x.mp4", "--save", "jsonl", "--resume")[0] == 0
    assert set(stamps(tmp_path / "out")) == {"x.jsonl", "day2_x_mp4.jsonl"}


@pytest.mark.skipif(sys.platform == "win32", reason="open files have names of their own there")
@pytest.mark.parametrize("kind", ["overlay", "labels", "jsonl"])
def test_two_runs_do_not_write_one_result(predict: Predict, clips: list[Path], tmp_path: Path, kind: str) -> None:
    """An overlapping cron job: the second run leaves the first one's alone, and says so."""
    out = tmp_path / "out"
    (name,) = plan_outputs(expand_sources([clips[0]]), [kind], out)[0].values()
    partial = partial_path(name)
    out.mkdir()
    partial.mkdir() if kind == "labels" else partial.touch()
    theirs = Claim(name)
    for option in ("--resume", "--overwrite"):
        code, _, err = predict(clips[0], "--save", kind, option)
        assert code == 1
        assert "another run is writing it" in err
        assert partial.exists()
        assert "removed" not in err
        assert not name.exists()
    theirs.release()
    code, _, _ = predict(clips[0], "--save", kind, "--resume")
    assert code == 0
    assert name.exists()
    assert not partial.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="files are not locked there")
def test_a_claim_ends_with_the_process_that_made_it(tmp_path: Path) -> None:
    program = f"from edge_seg.files import Claim, Path; Claim(Path({str(tmp_path / 'x')!r})); print('made')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "made\n"
    mine = Claim(tmp_path / "x")
    with pytest.raises(BlockingIOError, match="another run"):
        Claim(tmp_path / "x")
    mine.release()
    Claim(tmp_path / "x").release()


@pytest.mark.parametrize("kind", ["overlay", "labels", "jsonl"])
def test_what_a_stopped_run_left_beside_a_whole_result_goes(
    predict: Predict, clips: list[Path], tmp_path: Path, kind: str
) -> None:
    assert predict(clips[0], "--save", kind)[0] == 0
    (name,) = plan_outputs(expand_sources([clips[0]]), [kind], tmp_path / "out")[0].values()
    left = partial_path(name)
    left.mkdir() if kind == "labels" else left.write_bytes(b"left by a crash")
    code, found, err = predict(clips[0], "--save", kind, "--resume")
    assert (code, found["a"]["status"]) == (0, "already there")
    assert f"{left}: left by a run that was stopped; {name} is whole, so it is removed." in err
    assert not left.exists()


@pytest.mark.skipif(sys.platform == "win32", reason="files are not locked there")
def test_what_another_run_writes_is_not_taken_for_what_a_stopped_one_left(
    predict: Predict, clips: list[Path], tmp_path: Path
) -> None:
    """The result is there and whole, and another run makes it anew."""
    assert predict(clips[0], "--save", "jsonl")[0] == 0
    name = tmp_path / "out" / "a.jsonl"
    theirs = Claim(name)
    partial_path(name).write_text("{}\n")
    code, found, err = predict(clips[0], "--save", "jsonl", "--resume")
    assert (code, found["a"]["status"]) == (0, "already there")
    assert f"{partial_path(name)}: another run is writing it." in err
    assert partial_path(name).exists()
    theirs.release()
    predict(clips[0], "--save", "jsonl", "--resume")
    assert not partial_path(name).exists()
    assert not list((tmp_path / "out").glob(".partial*"))


@pytest.mark.parametrize("what", ["clip", "picture"])
def test_what_was_made_since_the_run_began_is_not_replaced(
    predict: Predict, clips: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    source = clips[0] if what == "clip" else write_image(tmp_path / "a.png", 1)
    name = tmp_path / "out" / "a.jsonl"

    def meanwhile(plans: object) -> None:
        name.parent.mkdir(exist_ok=True)
        name.write_text("theirs")

    monkeypatch.setattr("edge_seg.predict_command.check_free", meanwhile)
    code, found, _ = predict(source, "--save", "jsonl")
    assert (code, name.read_text()) == (1, "theirs")
    assert f"{name}: was made meanwhile by another run" in found["a"]["message"]


def test_what_a_camera_saw_is_not_replaced(predict: Predict, tmp_path: Path) -> None:
    camera = WebCamera()
    try:
        arguments = (f"http://127.0.0.1:{camera.port}/live", "--save", "jsonl", "--resume", "--limit")
        final = tmp_path / "out" / "127.0.0.1_live.jsonl"
        final.parent.mkdir()
        partial_path(final).write_text("the last drive\n")
        code, sources, err = predict(*arguments, "3")
        assert (code, statuses(sources)) == (1, ["failed"])
        assert f"{partial_path(final)}: from an earlier run of a live source, which --resume cannot make again. " in err
        assert "made anew" not in err
        assert partial_path(final).read_text() == "the last drive\n"

        partial_path(final).unlink()
        assert statuses(predict(*arguments, "3")[1]) == ["done"]
        assert statuses(predict(*arguments, "3")[1]) == ["already there"]
        code, sources, err = predict(*arguments, "4")
        assert (code, statuses(sources)) == (1, ["failed"])
        assert f"{final}: from an earlier run" in err
        assert len(final.read_text().splitlines()) == 3
    finally:
        camera.close()


class Clip(QuietHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.data)))
        self.end_headers()
        self.wfile.write(self.data)


def test_what_is_made_again_of_an_address_is_told_if_that_is_a_file(predict: Predict, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "x.mp4", count=5, container_options={"movflags": "faststart"})
    with web_server(Clip, clip.read_bytes()) as address:
        arguments = (f"{address}/clip.mp4", "--save", "jsonl", "--resume", "--limit")
        assert statuses(predict(*arguments, "3")[1]) == ["done"]
        (final,) = (tmp_path / "out").glob("*clip*.jsonl")
        partial_path(final).write_text("a line\n")
        code, sources, err = predict(*arguments, "4")
    assert (code, statuses(sources), len(final.read_text().splitlines())) == (0, ["done"], 4)
    assert f"{final}: it was made with other options (--limit was 3, is 4 now); it is made again." in err
    assert "left by a run that was stopped, 1 lines are in it" in err
