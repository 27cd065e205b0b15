"""Cameras on loopback that can be told to fail: RTSP over TCP with H.264 in hand-written RTP, and motion JPEG by HTTP;
an RTMP server, others that send a file's bytes by TCP and UDP, a plain web server, and what stands for a local camera's
driver.

Each frame's number, modulo 256, is drawn in its pixels; `sent` remembers when each number left last.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import socket
import struct
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import av
import cv2

from tests.edge_seg.clips import make_clip, paint_number

RTP_PAYLOAD = 96
FLV_SCRIPT = 18
# Every picture can be decoded by itself soon, one slice each, nothing held back.
ENCODING = {"preset": "ultrafast", "g": "5", "tune": "zerolatency", "x264-params": "sliced-threads=0:slices=1"}


def nal_units(clip: Path) -> list[list[bytes]]:
    """The H.264 units of each frame of a raw .h264 clip."""
    with av.open(str(clip)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    return [[unit for unit in data.replace(b"\0\0\0\1", b"\0\0\1").split(b"\0\0\1") if unit] for data in packets]


class FailingServer:
    """A server whose `mode` may change at any time.

    "play": all is well. "silent": what is connected hears nothing more, who connects gets no answer. "half": half a
    packet, then silence. "reset": connections are cut off hard and nobody listens. "401": connections are cut off, and
    the password has become wrong.
    """

    def __init__(self, *, pace_s: float = 0.04, password: str = "") -> None:
        self.mode = "play"
        self.pace_s = pace_s
        self.password = password
        self.clients = 0
        self.sent: dict[int, float] = {}
        self._count = 0
        self._over = threading.Event()
        self._open: list[socket.socket] = []
        self._listener: socket.socket | None = None
        self.port = self._listen(0)
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        """Hang up on everybody."""
        self._over.set()
        self.fail("reset")

    def fail(self, mode: str) -> None:
        """Fail in a manner from now on."""
        self.mode = mode
        if mode in ("reset", "401"):
            if mode == "reset" and self._listener is not None:
                self._listener.close()
                self._listener = None
            for connection in self._open:
                # Without lingering, closing sends a reset.
                with contextlib.suppress(OSError):
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    connection.close()
            self._open.clear()

    def recover(self) -> None:
        """Be well again, for who connects from now on."""
        self.mode = "play"
        if self._listener is None:
            self._listen(self.port)

    def play(self, connection: socket.socket, request: bytes) -> None:
        """Talk to a client that has sent `request`; raises `OSError` when it is gone."""
        raise NotImplementedError

    def next_number(self) -> int:
        """The number of the frame to send now."""
        self._count += 1
        number = self._count % 256
        self.sent[number] = time.monotonic()
        return number

    def stuck(self) -> None:
        """Keep a connection open and silent to the end of the test."""
        self._over.wait(60)
        raise OSError("the test is over")

    def _listen(self, port: int) -> int:
        # The old listener lives on until the thread that waits in it wakes up.
        deadline = time.monotonic() + 3
        while True:
            try:
                listener = socket.create_server(("127.0.0.1", port))
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        listener.settimeout(0.1)
        self._listener = listener
        return int(listener.getsockname()[1])

    def _serve(self) -> None:
        while not self._over.is_set():
            listener = self._listener
            if listener is None:
                time.sleep(0.02)
                continue
            try:
                connection, _ = listener.accept()
            except OSError:
                continue
            self.clients += 1
            self._open.append(connection)
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        connection.settimeout(30)
        with contextlib.suppress(OSError), connection:
            while request := connection.recv(8192):
                if self.mode in ("silent", "half"):
                    self.stuck()
                self.play(connection, request)

    def refuses(self, request: bytes) -> bool:
        """Whether a request lacks the right password."""
        given = base64.b64encode(f"admin:{self.password}".encode())
        return self.mode == "401" or bool(self.password and given not in request)


class RtspCamera(FailingServer):
    """An RTSP camera that plays 256 numbered frames in a loop; it `describes` itself, or leaves that to key frames, and
    its clock counts 90000 a second, or never moves (`timed`)."""

    def __init__(
        self, folder: Path, *, pace_s: float = 0.04, password: str = "", describes: bool = True, timed: bool = True
    ) -> None:
        self._describes, self._timed = describes, timed
        self._frames = nal_units(make_clip(folder / "camera.h264", count=256, options=ENCODING, first=0))
        super().__init__(pace_s=pace_s, password=password)

    def play(self, connection: socket.socket, request: bytes) -> None:
        text = request.decode(errors="replace")
        verb = text.split()[0]
        sequence = next(line.split(":")[1].strip() for line in text.splitlines() if line.startswith("CSeq"))
        if self.refuses(request) and verb != "OPTIONS":
            connection.sendall(
                f'RTSP/1.0 401 Unauthorized\r\nCSeq: {sequence}\r\nWWW-Authenticate: Basic realm="x"\r\n\r\n'.encode()
            )
            return
        connection.sendall(self._answer(verb, sequence))
        if verb == "PLAY":
            self._stream(connection)

    def _answer(self, verb: str, sequence: str) -> bytes:
        lines, body = [f"RTSP/1.0 200 OK\r\nCSeq: {sequence}"], ""
        if verb == "OPTIONS":
            lines.append("Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN")
        elif verb == "DESCRIBE":
            sets = ",".join(base64.b64encode(unit).decode() for unit in self._frames[0][:2])
            sets = f";sprop-parameter-sets={sets}" if self._describes else ""
            body = (
                "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=test\r\nt=0 0\r\n"
                f"m=video 0 RTP/AVP {RTP_PAYLOAD}\r\na=rtpmap:{RTP_PAYLOAD} H264/90000\r\n"
                f"a=fmtp:{RTP_PAYLOAD} packetization-mode=1{sets}\r\na=control:track1\r\n"
            )
            lines.append(f"Content-Type: application/sdp\r\nContent-Length: {len(body)}")
        elif verb == "SETUP":
            lines.append("Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\nSession: 1")
        else:
            lines.append("Session: 1")
        return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()

    def _stream(self, connection: socket.socket) -> None:
        sequence, began = 0, time.monotonic()
        while self.mode == "play":
            stamp = round((time.monotonic() - began) * 90000) & 0xFFFFFFFF if self._timed else 0
            units = self._frames[self.next_number()]
            for place, unit in enumerate(units):
                last = place == len(units) - 1
                header = struct.pack(">BBHII", 0x80, RTP_PAYLOAD | last << 7, sequence & 0xFFFF, stamp, 7)
                connection.sendall(b"$\0" + struct.pack(">H", len(header + unit)) + header + unit)
                sequence += 1
            time.sleep(self.pace_s)
        if self.mode == "half":
            connection.sendall(b"$\0\x04\x00" + bytes(100))
        self.stuck()


class WebCamera(FailingServer):
    """A motion JPEG camera."""

    def play(self, connection: socket.socket, request: bytes) -> None:
        if self.refuses(request):
            connection.sendall(
                b'HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm="x"\r\nContent-Length: 0\r\n'
                b"Connection: close\r\n\r\n"
            )
            raise OSError("no more to say")
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n")
        while self.mode == "play":
            data = cv2.imencode(".jpg", paint_number(self.next_number()))[1].tobytes()
            head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(data)}\r\n\r\n".encode()
            connection.sendall(head + data + b"\r\n")
            time.sleep(self.pace_s)
        if self.mode == "half":
            connection.sendall(b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: 900\r\n\r\n\xff\xd8\xff\xe0")
        self.stuck()


def amf(value: object) -> bytes:
    """A value in AMF0, Flash's own format."""
    if value is None:
        return b"\5"
    if isinstance(value, float):
        return b"\0" + struct.pack(">d", value)
    if isinstance(value, dict):
        pairs = (struct.pack(">H", len(key)) + key.encode() + amf(item) for key, item in value.items())
        return b"\3" + b"".join(pairs) + b"\0\0\x09"
    assert isinstance(value, str)
    return b"\2" + struct.pack(">H", len(value)) + value.encode()


class RtmpServer(FailingServer):
    """A server of live video that plays an FLV file's tags in their time, once a client.

    Those that tell of the whole file, such as how long it is, a live server does not have.
    """

    def __init__(self, clip: Path) -> None:
        self._tags = [tag for tag in flv_tags(clip.read_bytes()) if tag[0] != FLV_SCRIPT]
        super().__init__()

    def play(self, connection: socket.socket, request: bytes) -> None:
        """The handshake, three commands that are answered, then the tags."""
        while len(request) < 1537:
            more = connection.recv(8192)
            if not more:
                raise OSError("gone")
            request += more
        connection.sendall(b"\3" + bytes(1536) + request[1:1537])
        # Messages of any length in one piece.
        connection.sendall(self._message(1, struct.pack(">I", 0xFFFFFF)))
        heard, done = request[1537 + 1536 :], 0
        steps = [("connect", self._connected), ("createStream", self._created), ("play", self._playing)]
        while done < len(steps):
            name, answer = steps[done]
            place = heard.find(b"\2" + struct.pack(">H", len(name)) + name.encode())
            if place < 0 or len(heard) < place + 3 + len(name) + 9:
                more = connection.recv(8192)
                if not more:
                    raise OSError("gone")
                heard += more
                continue
            number = struct.unpack(">d", heard[place + 4 + len(name) : place + 12 + len(name)])[0]
            connection.sendall(self._message(20, answer(number)))
            heard, done = heard[place + 12 + len(name) :], done + 1
        began = time.monotonic()
        for kind, time_ms, body in self._tags:
            time.sleep(max(0.0, began + time_ms / 1000 - time.monotonic()))
            connection.sendall(self._message(kind, body, time_ms=time_ms, stream=1))
        self.stuck()

    @staticmethod
    def _connected(number: float) -> bytes:
        status = {"level": "status", "code": "NetConnection.Connect.Success"}
        return amf("_result") + amf(number) + amf({"fmsVer": "FMS/3,0,1,123"}) + amf(status)

    @staticmethod
    def _created(number: float) -> bytes:
        return amf("_result") + amf(number) + amf(None) + amf(1.0)

    @staticmethod
    def _playing(number: float) -> bytes:
        return amf("onStatus") + amf(0.0) + amf(None) + amf({"level": "status", "code": "NetStream.Play.Start"})

    @staticmethod
    def _message(kind: int, body: bytes, *, time_ms: int = 0, stream: int = 0) -> bytes:
        head = struct.pack(">I", time_ms)[1:] + struct.pack(">I", len(body))[1:]
        return b"\3" + head + bytes([kind]) + struct.pack("<I", stream) + body


def flv_tags(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(kind, time in ms, content) of each tag of an FLV file."""
    place = 13
    while place < len(data):
        size = int.from_bytes(data[place + 1 : place + 4])
        time_ms = int.from_bytes(data[place + 4 : place + 7]) | data[place + 7] << 24
        yield data[place], time_ms, data[place + 11 : place + 11 + size]
        place += 11 + size + 4


@contextlib.contextmanager
def sends_by_tcp(pieces: list[bytes], pace_s: float) -> Iterator[str]:
    """An address whose every client is sent the pieces, one each `pace_s`, and then nothing more."""
    over = threading.Event()

    def serve(listener: socket.socket) -> None:
        while not over.is_set():
            with contextlib.suppress(OSError):
                client, _ = listener.accept()
                with client:
                    for piece in pieces:
                        client.sendall(piece)
                        time.sleep(pace_s)
                    over.wait(60)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        try:
            yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            over.set()


@contextlib.contextmanager
def sends_by_udp(pieces: list[bytes], pace_s: float) -> Iterator[str]:
    """An address of this machine to which the pieces are sent, one each `pace_s`, over and over."""
    over = threading.Event()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def send() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for piece in itertools.cycle(pieces):
                if over.is_set():
                    return
                with contextlib.suppress(OSError):
                    sender.sendto(piece, ("127.0.0.1", port))
                time.sleep(pace_s)

    threading.Thread(target=send, daemon=True).start()
    try:
        yield f"udp://127.0.0.1:{port}"
    finally:
        over.set()


class QuietHandler(BaseHTTPRequestHandler):
    """Answers with `data` as a subclass says, and logs nothing."""

    data = b""

    def log_message(self, *_: object) -> None:
        return


@contextlib.contextmanager
def web_server(handler: type[QuietHandler], data: bytes) -> Iterator[str]:
    """A web server on loopback whose handlers have this `data`; its address, without a slash at the end."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Own", (handler,), {"data": data}))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


class Sensor:
    """A camera's driver: `fresh` pictures numbered from `first`, then the last one for ever, or no answer (`hangs`)."""

    def __init__(self, first: int, fresh: int, *, hangs: bool = False) -> None:
        self._count, self._last, self._hangs = first, first + fresh - 1, hangs

    def isOpened(self) -> bool:
        return True

    def set(self, *_: object) -> bool:
        return True

    def get(self, _: object) -> float:
        return 30.0

    def read(self) -> tuple[bool, object]:
        time.sleep(0.005)
        if self._count > self._last and self._hangs:
            time.sleep(4)
        picture = paint_number(min(self._count, self._last) % 256)
        self._count += 1
        return True, picture

    def release(self) -> None:
        return
