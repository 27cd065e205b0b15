"""Classes of one's own: what options make of them, `fit` and `evaluate` with them, and `--start` with others."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_seg.errors import ConfigurationError
from edge_seg.modelfile import read_model_header
from edge_seg.preprocess import scale_frames
from edge_seg.spec import CAMVID_CLASSES, palette_for
from tests.train.conftest import quick, quickest
from train.__main__ import main
from train.augment import Example, augment
from train.augmentation import Augmentation
from train.average import cosine
from train.classes import CAMVID, ClassList, changed, class_list
from train.fcn8 import Fcn8Config, fcn8, logits_model
from train.fit_command import suited
from train.recipes import RECIPES
from train.rescore import rescore
from train.run import load_model, open_run
from train.scenes import Scene, render

WIDTHS = ["--block-widths", "4,4,4,4,4", "--head-widths", "4,4", "--input-size", "64x64"]
SHORT = ["--crop-size", "32x32", "--batch-size", "3", "--policy", "float32", "--epochs", "1"]
OWN = ["--classes", "road,lawn,truck"]


def relabel(folder: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    for path in folder.iterdir():
        cv2.imwrite(str(path), change(cv2.imread(str(path), cv2.IMREAD_UNCHANGED)).astype(np.uint8))


@pytest.fixture
def dataset(make_dataset: Callable[..., Path]) -> Path:
    """Masks of the ids 0 to 2, and 255 where nothing is labelled."""
    root = make_dataset(count=6, size=(64, 64), splits=("train", "test"))
    for split in ("train", "test"):
        relabel(root / f"annotations_prepped_{split}", lambda ids: np.where(ids == 11, 255, ids % 3))
    return root


def fit(dataset: Path, out: Path, *more: str, widths: list[str] = WIDTHS) -> int:
    return main(["fit", str(dataset), "--out", str(out), *widths, *SHORT, *more])


def config(run: Path) -> dict:
    return json.loads((run / "config.json").read_text())


def test_which_class_is_unlabelled() -> None:
    assert class_list(CAMVID_CLASSES, None, None) == CAMVID
    assert class_list(CAMVID_CLASSES, "none", None).unlabelled is None
    assert class_list(("a", "b"), None, None).unlabelled is None
    assert class_list(("a", "b"), "a", None).unlabelled == 0
    assert class_list(("a", "b"), "a", None).ids == {"b": 1}


def test_known_classes_are_kept_where_options_say_nothing() -> None:
    known = ClassList(names=("a", "b", "unlabelled"), unlabelled=2, ignored=255)
    assert changed(known, None, None, None) == known
    assert changed(known, None, "unlabelled", None) == known
    assert changed(known, None, "a", None) == replace(known, unlabelled=0)
    assert changed(known, None, "none", None) == ClassList(names=known.names, unlabelled=None)
    assert changed(known, None, None, 254) == replace(known, ignored=254)
    assert changed(known, ("c", "d"), None, None) == ClassList(names=("c", "d"), unlabelled=None)
    every = ClassList(names=("a", "b"), unlabelled=None)
    assert changed(every, None, None, 255) == ClassList(names=("a", "b", "unlabelled"), unlabelled=2, ignored=255)
    odd = ClassList(names=("a", "none"), unlabelled=1)
    assert changed(odd, None, None, None) == changed(odd, None, "none", None) == odd


def test_the_first_value_behind_the_ids_is_the_class_that_is_made_for_it() -> None:
    assert class_list(("a", "b"), None, 2) == ClassList(names=("a", "b", "unlabelled"), unlabelled=2)
    assert class_list(("a", "void"), "void", 1) == ClassList(names=("a", "void"), unlabelled=1)
    many = tuple(f"c{index}" for index in range(255))
    assert class_list(many, None, 255).names == (*many, "unlabelled")
    with pytest.raises(ConfigurationError, match="more than 256"):
        class_list((*many, "last"), None, 255)


def test_what_masks_ignore_is_a_class_that_is_not_counted() -> None:
    assert class_list(("a", "b"), None, 255) == ClassList(names=("a", "b", "unlabelled"), unlabelled=2, ignored=255)
    assert class_list(("a", "void"), "void", 255) == ClassList(names=("a", "void"), unlabelled=1, ignored=255)
    with pytest.raises(ConfigurationError, match="--ignore-id 1 is the id of b; expected a value of the masks"):
        class_list(("a", "b"), None, 1)
    with pytest.raises(ConfigurationError, match="got --unlabelled-class none"):
        class_list(("a", "b"), "none", 255)
    with pytest.raises(ConfigurationError, match="not one of the classes a, b"):
        class_list(("a", "b"), "c", None)


def test_rare_classes_are_known_of_camvid_and_counted_of_others() -> None:
    assert [CAMVID_CLASSES[index] for index in CAMVID.rare(np.full(12, 0.5))] == [
        "pole", "sign_symbol", "pedestrian", "bicyclist",
    ]  # fmt: skip
    own = ClassList(names=("a", "b", "c", "void"), unlabelled=3)
    assert own.rare(np.array([0.97, 0.015, 0.0, 0.0])) == (1,)


def test_what_is_for_streets_is_left_out_where_it_cannot_be() -> None:
    recipe, own = RECIPES["default"], ClassList(names=("a", "b"), unlabelled=None)
    assert suited(recipe, CAMVID, rendered=True) is recipe
    without = suited(recipe, own, rendered=False)
    assert recipe.augmentation is not None
    assert without == replace(recipe, rendered_share=0.0, augmentation=replace(recipe.augmentation, night=0.0))
    street = ClassList(names=("sky", "building", "pole", "sign_symbol", "car", "tram"), unlabelled=None)
    assert suited(recipe, street, rendered=False).augmentation == recipe.augmentation
    with pytest.raises(ConfigurationError, match="CamVid's classes alone"):
        suited(recipe, own, rendered=True)


@pytest.mark.parametrize("fill", [None, 2])
def test_beyond_an_image_is_nothing_or_its_mirror_image(fill: int | None) -> None:
    """Zoomed out, a crop ends beyond the image: red where class 1 is, whatever the mask says outside."""
    mask = np.zeros((32, 32), np.uint8)
    mask[:, :16] = 1
    image = np.zeros((32, 32, 3), np.uint8)
    image[mask == 1] = (0, 0, 255)
    still = Augmentation(
        scale=(0.5, 0.5), aspect=1.0, rotate_deg=0.0, flip=0.0, rare_focus=0.0, paste=0.0, light=0.0, lens=0.0,
        night=0.0, repaint=0.0,
    )  # fmt: skip
    given = Example(image, mask)
    crop = augment(given, given, (32, 32), still, np.random.default_rng(0), rare=(), fill=fill)
    assert set(np.unique(crop.mask)) == ({0, 1} if fill is None else {0, 1, 2})
    known = crop.mask != 2
    red, black = crop.image[..., 2] > 200, crop.image[..., 2] < 50
    assert ((crop.mask == 1) == red)[known & (red | black)].all()


def test_names_that_are_repainted_are_the_lists_own(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[object] = []

    def painted(image: np.ndarray, mask: np.ndarray, ids: object, rng: object) -> np.ndarray:
        seen.append(ids)
        return image

    monkeypatch.setattr("train.augment.repaint", painted)
    given = Example(np.zeros((32, 32, 3), np.uint8), np.zeros((32, 32), np.uint8))
    options = Augmentation(night=0.0, repaint=1.0)
    augment(given, given, (32, 32), options, np.random.default_rng(0), rare=(), fill=None, ids={"lawn": 0})
    assert seen == [{"lawn": 0}]


@pytest.mark.usefixtures("undrawn")
def test_a_network_of_ones_own_classes(dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Trained, scored without what masks ignore, exported with its names, and scored again as a file."""
    from export.__main__ import main as export

    run = tmp_path / "run"
    assert fit(dataset, run, *OWN, "--ignore-id", "255") == 0
    kept = config(run)
    assert kept["classes"] == ["road", "lawn", "truck", "unlabelled"]
    assert (kept["unlabelled"], kept["ignored"], kept["fcn8"]["classes"]) == (3, 255, 4)
    assert kept["recipe"]["rendered_share"] == 0.0
    assert main(["evaluate", str(run), "--split", "test"]) == 0
    found = json.loads((run / "evaluate-test" / "summary.json").read_text())
    confusion = np.array(next(r for r in found["results"] if r["protocol"] == "full frame")["confusion"])
    masks = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in (dataset / "annotations_prepped_test").iterdir()]
    counts = np.bincount(np.stack(masks).ravel(), minlength=256)
    assert confusion.sum(axis=1).tolist() == [*counts[:3], counts[255]]
    assert counts[255] > 0

    file = tmp_path / "own.onnx"
    assert export([str(run), "--out", str(file), "--precision", "fp32", "--data", str(dataset)]) == 0
    spec = read_model_header(file).spec
    assert spec.classes == ("road", "lawn", "truck", "unlabelled")
    assert spec.palette == palette_for(spec.classes)
    assert main(["evaluate", str(file), str(dataset), "--ignore-id", "255", "--out", str(tmp_path / "out")]) == 0
    again = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert np.array(again["results"][0]["confusion"]).sum() == counts.sum()
    capsys.readouterr()
    assert main(["evaluate", str(file), str(dataset), "--out", str(tmp_path / "out")]) == 1
    assert "expected class ids 0 to 3, or --ignore-id 255 where it means unlabelled" in capsys.readouterr().err


def test_an_id_without_a_name_is_told_from_what_is_ignored(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A class that --classes forgot has the id that unlabelled pixels are given."""
    call = ["inspect", str(dataset), "--out", str(tmp_path / "look"), *OWN, "--ignore-id", "255", "--split", "train"]
    assert main(call) == 0
    assert "left out as unlabelled" not in capsys.readouterr().err
    masks = dataset / "annotations_prepped_train"
    relabel(masks, lambda ids: np.where(ids == 1, 3, ids))
    assert main(call) == 0
    assert "id 3 in " in (said := capsys.readouterr().err)
    assert "pixels is left out as unlabelled, as 255 is; name it in --classes if it is a class" in said
    relabel(masks, lambda ids: np.where(ids == 3, 7, ids))
    assert main(call) == 1
    assert "expected class ids 0 to 3, or 255" in capsys.readouterr().err


@quickest
def test_every_pixel_may_count(dataset: Path, tmp_path: Path) -> None:
    relabel(dataset / "annotations_prepped_train", lambda ids: np.where(ids == 255, 0, ids))
    assert fit(dataset, tmp_path / "run", *OWN) == 0
    kept = config(tmp_path / "run")
    assert (kept["unlabelled"], kept["ignored"], kept["fcn8"]["classes"]) == (None, None, 3)


@quickest
def test_an_unlabelled_id_behind_the_others_is_read_back(dataset: Path, tmp_path: Path) -> None:
    for split in ("train", "test"):
        relabel(dataset / f"annotations_prepped_{split}", lambda ids: np.where(ids == 255, 3, ids))
    run = tmp_path / "run"
    assert fit(dataset, run, *OWN, "--ignore-id", "3") == 0
    assert open_run(run).class_list == ClassList(names=("road", "lawn", "truck", "unlabelled"), unlabelled=3)
    assert main(["evaluate", str(run), "--split", "test", "--ignore-id", "3"]) == 0
    assert main(["evaluate", str(run), "--split", "test", "--ignore-id", "2"]) == 2


def test_a_mask_of_one_class_and_what_is_not_labelled(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    relabel(dataset / "annotations_prepped_train", lambda ids: np.where(ids == 1, 0, ids))
    relabel(dataset / "annotations_prepped_train", lambda ids: np.where(ids == 2, 0, ids))
    assert fit(dataset, tmp_path / "run", *OWN) == 1
    assert "write the class id instead of 255, or --ignore-id 255 where it means" in capsys.readouterr().err


def test_a_mask_with_another_value_is_refused_with_the_cure(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(dataset, tmp_path / "run", *OWN) == 1
    assert "expected class ids 0 to 2, or --ignore-id 255 where it means unlabelled" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--rendered-share", "0.1"], "CamVid's classes alone"),
        (["--ignore-id", "2"], "--ignore-id 2 is the id of truck"),
        (["--unlabelled-class", "sky"], "not one of the classes road, lawn, truck"),
        (["--ignore-id", "255", "--recipe", "notebook"], "counts the unlabelled class like any other"),
        (["--teacher", "edge_seg/assets/keras_fast"], "expected a network of the classes road, lawn, truck"),
    ],
)
def test_what_does_not_go_with_own_classes(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], words: str
) -> None:
    assert fit(dataset, tmp_path / "run", *OWN, *more) == 2
    assert words in capsys.readouterr().err


def test_a_classes_name_gives_a_terminal_no_orders(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        fit(dataset, tmp_path / "run", "--classes", "a\x1b[31m,b")
    assert "printable characters; got 'a\\x1b[31m,b'" in capsys.readouterr().err


@quickest
def test_a_run_is_resumed_with_its_own_classes_alone(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert fit(dataset, run, *OWN, "--ignore-id", "255") == 0
    resume = ["fit", "--out", str(run), "--resume"]
    assert main([*resume, "--classes", "road,lawn,bus", "--ignore-id", "255"]) == 2
    assert "classes is road,lawn,truck,unlabelled there, road,lawn,bus,unlabelled here" in capsys.readouterr().err
    assert main([*resume, "--unlabelled-class", "lawn"]) == 2
    assert "unlabelled is 3 there, 1 here" in capsys.readouterr().err
    for more in ([*OWN, "--ignore-id", "255"], OWN, ["--ignore-id", "255"], []):
        assert main([*resume, *more]) == 0, more
    assert config(run)["classes"] == ["road", "lawn", "truck", "unlabelled"]


@pytest.mark.parametrize("skips", ["linear", "relu"])
def test_classes_of_the_same_name_keep_their_scores(skips: str) -> None:
    shape = Fcn8Config(
        classes=3, input_size=(64, 64), block_widths=(4, 4, 4, 4, 4), head_widths=(4, 4), skip_activation=skips
    )
    finished = fcn8(shape)
    rng = np.random.default_rng(0)
    for layer in finished.layers:
        layer.set_weights([rng.normal(0, 0.3, array.shape).astype(np.float32) for array in layer.get_weights()])
    begun = rescore(finished, shape, ("a", "b", "c"), ("c", "new", "a", "b"))
    frames = rng.uniform(-1, 1, (1, 64, 64, 3)).astype(np.float32)
    before, after = (np.asarray(logits_model(model)(frames)) for model in (finished, begun))
    np.testing.assert_allclose(after[..., [2, 3, 0]], before, atol=1e-5)
    assert np.abs(before).max() > 0.1
    np.testing.assert_allclose(after[..., 1], after[0, 0, 0, 1], atol=1e-6)  # alike everywhere
    skip = begun.get_layer("pool3_conv").get_weights()[1]
    assert skip[1] == pytest.approx(0.1 if skips == "relu" else 0.0)


def test_a_class_that_is_dropped_leaves_the_others_nearly_as_they_were() -> None:
    """The bundled fast network's upsampling mixes classes; without a share of the dropped ones they are far off."""
    run = open_run("edge_seg/assets/keras_fast")
    shape = run.fcn8.with_size((64, 96))
    finished = load_model(run, input_size=(64, 96))
    ours = ("person", "road", "car", "sky", "unlabelled")
    begun = rescore(finished, shape, run.classes, ours)
    frame, _ = render(Scene.from_seed(3), time_s=0.0, height=64, width=96)
    before, after = (np.asarray(logits_model(model)(scale_frames(frame[None]))) for model in (finished, begun))
    kept = [run.classes.index(name) for name in ours if name in run.classes]
    here = [ours.index(run.classes[index]) for index in kept]
    assert np.abs(after[..., here] - before[..., kept]).mean() < 0.15 * before[..., kept].std()
    np.testing.assert_allclose(after[..., 0], 0.0, atol=1e-6)
    # None of its names is known: all scores alike, and a network to train.
    strange = rescore(finished, shape, run.classes, ("a", "b"))
    np.testing.assert_allclose(np.asarray(logits_model(strange)(scale_frames(frame[None]))), 0.0, atol=1e-6)
    np.testing.assert_array_equal(strange.get_layer("conv6").kernel, finished.get_layer("conv6").kernel)


@quick
def test_a_finished_network_goes_on_with_other_classes(dataset: Path, tmp_path: Path) -> None:
    first, other, third = tmp_path / "first", tmp_path / "other", tmp_path / "third"
    assert fit(dataset, first, *OWN, "--ignore-id", "255") == 0
    new = ["--classes", "road,bus,lawn", "--ignore-id", "255"]
    assert fit(dataset, other, *new, "--start", str(first), "--learning-rate", "1e-9", widths=[]) == 0
    kept = config(other)
    assert kept["classes"] == ["road", "bus", "lawn", "unlabelled"]
    assert kept["recipe"]["batch_norm"] is True
    ours, theirs = load_model(open_run(other)), load_model(open_run(first))
    for name in ("block1_conv1", "block1_conv2", "block2_conv2"):
        one, two = (np.asarray(model.get_layer(name).kernel) for model in (ours, theirs))
        assert cosine(one, two) > 0.9999, name  # but for a power of two, which folding moves about
    # What goes on without a word about classes has those of what it began as.
    assert fit(dataset, third, "--start", str(other), widths=[]) == 0
    kept = config(third)
    assert (kept["classes"], kept["ignored"]) == (["road", "bus", "lawn", "unlabelled"], 255)
    assert kept["recipe"]["batch_norm"] is False
