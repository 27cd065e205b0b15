"""Video that comes by TCP, UDP, RTMP or a pipe, and video without times. Cameras that fail: `test_outages.py`."""

from __future__ import annotations

import collections
import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from edge_seg.errors import ConfigurationError, MediaError
from edge_seg.items import SCHEMES, expand_sources
from edge_seg.media import Frame, Source
from edge_seg.opening import OPEN_TIMEOUT_S, PROTOCOLS, _explain_address
from edge_seg.sources import open_item
from edge_seg.video import VideoFile
from tests.edge_seg.clips import make_clip, read_number, video_numbers
from tests.edge_seg.servers import ENCODING, RtmpServer, RtspCamera, WebCamera, nal_units, sends_by_tcp, sends_by_udp
from tests.edge_seg.test_cli import SLOW_CLI, child_env

DATAGRAM = 1316


def open_address(address: str, **options: Any) -> Source:
    return open_item(expand_sources([address])[0], **options)


def first_frames(source: Source, count: int) -> list[tuple[Frame, float]]:
    """The first `count` frames of a source that goes on, and when each was had."""
    with source:
        frames = iter(source)
        return [(next(frames), time.monotonic()) for _ in range(count)]


def frames_of(source: Source, seconds: float) -> list[tuple[Frame, float]]:
    """The frames that a source gives in some seconds, and when each was had."""
    found: list[tuple[Frame, float]] = []
    with source:
        for frame in source:
            found.append((frame, time.monotonic()))
            if found[-1][1] - found[0][1] > seconds:
                break
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def cut(data: bytes, size: int) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def numbers_and_times(frames: list[Frame]) -> list[tuple[int, float]]:
    return [(read_number(frame.image), frame.time_s) for frame in frames]


def test_a_transport_stream_by_tcp_keeps_its_own_times(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "x.ts", count=60, options=ENCODING).read_bytes()
    # Twice as fast as it was filmed: its clock counts, not ours.
    with sends_by_tcp(cut(clip, len(clip) // 60), 0.02) as address, open_address(address) as source:
        assert source.info.live
        frames = [frame for frame, _ in zip(source, range(20), strict=False)]
    (first, start), (last, end) = numbers_and_times([frames[0], frames[-1]])
    assert last - first >= 19
    assert end - start == pytest.approx((last - first) / 25, abs=0.001)


def test_a_transport_stream_by_udp_is_taken_up_in_its_middle(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "x.ts", count=250, options=ENCODING).read_bytes()
    with sends_by_udp(cut(clip, DATAGRAM), 0.01) as address:
        frames = first_frames(open_address(address), 20)
    numbers = [read_number(frame.image) for frame, _ in frames if not frame.corrupt]
    assert len(numbers) > 10
    assert numbers == sorted(numbers)


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_who_joins_between_key_frames_waits_for_the_next(tmp_path: Path, kind: str) -> None:
    whole = make_clip(tmp_path / "x.ts", count=200, options={**ENCODING, "g": "75"}).read_bytes()
    pieces = cut(whole[len(whole) // 40 // 188 * 188 :], DATAGRAM)
    sends = sends_by_tcp if kind == "tcp" else sends_by_udp
    with sends(pieces, 7 / len(pieces)) as address, open_address(address) as source:
        good = (frame for frame in source if not frame.corrupt)
        numbers = [read_number(frame.image) for frame in itertools.islice(good, 15)]
    assert numbers[0] >= 75, "the first whole picture is a key frame"
    assert numbers == sorted(set(numbers))


def test_a_port_that_hears_nothing_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"^udp://127\.0\.0\.1:\d+: nothing came within 1 s, or no key frame"):
        VideoFile(f"udp://127.0.0.1:{free_port()}", network=True, open_timeout_s=1.0)
    with pytest.raises(MediaError, match=r"nobody called within 1\.1 s; --wait S waits longer"):
        VideoFile(f"tcp://127.0.0.1:{free_port()}?listen=1", network=True, open_timeout_s=1.123456)
    long = _explain_address("tcp://127.0.0.1:9?listen=1", TimeoutError(), 120.0)
    assert str(long).endswith(": nobody called within 120 s; --wait S waits longer.")
    with pytest.raises(MediaError, match=r"^tcp://127\.0\.0\.1:9: cannot be opened \(connection refused\)"):
        open_address("tcp://127.0.0.1:9")


def test_a_live_stream_by_rtmp(tmp_path: Path) -> None:
    server = RtmpServer(make_clip(tmp_path / "x.flv", count=100, options=ENCODING))
    try:
        with open_address(f"rtmp://127.0.0.1:{server.port}/live/key") as source:
            assert source.info.live
            assert source.info.name == f"rtmp://127.0.0.1:{server.port}/live/***"
            frames = [frame for frame, _ in zip(source, range(20), strict=False)]
    finally:
        server.close()
    (first, start), (last, end) = numbers_and_times([frames[0], frames[-1]])
    assert end - start == pytest.approx((last - first) / 25, abs=0.003)


@pytest.mark.parametrize("kind", ["raw H.264 by TCP", "motion JPEG by HTTP", "RTSP with a clock that stands still"])
def test_what_brings_no_times_gets_those_of_its_arrival(tmp_path: Path, kind: str) -> None:
    # Ten pictures a second, which libav would count as 25.
    if kind == "motion JPEG by HTTP":
        camera = WebCamera(pace_s=0.1)
        try:
            frames = frames_of(open_address(f"http://127.0.0.1:{camera.port}/"), 2.0)
        finally:
            camera.close()
    elif kind == "RTSP with a clock that stands still":
        still = RtspCamera(tmp_path, pace_s=0.1, timed=False)
        try:
            frames = frames_of(open_address(f"rtsp://127.0.0.1:{still.port}/"), 2.0)
        finally:
            still.close()
    else:
        units = nal_units(make_clip(tmp_path / "x.h264", count=250, options=ENCODING))
        pieces = [b"".join(b"\0\0\0\1" + unit for unit in picture) for picture in units]
        # What libav looks at before it begins comes at once.
        with sends_by_tcp([b"".join(pieces[:60]), *pieces[60:]], 0.1) as address:
            source = open_address(address)
            assert (source.info.timed, source.info.rate) == (False, None)
            frames = frames_of(source, 2.0)
            assert source.counts.retimed == 0
    (first, first_at), (last, last_at) = frames[0], frames[-1]
    assert last.time_s - first.time_s == pytest.approx(last_at - first_at, abs=0.2)
    assert all(before.pts < after.pts for (before, _), (after, _) in itertools.pairwise(frames))


def test_a_camera_may_call_instead_of_being_called(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "x.ts", count=60, options=ENCODING).read_bytes()
    port = free_port()

    def call() -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            try:
                camera = socket.create_connection(("127.0.0.1", port))
            except ConnectionRefusedError:
                time.sleep(0.05)
                continue
            with camera, contextlib.suppress(OSError):
                for piece in cut(clip, len(clip) // 60):
                    camera.sendall(piece)
                    time.sleep(0.01)
            return

    threading.Thread(target=call, daemon=True).start()
    with open_address(f"tcp://127.0.0.1:{port}?listen=1") as source:
        frames = [frame for frame, _ in zip(source, range(20), strict=False)]
    numbers = [read_number(frame.image) for frame in frames]
    assert len(numbers) == 20
    assert numbers == sorted(set(numbers))


@pytest.mark.parametrize(
    "address", ["tcp://:8554", "tcp://0.0.0.0:8554?listen=1", "udp://@239.1.2.3:1234", "udp://:5000"]
)
def test_ports_of_this_machine_are_addresses(address: str) -> None:
    (item,) = expand_sources([address])
    assert (item.kind, item.live, item.name) == ("stream", True, address)
    assert "_" in item.stem or item.stem.isdecimal()


@pytest.mark.parametrize("address", ["tcp://cam", "udp://@239.1.2.3", "tcp://", "udp://:0"])
def test_a_port_has_to_be_named(address: str) -> None:
    with pytest.raises(ConfigurationError, match=r"names no port. Expected (tcp|udp)://\[HOST\]:PORT"):
        expand_sources([address])


# Standard input


def run_cli(arguments: list[object], given: bytes | Any, timeout_s: float = 60) -> subprocess.CompletedProcess[bytes]:
    """`edge-seg predict ARGUMENTS` with `given` piped into it, or with that for standard input."""
    how: dict[str, Any] = {"input": given} if isinstance(given, bytes) else {"stdin": given}
    command = [sys.executable, str(SLOW_CLI), "0", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, env=child_env(), timeout=timeout_s, **how)


@pytest.mark.parametrize("name", ["x.ts", "x.mkv", "x.h264", "faststart.mp4"])
def test_a_clip_through_a_pipe_loses_no_frame(model: Path, tmp_path: Path, name: str) -> None:
    options = {"movflags": "faststart"} if name.endswith(".mp4") else {}
    clip = make_clip(tmp_path / name, count=40, container_options=options)
    out = tmp_path / "out"
    done = run_cli(["-", "-m", model, "-o", f"{out}/", "--save", "overlay,jsonl"], clip.read_bytes())
    assert done.returncode == 0, done.stderr
    assert video_numbers(out / "stdin_overlay.mp4") == list(range(40))
    times = [json.loads(line)["time_s"] for line in (out / "stdin.jsonl").read_text().splitlines()]
    assert times == pytest.approx([index / 25 for index in range(40)], abs=0.002)


def test_a_redirected_file_needs_no_index_in_front(model: Path, tmp_path: Path) -> None:
    # Larger than what libav looks at before it goes back.
    lossless = {"preset": "ultrafast", "bf": "0", "qp": "0"}
    clip = make_clip(tmp_path / "x.mp4", count=10, size=(960, 1280), options=lossless)
    with clip.open("rb") as file:
        done = run_cli(["-", "-m", model, "-o", tmp_path / "x.jsonl", "--save", "jsonl"], file)
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / "x.jsonl").read_text().splitlines()) == 10
    piped = run_cli(["-", "-m", model, "-o", tmp_path / "y.jsonl", "--save", "jsonl"], clip.read_bytes())
    assert piped.returncode == 1
    assert b"an MP4 if its index comes first (faststart)" in piped.stderr


@pytest.mark.parametrize(
    ("given", "said"), [(b"", b"ended before anything came"), (b"no video at all" * 99, b"no video that can be read")]
)
def test_what_is_no_video_is_one_line(model: Path, tmp_path: Path, given: bytes, said: bytes) -> None:
    done = run_cli(["-", "-m", model, "-o", f"{tmp_path}/out/"], given)
    assert done.returncode == 1
    assert b"standard input: " + said in done.stderr
    assert b"Traceback" not in done.stderr
    assert not list(tmp_path.glob("out/*.mp4"))


def test_nothing_piped_in_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    (item,) = expand_sources(["-"])
    assert (item.name, item.stem, item.live, item.on_disk) == ("standard input", "stdin", False, False)
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(MediaError, match="standard input: is closed; pipe a video into it"):
        open_item(item)
    ours, theirs = os.openpty()
    with os.fdopen(theirs) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        with pytest.raises(MediaError, match="standard input: is a terminal; pipe a video into it"):
            open_item(item)
    os.close(ours)


def test_a_pipe_cannot_be_resumed(predict: Any, tmp_path: Path) -> None:
    code, _, said = predict("-", "--resume")
    assert code == 2
    assert "--resume cannot know what comes through standard input" in said


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("written", [0, 3000])
def test_a_pipe_that_is_waited_for_from_the_beginning_is_left_at_ctrl_c(
    model: Path, tmp_path: Path, written: int
) -> None:
    clip = make_clip(tmp_path / "x.ts", count=60).read_bytes()
    command = [sys.executable, str(SLOW_CLI), "0", "-", "-m", str(model), "-o", str(tmp_path / "x.mp4")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=child_env()) as child:
        assert child.stdin is not None
        assert child.stderr is not None
        child.stdin.write(clip[:written])
        child.stdin.flush()
        assert b"fcn8" in child.stderr.readline(), "it says on what it runs, and then reads"
        time.sleep(0.3)
        child.send_signal(signal.SIGINT)
        assert child.wait(10) == 1
        said = child.stderr.read()
    assert b"interrupted" in said
    assert not list(tmp_path.glob("x*.mp4"))


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("scheme", ["http", "rtmp", "rtsp", "tcp"])
def test_an_address_that_does_not_answer_is_left_at_ctrl_c(model: Path, tmp_path: Path, scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(30)
        address = f"{scheme}://127.0.0.1:{silent.getsockname()[1]}/x"
        command = [sys.executable, str(SLOW_CLI), "0", address, "-m", str(model), "-o", str(tmp_path / "x.mp4")]
        with subprocess.Popen(command, stderr=subprocess.PIPE, env=child_env()) as child:
            caller, _ = silent.accept()
            time.sleep(0.2)
            child.send_signal(signal.SIGINT)
            began = time.monotonic()
            assert child.wait(30) == 1
            waited_s = time.monotonic() - began
            assert child.stderr is not None
            said = child.stderr.read()
        caller.close()
    assert b"interrupted: stopped before it was there" in said
    assert waited_s < OPEN_TIMEOUT_S / 2, "it was not waited for"


def test_a_connection_that_comes_too_late_is_closed(tmp_path: Path) -> None:
    """Whoever left has nobody to close it for him."""
    sent = cut(make_clip(tmp_path / "x.ts", count=60).read_bytes(), DATAGRAM)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        with pytest.raises(MediaError, match="no answer had come"):
            open_address(f"tcp://127.0.0.1:{server.getsockname()[1]}", stopped=lambda: True)
        caller, _ = server.accept()
        caller.settimeout(10)
        with caller, pytest.raises(ConnectionError):
            collections.deque(map(caller.sendall, itertools.cycle(sent)), maxlen=0)


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_pipe_that_waits_is_left_at_ctrl_c(model: Path, tmp_path: Path) -> None:
    """Its writer lives on and writes nothing more."""
    clip = make_clip(tmp_path / "x.ts", count=60).read_bytes()
    command = [sys.executable, str(SLOW_CLI), "0", "-", "-m", str(model), "-o", str(tmp_path / "x.mp4")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, env=child_env()) as child:
        assert child.stdin is not None
        child.stdin.write(clip)
        child.stdin.flush()
        partial, deadline = tmp_path / "x.partial.mp4", time.monotonic() + 30
        while not (partial.exists() and partial.stat().st_size > 0) and time.monotonic() < deadline:
            time.sleep(0.05)
        child.send_signal(signal.SIGINT)
        assert child.wait(20) == 1
        assert child.stderr is not None
        said = child.stderr.read()
    assert b"interrupted" in said
    assert video_numbers(partial) == list(range(len(video_numbers(partial))))


def test_the_library_reads_standard_input_and_another_thread_may_end_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = make_clip(tmp_path / "x.ts", count=30).read_bytes()
    reading, writing = os.pipe()
    with os.fdopen(reading) as end, os.fdopen(writing, "wb") as beginning:
        monkeypatch.setattr(sys, "stdin", end)
        threading.Thread(target=lambda: (beginning.write(clip), beginning.flush()), daemon=True).start()
        with open_item(expand_sources(["-"])[0]) as source:
            assert source.info.kind == "pipe"
            numbers = []
            for frame in source:
                numbers.append(read_number(frame.image))
                if len(numbers) == 5:
                    threading.Timer(0.3, source.stop).start()
    assert numbers == list(range(len(numbers)))
    assert len(numbers) >= 5


def test_a_live_picture_of_another_size_is_counted(tmp_path: Path) -> None:
    options = {**ENCODING, "g": "10"}
    small = make_clip(tmp_path / "a.ts", count=40, options=options).read_bytes()
    large = make_clip(tmp_path / "b.ts", count=60, options=options, size=(96, 128)).read_bytes()
    with sends_by_tcp(cut(small + large, 1880), 0.01) as address, open_address(address, give_up_s=1.0) as source:
        sizes = {frame.image.shape[:2] for frame in source}
    assert sizes == {(48, 64)}
    assert source.counts.resized >= 10


def test_a_file_is_read_from_where_it_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = make_clip(tmp_path / "x.mkv", count=30).read_bytes()
    (tmp_path / "late.mkv").write_bytes(bytes(5000) + clip)
    with (tmp_path / "late.mkv").open("rb", buffering=0) as file:
        file.seek(5000)
        monkeypatch.setattr(sys, "stdin", file)
        with open_item(expand_sources(["-"])[0]) as source:
            found = [(read_number(frame.image), frame.time_s) for frame in source]
    assert [number for number, _ in found] == list(range(30))
    assert found[-1][1] == pytest.approx(29 / 25, abs=0.002)


def test_every_kind_of_address_that_is_read_can_be_opened() -> None:
    assert set(SCHEMES) == set(PROTOCOLS) - {"file"}
