"""Load ImageNet kernels into FCN8's encoder: VGG16's Keras notop .h5, or an .npz of `blockB_convC_kernel`, `_bias`.

Both hold kernels in Keras' "caffe" convention: BGR, 0..255, ImageNet's mean subtracted. FCN8's frames lie in [-1, 1],
so the first layer is rescaled:  W * (127.5 x + 127.5 - mean) = (127.5 W) * x + sum W (127.5 - mean).
A network narrower than VGG16 may take a layer's strongest filters, those of the largest L1 norm (Li et al., "Pruning
Filters for Efficient ConvNets", 2017, arXiv 1608.08710), which then read only the channels kept in the layer before.
Only arrays are read; no code in a file is ever run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from edge_seg.errors import ModelFileError

from .fcn8 import CONVOLUTIONS_PER_BLOCK, IMAGENET_MEAN_BGR
from .stored import read_h5, read_npz

ENCODER_LAYERS = tuple(
    f"block{block}_conv{index}"
    for block, count in enumerate(CONVOLUTIONS_PER_BLOCK, 1)
    for index in range(1, count + 1)
)


def block_of(layer: str) -> int:
    """The block of an encoder layer: "block3_conv1" -> 3."""
    return int(layer[5])


def load_encoder(model: keras.Model, path: Path | str, *, rescale: bool = True, narrow: bool = False) -> list[str]:
    """Put a file's kernels into every encoder layer whose shape fits, and return those layers' names.

    Args:
        model: an FCN8, with or without batch normalisation.
        path: `vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5`, or an .npz.
        rescale: adapt the first layer to frames in [-1, 1]; False loads the numbers as they stand (as the notebook).
        narrow: narrower layers take the strongest filters. These read fewer channels than before, so this only suits a
            network that normalises after them.

    Raises:
        ModelFileError: no such file, damaged, not of this layout, or nothing in it fits.
    """
    stored = read_encoder(path)
    if narrow:
        stored = strongest_filters(stored, {name: model.get_layer(name).kernel.shape[-1] for name in stored})
    loaded = []
    for name, (kernel, bias) in stored.items():
        layer = model.get_layer(name)
        if layer.kernel.shape != kernel.shape:
            continue
        if rescale and name == ENCODER_LAYERS[0]:
            kernel, bias = _rescaled(kernel, bias)
        layer.set_weights([kernel, bias])
        loaded.append(name)
    if not loaded:
        raise ModelFileError(
            f"{path}: none of its kernels fits this network's widths; blocks that are to take them keep VGG16's "
            "widths (64, 128, 256, 512, 512)."
        )
    return loaded


def read_encoder(path: Path | str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Read layer name -> (kernel (3, 3, in, out), bias (out,)) float32 from a weights file, in encoder order."""
    path = Path(path)
    if not path.is_file():
        raise ModelFileError(
            f'{path}: no such weights file. README, section "Get the data", says where VGG16\'s come from.'
        )
    if path.suffix == ".npz":
        arrays = _pairs(read_npz(path))
    else:
        arrays = {name: _by_rank(path, name, below) for name, below in read_h5(path, ENCODER_LAYERS).items()}
    found = {name: arrays[name] for name in ENCODER_LAYERS if name in arrays}
    if not found:
        raise ModelFileError(
            f"{path}: holds none of VGG16's layers ({ENCODER_LAYERS[0]} ... {ENCODER_LAYERS[-1]}); expected "
            "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5, or an .npz of blockB_convC_kernel and _bias."
        )
    _check(path, found)
    return found


def _check(path: Path, stored: dict[str, tuple[np.ndarray, np.ndarray]]) -> None:
    """Raise `ModelFileError` unless each layer is a finite 3x3 convolution that reads what the layer before gives."""
    channels: int | None = 3
    for name in ENCODER_LAYERS:
        if name not in stored:
            channels = None  # unknown
            continue
        kernel, bias = stored[name]
        fits = kernel.ndim == 4 and kernel.shape[:2] == (3, 3) and kernel.shape[2] == (channels or kernel.shape[2])
        if not fits or bias.shape != kernel.shape[3:]:
            raise ModelFileError(
                f"{path}: {name} holds a kernel {kernel.shape} and a bias {bias.shape}; expected "
                f"(3, 3, {channels or 'in'}, out) and (out,)."
            )
        if not all(array.dtype.kind in "fiu" and np.isfinite(array).all() for array in (kernel, bias)):
            raise ModelFileError(f"{path}: {name} holds values that are not finite numbers; copy the file again.")
        channels = len(bias)


def fits_whole(stored: dict[str, tuple[np.ndarray, np.ndarray]], widths: Sequence[int], blocks: int) -> bool:
    """Whether the first `blocks` blocks of a network with these block widths take the stored kernels as they are."""
    names = [name for name in ENCODER_LAYERS if block_of(name) <= blocks]
    return all(name in stored and len(stored[name][1]) == widths[block_of(name) - 1] for name in names)


def strongest_filters(
    stored: dict[str, tuple[np.ndarray, np.ndarray]], filters: dict[str, int]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Each layer's `filters[name]` filters of the largest L1 norm, in their own order, cut to the channels kept.

    The first layer that is not stored, or is to be wider than stored, is left out, and so are all layers after it.
    """
    kept = np.arange(stored[ENCODER_LAYERS[0]][0].shape[2]) if ENCODER_LAYERS[0] in stored else None
    found = {}
    for name in ENCODER_LAYERS:
        if kept is None or name not in stored or filters[name] > len(stored[name][1]):
            break
        kernel, bias = stored[name][0][:, :, kept], stored[name][1]
        norms = np.abs(kernel).sum((0, 1, 2))
        kept = np.sort(np.argsort(-norms, kind="stable")[: filters[name]])
        found[name] = (kernel[..., kept], bias[kept])
    return found


def even_out(model: keras.Model) -> None:
    """Move a power of two from the first kernel of a plain FCN8 to block 3's first; it computes the same, bit for bit.

    ImageNet's kernels give values of hundreds, and the layer after them, once its normalisation is folded, has kernels
    of 1e-4. AdamW moves every weight by about the learning rate: one step would overturn that layer.
    """
    names = [name for name in ENCODER_LAYERS if block_of(name) <= 2]
    first, *between = (model.get_layer(name) for name in names)
    after = model.get_layer("block3_conv1")
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.log2(_strength(first) / _strength(after)) / 2
    if not np.isfinite(steps):
        return
    factor = np.float32(2.0 ** round(float(steps)))
    kernel, bias = first.get_weights()
    first.set_weights([kernel / factor, bias / factor])
    for layer in between:
        kernel, bias = layer.get_weights()
        layer.set_weights([kernel, bias / factor])
    kernel, bias = after.get_weights()
    after.set_weights([kernel * factor, bias])


def _strength(layer: Any) -> np.float64:
    """A kernel's magnitude relative to that of a fresh one (He and others, 2015)."""
    kernel = np.asarray(layer.kernel, np.float64)
    return np.sqrt(np.mean(kernel**2) * kernel[..., 0].size / 2)


def _pairs(arrays: dict[str, np.ndarray]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    names = (key.removesuffix("_kernel") for key in arrays if key.endswith("_kernel"))
    return {name: (arrays[f"{name}_kernel"], arrays[f"{name}_bias"]) for name in names if f"{name}_bias" in arrays}


def _by_rank(path: Path, name: str, arrays: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    # Keras 1 stored block1_conv1_W_1:0, Keras 2 block1_conv1/kernel:0; only the rank tells kernel from bias in both.
    if sorted(array.ndim for array in arrays) != [1, 4]:
        raise ModelFileError(
            f"{path}: {name} holds {len(arrays)} array(s), {[array.shape for array in arrays]}; expected one kernel "
            "(3, 3, in, out) and one bias (out,)."
        )
    bias, kernel = sorted((array.astype(np.float32) for array in arrays), key=lambda array: array.ndim)
    return kernel, bias


def _rescaled(kernel: np.ndarray, bias: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    offset = 127.5 - np.asarray(IMAGENET_MEAN_BGR, np.float64)
    return (kernel * 127.5).astype(np.float32), (bias + np.einsum("hwio,i->o", kernel, offset)).astype(np.float32)
