"""The pictures: that each is a whole PNG and shows what it was given. How handsome they are, eyes must say."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_seg.spec import CAMVID_CLASSES, CAMVID_PALETTE_RGB
from train import pictures
from train.history import column

TRUTH = np.repeat(np.repeat(np.arange(12, dtype=np.uint8).reshape(3, 4), 16, axis=0), 16, axis=1)
FRAME = np.random.default_rng(0).integers(0, 256, (*TRUTH.shape, 3), np.uint8)


def colors_of(path: Path) -> set[tuple[int, ...]]:
    picture = cv2.imread(str(path))
    assert picture is not None
    assert not list(path.parent.glob(".partial*"))
    # Packed into one number a pixel, which numpy finds the unique ones of far quicker.
    packed = np.unique(picture.astype(np.uint32) @ np.array([1, 256, 65536], np.uint32))
    return {(value >> 16, value >> 8 & 255, value & 255) for value in packed.tolist()}


def rgb(color: str) -> tuple[int, ...]:
    return tuple(int(color[i : i + 2], 16) for i in (1, 3, 5))


def history(epochs: int, *, validation: bool) -> list[dict[str, object]]:
    return [
        {
            "epoch": epoch,
            "loss": 2 / epoch,
            "mean_iou": 0.1 * epoch,
            "val_loss": 2.2 / epoch if validation else "",
            "val_mean_iou": 0.09 * epoch if validation else "",
        }
        for epoch in range(1, epochs + 1)
    ]


@pytest.mark.parametrize("epochs", [1, 2, 7])
def test_curves_show_validation_only_where_there_is_one(tmp_path: Path, epochs: int) -> None:
    pictures.curves(history(epochs, validation=True), tmp_path / "both.png")
    pictures.curves(history(epochs, validation=False), tmp_path / "alone.png")
    for name, validated in (("both.png", True), ("alone.png", False)):
        found = colors_of(tmp_path / name)
        assert rgb(pictures.TRAIN_COLOR) in found
        assert (rgb(pictures.VALIDATION_COLOR) in found) == validated


def test_a_column_is_nan_where_it_holds_no_number() -> None:
    rows = [{"loss": "0.5"}, {"loss": ""}, {}, {"loss": "nan"}, {"loss": 2}]
    np.testing.assert_array_equal(column(rows, "loss"), [0.5, np.nan, np.nan, np.nan, 2])


def test_bars_are_as_long_as_their_values(tmp_path: Path) -> None:
    shares = np.zeros(12)
    shares[[0, 1]] = (0.75, 0.25)
    pictures.class_share_plot(shares, CAMVID_CLASSES, CAMVID_PALETTE_RGB, tmp_path / "share.png", title="")
    picture = cv2.imread(str(tmp_path / "share.png"))[:, :, ::-1]
    sky, building, tree = ((picture == CAMVID_PALETTE_RGB[i]).all(axis=2) for i in (0, 1, 5))
    # Grey of text edges may be sky's grey too: compare the longest rows.
    assert sky.sum(axis=1).max() == pytest.approx(3 * building.sum(axis=1).max(), rel=0.03)
    assert not tree.any()


def test_iou_bars_leave_out_what_has_none(tmp_path: Path) -> None:
    ious = np.full(12, np.nan)
    ious[8] = 0.5
    pictures.iou_bars(ious, CAMVID_CLASSES, CAMVID_PALETTE_RGB, tmp_path / "iou.png", title="")
    found = colors_of(tmp_path / "iou.png")
    assert CAMVID_PALETTE_RGB[8] in found
    assert CAMVID_PALETTE_RGB[1] not in found
    pictures.iou_bars(np.full(12, np.nan), CAMVID_CLASSES, CAMVID_PALETTE_RGB, tmp_path / "none.png", title="")
    assert CAMVID_PALETTE_RGB[8] not in colors_of(tmp_path / "none.png")


def test_a_confusion_of_very_many_classes_is_a_picture_of_bounded_size(tmp_path: Path) -> None:
    names = tuple(f"class {index}" for index in range(150))
    pictures.confusion_picture(np.eye(150, dtype=np.int64), names, tmp_path / "many.png", title="")
    assert max(cv2.imread(str(tmp_path / "many.png")).shape) < 5000


@pytest.mark.parametrize("classes", [CAMVID_CLASSES, ("a", "b")])
def test_the_confusion_picture_darkens_the_full_cells(tmp_path: Path, classes: Sequence[str]) -> None:
    full = tuple(round(255 * channel) for channel in pictures.HEAT(1.0)[:3])
    pictures.confusion_picture(np.eye(len(classes), dtype=np.int64), classes, tmp_path / "eye.png", title="")
    assert full in colors_of(tmp_path / "eye.png")
    pictures.confusion_picture(np.ones((len(classes),) * 2, np.int64), classes, tmp_path / "even.png", title="")
    assert full not in colors_of(tmp_path / "even.png")
    pictures.confusion_picture(np.zeros((len(classes),) * 2, np.int64), classes, tmp_path / "none.png", title="")
    assert full not in colors_of(tmp_path / "none.png")


def test_the_error_picture_marks_wrong_pixels_and_leaves_unlabelled_ones() -> None:
    prediction = TRUTH.copy()
    prediction[:16, :16] = 1
    prediction[32:, 48:] = 0
    picture = pictures.error_picture(FRAME, TRUTH, prediction, unlabelled=11)
    red = (picture == (40, 40, 214)).all(axis=2)
    assert red[:16, :16].all()
    assert red.sum() == 16 * 16
    with_unlabelled = pictures.error_picture(FRAME, TRUTH, prediction, unlabelled=None)
    assert (with_unlabelled == (40, 40, 214)).all(axis=2).sum() == 2 * 16 * 16


def test_sample_predictions_show_truth_prediction_and_errors(tmp_path: Path) -> None:
    path = tmp_path / "samples.png"
    prediction = np.full_like(TRUTH, 8)
    pictures.sample_predictions(
        [FRAME], [TRUTH % 2], [prediction], CAMVID_CLASSES, CAMVID_PALETTE_RGB, path, titles=["one"], unlabelled=None
    )
    assert {*(CAMVID_PALETTE_RGB[i] for i in (0, 1, 8)), (214, 40, 40)} <= colors_of(path)
    one_row = cv2.imread(str(path)).shape[0]
    pictures.sample_predictions(
        [FRAME] * 3,
        [TRUTH] * 3,
        [TRUTH] * 3,
        CAMVID_CLASSES,
        CAMVID_PALETTE_RGB,
        path,
        titles=[""] * 3,
        unlabelled=None,
    )
    assert cv2.imread(str(path)).shape[0] > 2 * one_row


def test_class_masks_paint_each_class_alone(tmp_path: Path) -> None:
    pictures.class_masks(FRAME, TRUTH, CAMVID_CLASSES, CAMVID_PALETTE_RGB, tmp_path / "masks.png", title="title")
    picture = cv2.imread(str(tmp_path / "masks.png"))[:, :, ::-1]
    panels = picture[picture.shape[0] * 2 // 5 :]
    for index in range(12):
        # A class is found in one panel alone: its pixels span no more than that panel's width.
        columns = np.flatnonzero((panels == CAMVID_PALETTE_RGB[index]).all(axis=2).sum(axis=0) > 12)
        assert 0 < columns.max() - columns.min() < picture.shape[1] / 4


def test_annotation_samples_show_both_sizes(tmp_path: Path) -> None:
    path = tmp_path / "samples.png"
    args = ([FRAME], [np.full_like(TRUTH, 5)], [FRAME[:24, :24]], [np.full((24, 24), 8, np.uint8)])
    pictures.annotation_samples(*args, CAMVID_CLASSES, CAMVID_PALETTE_RGB, path, titles=["one"])
    picture = cv2.imread(str(path))[:, :, ::-1]
    large, small = ((picture == CAMVID_PALETTE_RGB[i]).all(axis=2) for i in (5, 8))
    assert np.flatnonzero(large.any(axis=0)).min() < np.flatnonzero(small.any(axis=0)).max()
    assert large.sum() > small.sum() > 0


def test_pictures_of_several_sizes_have_no_size_over_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heads = []
    monkeypatch.setattr(pictures, "_picture_grid", lambda rows, names, *rest: heads.append(names))
    others = FRAME[:16], TRUTH[:16]
    for frame, mask in ((FRAME, TRUTH), others):
        pictures.annotation_samples(
            [FRAME, frame], [TRUTH, mask], [FRAME] * 2, [TRUTH] * 2, CAMVID_CLASSES, CAMVID_PALETTE_RGB,
            tmp_path / "samples.png", titles=["one", "other"],
        )  # fmt: skip
    assert heads[0][:2] == ("annotation, 64x48", "image, 64x48")
    assert heads[1][:2] == ("annotation, as stored", "image, as stored")
