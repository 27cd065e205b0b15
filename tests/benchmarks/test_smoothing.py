"""What smoothing gives: scores and steadiness of labels whose answer is known, and the command around them."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import smoothing
from benchmarks.smoothing import Drive, Shown, drive_record, steadiness
from edge_seg.spec import CAMVID_CLASSES, CAMVID_UNLABELLED
from train.ship import write_frames

ROAD, CAR = CAMVID_CLASSES.index("road"), CAMVID_CLASSES.index("car")


def passing(frames: int, step: int) -> tuple[np.ndarray, np.ndarray]:
    """A car on a road, both textured, that go `step` pixels to the right each frame: images, and true labels."""
    noise = np.random.default_rng(2).integers(0, 256, (96, 160 + 40, 3), np.uint8)
    world = cv2.GaussianBlur(noise, (0, 0), 2.0)
    labels = np.full((96, 200), ROAD, np.uint8)
    labels[30:70, 80:130] = CAR
    places = [40 - step * index for index in range(frames)]
    return (
        np.stack([world[:, place : place + 160] for place in places]),
        np.stack([labels[:, place : place + 160] for place in places]),
    )


def test_motion_is_flicker_as_reported_and_none_along_it() -> None:
    images, labels = passing(5, step=4)
    found = steadiness(labels, images)
    edges = 2 * 4 * 40 / (96 * 160)
    assert found["flicker"] == pytest.approx(edges, rel=0.01)
    assert found["along_motion"] is not None
    assert found["along_motion"] < edges / 4
    still = steadiness(np.repeat(labels[:1], 3, axis=0), np.repeat(images[:1], 3, axis=0))
    assert still == {"flicker": 0.0, "along_motion": 0.0}
    assert steadiness(labels[:1], images[:1]) == {"flicker": None, "along_motion": None}


def test_a_blink_is_seen_along_the_motion_and_gone_when_smoothed() -> None:
    images, truth = passing(6, step=2)
    labels = truth.copy()
    labels[3, 5:20, 5:20] = CAR
    large = np.stack([cv2.resize(one, (320, 192), interpolation=cv2.INTER_NEAREST) for one in truth])
    found = drive_record(Shown(images, labels, large), CAMVID_CLASSES, CAMVID_UNLABELLED, (1, 2), (1, 2))
    assert found["frames"] == 6
    said, held = found["strides"]["1"]["1"], found["strides"]["1"]["2"]
    # Over six frames, 225 of 96x160 pixels of one are wrong.
    wrong = 225 / (6 * 96 * 160 - (truth == CAR).sum())
    assert said["iou"]["road"] == pytest.approx(1.0 - wrong, abs=1e-4)
    assert said["iou"]["sky"] is None
    assert held["mean_iou"] > said["mean_iou"]
    assert found["true"]["along_motion"] < found["steadiness"]["2"]["along_motion"] + 1e-3
    assert found["steadiness"]["2"]["along_motion"] < found["steadiness"]["1"]["along_motion"] / 2
    # Of one frame in two, the one that blinked is not among them.
    assert found["strides"]["2"]["1"]["mean_iou"] == pytest.approx(1.0)


def test_a_class_that_a_drive_does_not_show_has_no_part_in_its_mean() -> None:
    """What smoothing hides of such a class would else count as many points of mean IoU."""
    images, truth = passing(4, step=2)
    labels = truth.copy()
    labels[2, 5, 5] = CAMVID_CLASSES.index("pavement")
    found = drive_record(Shown(images, labels, truth), CAMVID_CLASSES, CAMVID_UNLABELLED, (1,), (1,))
    said = found["strides"]["1"]["1"]
    assert said["iou"]["pavement"] == 0.0
    assert said["mean_iou"] == pytest.approx((said["iou"]["road"] + said["iou"]["car"]) / 2)


def test_the_command_writes_what_its_tables_say(monkeypatch, capsys, tiny_model, tmp_path) -> None:
    clip = tmp_path / "real.mp4"
    write_frames(clip, passing(4, step=2)[0], size=(96, 160), rate=25)
    monkeypatch.setattr(smoothing, "DRIVES", (Drive("a town", 12, "town", 9),))
    save = tmp_path / "docs" / "smoothing.json"
    call = ["smoothing", "--model", str(tiny_model()), "--clip", str(clip), "--limit", "3", "--save", str(save)]
    assert command.main([*call, "--holds", "1,3", "--strides", "1,2"]) == 0
    found = json.loads(save.read_text())
    (drive,), (real,) = found["drives"], found["clips"]
    assert (drive["name"], drive["frames"], real["frames"]) == ("a town", 3, 3)
    assert list(drive["strides"]) == ["1", "2"]
    assert list(drive["steadiness"]) == list(real["steadiness"]) == ["1", "3"]
    said = drive["strides"]["1"]["1"]["mean_iou"]
    assert 0 < said < 1
    out = capsys.readouterr().out
    assert f"| as the model says | {100 * said:.2f} |" in out
    assert f"| {100 * drive['true']['flicker']:.2f} / {100 * drive['true']['along_motion']:.2f} |  |" in out
    assert "Change of mean IoU by `--smooth 3`" in out
    assert "| `--stride 2` |" in out


@pytest.mark.parametrize(
    ("extra", "named", "code"),
    [
        (["--holds", "300"], "1 to 255", 2),
        (["--holds", "0"], "--holds", 2),
        (["--model", "nothing.onnx"], "nothing.onnx", 1),
        (["--save", "here.png"], "JSON", 2),
    ],
)
def test_what_cannot_be_is_one_line(
    extra: list[str], named: str, code: int, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    try:
        came = command.main(["smoothing", "--save", str(tmp_path / "s.json"), *extra])
    except SystemExit as ended:
        came = int(ended.code or 0)
    assert came == code
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert named in line
    assert not list(tmp_path.iterdir())
