"""The overlay video of `predict` plays in a browser: length, frames at their times, colours, sound."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from edge_seg import Segmenter
from edge_seg.cli import main
from edge_seg.codecs import EncodeOptions
from edge_seg.encode import VideoWriter
from tests.browser import Browser
from tests.edge_seg.clips import make_clip, paint_number, read_number

pytestmark = pytest.mark.browser

COUNT, RATE, SIZE = 30, 25, (96, 128)


def check_shows(browser: Browser, index: int, expected: np.ndarray) -> None:
    """The open video shows `expected` (H, W, 3) BGR amid frame `index`'s time, but for what compression takes."""
    shown = browser.draw((index + 0.5) / RATE).astype(float)
    assert shown.shape == expected.shape
    # A wrong colour matrix or range moves whole surfaces; compression blurs edges.
    assert np.abs(shown.mean(axis=(0, 1)) - expected.mean(axis=(0, 1))).max() < 3
    assert np.median(np.abs(shown - expected)) < 6


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A numbered clip with sound, 1.2 s."""
    return make_clip(tmp_path / "drive.mp4", count=COUNT, size=SIZE, rate=Fraction(RATE), audio="aac")


def test_an_overlay_video_plays(
    browser: Browser, source: Path, tmp_path: Path, tiny_model: Callable[..., Path]
) -> None:
    model, out = tiny_model(size=SIZE), tmp_path / "overlay.mp4"
    assert main(["predict", str(source), "-m", str(model), "-o", str(out), "--device", "cpu"]) == 0
    browser.open_video(out)
    played = browser.play()
    assert played.duration_s == pytest.approx(COUNT / RATE, abs=0.05)
    assert played.end_s == pytest.approx(played.duration_s, abs=0.05)
    assert (played.height, played.width, played.frames) == (*SIZE, COUNT)
    assert played.audio_bytes > 0
    with Segmenter(model, device="cpu") as segmenter:
        overlays = [result.plot() for result in segmenter.stream(source)]
    for index in (0, 7, 18, COUNT - 1):
        check_shows(browser, index, overlays[index])
    assert browser.complaints() == []
    with pytest.raises(AssertionError):
        check_shows(browser, 7, overlays[18])


def test_what_a_run_that_was_cut_short_left_plays(browser: Browser, source: Path, tmp_path: Path) -> None:
    writer = VideoWriter(tmp_path / "cut.mp4", size=SIZE, time_base=Fraction(1, RATE), audio_from=source)
    for index in range(COUNT):
        writer.write(paint_number(index, SIZE), pts=index, duration=1)
    written = writer.close(whole=False)
    assert written.path.name == "cut.partial.mp4"
    browser.open_video(written.path)
    assert browser.play().frames == COUNT
    assert [read_number(browser.draw((index + 0.5) / RATE)) for index in (0, 11, COUNT - 1)] == [0, 11, COUNT - 1]
    assert browser.complaints() == []


def test_av1_plays_in_its_colours(browser: Browser, tmp_path: Path) -> None:
    options = EncodeOptions(codec="libsvtav1")
    with_blocks = [paint_number(index, SIZE) for index in range(COUNT)]
    writer = VideoWriter(tmp_path / "av1.mp4", size=SIZE, time_base=Fraction(1, RATE), options=options)
    for index, picture in enumerate(with_blocks):
        writer.write(picture, pts=index, duration=1)
    browser.open_video(writer.close().path)
    assert browser.play().frames == COUNT
    check_shows(browser, 11, with_blocks[11])


@pytest.mark.parametrize("codec", ["libmp3lame", "flac", "libopus", "ac3", "alac"])
def test_sound_of_every_kind_is_heard(browser: Browser, tmp_path: Path, codec: str) -> None:
    source = make_clip(tmp_path / "in.mkv", audio=codec)
    writer = VideoWriter(tmp_path / "out.mp4", size=SIZE, time_base=Fraction(1, RATE), audio_from=source)
    for index in range(COUNT):
        writer.write(paint_number(index, SIZE), pts=index, duration=1)
    browser.open_video(writer.close().path)
    played = browser.play()
    assert (played.frames, played.duration_s) == (COUNT, pytest.approx(COUNT / RATE, abs=0.1))
    assert played.audio_bytes > 0


@pytest.mark.parametrize("audio", [None, "aac"])
def test_a_codec_that_browsers_lack_is_found(browser: Browser, tmp_path: Path, audio: str | None) -> None:
    clip = make_clip(tmp_path / "mp4v.mp4", codec="mpeg4", options={"qscale": "3"}, audio=audio)
    browser.open_video(clip)
    with pytest.raises(ValueError, match=r"no supported sources|no picture"):
        browser.play()


def test_a_file_that_is_missing_is_found(browser: Browser, tmp_path: Path) -> None:
    browser.open_video(tmp_path / "missing.mp4")
    with pytest.raises(ValueError, match="no supported sources"):
        browser.play()
    assert any("missing.mp4" in line for line in browser.complaints())
