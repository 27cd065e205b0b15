"""`python -m train average`: average two finished runs weight by weight, where one was started from the other.

A network and one that continued from it, on new images or with a new schedule, lie in one loss basin. Their average
keeps more accuracy on the old images at the same accuracy on the new ones (Wortsman et al., "Robust fine-tuning of
zero-shot models", 2022, arXiv 2109.01903). Filters are rescaled first, because folded normalisation leaves each of them
with a scale of its own.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from edge_seg.arguments import number
from edge_seg.errors import ConfigurationError

from .arguments import folder, path
from .files import CONFIG_NAME

if TYPE_CHECKING:
    from .run import Run

Weights = dict[str, list[np.ndarray]]
# Kernels of unrelated networks have a cosine of about 0, those of a network and its continuation 0.7 to 1.
LEAST_COSINE = 0.3


def add_average_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `python -m train average`."""
    parser.add_argument("first", type=path, metavar="RUN", help="a finished run, or edge_seg/assets/keras")
    parser.add_argument("second", type=path, metavar="OTHER", help="a run that was begun from it with --start")
    parser.add_argument("--out", type=folder, required=True, metavar="RUN", help="folder of the run to make")
    parser.add_argument("--share", type=_share, default=0.5, metavar="S", help="of OTHER, 0 to 1 (default: 0.5)")


def _share(text: str) -> float:
    """argparse type: a share from 0 to 1."""
    return number(text, 0, 1)


def run_average(args: argparse.Namespace) -> int:
    """Run `python -m train average`; returns the exit code."""
    average_runs(args.first, args.second, args.out, share=args.share)
    print(f"{args.out}: {1 - args.share:g} of {args.first} and {args.share:g} of {args.second}")
    return 0


def average_runs(first: Path, second: Path, out: Path, *, share: float) -> Run:
    """Write a run whose weights are (1 - share) of the first run's plus share of the second's.

    Its recorded data and recipe are the second's, without the scores, which belong to a different network.

    Raises:
        ConfigurationError: the networks differ in widths, skips or classes, have no common start, or `out` holds a run.
        ModelFileError: a run is damaged or has not finished.
    """
    from .run import load_model, open_run, save_run

    if (out / CONFIG_NAME).exists():
        raise ConfigurationError(f"--out {out} already holds a run; choose another folder.")
    one, other = open_run(first), open_run(second)
    for what, ours, theirs in (
        ("widths", one.fcn8.widths, other.fcn8.widths),
        ("Relu after the skips", one.fcn8.skip_activation, other.fcn8.skip_activation),
        ("classes", one.classes, other.classes),
    ):
        if ours != theirs:
            raise ConfigurationError(f"{first} and {second} have other {what}: {ours} and {theirs}.")
    model, begun = load_model(one), weights_of(load_model(other))
    own = weights_of(model)
    rescale_filters(begun, own)
    strangers = [name for name in own if cosine(own[name][0], begun[name][0]) < LEAST_COSINE]
    if strangers:
        raise ConfigurationError(
            f"{second} was not begun from {first}: their kernels of {', '.join(strangers)} have nothing in common; "
            "expected a run of `fit --start`."
        )
    for name, arrays in own.items():
        mixed = [(1 - share) * ours + share * theirs for ours, theirs in zip(arrays, begun[name], strict=True)]
        model.get_layer(name).set_weights([array.astype(np.float32) for array in mixed])
    return save_run(out, averaged_config(one, other, share), model)


def averaged_config(one: Run, other: Run, share: float) -> dict[str, Any]:
    """config.json of the average."""
    from .run import joint_terms

    config = {**other.config, "averaged": {"with": one.name, "share": round(1 - share, 6)}}
    training = other.config.get("training", {})
    config["training"] = {key: value for key, value in training.items() if not key.startswith(("val_", "loss"))}
    if "data" in config:
        config["data"] = {**config["data"], "seen": seen_by_either(one, other)}
    config["license"] = joint_terms(one, other)
    return config


def seen_by_either(one: Run, other: Run) -> dict[str, Any] | None:
    """The second's record of held-out images that were trained on (`train/seen.py`), and those that the first knows."""
    names = other.seen
    if one.data.get("hash") == other.data.get("hash"):
        names |= one.seen.union(one.data.get("train", ())).intersection(other.data.get("val", ()))
    return {"count": len(names), "names": sorted(names)} if names else None


def weights_of(model: Any) -> Weights:
    """Layer name -> its arrays as float64, kernel first."""
    return {
        layer.name: [np.asarray(array, np.float64) for array in layer.get_weights()]
        for layer in model.layers
        if layer.weights
    }


def rescale_filters(weights: Weights, like: Weights) -> None:
    """Scale each filter before a Relu, in place, to its norm in another network; the network computes the same.

    Each filter's factor is divided out of the kernels that read it: Relu(a x) = a Relu(x) for a > 0.
    """
    from .fcn8 import per_channel
    from .narrow import CHAIN, SCORES

    for position, name in enumerate(CHAIN):
        kernel, bias = weights[name]
        norms, wanted = (np.sqrt((array**2).sum((0, 1, 2))) for array in (kernel, like[name][0]))
        alive = (norms > 0) & (wanted > 0)
        scale = np.where(alive, wanted, 1.0) / np.where(alive, norms, 1.0)
        weights[name] = [kernel * scale, bias * scale]
        for reader in (*CHAIN[position + 1 : position + 2], *filter(None, [SCORES.get(name)])):
            weights[reader][0] = weights[reader][0] / per_channel(scale, reader)


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    """Cosine of the angle between two kernels; 1 where either is all zeros."""
    product = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float((one * other).sum()) / product if product else 1.0
