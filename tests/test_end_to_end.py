"""From images to an overlay video: fit, evaluate, export, verify and predict, each by its own command."""

from __future__ import annotations

import json
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from edge_seg.cli import main as edge_seg
from export.__main__ import main as export
from train.__main__ import main as train
from train.scenes import Scene, clip_frames, render

SIZE = (64, 96)


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Ten rendered scenes for training and two for testing, in the dataset1 layout; each differs from the others."""
    for split, numbers in (("train", range(10)), ("test", range(10, 12))):
        folders = [tmp_path / "data" / f"{kind}_prepped_{split}" for kind in ("images", "annotations")]
        for folder in folders:
            folder.mkdir(parents=True)
        for number in numbers:
            # To plan a street takes most of the time, so each gives several images; those tested on are of another.
            street, moment = divmod(number, 5)
            scene = Scene.from_seed(street)
            pair = render(scene, time_s=3.0 * moment, height=SIZE[0], width=SIZE[1])
            for folder, picture in zip(folders, pair, strict=True):
                cv2.imwrite(str(folder / f"scene_{number:03}.png"), picture)
    return tmp_path / "data"


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Eight frames of a rendered drive."""
    path = tmp_path / "drive.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width = SIZE
        for frame, _ in clip_frames(Scene.from_seed(20), seconds=0.8, rate=10, height=SIZE[0], width=SIZE[1]):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "bgr24")))
        container.mux(stream.encode(None))
    return path


@pytest.mark.slow
def test_images_become_an_overlay_video(
    dataset: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, model, out = tmp_path / "run", tmp_path / "model.onnx", tmp_path / "out"
    widths = ["--block-widths", "8,8,8,8,8", "--head-widths", "8,8", "--input-size", "64x96", "--crop-size", "64x96"]
    options = ["--epochs", "2", "--batch-size", "4", "--rendered-share", "0", "--policy", "float32"]
    assert train(["fit", str(dataset), "--out", str(run), *widths, *options]) == 0
    assert train(["evaluate", str(run), str(dataset), "--split", "test"]) == 0
    assert export([str(run), "--out", str(model), "--golden", "validation", "--golden-frames", "1"]) == 0
    assert edge_seg(["verify", str(model), "--device", "cpu"]) == 0
    capsys.readouterr()
    call = ["predict", str(clip), "-m", str(model), "-o", str(out), "--save", "overlay,labels,jsonl", "--json"]
    assert edge_seg([*call, "--device", "cpu", "--batch", "3"]) == 0
    (source,) = json.loads(capsys.readouterr().out)["sources"]
    assert (source["frames"]["read"], source["frames"]["segmented"]) == (8, 8)

    # The file labels the test images as the run that it came from does.
    assert train(["evaluate", str(model), str(dataset), "--split", "test", "--out", str(tmp_path / "onnx")]) == 0
    found, expected = (
        np.array(json.loads((folder / "summary.json").read_text())["results"][0]["confusion"])
        for folder in (tmp_path / "onnx", run / "evaluate-test")
    )
    assert np.abs(found - expected).sum() / 2 <= 2e-4 * expected.sum()
    with av.open(str(out / "drive_overlay.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 8
    shares = [json.loads(line)["share"] for line in (out / "drive.jsonl").read_text().splitlines()]
    assert [sum(share.values()) for share in shares] == pytest.approx([1.0] * 8, abs=1e-4)
    assert len(list((out / "drive_labels").glob("*.png"))) == 8
