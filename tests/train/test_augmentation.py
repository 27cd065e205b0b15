"""Other augmentation and class weights than the recipe's: their bounds, and that a run keeps them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

from edge_seg.errors import ConfigurationError
from tests.train.conftest import quickest
from train.__main__ import main
from train.arguments import augmentations
from train.augment import Example, augment
from train.augmentation import BOUNDS, Augmentation
from train.options import read_begun

FIT = ["--epochs", "1", "--block-widths", "4,4,4,4,4", "--head-widths", "4,4", "--input-size", "32x32"]
FIT += ["--batch-size", "4", "--policy", "float32"]


def test_every_value_has_bounds_and_the_recipes_lies_within() -> None:
    assert sorted(BOUNDS) == sorted(field.name for field in fields(Augmentation))
    Augmentation()
    for name, (low, high) in BOUNDS.items():
        for bad in (low - 0.01, high + 0.01, float("nan")):
            with pytest.raises(ConfigurationError, match=f"augmentation {name}: expected"):
                Augmentation(**{name: (bad, bad) if name == "scale" else bad})
    with pytest.raises(ConfigurationError, match="the smaller zoom first, got 2:1"):
        Augmentation(scale=(2.0, 1.0))


def test_values_are_read() -> None:
    assert augmentations("light=0, scale=0.8:1.5,night=.2") == {"light": 0.0, "scale": (0.8, 1.5), "night": 0.2}


@quickest
def test_a_run_trains_with_other_augmentation_and_is_gone_on_with_so(
    make_dataset: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["fit", str(make_dataset()), "--out", str(tmp_path / "run"), *FIT, "--rendered-share", "0"]
    assert main([*call, "--augment", "light=0,lens=0.1,scale=1:1", "--weight-offset", "1.2"]) == 0
    recipe, _ = read_begun(tmp_path / "run")
    assert recipe.weight_offset == 1.2
    assert recipe.augmentation == Augmentation(light=0.0, lens=0.1, scale=(1.0, 1.0))
    resume = ["fit", "--out", str(tmp_path / "run"), "--resume"]
    assert main(resume) == 0
    assert main([*resume, "--augment", "light=0"]) == 0
    capsys.readouterr()
    assert main([*resume, "--augment", "light=0.5"]) == 2
    assert "recipe.augmentation.light is 0.0 there, 0.5 here" in capsys.readouterr().err
    assert main([*resume, "--weight-offset", "1.1"]) == 2
    assert "recipe.weight_offset is 1.2 there, 1.1 here" in capsys.readouterr().err


@quickest
def test_weights_of_the_loss_are_those_asked_for(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    found = []
    for offset in ("1.05", "3"):
        run = tmp_path / offset
        call = ["fit", str(make_dataset()), "--out", str(run), *FIT, "--rendered-share", "0"]
        assert main([*call, "--weight-offset", offset]) == 0
        found.append((run / "history.csv").read_text().splitlines()[1].split(",")[1])
    assert found[0] != found[1]


def test_without_light_and_lens_pixels_keep_their_colours() -> None:
    image = np.full((64, 96, 3), (10, 120, 230), np.uint8)
    plain = Augmentation(**augmentations("light=0,lens=0,night=0,repaint=0,paste=0,rotate_deg=0,scale=1:1"))
    pair = Example(image, np.zeros((64, 96), np.uint8))
    for seed in range(8):
        kept = augment(pair, pair, (32, 32), plain, np.random.default_rng(seed), rare=(), fill=11)
        assert (kept.image == image[:32, :32]).all()


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--weight-offset", "1"], "--weight-offset must lie in 1 < x <= 100, got 1.0."),
        (["--recipe", "notebook", "--weight-offset", "2"], "to the recipe notebook all classes weigh alike"),
        (["--augment", "light=3"], "augmentation light: expected 0 to 2, got 3."),
        (["--recipe", "notebook", "--augment", "light=0"], "the recipe notebook augments nothing"),
        (["--classes", "road,rest", "--augment", "night=0.2"], "by classes that are not here: sky, building,"),
    ],
)
def test_what_cannot_be_is_told_and_nothing_written(
    make_dataset: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str], given: list[str], told: str
) -> None:
    assert main(["fit", str(make_dataset()), "--out", str(tmp_path / "run"), *FIT, *given]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "different names out of scale, aspect,"),
        ("light", "expected a value as in light=1; got 'light'"),
        ("light=0,light=1", "different names out of"),
        ("dark=1", "different names out of"),
        ("light=much", "expected a value as in light=1"),
        ("scale=1", "expected a value as in scale=0.8:1.5; got 'scale=1'"),
        ("flip=0:1", "expected a value as in flip=1"),
    ],
)
def test_what_is_no_value_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, told: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["fit", str(tmp_path), "--out", str(tmp_path / "x"), "--augment", text])
    assert stopped.value.code == 2
    assert told in capsys.readouterr().err
