"""Day made night: what turns dark and what stays bright, that it is repeatable, and how `evaluate --night` uses it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest

from train.__main__ import main
from train.augment import IDS, Example, augment
from train.augmentation import Augmentation
from train.fcn8 import Fcn8Config, fcn8
from train.night import make_night
from train.run import save_run

SKY, ROAD, CAR, SIGN = (IDS[name] for name in ("sky", "road", "car", "sign_symbol"))


def street() -> tuple[np.ndarray, np.ndarray]:
    """Bright sky over grey asphalt with a white line, and a red car."""
    image, mask = np.full((96, 128, 3), 230, np.uint8), np.full((96, 128), SKY, np.uint8)
    image[40:], mask[40:] = 90, ROAD
    image[40:, 60:66] = 240
    image[45:60, 90:110], mask[45:60, 90:110] = (40, 40, 200), CAR
    return image, mask


@pytest.mark.parametrize("seed", range(30))
def test_the_sky_is_dark_and_paint_still_brighter_than_asphalt(seed: int) -> None:
    image, mask = street()
    kept = image.copy(), mask.copy()
    night = make_night(image, mask, IDS, np.random.default_rng(seed))
    assert (night.shape, night.dtype) == (image.shape, np.uint8)
    np.testing.assert_array_equal(image, kept[0])
    np.testing.assert_array_equal(mask, kept[1])
    assert night[:30].mean() < 100
    paint, asphalt = night[70:, 61:65].mean(), night[70:, 50:56].mean()
    assert paint >= asphalt
    again = make_night(image, mask, IDS, np.random.default_rng(seed))
    np.testing.assert_array_equal(night, again)


def test_nights_differ() -> None:
    image, mask = street()
    nights = [make_night(image, mask, IDS, np.random.default_rng(seed)) for seed in range(60)]
    skies = np.array([night[:30].mean() for night in nights])
    roads = np.array([night[60:].mean() for night in nights])
    assert skies.min() < 3
    assert skies.max() > 30
    assert roads.min() < 6, "a road that all but vanishes"
    assert roads.max() > 60, "a road in lamplight"
    blue = np.array([night[:30, :, 0].mean() - night[:30, :, 2].mean() for night in nights])
    assert blue.min() < -3 < 3 < blue.max()


def test_a_street_that_lay_in_shadow_is_as_bright_as_another() -> None:
    image, mask = street()
    shadowed = image.copy()
    shadowed[40:] //= 3
    for seed in range(10):
        one, other = (make_night(given, mask, IDS, np.random.default_rng(seed)) for given in (image, shadowed))
        assert abs(one[45:].mean() - other[45:].mean()) < 4


def test_lamps_shine_where_cars_are_and_signs_stand_out() -> None:
    image, mask = street()
    peaks = [make_night(image, mask, IDS, np.random.default_rng(seed))[45:60, 90:110].max() for seed in range(20)]
    assert sum(peak == 255 for peak in peaks) > 10
    mask[mask == CAR] = ROAD
    signed = mask.copy()
    signed[70:80, 20:30] = SIGN
    for seed in range(10):
        without, having = (make_night(image, given, IDS, np.random.default_rng(seed)) for given in (mask, signed))
        assert having[72:78, 22:28].mean() > without[72:78, 22:28].mean()


@pytest.mark.parametrize("fill", [SKY, ROAD, 11])
@pytest.mark.parametrize("shape", [(1, 1), (32, 64)])
def test_any_picture_goes(fill: int, shape: tuple[int, int]) -> None:
    for level in (0, 255):
        night = make_night(
            np.full((*shape, 3), level, np.uint8), np.full(shape, fill, np.uint8), IDS, np.random.default_rng(1)
        )
        assert night.shape == (*shape, 3)


def test_a_share_of_the_crops_is_of_the_night() -> None:
    image, mask = street()
    options = Augmentation(light=0.0, lens=0.0, paste=0.0, rare_focus=0.0, night=0.25, repaint=0.0)
    dark = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        found = augment(Example(image, mask), Example(image, mask), (64, 64), options, rng, rare=(), fill=11)
        sky = cv2.erode((found.mask == SKY).astype(np.uint8), np.ones((9, 9))) > 0
        dark += bool(sky.any() and found.image[sky].mean() < 150)
    assert 20 < dark < 80


def test_where_a_mask_says_nothing_the_teacher_tells_the_sky() -> None:
    image, mask = street()
    options = Augmentation(light=0.0, lens=0.0, paste=0.0, rare_focus=0.0, night=1.0)
    opinion, nothing = np.eye(12, dtype=np.uint8)[mask] * np.uint8(255), np.full_like(mask, 11)

    def crop(seed: int, mask: np.ndarray, opinion: np.ndarray | None) -> np.ndarray:
        example, rng = Example(image, mask, opinion), np.random.default_rng(seed)
        return augment(example, example, (64, 64), options, rng, rare=(), fill=11).image.astype(np.int16)

    apart = [
        [
            np.abs(crop(seed, *given) - crop(seed, mask, opinion)).mean()
            for given in ((nothing, opinion), (nothing, None))
        ]
        for seed in range(12)
    ]
    told, untold = np.mean(apart, axis=0)
    assert told < 2, "the rest are lamps, where the opinion's edges are soft"
    assert untold > 10


def test_what_is_mirrored_beyond_the_image_is_relit_like_the_image() -> None:
    image, mask = np.full((64, 64, 3), 230, np.uint8), np.full((64, 64), SKY, np.uint8)
    image[56:], mask[56:] = 90, ROAD
    options = Augmentation(scale=(0.5, 0.5), aspect=1.0, rotate_deg=0.0, light=0.0, lens=0.0, paste=0.0, night=1.0)
    for seed in range(10):
        example, rng = Example(image, mask), np.random.default_rng(seed)
        found = augment(example, example, (128, 64), options, rng, rare=(), fill=11)
        beyond = found.mask[:40, 16:48] == 11
        assert beyond.all()
        inside = found.image[found.mask == SKY].mean()
        assert found.image[20:40].mean() < inside + 15


def test_lamps_grow_with_the_image() -> None:
    image, mask = (np.kron(array, np.ones((12, 12, 1)[: array.ndim], np.uint8)) for array in street())
    mask[mask == CAR] = ROAD
    mask[600:700, 300:400] = CAR
    image[:] = 0
    lit = max((make_night(image, mask, IDS, np.random.default_rng(seed)).max(axis=2) == 255).sum() for seed in range(8))
    assert lit > 100, "3 pixels across would be lost once the network has made the image small"


def test_evaluate_by_night_is_another_evaluation_and_always_the_same(
    make_dataset: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = Fcn8Config(input_size=(32, 64), block_widths=(8, 8, 8, 8, 8), head_widths=(8, 8))
    dataset = make_dataset(count=4, size=(32, 64))
    # Not any network: of two filters some call everything one class, by day and by night.
    keras.utils.set_random_seed(1)
    stems = sorted(path.stem for path in (dataset / "images_prepped_train").iterdir())
    save_run(tmp_path / "run", {"fcn8": config.to_dict(), "data": {"val": stems}}, fcn8(config))
    command = ["evaluate", str(tmp_path / "run"), str(dataset), "--split", "val"]
    assert main(command) == 0
    assert main([*command, "--night"]) == 0
    first = (tmp_path / "run" / "evaluate-val-by-night" / "images.csv").read_text()
    assert main([*command, "--night", "--batch", "1"]) == 0
    assert (tmp_path / "run" / "evaluate-val-by-night" / "images.csv").read_text() == first
    summary = json.loads((tmp_path / "run" / "evaluate-val-by-night" / "summary.json").read_text())
    assert summary["split"] == "val by night"
    by_day = json.loads((tmp_path / "run" / "evaluate-val" / "summary.json").read_text())
    assert summary["results"] != by_day["results"]
    assert "val by night: 4 images" in capsys.readouterr().out


def test_night_needs_the_classes_it_tells_apart(
    tiny_model: Callable[..., Path],
    make_dataset: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = tiny_model(classes=("a", "b", "c"), palette=((0, 0, 0), (1, 1, 1), (2, 2, 2)), unlabelled=None)
    dataset = make_dataset(count=2, splits=("train", "test"))
    assert main(["evaluate", str(model), str(dataset), "--split", "test", "--night"]) == 2
    assert "error: --night relights streets by the classes sky, building" in capsys.readouterr().err
    # A list of one's own that has them is relit, under its own ids.
    names = ("void", "car", "tram", "sky", "building", "pole", "sign_symbol")
    palette = tuple((index, 0, 0) for index in range(7))
    own = tiny_model(classes=names, palette=palette, unlabelled=0)
    for path in (dataset / "annotations_prepped_test").iterdir():
        cv2.imwrite(str(path), np.where(cv2.imread(str(path), -1) < 6, 3, 1).astype(np.uint8))
    out, seen = tmp_path / "out", []
    monkeypatch.setattr("train.evaluation.make_night", lambda *given: seen.append(given[2]) or make_night(*given))
    assert main(["evaluate", str(own), str(dataset), "--split", "test", "--night", "--out", str(out)]) == 0
    assert json.loads((out / "summary.json").read_text())["split"] == "test by night"
    assert seen[0] == {name: index for index, name in enumerate(names)}
