"""`inspect` on small datasets: what it counts, draws, prints and returns."""

import argparse
import csv
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edge_seg.errors import ConfigurationError, DatasetError
from edge_seg.spec import CAMVID_CLASSES, CAMVID_PALETTE_RGB
from tests.train.test_preflight import FAULTS, write_good
from train.__main__ import main
from train.dataset import find_samples, read_mask
from train.inspect import add_inspect_arguments, run_inspect

PICTURES = ("classes.png", "masks.png", "samples.png")


def inspect(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    add_inspect_arguments(parser)
    return run_inspect(parser.parse_args([str(argument) for argument in arguments]))


def test_the_table_holds_what_is_in_the_masks(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    root, out = make_dataset(count=5), tmp_path / "new" / "out"
    assert inspect(root, "--out", out) == 0
    masks = [read_mask(sample.mask) for sample in find_samples(root)]
    pixels = sum(np.bincount(mask.ravel(), minlength=12) for mask in masks)
    with open(out / "classes.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == list(CAMVID_CLASSES)
    assert [int(row["id"]) for row in rows] == list(range(12))
    assert [int(row["pixels"]) for row in rows] == pixels.tolist()
    assert [float(row["share"]) for row in rows] == pytest.approx(pixels / pixels.sum(), abs=1e-6)
    assert [int(row["images"]) for row in rows] == [sum((mask == i).any() for mask in masks) for i in range(12)]


@pytest.mark.filterwarnings("ignore:Glyph")
@pytest.mark.parametrize(
    "name", [b"stra\xdfe", b"$x_{$", "\u9053\u8def".encode()], ids=["latin-1", "formula", "no glyph"]
)
def test_whatever_a_file_is_called_it_is_drawn(make_dataset: Callable[..., Path], tmp_path: Path, name: bytes) -> None:
    root = make_dataset(count=1)
    for path in list(root.glob("*/*.png")):
        try:
            path.rename(path.with_name(f"{os.fsdecode(name)}.png"))
        except OSError:
            pytest.skip("this file system takes UTF-8 names alone")
    assert main(["inspect", str(root), "--out", str(tmp_path)]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["classes.csv", *PICTURES]


def test_a_seed_below_zero_is_a_wrong_call(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["inspect", str(tmp_path), "--out", str(tmp_path), "--seed", "-1"])
    assert stop.value.code == 2
    assert "expected a whole number, 0 or above" in capsys.readouterr().err


def test_a_class_may_be_called_anything(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    names = ",".join(["$x_{$", *"bcdefghijkl"])
    assert main(["inspect", str(make_dataset(count=1)), "--out", str(tmp_path), "--classes", names]) == 0


def test_the_pictures_show_the_class_colours(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    root = make_dataset(count=4)
    assert inspect(root, "--out", tmp_path, "--samples", 2) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["classes.csv", *PICTURES]
    present = np.unique(np.concatenate([read_mask(sample.mask).ravel() for sample in find_samples(root)]))
    for name in ("classes.png", "masks.png", "samples.png"):
        picture = cv2.imread(str(tmp_path / name))[:, :, ::-1]
        missing = [CAMVID_CLASSES[i] for i in present if not (picture == CAMVID_PALETTE_RGB[i]).all(axis=2).any()]
        assert not missing
    grown = tmp_path / "three"
    assert inspect(root, "--out", grown, "--samples", 3) == 0
    assert cv2.imread(str(grown / "samples.png")).shape[0] > cv2.imread(str(tmp_path / "samples.png")).shape[0] + 100


def test_the_random_samples_follow_the_seed(
    make_dataset: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_dataset(count=9)
    # The other two pictures take time and have no part in this.
    for name in ("class_masks", "class_share_plot"):
        monkeypatch.setattr(f"train.pictures.{name}", lambda *_, **__: None)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        inspect(root, "--out", tmp_path / name, "--seed", seed, "--samples", 1)
    first, same, other = ((tmp_path / name / "samples.png").read_bytes() for name in "abc")
    assert first == same
    assert first != other


def test_plain_folders_and_other_classes(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    root = make_dataset(count=2)
    folders = ("--images", root / "images_prepped_train", "--masks", root / "annotations_prepped_train")
    names = ",".join(f"kind{i}" for i in range(12))
    assert inspect(*folders, "--out", tmp_path, "--classes", names, "--unlabelled-class", "kind3") == 0
    with open(tmp_path / "classes.csv", newline="") as file:
        assert [row["class"] for row in csv.DictReader(file)] == names.split(",")


def test_bad_files_are_all_named_and_the_rest_still_drawn(
    make_dataset: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_dataset(count=4)
    cut, high = root / "images_prepped_train/drive_001.png", root / "annotations_prepped_train/drive_002.png"
    cut.write_bytes(cut.read_bytes()[:-20])
    cv2.imwrite(str(high), np.full((48, 64), 77, np.uint8))
    assert inspect(root, "--out", tmp_path) == 1
    printed = capsys.readouterr()
    assert "error: 2 problem(s) among 4 images and 4 masks" in printed.err
    assert [line for line in printed.err.splitlines() if str(cut) in line and "truncated" in line]
    assert [line for line in printed.err.splitlines() if str(high) in line and "id 77" in line]
    assert "2 good pairs" in printed.out
    assert (tmp_path / "samples.png").is_file()


def test_the_other_splits_files_are_checked_too(
    make_dataset: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = make_dataset(count=3), tmp_path / "out"
    for kind in ("images", "annotations"):
        shutil.copytree(root / f"{kind}_prepped_train", root / f"{kind}_prepped_test", dirs_exist_ok=True)
    assert inspect(root, "--out", out) == 0
    printed = capsys.readouterr()
    assert "test split: 3 good pairs of 3 images and 3 masks" in printed.out
    (bad, *_) = sorted((root / "annotations_prepped_test").iterdir())
    bad.write_bytes(b"junk")
    assert inspect(root, "--out", out) == 1
    printed = capsys.readouterr()
    assert "test split: 2 good pairs of 3" in printed.out
    assert str(bad) in printed.err
    assert inspect(root, "--out", out, "--split", "train") == 0
    assert inspect(root, "--out", out, "--split", "test") == 1


def test_nothing_good_still_ends_with_the_list(
    make_dataset: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_dataset(count=1)
    (root / "images_prepped_train/drive_000.png").write_bytes(b"")
    assert inspect(root, "--out", tmp_path) == 1
    assert "empty file" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_calls_that_cannot_be(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    root = make_dataset(count=1)
    with pytest.raises(ConfigurationError, match="not both"):
        inspect(root, "--images", root, "--masks", root, "--out", tmp_path)
    folders = ("--images", root / "images_prepped_train", "--masks", root / "annotations_prepped_train")
    with pytest.raises(ConfigurationError, match="--split is of a dataset folder"):
        inspect(*folders, "--split", "train", "--out", tmp_path)
    with pytest.raises(DatasetError, match="is not a folder"):
        inspect(root, "--split", "test", "--out", tmp_path)
    with pytest.raises(ConfigurationError, match="not one of the classes"):
        inspect(root, "--out", tmp_path, "--unlabelled-class", "void")
    for wrong in (["--input-size", "224"], ["--classes", "sky,sky"], ["--samples", "0"], ["--input-size", "0x8"]):
        with pytest.raises(SystemExit) as caught:
            inspect(root, "--out", tmp_path, *wrong)
        assert caught.value.code == 2


def test_inspecting_loads_no_keras() -> None:
    code = "import sys, train.inspect, train.evaluate; sys.exit(bool({'keras', 'tensorflow'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


SPOILING = sorted(set(FAULTS) - {"twice", "orphan image", "orphan mask"})


@settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(planted=st.lists(st.sampled_from(SPOILING), min_size=1, max_size=10), orphans=st.integers(0, 3))
def test_k_planted_faults_are_k_lines_and_exit_code_1(
    planted: list[str], orphans: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each pair is spoiled, so that nothing is drawn and the whole run takes no time."""
    with tempfile.TemporaryDirectory() as folder:
        images, masks = write_good(Path(folder), len(planted) + orphans)
        for index, name in enumerate(planted):
            where, _, spoil = FAULTS[name]
            spoil(Path(folder) / where / f"{index:02}.png")
        for index in range(orphans):
            (masks / f"{len(planted) + index:02}.png").unlink()
        capsys.readouterr()
        code = main(["inspect", "--images", str(images), "--masks", str(masks), "--out", f"{folder}/out"])
        printed = capsys.readouterr()
    assert code == 1
    count = len(planted) + orphans
    lines = printed.err[printed.err.index("error: ") :].splitlines()
    assert lines[0].startswith(f"error: {count} problem(s) among ")
    assert "mend these files or move them away" in lines[0]
    assert len(lines) == 1 + count
    for index, name in enumerate(planted):
        where, words, _ = FAULTS[name]
        (line,) = (line for line in lines if f"{where}/{index:02}.png: " in line)
        assert words in line
    assert "Traceback" not in printed.err


def test_names_of_files_give_a_terminal_no_orders(
    make_dataset: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = make_dataset(count=2)
    (dataset / "images_prepped_train" / "\x1b[2Jnotes.txt").write_text("passed over")
    (dataset / "images_prepped_train" / "\x1b[2Jlone.png").write_bytes(b"")
    assert inspect(dataset, "--out", tmp_path / "out") == 1
    said = capsys.readouterr().err
    assert "?[2Jnotes.txt" in said
    assert "?[2Jlone.png" in said
    assert "\x1b" not in said
