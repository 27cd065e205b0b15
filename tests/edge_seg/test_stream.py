"""A source through a Segmenter, as a caller's loop sees it: what it gives, warns of, and says in its report."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_seg import ConfigurationError, MediaError, Segmenter
from edge_seg.fake import FakeSession
from tests.edge_seg.clips import make_clip, write_image


def pictures(count: int) -> np.ndarray:
    return np.random.default_rng(4).integers(0, 256, (count, 32, 64, 3), np.uint8)


def test_the_warning_of_each_source_names_it(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "x.mp4", count=6, container_options={"movflags": "faststart"})
    for name in ("a.mp4", "b.mp4"):
        (tmp_path / name).write_bytes(clip.read_bytes()[:-500])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")  # Python's own filter, which shows a text once a line.
        for name in ("a.mp4", "b.mp4"):
            list(Segmenter(FakeSession()).stream(tmp_path / name))
    assert [str(warning.message).partition(" ended early")[0] for warning in said] == [
        str(tmp_path / "a.mp4"),
        str(tmp_path / "b.mp4"),
    ]


@pytest.mark.parametrize("batch_size", [1, 4])
def test_what_came_before_an_error_is_given_whatever_the_batch(tmp_path: Path, batch_size: int) -> None:
    for number in range(3):
        write_image(tmp_path / f"{number}.png", number)
    (tmp_path / "3.png").write_bytes(b"no picture")

    def breaking() -> Iterator[np.ndarray]:
        yield from pictures(3)
        raise ZeroDivisionError("of the caller's own")

    for source, error in (
        (tmp_path, MediaError),
        ([*pictures(3), None], ConfigurationError),
        (breaking(), ZeroDivisionError),
    ):
        stream, results = Segmenter(FakeSession(), batch_size=batch_size).stream(source), []
        with pytest.raises(error):
            results += iter(stream)
        assert [result.index for result in results] == [0, 1, 2]
        assert stream.report.balanced
        assert stream.report.frames["segmented"] == 3


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("rtsp://user:canary@127.0.0.1:9/live", "rtsp://***@127.0.0.1:9/live"),
        (99, "camera 99"),
        (Path("no such.mp4"), "no such.mp4"),
    ],
)
def test_a_report_names_a_source_that_does_not_open_without_its_password(given: Any, name: str) -> None:
    stream = Segmenter(FakeSession()).stream(given)
    assert stream.report.source == name
    with pytest.raises(MediaError):
        next(stream)
    assert stream.report.source == name
