"""The network that a training begins with: a fresh FCN8, one with ImageNet's kernels, or a finished one at any width.

Also decides which layers are frozen and how fast the others learn. Knows nothing of batches or losses.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from operator import ge
from pathlib import Path
from typing import Any

import keras
import numpy as np

from edge_seg.errors import ConfigurationError
from edge_seg.preprocess import resize_frame, scale_frames

from .augment import Pair
from .classes import ClassList
from .fcn8 import Fcn8Config, fcn8
from .narrow import narrow_from
from .options import FitOptions, Inherited, fcn8_config
from .recipes import Recipe
from .rescore import rescore
from .run import load_model, open_run
from .weights import ENCODER_LAYERS, block_of, even_out, fits_whole, load_encoder, read_encoder
from .widen import rates_where_wider, widen

SOME_FRAMES = 12


def begin_network(
    recipe: Recipe, options: FitOptions, frames: Iterable[np.ndarray], *, synchronized: bool
) -> tuple[keras.Model, Inherited]:
    """Build the network that a training begins with, and record which of the given weights it took.

    If `options.inherited` already holds that record, the weights come from a checkpoint and none are read here.

    Args:
        frames: some images as the network sees them, (1, H, W, 3) float32 in [-1, 1] each; read only where a finished
            network's filters are selected or fresh ones are added.
        synchronized: batch normalisation averages over all devices.

    Raises:
        ModelFileError: a weights file or a finished run is missing, damaged, or does not fit.
    """
    start, given, config = options.start, options.weights, fcn8_config(recipe, options)
    if start is not None and not recipe.batch_norm:
        return _go_on(recipe, options, frames)
    # So many first blocks need no normalisation if they arrive trained; it starts with the first block after them.
    blocks, inherited, finished = max(2, recipe.freeze_blocks), options.inherited, None
    if inherited is None and start is not None:
        shown = list(frames)
        finished, began = _finished(start, config, options.classes, shown, options.seed)
        whole = is_whole(began, config.widths, blocks)
        loaded = tuple(name for name in ENCODER_LAYERS if whole and block_of(name) <= blocks)
        inherited = Inherited(whole, loaded, began)
    elif inherited is None:
        inherited = Inherited(given is not None and fits_whole(read_encoder(given), config.block_widths, blocks))
    first_norm = None if not recipe.batch_norm else blocks + 1 if inherited.whole else 1
    # No fixed size, so that one network takes both crops and whole validation images.
    network = fcn8(
        config.with_size(None), batch_norm_from=first_norm, dropout=recipe.dropout, synchronized=synchronized
    )
    if finished is not None:
        narrow_from(network, finished, shown)
    elif given is not None and options.inherited is None:
        narrow = recipe.batch_norm and not inherited.whole
        loaded = tuple(load_encoder(network, given, rescale=recipe.rescale_weights, narrow=narrow))
        inherited = replace(inherited, loaded=loaded)
    _freeze(network, inherited.loaded if inherited.whole else (), recipe.freeze_blocks)
    return network, inherited


def learning_rates(recipe: Recipe, inherited: Inherited, config: Fcn8Config) -> dict[str, float]:
    """Factors on the learning rate by layer name, for the layers that have one."""
    rates = rates_where_wider(inherited.began, config.widths) if inherited.began else {}
    # Where only a selection of filters was taken, there is more to relearn: those layers keep the full rate.
    for name in inherited.loaded if inherited.whole else ():
        rates[name] = rates.get(name, 1.0) * recipe.encoder_rate
    return rates


def some_frames(pairs: Sequence[Pair], size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Up to twelve evenly spaced training images as a network of `size` sees them: (1, H, W, 3) float32 each."""
    for index in np.linspace(0, len(pairs) - 1, min(SOME_FRAMES, len(pairs))).round().astype(int).tolist():
        yield scale_frames(resize_frame(pairs[index][0], size)[None])


def _go_on(recipe: Recipe, options: FitOptions, frames: Iterable[np.ndarray]) -> tuple[keras.Model, Inherited]:
    """Continue a finished run's network without normalisation, which was folded into its weights."""
    config, inherited = fcn8_config(recipe, options), options.inherited
    network = fcn8(config.with_size(None), dropout=recipe.dropout, kernel_initializer="zeros")
    if inherited is None:
        assert options.start is not None
        finished, began = _finished(options.start, config, options.classes, frames, options.seed)
        for layer in network.layers:
            if layer.weights:
                layer.set_weights(finished.get_layer(layer.name).get_weights())
        even_out(network)
        whole = (name for name in ENCODER_LAYERS if is_whole(began, config.widths, block_of(name)))
        inherited = Inherited(False, tuple(whole), began)
    _freeze(network, inherited.loaded, recipe.freeze_blocks)
    return network, inherited


def _finished(
    start: Path, ours: Fcn8Config, classes: ClassList, frames: Iterable[np.ndarray], seed: int
) -> tuple[keras.Model, tuple[int, ...]]:
    """The network to begin from, adapted to our classes and widened where ours is wider, and its original widths."""
    run = open_run(start)
    finished, widths = load_model(run, input_size=ours.input_size), run.fcn8.widths
    if run.classes != classes.names:
        finished = rescore(finished, run.fcn8.with_size(ours.input_size), run.classes, classes.names)
    wide = tuple(map(max, widths, ours.widths))
    if wide != widths:
        wider: dict[str, Any] = {"block_widths": wide[:5], "head_widths": wide[5:]}
        finished = widen(finished, replace(ours, **wider), frames, seed)
    return finished, widths


def is_whole(began: Sequence[int], widths: Sequence[int], blocks: int) -> bool:
    """Whether a network takes a finished one's first blocks unchanged and is narrower in no encoder block.

    The head may be narrower: it is normalised and far from those blocks.
    """
    return tuple(began[:blocks]) == tuple(widths[:blocks]) and all(map(ge, widths[:5], began[:5]))


def check_frozen(recipe: Recipe, widths: Sequence[int], start: Path | None, weights: Path | None) -> None:
    """Raise `ConfigurationError` if more blocks are to be frozen than a training is given whole; reads no data.

    One block is never refused: it is the default recipe's own setting, and applies only where the block is given.
    """
    blocks = recipe.freeze_blocks
    if blocks < 2:
        return
    if start is not None:
        began = open_run(start).fcn8.widths
        if not is_whole(began, widths, blocks):
            raise ConfigurationError(
                f"--freeze-blocks {blocks}: expected blocks 1 to {blocks} as wide as those of --start, and no block "
                f"narrower: {','.join(map(str, began))} filters there, {','.join(map(str, widths))} here."
            )
    elif weights is None:
        raise ConfigurationError(f"--freeze-blocks {blocks}: nothing was given to keep; expected --weights or --start.")
    elif blocks > 2:
        raise ConfigurationError(
            f"--freeze-blocks {blocks}: expected at most 2 with --weights, whose kernels give values of hundreds that "
            "the skip from block 3 cannot read before they are normalised."
        )
    elif not fits_whole(read_encoder(weights), widths, blocks):
        raise ConfigurationError(
            f"--freeze-blocks {blocks}: expected blocks 1 to {blocks} as wide as in {weights.name}, which holds all "
            "their layers."
        )


def _freeze(network: keras.Model, whole: Sequence[str], blocks: int) -> None:
    """Freeze those of the `whole` layers that lie in the first `blocks` blocks."""
    for name in whole:
        if block_of(name) <= blocks:
            network.get_layer(name).trainable = False
