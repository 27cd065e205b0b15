"""What strangers' bytes are fed to: each target writes them to a file and uses it as users do.

A target returns "good", or raises an `EdgeSegError`; anything else is a finding. No pytest and no hypothesis here: the
children and atheris import this.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

MAX_FRAMES = 40


def model(path: Path) -> None:
    """A model file, from its header to labels, and its golden frames."""
    from edge_seg.modelfile import read_model_header
    from edge_seg.segmenter import Segmenter
    from edge_seg.spec import GOLDEN_KEY
    from edge_seg.verify import verify

    with Segmenter(path, device="cpu") as segmenter:
        labels = segmenter.segment(np.zeros((*segmenter.spec.input_size, 3), np.uint8)).labels
        assert labels.dtype == np.uint8
    if GOLDEN_KEY in read_model_header(path).contents.metadata:
        verify(path, "cpu")


def video(path: Path) -> None:
    """A video file, to its end or `MAX_FRAMES`; the counts must add up."""
    from edge_seg.video import VideoFile

    with VideoFile(path) as source:
        delivered = 0
        for delivered, frame in enumerate(source, 1):
            assert frame.image.shape == (*source.info.size, 3)
            if delivered == MAX_FRAMES:
                return
        assert source.counts.read == delivered + source.counts.failed


def picture(path: Path) -> None:
    """A picture, as `predict` reads it."""
    from edge_seg.images import read_image

    image = read_image(path)
    assert image.ndim == 3
    assert image.dtype == np.uint8


def dataset(path: Path) -> None:
    """A picture as image and as mask of a dataset."""
    from edge_seg.errors import DatasetError
    from train.classes import ClassList
    from train.dataset import Sample
    from train.preflight import check_pairs

    report = check_pairs([Sample("x", path, path)], ClassList(names=tuple("abcdefghijkl"), unlabelled=None))
    if report.problems:
        raise DatasetError("refused", report.problems)


def weights(path: Path) -> None:
    """An .h5 or .npz of weights, as `fit` reads it."""
    from train.stored import read_h5, read_npz

    if path.read_bytes()[:2] == b"PK":
        read_npz(path)
    else:
        read_h5(path, ["layers"])  # where the seeds have their arrays


def crash(path: Path) -> None:
    """Planted: the process dies as native code does."""
    os.kill(os.getpid(), 11)


def hang(path: Path) -> None:
    """Planted: it never ends."""
    time.sleep(3600)


def hoard(path: Path) -> None:
    """Planted: it takes 500 MB, for a moment only."""
    np.ones(500_000_000, np.uint8)


def spin(path: Path) -> None:
    """Planted: it computes longer than is allowed."""
    end = time.process_time() + 0.5
    while time.process_time() < end:
        pass


def raw(path: Path) -> None:
    """Planted: an error that nobody typed."""
    raise ZeroDivisionError("planted")


def fine(path: Path) -> None:
    """Planted: what was refused with a typed error, and what was not."""
    from edge_seg.errors import MediaError

    if path.read_bytes() == b"refused":
        raise MediaError("refused")


PLANTED: dict[str, Callable[[Path], None]] = {
    target.__name__: target for target in (crash, hang, hoard, spin, raw, fine)
}
TARGETS: dict[str, Callable[[Path], None]] = {
    **{target.__name__: target for target in (model, video, picture, dataset, weights)},
    **PLANTED,
}
