"""Clips on a web server of the tests' own, and local cameras that are not there. Live sources: `test_outages.py`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_seg.camera import Camera
from edge_seg.errors import MediaError
from edge_seg.media import Source
from edge_seg.sources import expand_sources, open_item
from tests.edge_seg.clips import make_clip, read_number
from tests.edge_seg.servers import QuietHandler, Sensor, web_server


def open_address(address: str, **options: object) -> Source:
    return open_item(expand_sources([address])[0], **options)  # type: ignore[arg-type]


class Handler(QuietHandler):
    """`/clip.mp4` with its length; `/short.mp4`, cut off before it; anything else is not found."""

    def do_GET(self) -> None:
        if self.path == "/clip.mp4":
            self.send_response(200)
            self.send_header("Content-Length", str(len(self.data)))
            self.end_headers()
            self.wfile.write(self.data)
        elif self.path == "/short.mp4":
            self.send_response(200)
            self.send_header("Content-Length", str(len(self.data)))
            self.end_headers()
            self.wfile.write(self.data[: len(self.data) * 3 // 4])
        else:
            self.send_error(404)


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    clip = make_clip(tmp_path / "x.mp4", count=25, container_options={"movflags": "faststart"})
    with web_server(Handler, clip.read_bytes()) as address:
        yield address


def test_a_clip_on_a_web_server_is_read_whole(web: str) -> None:
    with open_address(f"{web}/clip.mp4") as source:
        assert not source.info.live
        assert [read_number(frame.image) for frame in source] == list(range(25))
    assert source.end.early is False


def test_a_download_that_breaks_off_is_no_end(web: str) -> None:
    with open_address(f"{web}/short.mp4") as source:
        numbers = [read_number(frame.image) for frame in source if not frame.corrupt]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) < 25
    assert source.end.early is True
    assert source.end.expected_s == 1.0


def test_addresses_that_answer_nothing_useful(web: str) -> None:
    with pytest.raises(MediaError, match=r"missing\.mp4.* Check the address"):
        open_address(f"{web}/missing.mp4")
    with pytest.raises(MediaError, match="cannot be opened"):
        open_address("http://127.0.0.1:9/x.mp4")


def test_there_is_no_such_camera() -> None:
    with pytest.raises(MediaError, match="camera 4711"):
        Camera(4711)


def test_a_camera_that_repeats_itself_is_taken_for_unplugged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_seg.camera.sys.platform", "elsewhere")
    monkeypatch.setattr("edge_seg.camera.cv2.VideoCapture", lambda index: Sensor(1, 20))
    with Camera(0, frozen_s=0.2) as camera:
        numbers = [read_number(frame.image) for frame in camera]
    assert numbers == list(range(1, 21)), "a repetition is no picture"
    assert camera.counts.dropped > 0
    assert camera.counts.read == 20 + camera.counts.dropped
    assert camera.end.early is True
    assert "repeated one picture" in camera.end.reason
