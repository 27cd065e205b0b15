"""Network sources that work: RTSP and HTTP servers of the tests' own, on loopback."""

from __future__ import annotations

import base64
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import cv2
import pytest

from edge_seg.camera import Camera
from edge_seg.errors import MediaError
from edge_seg.media import Event, Frame, Source
from edge_seg.sources import expand_sources, open_item
from tests.edge_seg.clips import make_clip, paint_number, read_number

RTP_PAYLOAD = 96


def nal_units(clip: Path) -> list[list[bytes]]:
    """The H.264 units of each frame of a raw .h264 clip."""
    with av.open(str(clip)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    return [[unit for unit in data.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1") if unit] for data in packets]


class RtspServer:
    """A camera that speaks RTSP over TCP: plays a clip to each client at `pace_s` a frame, then hangs up.

    `clients` counts connections, so that a test can see a reconnection.
    """

    def __init__(self, clip: Path, *, pace_s: float) -> None:
        self._frames, self._pace_s = nal_units(clip), pace_s
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._socket.settimeout(30)
        self.port = self._socket.getsockname()[1]
        self.clients = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._socket.close()

    def _serve(self) -> None:
        try:
            while True:
                connection, _ = self._socket.accept()
                self.clients += 1
                with connection:
                    connection.settimeout(20)
                    self._talk(connection)
        except OSError:
            return

    def _talk(self, connection: socket.socket) -> None:
        try:
            while True:
                request = connection.recv(4096).decode(errors="replace")
                if not request:
                    return
                verb = request.split()[0]
                connection.sendall(self._answer(verb, request))
                if verb == "PLAY":
                    self._play(connection)
                    return
        except OSError:
            return

    def _answer(self, verb: str, request: str) -> bytes:
        sequence = next(line.split(":")[1].strip() for line in request.splitlines() if line.startswith("CSeq"))
        lines, body = [f"RTSP/1.0 200 OK\r\nCSeq: {sequence}"], ""
        if verb == "OPTIONS":
            lines.append("Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN")
        elif verb == "DESCRIBE":
            sets = ",".join(base64.b64encode(unit).decode() for unit in self._frames[0][:2])
            body = (
                "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=test\r\nt=0 0\r\n"
                f"m=video 0 RTP/AVP {RTP_PAYLOAD}\r\na=rtpmap:{RTP_PAYLOAD} H264/90000\r\n"
                f"a=fmtp:{RTP_PAYLOAD} packetization-mode=1;sprop-parameter-sets={sets}\r\na=control:track1\r\n"
            )
            lines.append(f"Content-Type: application/sdp\r\nContent-Length: {len(body)}")
        elif verb == "SETUP":
            lines.append("Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1")
        else:
            lines.append("Session: 1")
        return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()

    def _play(self, connection: socket.socket) -> None:
        number = 0
        for index, units in enumerate(self._frames):
            for unit in units:
                last = unit is units[-1]
                header = struct.pack(">BBHII", 0x80, RTP_PAYLOAD | last << 7, number & 0xFFFF, 90000 + index * 3600, 7)
                packet = header + unit
                connection.sendall(b"$\0" + struct.pack(">H", len(packet)) + packet)
                number += 1
            time.sleep(self._pace_s)


@pytest.fixture
def rtsp(tmp_path: Path) -> Iterator[Callable[..., RtspServer]]:
    servers: list[RtspServer] = []

    def serve(*, count: int, pace_s: float) -> RtspServer:
        options = {"preset": "ultrafast", "g": "5", "tune": "zerolatency", "x264-params": "sliced-threads=0:slices=1"}
        clip = make_clip(tmp_path / "camera.h264", count=count, options=options)
        servers.append(RtspServer(clip, pace_s=pace_s))
        return servers[-1]

    yield serve
    for server in servers:
        server.close()


def open_address(address: str, **options: object) -> Source:
    return open_item(expand_sources([address])[0], **options)  # type: ignore[arg-type]


def test_an_rtsp_camera_is_read_and_opened_again(rtsp: Callable[..., RtspServer]) -> None:
    server = rtsp(count=40, pace_s=0.03)
    events: list[Event] = []
    address = f"rtsp://admin:geheim-9@127.0.0.1:{server.port}/live"
    frames: list[Frame] = []
    with open_address(address, give_up_s=6.0, on_event=events.append) as source:
        assert source.info.live
        for frame in source:
            frames.append(frame)
            if source.counts.reconnects and len(frames) > 50:
                break
    numbers = [read_number(frame.image) for frame in frames]
    assert set(numbers) <= set(range(40))
    assert server.clients >= 2
    assert source.counts.reconnects >= 1
    assert source.counts.read == len(frames) + source.counts.dropped + source.counts.failed
    times = [frame.time_s for frame in frames]
    assert times == sorted(times)
    assert times[-1] > 40 * 0.04, "time goes on after the break"
    assert all(frame.captured_at is not None for frame in frames)
    assert events
    assert not any("geheim-9" in repr(event) for event in events)
    assert "***@127.0.0.1" in source.info.name


def test_an_rtsp_camera_that_goes_away_ends_after_the_deadline(rtsp: Callable[..., RtspServer]) -> None:
    server = rtsp(count=10, pace_s=0.02)
    frames = []
    with open_address(f"rtsp://127.0.0.1:{server.port}/live", give_up_s=1.5) as source:
        server.close()
        started = time.monotonic()
        for frame in source:
            frames.append(frame)
    assert frames
    assert time.monotonic() - started < 15
    assert source.end.early is True
    assert "no frame for 1.5 s" in source.end.reason


class Handler(BaseHTTPRequestHandler):
    """`/clip.mp4` with its length; `/camera` as a motion JPEG that never ends; anything else is not found."""

    clip = b""

    def do_GET(self) -> None:
        if self.path == "/camera":
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            for number in range(200):
                data = cv2.imencode(".jpg", paint_number(number))[1].tobytes()
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n".encode()
                try:
                    self.wfile.write(head + data + b"\r\n")
                except OSError:
                    return
                time.sleep(0.02)
        elif self.path == "/clip.mp4":
            self.send_response(200)
            self.send_header("Content-Length", str(len(self.clip)))
            self.end_headers()
            self.wfile.write(self.clip)
        else:
            self.send_error(404)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    clip = make_clip(tmp_path / "x.mp4", count=25, container_options={"movflags": "faststart"})
    handler = type("ClipHandler", (Handler,), {"clip": clip.read_bytes()})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_clip_on_a_web_server_is_read_whole(web: str) -> None:
    with open_address(f"{web}/clip.mp4") as source:
        assert not source.info.live
        assert [read_number(frame.image) for frame in source] == list(range(25))
    assert source.end.early is False


def test_a_web_camera_gives_its_newest_frames(web: str) -> None:
    numbers = []
    with open_address(f"{web}/camera", give_up_s=5.0) as source:
        assert source.info.live
        for frame in source:
            numbers.append(read_number(frame.image))
            time.sleep(0.06)
            if len(numbers) == 10:
                break
    assert numbers == sorted(set(numbers))
    assert source.counts.dropped > 0
    assert source.counts.read == 10 + source.counts.dropped


def test_addresses_that_answer_nothing_useful(web: str) -> None:
    with pytest.raises(MediaError, match=r"missing\.mp4"):
        open_address(f"{web}/missing.mp4")
    with pytest.raises(MediaError, match="cannot be opened"):
        open_address("http://127.0.0.1:9/x.mp4")


def test_there_is_no_such_camera() -> None:
    with pytest.raises(MediaError, match="camera 4711"):
        Camera(4711)


class Sensor:
    """Stands for a camera's driver: `fresh` pictures that differ, then the last one for ever."""

    def __init__(self, fresh: int) -> None:
        self._fresh, self._count = fresh, 0

    def isOpened(self) -> bool:
        return True

    def set(self, *_: object) -> bool:
        return True

    def get(self, _: object) -> float:
        return 30.0

    def read(self) -> tuple[bool, object]:
        time.sleep(0.005)
        self._count += 1
        return True, paint_number(min(self._count, self._fresh))

    def release(self) -> None:
        return


def test_a_camera_that_repeats_itself_is_taken_for_unplugged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_seg.camera.sys.platform", "elsewhere")
    monkeypatch.setattr("edge_seg.camera.cv2.VideoCapture", lambda index: Sensor(20))
    with Camera(0, frozen_s=0.2) as camera:
        numbers = [read_number(frame.image) for frame in camera]
    assert numbers == list(range(1, 21)), "a repetition is no picture"
    assert camera.counts.dropped > 0
    assert camera.counts.read == 20 + camera.counts.dropped
    assert camera.end.early is True
    assert "repeated one picture" in camera.end.reason
