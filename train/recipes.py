"""Recipes: everything that decides how a network is trained, one frozen record for each recipe.

"notebook" is the original notebook's training, step for step. "default" is one that learns; docs/training.md says what
each part of it gives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import keras
import numpy as np
from keras import ops

from .augmentation import Augmentation


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How to train.

    Attributes:
        epochs, batch_size: of training.
        input_size: (height, width) the network is validated, saved and exported at.
        crop_size: (height, width) of a training crop; None trains on whole images at `input_size`.
        optimizer: "sgd" (the notebook's) or "adamw".
        learning_rate: the peak; warmed up over `warmup_epochs`, half of all steps at most, then a cosine to 0 ("adamw"
            only).
        encoder_rate: factor on the learning rate of layers that were given kernels whole: ImageNet's, or with `--start`
            and batch normalisation blocks 1 and 2 of the finished network. Their weight decay goes by the whole rate.
        weight_decay: decoupled (AdamW).
        ema: decay per step of the moving average of the weights, which is what is validated and saved; 0 for none. Of a
            short training it is less (`averaging`).
        ignore_unlabelled: leave unlabelled pixels out of loss and metrics.
        weighted: weight classes by `losses.class_weights`.
        weight_offset: the offset in those weights.
        jaccard: weight of the soft Jaccard term.
        batch_norm: normalise while training, fold at the end.
        freeze_blocks: how many blocks, from the first on, keep the kernels that they were given whole, ImageNet's or a
            finished network's.
        dropout: in the head.
        rescale_weights: adapt ImageNet kernels to frames in [-1, 1].
        skip_activation: see `Fcn8Config`.
        rendered_share: share of training images that are rendered scenes.
        split, validation_share: "random" or "time", and how much is held out.
        held_out: names of drives that are held out whole, in place of a share.
    """

    name: str
    epochs: int
    batch_size: int
    input_size: tuple[int, int]
    crop_size: tuple[int, int] | None = None
    optimizer: str = "adamw"
    learning_rate: float = 1e-3
    warmup_epochs: float = 1.0
    encoder_rate: float = 0.2
    weight_decay: float = 1e-3
    ema: float = 0.0
    ignore_unlabelled: bool = True
    weighted: bool = True
    weight_offset: float = 1.1
    jaccard: float = 0.0
    batch_norm: bool = True
    freeze_blocks: int = 0
    dropout: float = 0.0
    rescale_weights: bool = True
    skip_activation: str = "relu"
    rendered_share: float = 0.0
    split: str = "time"
    validation_share: float = 0.15
    held_out: tuple[str, ...] = ()
    augmentation: Augmentation | None = field(default_factory=Augmentation)

    @property
    def is_notebook(self) -> bool:
        """Whether it trains as the notebook does: SGD on a loss of probabilities, in float32, without a teacher."""
        return self.optimizer == "sgd"

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)


# The default recipe's average reaches back over about this share of its 60 epochs.
AVERAGED_SHARE = 0.055

RECIPES = {
    "notebook": Recipe(
        name="notebook",
        epochs=10,
        batch_size=32,
        input_size=(224, 224),
        optimizer="sgd",
        learning_rate=1e-2,
        ignore_unlabelled=False,
        weighted=False,
        batch_norm=False,
        rescale_weights=False,
        split="random",
        augmentation=None,
    ),
    "default": Recipe(
        name="default",
        epochs=60,
        batch_size=6,
        input_size=(352, 480),
        crop_size=(256, 320),
        ema=0.995,
        jaccard=0.5,
        freeze_blocks=1,
        dropout=0.2,
        skip_activation="linear",
        rendered_share=0.12,
    ),
}


class InverseTimeDecay(keras.optimizers.schedules.LearningRateSchedule):
    """Keras 2's `SGD(decay=d)`, which Keras 3 ignores: rate / (1 + d * step)."""

    def __init__(self, rate: float, decay: float) -> None:
        self.rate, self.decay = rate, decay

    def __call__(self, step: Any) -> Any:
        return self.rate / (1.0 + self.decay * ops.cast(step, "float32"))

    def get_config(self) -> dict[str, float]:
        return {"rate": self.rate, "decay": self.decay}


class WarmupCosine(keras.optimizers.schedules.LearningRateSchedule):
    """Linear warm-up to `rate`, then half a cosine down to 0 at `total_steps` (Loshchilov and Hutter, 2017)."""

    def __init__(self, rate: float, warmup_steps: int, total_steps: int) -> None:
        self.rate, self.warmup_steps, self.total_steps = rate, max(1, warmup_steps), max(2, total_steps)

    def __call__(self, step: Any) -> Any:
        step = ops.cast(step, "float32")
        rising = (step + 1.0) / self.warmup_steps
        done = (step - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
        falling = 0.5 * (1.0 + ops.cos(np.pi * ops.clip(done, 0.0, 1.0)))
        return self.rate * ops.minimum(rising, falling)

    def get_config(self) -> dict[str, float]:
        return {"rate": self.rate, "warmup_steps": self.warmup_steps, "total_steps": self.total_steps}


class ScaledAdamW(keras.optimizers.AdamW):
    """AdamW with a factor on the learning rate of some variables, chosen by path.

    Weight decay goes by the whole rate: a layer that learns at a fifth of it decays as fast as any other.
    """

    def __init__(self, *args: Any, rate_of: Callable[[str], float] = lambda path: 1.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._rate_of = rate_of

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        # TensorFlow's backend passes its own variable here; Keras' variable, which has the path, is found by index.
        path = self._trainable_variables[self._get_variable_index(variable)].path
        super().update_step(gradient, variable, learning_rate * self._rate_of(path))


def averaging(ema: float, steps: int) -> float:
    """Decay per step of the moving average in a training of so many steps: `ema`, but looking back over no more than
    `AVERAGED_SHARE` of them, lest it keep what the training began with."""
    return min(ema, max(0.0, 1.0 - 1.0 / max(1.0, AVERAGED_SHARE * steps)))


def make_optimizer(
    recipe: Recipe, steps_per_epoch: int, rates: Mapping[str, float] | None = None
) -> keras.optimizers.Optimizer:
    """The recipe's optimizer; `rates` are factors on the learning rate of layers, by name ("adamw" only)."""
    if recipe.is_notebook:
        # The notebook's SGD(lr=1e-2, decay=5**-4, momentum=0.9, nesterov=True).
        return keras.optimizers.SGD(InverseTimeDecay(recipe.learning_rate, 5.0**-4), momentum=0.9, nesterov=True)
    steps = recipe.epochs * steps_per_epoch
    # Of a single epoch half is left to come down again.
    warmup = min(int(recipe.warmup_epochs * steps_per_epoch), steps // 2)
    schedule = WarmupCosine(recipe.learning_rate, warmup, steps)
    optimizer = ScaledAdamW(
        schedule,
        weight_decay=recipe.weight_decay,
        use_ema=recipe.ema > 0,
        ema_momentum=averaging(recipe.ema, steps),
        rate_of=lambda path: math.prod((rates or {}).get(part, 1.0) for part in path.split("/")),
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer
