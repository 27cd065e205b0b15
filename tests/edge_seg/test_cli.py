"""The command line as a user meets it: results, refusals, exit codes, signals, cameras that hang."""

from __future__ import annotations

import errno
import itertools
import json
import os
import pkgutil
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_seg import Segmenter
from edge_seg import predict as predict_module
from edge_seg.cli import main, parse_arguments
from edge_seg.errors import MediaError
from edge_seg.mp4 import count_frames
from edge_seg.preprocess import resize_labels
from edge_seg.steady import Smoother
from tests.edge_seg.clips import audio_packets, make_clip, video_times, write_image

SLOW_CLI = Path(__file__).with_name("slow_cli.py")
NO_MODEL = "No model at missing.onnx. Export one: python -m export RUN --out missing.onnx"
posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and terminals")


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_video_gives_every_kind_of_result(predict: Any, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "drive.mp4", count=20, audio="aac")
    code, summary, _ = predict(clip, "--save", "overlay,mask,labels,jsonl", "--batch", "3")
    out = tmp_path / "out"
    assert code == summary["exit_code"] == 0
    assert video_times(out / "drive_overlay.mp4") == video_times(out / "drive_mask.mp4") == video_times(clip)
    pictures = sorted((out / "drive_labels").iterdir())
    assert [path.name for path in pictures] == [f"{number:06d}.png" for number in range(20)]
    rows = lines_of(out / "drive.jsonl")
    assert [row["index"] for row in rows] == list(range(20))
    assert [row["time_s"] for row in rows] == pytest.approx([number / 25 for number in range(20)])
    for row, path in zip(rows, pictures, strict=True):
        labels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
        assert (labels.shape, labels.dtype) == ((48, 64), np.uint8)
        shares = [np.mean(labels == number) for number in range(12)]
        assert list(row["share"].values()) == pytest.approx(shares, abs=1e-6)
    (source,) = summary["sources"]
    assert source["status"] == "done"
    assert source["frames"]["read"] == source["frames"]["segmented"] == 20
    assert set(source["outputs"]) == {"overlay", "mask", "labels", "jsonl"}
    assert "audio: aac copied" in source["notes"]
    assert set(source["stages"]) == {"decode", "resize", "inference", "paint", "write"}
    assert not list(out.glob("*.partial*"))


def test_labels_agree_with_the_library(predict: Any, tmp_path: Path, model: str) -> None:
    from edge_seg.images import read_image

    picture = write_image(tmp_path / "still.png", 99, (70, 90))
    assert predict(picture, "--save", "labels,overlay,jsonl")[0] == 0
    with Segmenter(model, device="cpu") as segmenter:
        result = segmenter.segment(read_image(picture))
    labels = cv2.imread(str(tmp_path / "out" / "still.png"), cv2.IMREAD_UNCHANGED)
    assert np.array_equal(labels, result.labels)
    assert np.array_equal(cv2.imread(str(tmp_path / "out" / "still_overlay.png")), result.plot(0.5))
    (row,) = lines_of(tmp_path / "out" / "still.jsonl")
    assert row["share"] == pytest.approx(result.class_share(), abs=1e-6)


def test_one_bad_file_does_not_stop_the_others(predict: Any, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    make_clip(folder / "a.mp4", count=5)
    (folder / "b.mp4").write_bytes(make_clip(tmp_path / "x.mp4").read_bytes()[:500])
    write_image(folder / "c.png", 1)
    (folder / "d.png").write_bytes(b"nothing of the kind")
    write_image(folder / "e.png", 2)
    code, summary, err = predict(folder, tmp_path / "gone.mp4")
    assert code == 1
    assert [source["status"] for source in summary["sources"]] == ["done", "failed", "done", "failed", "done", "failed"]
    for name in ("b.mp4", "d.png", "gone.mp4"):
        assert sum(f"{name}" in line for line in err.splitlines() if line.startswith("error:")) == 1
    names = sorted(path.name for path in (tmp_path / "out").glob("[!.]*"))
    assert names == ["a_overlay.mp4", "c_overlay.png", "e_overlay.png"]


def test_a_picture_that_cannot_be_written_does_not_stop_the_others(predict: Any, tmp_path: Path) -> None:
    pictures = [write_image(tmp_path / f"{number}.png", number) for number in range(4)]
    (tmp_path / "out" / "1_overlay.png" / "kept").mkdir(parents=True)
    code, summary, err = predict(*pictures, "--overwrite")
    assert code == 1
    assert [source["status"] for source in summary["sources"]] == ["done", "failed", "done", "done"]
    assert [line for line in err.splitlines() if line.startswith("error:")] == [
        f"error: {pictures[1]}: failed: {tmp_path / 'out' / '1_overlay.png'} cannot be written (is a directory)."
    ]


OPENCVS_OWN = cv2.error("Insufficient memory")
OPENCVS_OWN.code = cv2.Error.StsNoMem


@pytest.mark.parametrize(
    ("place", "error"),
    [
        ("edge_seg.images.check_complete", MemoryError()),
        ("edge_seg.images.cv2.imdecode", OPENCVS_OWN),
        ("edge_seg.outputs.Painter.overlay", MemoryError()),
        ("edge_seg.outputs.Painter.overlay", OPENCVS_OWN),
    ],
)
def test_a_picture_that_memory_does_not_hold_does_not_stop_the_others(
    predict: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, error: Exception
) -> None:
    module, _, name = place.rpartition(".")
    real, calls = getattr(pkgutil.resolve_name(module), name), []

    def full(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 2:
            raise error
        return real(*arguments)

    monkeypatch.setattr(place, full)
    pictures = [write_image(tmp_path / f"{number}.png", number) for number in range(3)]
    code, summary, err = predict(*pictures)
    assert code == 1
    assert [source["status"] for source in summary["sources"]] == ["done", "failed", "done"]
    (line,) = (line for line in err.splitlines() if line.startswith("error:"))
    assert line.startswith(f"error: {pictures[1]}: no memory is left to d")


@pytest.mark.parametrize("again", ["--overwrite", "--resume", None])
def test_a_name_too_long_for_a_result_does_not_stop_the_others(predict: Any, tmp_path: Path, again: str) -> None:
    clips = [make_clip(tmp_path / f"{name}.mp4", count=2) for name in ("n" * 247, "z")]
    (tmp_path / "out").mkdir()
    code, summary, err = predict(*clips, *([again] if again else []))
    assert (code, [source["status"] for source in summary["sources"]]) == (1, ["failed", "done"])
    assert "file name too long" in err
    # Last, since of many sources the first lines have scrolled away.
    assert err.splitlines()[-2:] == ["2 sources: 1 failed, 1 done", f"  failed: {clips[0]}"]


def test_a_fault_of_ours_in_one_source_does_not_stop_the_others(
    predict: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = [make_clip(tmp_path / f"{name}.mp4", count=2) for name in "abc"]
    opened = predict_module.open_item

    def breaking(item: Any, **options: Any) -> Any:
        if item.location == str(clips[1]):
            raise ZeroDivisionError("planted")
        return opened(item, **options)

    monkeypatch.setattr(predict_module, "open_item", breaking)
    code, summary, err = predict(*clips)
    assert (code, [source["status"] for source in summary["sources"]]) == (1, ["done", "failed", "done"])
    assert "ZeroDivisionError: planted" in err


def test_how_long_a_camera_is_waited_for_is_the_callers_to_say(predict: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[float, float]] = []

    def absent(item: Any, *, wait_s: float, give_up_s: float, **options: Any) -> Any:
        asked.append((wait_s, give_up_s))
        raise MediaError("camera 7: not there")

    monkeypatch.setattr(predict_module, "open_item", absent)
    assert [predict("7", *more)[0] for more in ((), ("--wait", "2.5", "--give-up", "9"))] == [1, 1]
    assert asked == [(0.0, 30.0), (2.5, 9.0)]


def test_a_camera_that_was_waited_for_until_ctrl_c_is_no_failure(predict: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(item: Any, *, stopped: Any, **options: Any) -> Any:
        if options["wait_s"]:
            signal.raise_signal(signal.SIGINT)
            assert stopped()
        raise MediaError("camera 7: not there")

    monkeypatch.setattr(predict_module, "open_item", absent)
    code, summary, err = predict("7", "8", "--wait", "60")
    assert (code, [source["status"] for source in summary["sources"]]) == (1, ["interrupted", "not started"])
    assert "stopped before it was there (camera 7: not there)" in err
    assert predict("7")[1]["sources"][0]["status"] == "failed"


def test_a_files_name_gives_a_terminal_no_orders(
    predict: Any, model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = make_clip(tmp_path / "a\x1b]0;owned\x07\x9b2J.mp4", count=2)
    assert main(["predict", str(clip), str(tmp_path / "\x1bc.mp4"), "-m", model, "-o", str(tmp_path / "text")]) == 1
    printed = capsys.readouterr()
    for text in printed:
        assert "?]0;owned??2J" in text
        assert all(letter.isprintable() or letter == "\n" for letter in text)
    assert "error: " in printed.err
    _, summary, _ = predict(clip)
    assert Path(summary["sources"][0]["outputs"]["overlay"]).is_file(), "to machines, names are what they are"


def test_a_result_that_cannot_be_begun_leaves_no_empty_files(predict: Any, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", count=5)
    in_the_way = tmp_path / "out" / "a_labels.partial"
    in_the_way.parent.mkdir()
    in_the_way.write_text("a file where a folder is wanted")
    code, summary, _ = predict(clip, "--save", "overlay,jsonl,labels", "--overwrite")
    assert (code, summary["sources"][0]["status"]) == (1, "failed")
    assert list(in_the_way.parent.iterdir()) == [in_the_way]


def test_a_file_cut_short_gives_what_it_has_and_exit_code_1(predict: Any, tmp_path: Path) -> None:
    whole = make_clip(tmp_path / "x.mp4", count=100, size=(96, 128), container_options={"movflags": "faststart"})
    data = whole.read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) * 2 // 3])
    code, summary, err = predict(tmp_path / "cut.mp4")
    (source,) = summary["sources"]
    assert (code, source["status"]) == (1, "incomplete")
    assert "ended at" in err
    assert "of 4.00 s" in err
    frames = source["frames"]
    assert frames["read"] == frames["segmented"] + frames["failed"]
    assert count_frames(tmp_path / "out" / "cut_overlay.mp4") == frames["segmented"]


def test_nothing_is_overwritten_unless_asked(predict: Any, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", count=5)
    assert predict(clip)[0] == 0
    result = tmp_path / "out" / "a_overlay.mp4"
    before = result.stat().st_mtime_ns
    code, summary, err = predict(clip)
    assert (code, list(summary)) == (2, ["error"])
    assert "a_overlay.mp4" in err
    assert "--overwrite" in err
    code, summary, _ = predict(clip, "--resume")
    assert (code, summary["sources"][0]["status"]) == (0, "already there")
    assert result.stat().st_mtime_ns == before
    assert predict(clip, "--overwrite")[0] == 0
    assert result.stat().st_mtime_ns > before


@pytest.mark.parametrize("again", ["--overwrite", "--resume"])
@pytest.mark.parametrize("name", ["drive_overlay.mp4", "drive_overlay.partial.mp4"])
def test_a_link_in_place_of_a_result_is_named_and_never_written_through(
    predict: Any, tmp_path: Path, name: str, again: str
) -> None:
    """It was called a result that another run had made meanwhile."""
    clip = make_clip(tmp_path / "drive.mp4", count=2)
    link = tmp_path / "out" / name
    link.parent.mkdir()
    link.symlink_to(tmp_path / "nowhere.mp4")
    code, _, err = predict(clip)
    assert code == 2
    assert f"error: Already there: {link}. --resume" in err
    assert predict(clip, again)[0] == 0
    assert not (tmp_path / "nowhere.mp4").exists()
    assert not (tmp_path / "out" / "drive_overlay.mp4").is_symlink()


def test_standard_input_may_stand_behind_an_option() -> None:
    options = parse_arguments(["predict", "a.mp4", "--stride", "2", "-", "b.mp4"])
    assert options.source == ["a.mp4", "-", "b.mp4"]
    with pytest.raises(SystemExit):
        parse_arguments(["predict", "a.mp4", "--stride", "2", "-q"])


def test_frames_between_those_of_a_stride_are_not_drawn_or_counted_again(
    predict: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edge_seg import writers

    resized = []
    monkeypatch.setattr(writers, "resize_labels", lambda labels, size: resized.append(1) or resize_labels(labels, size))
    clip = make_clip(tmp_path / "a.mp4", count=10)
    assert predict(clip, "--stride", "5", "--save", "labels,jsonl")[0] == 0
    assert len(resized) == 2 * 2
    pictures = [cv2.imread(str(path), 0) for path in sorted((tmp_path / "out" / "a_labels").iterdir())]
    assert len(pictures) == 10
    assert all(np.array_equal(pictures[index], pictures[index // 5 * 5]) for index in range(10))


def test_stride_keeps_every_frame_and_limit_stops(predict: Any, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", count=20)
    code, summary, _ = predict(clip, "--stride", "3", "--limit", "11", "--save", "overlay,jsonl")
    frames = summary["sources"][0]["frames"]
    assert code == 0
    assert (frames["read"], frames["segmented"], frames["skipped"]) == (11, 4, 7)
    assert video_times(tmp_path / "out" / "a_overlay.mp4") == video_times(clip)[:11]
    rows = lines_of(tmp_path / "out" / "a.jsonl")
    shares = [row["share"] for row in rows]
    assert [row.get("labels_of") for row in rows] == [None, 0, 0, None, 3, 3, None, 6, 6, None, 9]
    assert shares[0] == shares[1] == shares[2]


@pytest.mark.parametrize(("limit", "sound_s"), [("25", 1.0), ("100", 2.0)])
def test_sound_ends_with_the_frames_that_a_limit_leaves(
    predict: Any, tmp_path: Path, limit: str, sound_s: float
) -> None:
    clip = make_clip(tmp_path / "a.mp4", count=50, audio="aac")
    assert predict(clip, "--limit", limit)[0] == 0
    last_s = float(audio_packets(tmp_path / "out" / "a_overlay.mp4")[-1][0])
    assert last_s == pytest.approx(sound_s, abs=0.06)


def saved_labels(folder: Path) -> list[np.ndarray]:
    return [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in sorted(folder.iterdir())]


def flicker_of(labels: list[np.ndarray]) -> float:
    return float(np.mean([np.mean(one != other) for one, other in itertools.pairwise(labels)]))


def test_flicker_is_reported_and_is_that_of_the_labels(predict: Any, tmp_path: Path) -> None:
    # A clip of the model's own size: what is saved is what was compared.
    clip = make_clip(tmp_path / "a.mp4", count=8, size=(32, 64))
    still = write_image(tmp_path / "still.png", 1)
    code, summary, err = predict(clip, still, "--save", "labels", "--batch", "3")
    labels = saved_labels(tmp_path / "out" / "a_labels")
    flicker = flicker_of(labels)
    assert code == 0
    assert flicker > 0.01
    assert [source["flicker"] for source in summary["sources"]] == [pytest.approx(flicker), None]
    assert summary["sources"][0]["raw_flicker"] == pytest.approx(flicker)
    assert "smoothing" not in err
    assert f"a.mp4: flicker {100 * flicker:.1f} % of the pixels" in err


@pytest.mark.parametrize(("batch", "stride"), [(1, 1), (4, 2)])
def test_smoothing_begins_anew_with_each_source(predict: Any, tmp_path: Path, batch: int, stride: int) -> None:
    from edge_seg.sources import open_source

    # Clips of the model's own size: what is saved is what was smoothed.
    clips = [make_clip(tmp_path / f"{name}.mp4", count=12, size=(32, 64), first=5) for name in "ab"]
    options = ["--save", "labels", "--stride", stride]
    assert predict(*clips, *options, out=tmp_path / "raw")[0] == 0
    code, summary, err = predict(*clips, *options, "--smooth", 3, "--batch", batch)
    assert code == 0
    for clip in clips:
        raw = saved_labels(tmp_path / "raw" / f"{clip.stem}_labels")
        smoother = Smoother(3)
        with open_source(clip) as source:
            expected = [smoother(raw[f.index], f.image) for f in source if f.index % stride == 0]
        shown = saved_labels(tmp_path / "out" / f"{clip.stem}_labels")
        assert len(shown) == 12
        assert all(np.array_equal(labels, expected[index // stride]) for index, labels in enumerate(shown))
        assert any(not np.array_equal(*pair) for pair in zip(raw, shown, strict=True))
        source = next(source for source in summary["sources"] if source["source"] == str(clip))
        assert source["flicker"] == pytest.approx(flicker_of(shown[::stride]))
        assert source["raw_flicker"] == pytest.approx(flicker_of(raw[::stride]))
        assert source["stages"]["smooth"]["count"] == source["frames"]["segmented"]
        assert f"({100 * source['raw_flicker']:.1f} % before smoothing)" in err


def test_a_batch_that_no_longer_fits_is_one_line_and_no_frame_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from edge_seg import bundled_model
    from edge_seg.fake import FakeSession

    class Small(Segmenter):
        def __init__(self, model: object, *, batch_size: int = 1, **options: object) -> None:
            super().__init__(FakeSession(memory_frames=2), batch_size=batch_size)

    monkeypatch.setattr("edge_seg.predict_command.Segmenter", Small)
    clip = make_clip(tmp_path / "a.mp4", count=11)
    out = tmp_path / "out"
    assert main(["predict", str(clip), "-o", str(out), "--batch", "4", "-m", str(bundled_model())]) == 0
    said = capsys.readouterr().err.splitlines()
    assert "warning: fake has no memory for a batch of 4; try a smaller one; going on with 2 at a time" in said
    assert not any("RuntimeWarning" in line for line in said)
    assert count_frames(out / "a_overlay.mp4") == 11


def test_pictures_each_get_their_own_labels(predict: Any, tmp_path: Path) -> None:
    for number in range(5):
        write_image(tmp_path / f"p{number}.png", 50 * number)
    code, summary, _ = predict(
        str(tmp_path / "p*.png"), "--stride", "3", "--limit", "2", "--batch", "2", "--smooth", "9", "--save", "labels"
    )
    assert code == 0
    assert [source["status"] for source in summary["sources"]] == ["done"] * 5
    labels = [(tmp_path / "out" / f"p{number}.png").read_bytes() for number in range(5)]
    assert len(set(labels)) == 5


def test_a_single_result_may_be_named(predict: Any, tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", count=5)
    assert predict(clip, "--save", "overlay,jsonl", out=tmp_path / "night.mp4")[0] == 0
    assert count_frames(tmp_path / "night.mp4") == len(lines_of(tmp_path / "night.jsonl")) == 5


def test_the_default_folder_and_text_output(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_clip(tmp_path / "a.mp4", count=5, size=(47, 63))
    assert main(["predict", "a.mp4", "-m", model, "--device", "cpu"]) == 0
    printed = capsys.readouterr()
    assert printed.out == f"a.mp4 -> {Path('edge_seg_out/a_overlay.mp4')}\n"
    assert "padded by 1 column and 1 row" in printed.err
    for stage in ("decode", "resize", "inference", "paint", "write"):
        assert sum(line.startswith(stage) for line in printed.err.splitlines()) == 1
    assert "frames/s: 5 frames" in printed.err
    assert "\r" not in printed.err, "no bar where there is no terminal"


@pytest.mark.parametrize(
    ("line", "sources"),
    [
        ("a.mp4 b.mp4 -o out", "a.mp4 b.mp4"),
        ("-o out a.mp4 b.mp4", "a.mp4 b.mp4"),
        ("a.mp4 -o out b.mp4", "a.mp4 b.mp4"),
        ("a.mp4 -o out b.mp4 --batch 2 c.mp4 d.mp4", "a.mp4 b.mp4 c.mp4 d.mp4"),
        ("a.mp4 -o out b.mp4 -- -c.mp4 --json", "a.mp4 b.mp4 -c.mp4 --json"),
        ("-o out -- -a.mp4", "-a.mp4"),
    ],
)
def test_sources_may_stand_anywhere(line: str, sources: str) -> None:
    options = parse_arguments(["predict", *line.split()])
    assert (options.source, options.out, options.json) == (sources.split(), "out", False)


def test_a_source_after_an_option_is_processed(predict: Any, tmp_path: Path) -> None:
    clips = [make_clip(tmp_path / f"{name}.mp4", count=3) for name in "ab"]
    code, summary, _ = predict(clips[0], "--save", "jsonl", clips[1])
    assert (code, [Path(source["source"]).name for source in summary["sources"]]) == (0, ["a.mp4", "b.mp4"])


@pytest.mark.parametrize(
    "arguments",
    [
        ["predict"],
        ["predict", "a.mp4", "-o", "out", "b.mp4", "--bogus"],
        ["predict", "a.mp4", "--bogus", "b.mp4"],
        ["verify", "a.onnx", "b.onnx"],
        ["predict", "a.mp4", "--stride", "0"],
        ["predict", "a.mp4", "--smooth", "0"],
        ["predict", "a.mp4", "--smooth", "256"],
        ["predict", "a.mp4", "--alpha", "1.5"],
        ["predict", "a.mp4", "--alpha", "nan"],
        ["predict", "a.mp4", "--resume", "--overwrite"],
        ["predict", "a.mp4", "--save", "film"],
        ["predict", "a.mp4", "--crf", "99"],
        ["predict", "a.mp4", "--preset", "hasty"],
        ["predict", "a.mp4", "--codec", "mpeg4"],
        ["predict", "ftp://host/a.mp4"],
        ["nonsense"],
        [],
    ],
)
def test_wrong_calls_exit_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code = main(arguments)
    except SystemExit as stop:
        code = int(stop.code or 0)
    assert code == 2
    assert "error: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["info", "missing.onnx"], 1),
        (["verify", "missing.onnx"], 1),
        (["predict", "a.mp4", "-m", "missing.onnx"], 1),
        (["checks"], 1),
        (["predict", "ftp://host/a.mp4"], 2),
        (["predict", "a.mp4", "--alpha", "nan"], 2),
        (["predict", "a.mp4", "--nonsense"], 2),
        (["nonsense"], 2),
        ([], 2),
    ],
)
def test_an_error_is_one_object_too_where_json_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], code: int
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("edge_seg.checks.collect_checks", interrupted)
    try:
        ended = main([*arguments, "--json"])
    except SystemExit as stop:
        ended = int(stop.code or 0)
    printed = capsys.readouterr()
    assert ended == code
    assert printed.err == f"error: {json.loads(printed.out)['error']}\n"


def test_an_error_that_cannot_be_printed_is_told_by_the_exit_code_and_a_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "edge_seg", "info", "missing.onnx", "--json"]
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as gone:
        done = subprocess.run(command, stdout=gone, stderr=subprocess.PIPE, text=True, env=child_env(), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (1, f"error: {NO_MODEL}\n")


def test_a_reader_of_errors_that_went_away_changes_no_exit_code(tmp_path: Path) -> None:
    env = {name: value for name, value in child_env().items() if name != "PYTHONUNBUFFERED"}
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as gone:
        command = [sys.executable, "-m", "edge_seg", "info", "missing.onnx"]
        assert subprocess.run(command, stdout=subprocess.DEVNULL, stderr=gone, env=env, cwd=tmp_path).returncode == 1


def test_a_model_that_is_none_exits_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = make_clip(tmp_path / "a.mp4", count=2)
    (tmp_path / "m.onnx").write_text("no model")
    assert main(["predict", str(clip), "-m", str(tmp_path / "m.onnx"), "-o", str(tmp_path / "o")]) == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("error: ")
    assert "Traceback" not in printed.err
    assert not (tmp_path / "o").exists()


def test_info_shows_the_terms(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", model]) == 0
    text = capsys.readouterr().out
    assert "Test terms: do as you like." in text
    assert "(N, 32, 64, 3) BGR" in text
    assert main(["info", model, "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["license"] == "Test terms: do as you like."
    assert len(facts["classes"]) == len(facts["palette_rgb"]) == 12


def test_verify_passes_and_can_fail(tiny_model: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(tiny_model(golden="right")), "--device", "cpu"]) == 0
    assert "cpu: passed" in capsys.readouterr().out
    assert main(["verify", str(tiny_model(golden="wrong")), "--device", "cpu", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["passed"] is False


def test_checks(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["checks", "--json"])
    facts = json.loads(capsys.readouterr().out)
    assert code == (1 if facts["problems"] else 0)
    assert facts["versions"]["av"]


def test_demo_makes_its_overlay_anew_each_time(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = make_clip(tmp_path / "street.mp4", count=6)
    monkeypatch.setattr("edge_seg.commands.bundled_clip", lambda: clip)
    asked: list[str] = []

    def bundled(name: str = "best") -> Path:
        asked.append(name)
        return Path(model)

    monkeypatch.setattr("edge_seg.arguments.bundled_model", bundled)
    monkeypatch.chdir(tmp_path)
    for more in ([], ["--model", "fast"]):
        assert main(["demo", "--device", "cpu", *more]) == 0
        printed = capsys.readouterr()
        assert "street_overlay.mp4" in printed.out
        assert "frames/s: 6 frames" in printed.err
    assert count_frames(tmp_path / "edge_seg_out" / "street_overlay.mp4") == 6
    assert main(["demo", "--device", "cpu", "--out=-new"]) == 0
    assert count_frames(tmp_path / "-new" / "street_overlay.mp4") == 6
    assert asked == ["best", "fast", "best"]


@pytest.mark.parametrize(
    ("names", "overlapped", "batch"),
    [
        ("a.mp4", True, 4),
        ("a.png", False, 4),
        ("a.png b.png", True, 4),
        ("tcp://127.0.0.1:9", False, 1),
        ("a.mp4 tcp://127.0.0.1:9", False, 1),
    ],
)
def test_files_are_segmented_two_runs_at_once_and_a_lone_picture_and_live_frames_one_by_one(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, names: str, overlapped: bool, batch: int
) -> None:
    asked = []

    class Watched(Segmenter):
        def __init__(self, *args: Any, **options: Any) -> None:
            asked.append((options["overlapped"], options["batch_size"]))
            super().__init__(*args, **options)

    monkeypatch.setattr("edge_seg.predict_command.Segmenter", Watched)
    monkeypatch.chdir(tmp_path)
    for name in names.split():
        path = Path(name)
        if path.suffix == ".mp4":
            make_clip(path, count=2)
        elif path.suffix == ".png":
            write_image(path, 1)
    code = main(["predict", *names.split(), "-o", "out/", "-m", model, "--device", "cpu", "--batch", "4"])
    assert code == int("tcp:" in names), "nobody listens at port 9"
    assert asked == [(overlapped, batch)]


def test_a_file_of_a_bundled_models_name_is_that_file(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("edge_seg.arguments.bundled_model", lambda name="best": pytest.fail(name))
    shutil.copy(model, tmp_path / "fast")
    assert main(["info", "fast", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["file"].endswith("fast")


def test_help_is_quick_and_says_every_default() -> None:
    child = subprocess.run([sys.executable, "-m", "edge_seg", "predict", "--help"], capture_output=True, text=True)
    assert child.returncode == 0
    options = [part for part in child.stdout.split("\n  -")[1:] if not part.startswith("h,")]
    assert len(options) >= 15
    assert all("(default: " in " ".join(part.split()) for part in options)
    loaded = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys, edge_seg.cli; print([m for m in ('numpy', 'cv2', 'av') if m in sys.modules])",
        ],
        capture_output=True,
        text=True,
    )
    assert loaded.stdout == "[]\n"


def child_env() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(SLOW_CLI.parents[2])}


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Runs `slow_cli.py` in a child process; what still runs when the test ends is killed."""
    children: list[subprocess.Popen[str]] = []

    def run(*arguments: object, pause_ms: int = 40, **options: Any) -> subprocess.Popen[str]:
        command = [sys.executable, str(SLOW_CLI), str(pause_ms), *map(str, arguments)]
        options.setdefault("stderr", subprocess.PIPE)
        children.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=child_env(), **options))
        return children[-1]

    yield run
    for child in children:
        child.kill()
        child.communicate()


@pytest.fixture
def long_clip(tmp_path: Path) -> Path:
    return make_clip(tmp_path / "long.mp4", count=600, size=(48, 64))


@posix
@pytest.mark.parametrize("columns", [120, 40])
def test_the_bar_is_drawn_on_a_terminal_within_its_width(
    start: Any, long_clip: Path, tmp_path: Path, columns: int
) -> None:
    import fcntl
    import pty
    import struct
    import termios

    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    child = start(long_clip, "-o", tmp_path / "out", "--limit", 60, pause_ms=10, stderr=slave)
    os.close(slave)
    seen = b""
    while True:
        try:
            data = os.read(master, 4096)
        except OSError:
            break
        if not data:
            break
        seen += data
    child.wait(timeout=10)
    os.close(master)
    assert child.returncode == 0
    assert b"\r\x1b[K" in seen
    bars = [line.partition("\r")[0] for line in seen.decode().split("\r\x1b[K") if "/60 " in line]
    assert bars
    assert all("frames/s" in line and len(line) < columns for line in bars)
    assert any("####" in line for line in bars) is (columns == 120)


CANARY = "kanarienvogel-7"


@pytest.fixture
def camera_server() -> Iterator[Callable[[str], int]]:
    """Starts servers on loopback that behave badly in one of several ways; each stops by itself."""
    sockets: list[socket.socket] = []

    def serve(manner: str) -> int:
        server = socket.create_server(("127.0.0.1", 0))
        server.settimeout(20)
        sockets.append(server)
        threading.Thread(target=misbehave, args=(server, manner), daemon=True).start()
        return int(server.getsockname()[1])

    yield serve
    for server in sockets:
        server.close()


def misbehave(server: socket.socket, manner: str) -> None:
    silent = []
    try:
        while True:
            connection, _ = server.accept()
            connection.settimeout(20)
            request = connection.recv(4096).decode(errors="replace")
            sequence = next((line.split(":")[1].strip() for line in request.splitlines() if "CSeq" in line), "1")
            if manner == "reset":
                connection.close()
            elif manner == "401":
                connection.sendall(f"RTSP/1.0 401 Unauthorized\r\nCSeq: {sequence}\r\n\r\n".encode())
                connection.close()
            elif manner == "half":
                connection.sendall(b"RTSP/1.0 200 OK\r\nCSe")
            # Kept open, and silent from here on.
            silent.append(connection)
    except OSError:
        return


@pytest.mark.parametrize("manner", ["stall", "reset", "half", "401"])
def test_a_camera_that_misbehaves_ends_in_an_error_without_its_password(
    camera_server: Callable[[str], int], tmp_path: Path, manner: str
) -> None:
    port = camera_server(manner)
    address = f"rtsp://admin:{CANARY}@127.0.0.1:{port}/live"
    # libav's own log lines are let through at their loudest, to prove that they are redacted too.
    script = (
        "import logging, sys, av\n"
        "logging.basicConfig(level=1); logging.getLogger('libav').setLevel(1)\n"
        "av.logging.set_level(av.logging.TRACE)\n"
        "import runpy, edge_seg.opening; edge_seg.opening.OPEN_TIMEOUT_S = 1.5\n"
        f"sys.argv = ['slow_cli.py', '1', {address!r}, '-o', {str(tmp_path / 'out')!r}, '--give-up', '2']\n"
        f"runpy.run_path({str(SLOW_CLI)!r}, run_name='__main__')\n"
    )
    started = time.monotonic()
    child = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, env=child_env())
    assert time.monotonic() - started < 30
    assert child.returncode == 1, child.stderr
    assert f"error: rtsp://***@127.0.0.1:{port}/live" in child.stderr
    assert CANARY not in child.stdout + child.stderr
    assert "libav" in child.stderr, "the log lines were there to be redacted"
    if manner == "401":
        assert "refused the user name or password" in child.stderr


@pytest.mark.data
@pytest.mark.slow
def test_every_real_clip_keeps_its_frames(predict: Any, tmp_path: Path) -> None:
    folder = os.environ.get("EDGE_SEG_DATA")
    if not folder:
        pytest.skip("EDGE_SEG_DATA is not set")
    code, summary, err = predict(Path(folder) / "videos")
    by_name = {Path(source["source"]).name: source for source in summary["sources"]}
    assert code == 1
    assert by_name.pop("broken_no_moov.mp4")["status"] == "failed"
    assert "no moov atom" in err
    assert len(by_name) >= 9
    for name, source in by_name.items():
        assert source["status"] == "done", name
        clip = Path(folder) / "videos" / name
        result = Path(source["outputs"]["overlay"])
        given, got = video_times(clip), video_times(result)
        assert len(given) == len(got) == source["frames"]["segmented"], name
        # MPEG program streams have a clock without a zero; the others keep theirs.
        shift = given[0] - got[0]
        assert shift == 0 or name.endswith(".avi")
        assert [time - shift for time in given] == got, name


def test_a_folder_that_cannot_be_read_is_named_and_the_rest_is_done(
    predict: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    locked, clip = tmp_path / "locked", make_clip(tmp_path / "drive.mp4", count=4)
    locked.mkdir()
    real = Path.iterdir

    def iterdir(path: Path) -> Any:
        if path == locked:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    monkeypatch.setattr(os, "access", lambda path, mode: path != locked)
    code, summary, err = predict(locked, clip)
    assert code == 1
    assert [source["status"] for source in summary["sources"]] == ["failed", "done"]
    assert f"error: {locked}: the folder cannot be read (permission denied)." in err


def test_times_are_a_frames_whatever_is_saved_of_it(predict: Any, tmp_path: Path) -> None:
    clip, still = make_clip(tmp_path / "drive.mp4", count=6, size=(47, 64)), write_image(tmp_path / "still.png", 1)
    code, summary, _ = predict(clip, still, "--save", "overlay,mask,labels,jsonl")
    assert code == 0
    for source, frames in zip(summary["sources"], (6, 1), strict=True):
        assert {source["stages"][stage]["count"] for stage in ("paint", "write")} == {frames}
    assert summary["sources"][0]["notes"] == ["padded by 1 row to an even size, as H.264's 4:2:0 needs"]


@pytest.mark.parametrize(
    ("kind", "name", "content"), [("jsonl", "drive.jsonl", "lines"), ("labels", "drive_labels", "pictures")]
)
def test_what_has_its_name_already_is_not_called_lost(
    predict: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, name: str, content: str
) -> None:
    def half_published(made: Path, final: Path, **options: Any) -> None:
        made.rename(final)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("edge_seg.writers.publish", half_published)
    code, _, err = predict(make_clip(tmp_path / "drive.mp4", count=3), "--save", kind)
    result = tmp_path / "out" / name
    assert code == 1
    assert f"all 3 {content} are in {result}, but" in err
    assert "(input/output error)" in err
    assert len(lines_of(result) if result.is_file() else list(result.iterdir())) == 3


def test_what_keeps_a_result_from_its_name_is_named(
    predict: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(path: Path, line: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("edge_seg.records.append_line", locked)
    code, _, err = predict(make_clip(tmp_path / "drive.mp4", count=1))
    assert code == 1
    assert f"({tmp_path / 'out' / '.edge_seg.jsonl'}: permission denied)." in err
    assert "space" not in err
    assert "1 frame read: 1 segmented" in err


def test_the_time_of_inference_says_how_many_run_at_once(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two batches that share the cores take twice as long each, and no longer together."""
    with Segmenter(model, device="cpu", overlapped=True) as segmenter:
        together = segmenter.runs_at_once
    clip = make_clip(tmp_path / "drive.mp4", count=4)
    assert main(["predict", str(clip), "-m", model, "--device", "cpu", "-o", str(tmp_path / "out")]) == 0
    (line,) = (line for line in capsys.readouterr().err.splitlines() if line.startswith("inference"))
    assert line.endswith(f", {together} at once") == (together > 1)
