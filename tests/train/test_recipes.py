"""Recipes: the notebook's rate, the default's schedule, slowed layers."""

from __future__ import annotations

import argparse
import re
from dataclasses import fields, replace

import keras
import numpy as np
import pytest

from train.augmentation import Augmentation
from train.callbacks import averaged
from train.fit_arguments import add_fit_arguments
from train.recipes import RECIPES, InverseTimeDecay, WarmupCosine, averaging, make_optimizer


def test_notebook_rate_after_100_steps() -> None:
    optimizer = make_optimizer(RECIPES["notebook"], steps_per_epoch=10)
    optimizer.iterations.assign(100)
    assert float(optimizer.learning_rate) == pytest.approx(0.00862, abs=5e-6)
    assert (optimizer.momentum, optimizer.nesterov) == (0.9, True)


def test_notebook_recipe_is_the_notebooks() -> None:
    recipe = RECIPES["notebook"]
    assert (recipe.epochs, recipe.batch_size, recipe.input_size) == (10, 32, (224, 224))
    assert (recipe.split, recipe.validation_share) == ("random", 0.15)
    assert not any(
        (recipe.batch_norm, recipe.weighted, recipe.ignore_unlabelled, recipe.augmentation, recipe.rendered_share)
    )


def test_inverse_time_decay_formula() -> None:
    assert float(InverseTimeDecay(0.01, 5.0**-4)(625)) == pytest.approx(0.005)


def test_warmup_then_cosine() -> None:
    rates = [float(WarmupCosine(1.0, 10, 110)(step)) for step in (0, 9, 10, 60, 110, 200)]
    assert rates == pytest.approx([0.1, 1.0, 1.0, 0.5, 0.0, 0.0], abs=1e-6)


@pytest.mark.parametrize(("epochs", "peak"), [(1, 4), (2, 9), (60, 9)])
def test_every_schedule_comes_down_again(epochs: int, peak: int) -> None:
    rate = make_optimizer(replace(RECIPES["default"], epochs=epochs), steps_per_epoch=10)._learning_rate
    rates = [float(rate(step)) for step in range(10 * epochs + 1)]
    assert rates[peak] == max(rates) == pytest.approx(1e-3)
    assert rates[-1] == pytest.approx(0.0, abs=1e-9)


def test_slowed_layers_move_less() -> None:
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(4, name="given"), keras.layers.Dense(4, name="new")]
    )
    model.compile(optimizer=make_optimizer(RECIPES["default"], 1, {"given": 0.2}), loss="mse")
    before = [layer.get_weights()[0] for layer in model.layers]
    rng = np.random.default_rng(0)
    model.train_on_batch(rng.normal(size=(8, 4)), rng.normal(size=(8, 4)))
    moved = [np.abs(layer.get_weights()[0] - start).mean() for layer, start in zip(model.layers, before, strict=True)]
    assert moved[0] == pytest.approx(RECIPES["default"].encoder_rate * moved[1], rel=0.05)


def test_help_names_the_recipes_own_values() -> None:
    """The help is written out, so that it need not wait for Keras."""
    parser = argparse.ArgumentParser(formatter_class=lambda prog: argparse.HelpFormatter(prog, width=1000))
    add_fit_arguments(parser)
    text = parser.format_help()
    for name in ("epochs", "batch_size", "rendered_share", "split"):
        ours, theirs = (str(getattr(RECIPES[recipe], name)).removesuffix(".0") for recipe in ("notebook", "default"))
        assert f"default: {theirs}; notebook recipe: {ours})" in text
    size = "x".join(map(str, RECIPES["default"].input_size))
    assert f"default: as in --start, or {size}; notebook recipe: 224x224)" in text
    for field in fields(Augmentation):
        value = getattr(Augmentation(), field.name)
        shown = ":".join(f"{number:g}" for number in (value if isinstance(value, tuple) else (value,)))
        assert re.search(rf"\b{field.name} \({shown}[ ,)]", text), field.name


@pytest.mark.parametrize("wrapped", [False, True], ids=["plain", "loss scale"])
def test_the_average_is_put_in_and_taken_out(wrapped: bool) -> None:
    """mixed_float16 wraps the optimizer, and the average is the inner one's."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4)])
    optimizer = make_optimizer(RECIPES["default"], 10)
    model.compile(optimizer=keras.optimizers.LossScaleOptimizer(optimizer) if wrapped else optimizer, loss="mse")
    rng = np.random.default_rng(0)
    seen = []
    for _ in range(3):
        model.train_on_batch(rng.normal(size=(8, 4)), rng.normal(size=(8, 4)))
        seen.append(model.get_weights()[0])
    ema = averaging(RECIPES["default"].ema, 60 * 10)
    assert ema < RECIPES["default"].ema
    expected = seen[0]
    for weight in seen[1:]:
        expected = ema * expected + (1 - ema) * weight
    with averaged(model):
        np.testing.assert_allclose(model.get_weights()[0], expected, atol=1e-7)
    np.testing.assert_array_equal(model.get_weights()[0], seen[-1])


def test_a_short_training_averages_over_a_share_of_it() -> None:
    """An average over more would be, to a good part, the weights that it began with."""
    whole = RECIPES["default"].ema
    assert averaging(whole, 60 * 61) == whole
    short, shorter = (1 - averaging(whole, steps) for steps in (1200, 300))
    assert shorter / short == pytest.approx(4)
    assert averaging(whole, 300) ** 300 < 1e-6
    assert averaging(whole, 12) == 0
    assert averaging(0.0, 300) == 0
