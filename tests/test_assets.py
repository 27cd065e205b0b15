"""What ships: two models and the Keras weights that each was made from, in 30 MB, and at one with each other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import edge_seg
from benchmarks.operations import count_operations
from edge_seg import Segmenter, bundled_clip, bundled_model
from edge_seg.modelfile import read_model_header
from edge_seg.preprocess import resize_labels
from edge_seg.sources import open_source
from edge_seg.verify import verify
from train.labelers import KerasLabeler
from train.run import load_model, open_run

ASSETS = Path(edge_seg.__file__).parent / "assets"
FOLDERS = {"best": "keras", "fast": "keras_fast"}


def test_all_weights_together_take_30_mb_at_the_most() -> None:
    files = [bundled_model(name) for name in FOLDERS] + [
        ASSETS / folder / "model.weights.h5" for folder in FOLDERS.values()
    ]
    assert sum(path.stat().st_size for path in files) <= 30e6
    terms = (ASSETS / "LICENSE-weights.txt").read_text()
    assert [path for path in files if str(path.relative_to(ASSETS)) not in terms] == []


def test_the_fast_model_takes_a_quarter_of_the_arithmetic_of_the_full_network() -> None:
    size = read_model_header(bundled_model("fast")).spec.input_size
    fast = 2 * sum(layer.macs for layer in count_operations(bundled_model("fast"), size))
    assert fast < 42.5e9 / 4


@pytest.mark.slow
@pytest.mark.parametrize("name", FOLDERS)
def test_a_bundled_model_is_proved_and_gives_the_labels_of_its_keras_weights(name: str) -> None:
    assert verify(bundled_model(name), "cpu").passed
    run = open_run(ASSETS / FOLDERS[name])
    with open_source(bundled_clip()) as clip:
        frames = [item.image for item in clip if item.index in (10, 150)]
    with Segmenter(bundled_model(name), device="cpu") as segmenter:
        height, width = segmenter.spec.input_size
        assert run.fcn8.input_size == (height, width)
        ours = np.stack([result.labels for result in segmenter.segment_batch(frames)])
    keras = KerasLabeler(load_model(run), (height, width), batch=2).label(frames)[0]
    theirs = np.stack([resize_labels(labels, ours.shape[1:]) for labels in keras])
    assert (ours == theirs).mean() > 0.98
    assert len(np.unique(ours)) >= 8
