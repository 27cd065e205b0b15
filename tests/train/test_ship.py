"""What ships is made by commands: the clip, and a run cut down to network and float16 weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from edge_seg.errors import ConfigurationError
from train.__main__ import main
from train.fcn8 import Fcn8Config, fcn8
from train.run import load_model, open_run, save_run
from train.ship import ship_run


def test_clip_has_the_frames_and_size_asked_for(tmp_path: Path) -> None:
    out = tmp_path / "drive.mp4"
    assert main(["clip", "--out", str(out), "--seconds", "0.4", "--rate", "10", "--size", "64x96"]) == 0
    with av.open(str(out)) as container:
        frames = [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]
        assert container.streams.video[0].average_rate == 10
    assert len(frames) == 4
    assert frames[0].shape == (64, 96, 3)
    assert frames[0].std() > 10


@pytest.mark.parametrize(
    "bad",
    [
        *(["--seconds", seconds] for seconds in ("0", "0.001", "nan", "inf", "-1")),
        *(["--size", size] for size in ("wide", "32x64", "64x63")),
        ["--style", "desert"],
        ["--out", "drive.txt"],
        ["--seed", "-1"],
    ],
    ids="=".join,
)
def test_clips_that_cannot_be_are_refused(tmp_path: Path, bad: list[str]) -> None:
    try:
        code = main(["clip", "--out", str(tmp_path / "drive.mp4"), *bad])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert not list(tmp_path.iterdir())


def test_shipped_run_is_half_the_bytes_and_tells_no_paths(tmp_path: Path) -> None:
    config = Fcn8Config(input_size=(32, 32), block_widths=(16, 16, 32, 32, 32), head_widths=(64, 64))
    model = fcn8(config)
    layer = model.get_layer("conv7")
    # Just below a power of two: float16 rounds it up into the next exponent.
    layer.set_weights([np.full_like(layer.get_weights()[0], 0.06249999), layer.get_weights()[1]])
    data = {"root": "/home/somebody/dataset1", "hash": "ab", "train": ["a", "b"], "val": ["c"]}
    run = save_run(tmp_path / "run", {"fcn8": config.to_dict(), "license": "own", "start": "wide", "data": data}, model)
    ship_run(run.folder, tmp_path / "shipped")
    shipped = open_run(tmp_path / "shipped")
    assert "somebody" not in (shipped.folder / "config.json").read_text()
    assert shipped.config["start"] == "wide"
    assert shipped.config["trained_on"] == {"train": 2, "val": 1}
    assert shipped.weights.stat().st_size < 0.65 * run.weights.stat().st_size
    for ours, theirs in zip(load_model(shipped).get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs.astype(np.float16).astype(np.float32))
    with pytest.raises(ConfigurationError, match="is the run itself"):
        ship_run(shipped.folder, shipped.folder)
    assert ship_run(run.folder, shipped.folder) == shipped.weights.stat().st_size  # in place of what was shipped before
    ship_run(shipped.folder, tmp_path / "again")
    assert open_run(tmp_path / "again").config["trained_on"] == {"train": 2, "val": 1}
    assert main(["ship", str(run.folder), "--out", str(tmp_path / "larger"), "--input-size", "64x96"]) == 0
    larger = open_run(tmp_path / "larger")
    assert (larger.fcn8.input_size, shipped.fcn8.input_size) == ((64, 96), (32, 32))
    assert load_model(larger).output_shape == (None, 64, 96, 12)
    other = save_run(tmp_path / "other", {"fcn8": config.to_dict(), "data": data}, model)
    kept = other.weights.read_bytes()
    with pytest.raises(ConfigurationError, match="holds a run, whose weights would be lost"):
        ship_run(run.folder, other.folder)
    assert other.weights.read_bytes() == kept


def test_poster_shows_the_frame_asked_for(tmp_path: Path, tiny_model: Callable[..., Path]) -> None:
    clip, out = tmp_path / "drive.mp4", tmp_path / "poster.png"
    assert main(["clip", "--out", str(clip), "--seconds", "0.3", "--rate", "10", "--size", "64x96"]) == 0
    assert main(["poster", str(tiny_model()), str(clip), "--out", str(out), "--frame", "2"]) == 0
    picture = cv2.imread(str(out))
    assert picture.shape[1] == 960
    assert picture[:320].std() > 10
    assert main(["poster", str(tiny_model()), str(clip), "--out", str(tmp_path / "no.png"), "--frame", "3"]) == 2
    assert not (tmp_path / "no.png").exists()
    assert main(["poster", "no.onnx", "no.mp4", "--out", str(tmp_path / "no.jpg")]) == 2
    with pytest.raises(SystemExit) as stop:  # known before the clip is read
        main(["poster", "no.onnx", "no.mp4", "--out", "no.png", "--frame", "-1"])
    assert stop.value.code == 2
