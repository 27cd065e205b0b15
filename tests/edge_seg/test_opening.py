"""What media may open: themselves. Files that name others are refused in one line, and the others are never touched.

The others are canaries: a named pipe, whose writer wakes as soon as anybody opens it, and sockets on loopback, which
see whoever calls.
"""

from __future__ import annotations

import io
import os
import select
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from edge_seg import Segmenter, opening
from edge_seg.boxes import MOST_BOXES
from edge_seg.errors import MediaError
from edge_seg.fake import FakeSession
from edge_seg.items import expand_sources
from edge_seg.redact import remember_secrets
from edge_seg.sources import open_item
from edge_seg.video import VideoFile
from tests.edge_seg.clips import make_clip

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="a named pipe is the canary")


@dataclass
class Canaries:
    """A pipe (`file`), a TCP port and a UDP port that nobody may touch; `touched` says which were."""

    file: Path
    tcp: socket.socket = field(default_factory=lambda: socket.create_server(("127.0.0.1", 0)))
    udp: socket.socket = field(default_factory=lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))

    def __post_init__(self) -> None:
        os.mkfifo(self.file)
        self.udp.bind(("127.0.0.1", 0))
        self._opened = threading.Event()
        threading.Thread(target=self._wait_for_a_reader, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self.tcp.getsockname()[1])

    def touched(self) -> list[str]:
        ready = select.select([self.tcp, self.udp], [], [], 0.1)[0]
        names = ["tcp" for one in ready if one is self.tcp] + ["udp" for one in ready if one is self.udp]
        return names + ["file"] * self._opened.is_set()

    def close(self) -> None:
        self.tcp.close()
        self.udp.close()
        # Lets the writer's thread go.
        os.close(os.open(self.file, os.O_RDONLY | os.O_NONBLOCK))

    def _wait_for_a_reader(self) -> None:
        os.close(os.open(self.file, os.O_WRONLY))
        self._opened.set()


@pytest.fixture
def canaries(tmp_path: Path) -> Iterator[Canaries]:
    made = Canaries(tmp_path / "canary.ts")
    yield made
    made.close()


def test_the_canaries_sing(tmp_path: Path) -> None:
    for name, touch in (
        ("file", lambda made: os.close(os.open(made.file, os.O_RDONLY))),
        ("tcp", lambda made: socket.create_connection(("127.0.0.1", made.port)).close()),
        ("udp", lambda made: made.udp.sendto(b"x", made.udp.getsockname())),
    ):
        made = Canaries(tmp_path / f"{name}.ts")
        assert made.touched() == []
        touch(made)
        assert made.touched() == [name]
        made.close()


def replaced_box(data: bytes, kinds: list[bytes], body: bytes) -> bytes:
    """An MP4 (or the inside of a box) with the innermost of the nested `kinds` given another body."""
    place = 0
    while data[place + 4 : place + 8] != kinds[0]:
        place += int.from_bytes(data[place : place + 4], "big")
    end = place + int.from_bytes(data[place : place + 4], "big")
    inside = replaced_box(data[place + 8 : end], kinds[1:], body) if kinds[1:] else body
    return data[:place] + struct.pack(">I", 8 + len(inside)) + kinds[0] + inside + data[end:]


def reference_movie(whole: bytes, kind: bytes, location: bytes) -> bytes:
    """A QuickTime movie whose data reference names another file."""
    entry = struct.pack(">I", 12 + len(location)) + kind + bytes(4) + location
    return replaced_box(
        whole, [b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"], bytes(4) + struct.pack(">I", 1) + entry
    )


def alias(path: bytes) -> bytes:
    """An old Macintosh alias record with an absolute path."""
    record = struct.pack(">HH", 18, len(path) + len(path) % 2) + path + bytes(len(path) % 2) + b"\xff\xff\0\0"
    head = bytes(10) + b"\3vol".ljust(28, b"\0") + bytes(12) + b"\1x".ljust(64, b"\0") + bytes(16)
    return head + struct.pack(">HH", 1, 1) + bytes(16) + record


PLAYLISTS: dict[str, str] = {
    "list.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{file}\n#EXT-X-ENDLIST\n",
    "address.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{http}/a.ts\n#EXT-X-ENDLIST\n",
    "disguised.mp4": "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n{http}/a.ts\n#EXT-X-ENDLIST\n",
    "marked.ts": "\ufeff#EXTM3U\n#EXTINF:2,\nfile://{file}\n",
    "key.m3u8": '#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{http}/key"\n#EXTINF:2,\n{file}\n',
    "join.ffconcat": "ffconcat version 1.0\nfile {file}\n",
    "join.mkv": "ffconcat version 1.0\nfile {file}\n",
    "call.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {udp} RTP/AVP 96\n"
    "a=rtpmap:96 H264/90000\n",
    "call.mp4": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video {udp} RTP/AVP 96\n",
    "picture.svg": '<svg xmlns="http://www.w3.org/2000/svg"><image href="{http}/x.png"/><image href="{file}"/></svg>',
    "manifest.mpd": '<?xml version="1.0"?><MPD><BaseURL>{http}/</BaseURL></MPD>',
    "old.asf": "[Reference]\nRef1={http}/a.asf\n",
    "bare.avi": "{http}/a.avi\n",
}


@pytest.mark.parametrize("name", list(PLAYLISTS))
def test_a_file_that_names_others_is_refused_and_they_are_left_alone(
    tmp_path: Path, canaries: Canaries, predict: Any, name: str
) -> None:
    path = tmp_path / name
    http, udp = f"http://127.0.0.1:{canaries.port}", canaries.udp.getsockname()[1]
    path.write_text(PLAYLISTS[name].format(file=canaries.file, http=http, udp=udp))
    code, summary, err = predict(path)
    assert (code, summary["sources"][0]["status"]) == (1, "failed")
    (line,) = [line for line in err.splitlines() if line.startswith("error:")]
    assert line == f"error: {path}: is a playlist, which opens other files or addresses; give the video itself."
    assert canaries.touched() == []


@pytest.mark.parametrize("name", ["picture.png", "picture.jpg"])
def test_a_picture_that_names_others_is_no_picture(tmp_path: Path, canaries: Canaries, predict: Any, name: str) -> None:
    (tmp_path / name).write_text(
        PLAYLISTS["picture.svg"].format(http=f"http://127.0.0.1:{canaries.port}", file=canaries.file)
    )
    code, _, err = predict(tmp_path / name)
    assert code == 1
    assert f"{name}: not a PNG, JPEG" in err
    assert canaries.touched() == []


@pytest.mark.parametrize(("kind", "wrap"), [(b"alis", alias), (b"url ", lambda path: b"file://" + path + b"\0")])
def test_a_movie_whose_pictures_lie_elsewhere_is_refused(
    tmp_path: Path, canaries: Canaries, kind: bytes, wrap: Callable[[bytes], bytes]
) -> None:
    whole = make_clip(tmp_path / "whole.mov", count=5).read_bytes()
    path = tmp_path / "reference.mov"
    path.write_bytes(reference_movie(whole, kind, wrap(str(canaries.file).encode())))
    with pytest.raises(MediaError, match=r"reference\.mov: its pictures lie in another file.*give that file itself"):
        VideoFile(path)
    assert canaries.touched() == []
    # Itself, as every camera writes it, and a writer that forgot to say so but names nothing.
    path.write_bytes(reference_movie(whole, b"url ", b""))
    with VideoFile(path) as video:
        assert len(list(video)) == 5


@pytest.mark.parametrize(
    "name", ["concat:{file}|{file}", "subfile,,start,0,end,9,,:{file}", "tcp:127.0.0.1:{port}", "-"]
)
def test_a_name_is_never_a_protocol(canaries: Canaries, name: str) -> None:
    with pytest.raises(MediaError, match="no such file"):
        VideoFile(name.format(file=canaries.file, port=canaries.port))
    assert canaries.touched() == []


class Handler(BaseHTTPRequestHandler):
    """`/list` gives a playlist, `/elsewhere` sends the caller to another place; both as the test set them."""

    playlist, elsewhere = b"", ""

    def do_GET(self) -> None:
        if self.path == "/list":
            self.send_response(200)
            self.send_header("Content-Type", "application/vnd.apple.mpegurl")
            self.send_header("Content-Length", str(len(self.playlist)))
            self.end_headers()
            self.wfile.write(self.playlist)
        else:
            self.send_response(302)
            self.send_header("Location", self.elsewhere)
            self.end_headers()

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def web() -> Iterator[tuple[str, type[Handler]]]:
    handler = type("OwnHandler", (Handler,), {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("name", ["list.m3u8", "address.m3u8", "join.ffconcat", "call.sdp", "manifest.mpd"])
def test_a_playlist_on_a_server_is_not_followed(canaries: Canaries, web: tuple[str, type[Handler]], name: str) -> None:
    address, handler = web
    http, udp = f"http://127.0.0.1:{canaries.port}", canaries.udp.getsockname()[1]
    handler.playlist = PLAYLISTS[name].format(file=canaries.file, http=http, udp=udp).encode()
    with pytest.raises(
        MediaError, match=rf"{address}/list: cannot be opened .*Playlists .* are not followed"
    ) as caught:
        open_item(expand_sources([f"{address}/list"])[0])
    assert "\n" not in str(caught.value)
    assert canaries.touched() == []


@pytest.mark.parametrize(
    "elsewhere", ["file://{file}", "{file}", "rtsp://127.0.0.1:{port}/x", "tcp://127.0.0.1:{port}", "concat:{file}"]
)
def test_a_server_cannot_send_us_to_a_file_or_another_protocol(
    canaries: Canaries, web: tuple[str, type[Handler]], elsewhere: str
) -> None:
    address, handler = web
    handler.elsewhere = elsewhere.format(file=canaries.file, port=canaries.port)
    with pytest.raises(MediaError, match="cannot be opened"):
        open_item(expand_sources([f"{address}/elsewhere"])[0])
    assert canaries.touched() == []


@pytest.fixture
def shelf(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A server of a folder's files that knows no ranges: its address, and the folder."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            return

    folder = tmp_path / "shelf"
    folder.mkdir()
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", folder
    server.shutdown()
    server.server_close()


def test_sound_that_an_address_brings_is_told_to_be_left_out(shelf: tuple[str, Path], predict: Any) -> None:
    address, folder = shelf
    make_clip(folder / "drive.mkv", count=8, audio="aac")
    code, summary, _ = predict(f"{address}/drive.mkv")
    assert code == 0
    (report,) = summary["sources"]
    assert report["frames"]["segmented"] == 8
    assert "without its sound, which is carried from files alone" in report["notes"]


def test_an_index_at_the_end_wants_a_server_with_ranges(shelf: tuple[str, Path]) -> None:
    address, folder = shelf
    # Larger than what libav reads past instead of asking for a range.
    noise = np.random.default_rng(1)
    with av.open(str(folder / "drive.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "1", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 320, 240, "yuv420p"
        for _ in range(30):
            picture = av.VideoFrame.from_ndarray(noise.integers(0, 255, (240, 320, 3), np.uint8), format="bgr24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    assert (folder / "drive.mp4").stat().st_size > 2_000_000
    with open_item(expand_sources([f"{address}/drive.mp4"])[0]) as source:
        assert not list(source)
    assert "An MP4 whose index comes last needs a server that answers ranges" in source.end.reason


def test_a_file_of_endless_parts_is_refused_in_bounded_time(tmp_path: Path) -> None:
    """Each part costs eight bytes, and a look at it."""
    clip = tmp_path / "endless.mp4"
    clip.write_bytes(b"\0\0\0\x10ftypisom\0\0\0\0" + b"\0\0\0\x08free" * MOST_BOXES)
    with pytest.raises(MediaError, match=r"more than 1,000,000 parts"):
        VideoFile(clip)


def test_a_segment_of_a_stream_is_told_from_a_cut_recording(tmp_path: Path) -> None:
    (tmp_path / "seg.mp4").write_bytes(b"\0\0\0\x10stypmsdh\0\0\0\0" + b"\0\0\0\x08moof" + b"\0\0\0\x10mdat12345678")
    with pytest.raises(MediaError, match="a piece of a stream without its beginning"):
        VideoFile(tmp_path / "seg.mp4")


def test_many_indices_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.mp4").write_bytes(b"\0\0\0\x10ftypisom\0\0\0\0" + b"\0\0\0\x08moov" * 1001)
    with pytest.raises(MediaError, match="has 1,001 moov boxes"):
        VideoFile(tmp_path / "x.mp4")


def test_an_opening_that_was_given_up_asks_the_camera_no_second_time(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []

    def unsized(*given: Any, **named: Any) -> Any:
        calls.append(named)
        time.sleep(1.0)
        return av.open(io.BytesIO(clip), "r")

    clip = make_clip(Path(tempfile.mkdtemp()) / "x.ts", count=5).read_bytes()
    monkeypatch.setattr(opening, "_open", unsized)
    monkeypatch.setattr(opening, "_sized", lambda container: False)
    began = time.monotonic()
    with pytest.raises(MediaError, match="no answer had come"):
        opening.open_address("rtsp://127.0.0.1:9/x", stopped=lambda: time.monotonic() - began > 0.3)
    assert time.monotonic() - began < 0.9
    for thread in threading.enumerate():
        if thread.name == "edge_seg-open":
            thread.join(10)
    assert len(calls) == 1


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that takes every connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:{}", "rtsp://127.0.0.1:{}/x", "http://127.0.0.1:{}/x"])
def test_a_loop_in_another_thread_that_is_connecting_ends_when_its_stream_is_closed(
    silent: int, monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    connecting, wait = threading.Event(), opening.wait

    def waiting(*given: Any) -> Any:
        connecting.set()
        return wait(*given)

    monkeypatch.setattr(opening, "OPEN_TIMEOUT_S", 60.0)
    monkeypatch.setattr(opening, "wait", waiting)
    stream, results = Segmenter(FakeSession()).stream(address.format(silent)), []
    loop = threading.Thread(target=lambda: results.extend(stream), daemon=True)
    loop.start()
    connecting.wait(10)
    stream.close()
    loop.join(30)
    assert not loop.is_alive()
    assert results == []


def test_an_address_may_be_opened_while_the_program_ends() -> None:
    script = (
        "import atexit\n"
        "@atexit.register\n"
        "def last():\n"
        "    from edge_seg.errors import MediaError\n"
        "    from edge_seg.opening import open_address\n"
        "    try: open_address('tcp://127.0.0.1:9')\n"
        "    except MediaError as error: print(error)\n"
        "import edge_seg.opening\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=30, cwd=root)
    assert "tcp://127.0.0.1:9: cannot be opened" in done.stdout, done.stderr


def test_a_text_is_no_cut_recording(tmp_path: Path) -> None:
    (tmp_path / "page.mp4").write_text("downloaderror: the link is too old\n" * 20)
    with pytest.raises(MediaError, match="not a video edge_seg reads"):
        VideoFile(tmp_path / "page.mp4")


def test_a_header_without_a_picture_is_told(tmp_path: Path) -> None:
    whole = bytearray(make_clip(tmp_path / "whole.mkv", count=4).read_bytes())
    # A live recording's segment has no length of its own.
    segment = whole.index(b"\x18\x53\x80\x67") + 4
    whole[segment : segment + 8] = b"\x01" + b"\xff" * 7
    (tmp_path / "head.mkv").write_bytes(whole[: segment + 8])
    with pytest.raises(MediaError, match=r"head\.mkv: holds a header and no pictures"):
        VideoFile(tmp_path / "head.mkv")
    (tmp_path / "sound.mp3").write_bytes(b"ID3\x03\0\0\0\0\0\0" + b"\xff\xfb\x90\x64" * 400)
    with pytest.raises(MediaError, match=r"not a video edge_seg reads\. It reads MP4"):
        VideoFile(tmp_path / "sound.mp3")


def test_plain_libav_would_have_followed(tmp_path: Path, canaries: Canaries) -> None:
    """What the refusals above are worth: the library's own defaults open the other file."""
    path = tmp_path / "join.ffconcat"
    path.write_text(f"ffconcat version 1.0\nfile {canaries.file.name}\n")
    with pytest.raises((av.error.FFmpegError, OSError)):
        av.open(str(path))
    assert canaries.touched() == ["file"]


def test_a_library_that_repeats_a_password_in_its_error_does_not_have_it_shown() -> None:
    remember_secrets("rtsp://admin:corr-horse@cam/live")
    assert opening.reason_of(OSError(5, "Login as corr-horse failed")) == "login as *** failed"
