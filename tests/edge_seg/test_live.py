"""Clips on a web server of the tests' own, and local cameras that are not there. Live sources: `test_outages.py`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_seg.camera import Camera
from edge_seg.errors import MediaError, RefusedError
from edge_seg.items import expand_sources
from edge_seg.media import Event, Source
from edge_seg.sources import open_item
from tests.edge_seg.clips import make_clip, read_number
from tests.edge_seg.servers import QuietHandler, Sensor, web_server


def open_address(address: str, **options: object) -> Source:
    return open_item(expand_sources([address])[0], **options)  # type: ignore[arg-type]


class Handler(QuietHandler):
    """`/clip.mp4` with its length; `/short.mp4`, cut off before it; `/made.mp4` without; anything else is not found."""

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
        elif self.path == "/made.mp4":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            self.wfile.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(self.data), self.data))
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


@pytest.mark.parametrize(("flags", "live"), [("frag_keyframe+empty_moov", True), ("faststart", False)])
def test_fragments_that_are_sent_without_a_length_are_a_camera(tmp_path: Path, flags: str, live: bool) -> None:
    clip = make_clip(tmp_path / "x.mp4", count=25, container_options={"movflags": flags})
    with web_server(Handler, clip.read_bytes()) as address, open_address(f"{address}/made.mp4") as source:
        assert source.info.live is live
        indices = [frame.index for frame, _ in zip(source, range(26), strict=False)]
    if live:
        assert indices[-1] >= 25, "it hangs up after 25 frames, and is opened again"
    else:
        assert (indices, source.end.early) == (list(range(25)), False)


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
    monkeypatch.setattr("edge_seg.camera.FROZEN_S", 0.2)
    with Camera(0) as camera:
        numbers = [read_number(frame.image) for frame in camera]
    assert numbers == list(range(1, 21)), "a repetition is no picture"
    assert camera.counts.dropped > 0
    assert camera.counts.read == 20 + camera.counts.dropped
    assert camera.end.early is True
    assert "repeated one picture" in camera.end.reason


class Unplugged:
    """A driver that finds no camera."""

    def isOpened(self) -> bool:
        return False

    def release(self) -> None:
        pass


@pytest.fixture
def late_camera(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A camera that is there at the third attempt; what was attempted."""
    attempts: list[int] = []

    def capture(index: int) -> object:
        attempts.append(index)
        return Sensor(1, 20) if len(attempts) > 2 else Unplugged()

    monkeypatch.setattr("edge_seg.camera.sys.platform", "elsewhere")
    monkeypatch.setattr("edge_seg.camera.cv2.VideoCapture", capture)
    monkeypatch.setattr("edge_seg.sources.FIRST_REOPENING_S", 0.02)
    return attempts


def test_a_camera_that_is_not_there_yet_is_waited_for_if_asked(late_camera: list[int]) -> None:
    (item,) = expand_sources([7])
    with pytest.raises(MediaError, match="camera 7"):
        open_item(item)
    assert late_camera == [7]
    events: list[Event] = []
    with open_item(item, wait_s=20.0, on_event=events.append) as source:
        assert read_number(next(iter(source)).image) >= 1
    assert late_camera[:3] == [7, 7, 7]
    assert events[0].state == "lost"
    assert str(events[0]).startswith("camera 7")
    assert str(events[0]).endswith("Waiting up to 20 s for it.")


def test_waiting_ends_when_it_is_over_stopped_or_refused(
    late_camera: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edge_seg.camera.cv2.VideoCapture", lambda index: late_camera.append(index) or Unplugged())
    (item,) = expand_sources([7])
    with pytest.raises(MediaError):
        open_item(item, wait_s=0.2)
    assert len(late_camera) > 2
    late_camera.clear()
    with pytest.raises(MediaError):
        open_item(item, wait_s=5.0, stopped=lambda: len(late_camera) > 1)
    assert len(late_camera) == 2

    def refused(*_: object, **__: object) -> None:
        late_camera.append(0)
        raise RefusedError("refused the password")

    late_camera.clear()
    monkeypatch.setattr("edge_seg.camera.Camera", refused)
    with pytest.raises(RefusedError):
        open_item(item, wait_s=5.0)
    assert late_camera == [0]
