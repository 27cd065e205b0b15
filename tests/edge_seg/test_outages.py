"""Live sources that fail and come back: stalls, resets, half a packet, a changed password, a camera unplugged.

A stall is seen within 10 s, a source that is back is read within 5 s, no frame is invented, none is lost without a
word, and the password is in no line. The clocks here are those promises.
"""

from __future__ import annotations

import itertools
import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from edge_seg import RefusedError
from edge_seg.account import StreamReport, frame_counts, source_facts
from edge_seg.items import expand_sources
from edge_seg.media import Event, Frame, Source
from edge_seg.redact import redact
from edge_seg.sources import open_item
from edge_seg.video import VideoFile
from tests.edge_seg.clips import paint_number, read_number
from tests.edge_seg.servers import FailingServer, QuietHandler, RtspCamera, Sensor, WebCamera, web_server
from tests.edge_seg.test_cli import SLOW_CLI, child_env

CANARY = "kanarienvogel-9"
STALL_SEEN_S, BACK_S = 10.0, 5.0


@pytest.fixture
def camera(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FailingServer]:
    """An RTSP or a web camera with a password, by the test's parameter."""
    server = make_camera(request.param, tmp_path)
    yield server
    server.close()


def make_camera(kind: str, folder: Path) -> FailingServer:
    return RtspCamera(folder, password=CANARY) if kind == "rtsp" else WebCamera(password=CANARY)


both = pytest.mark.parametrize("camera", ["rtsp", "http"], indirect=True)


def address_of(camera: FailingServer) -> str:
    scheme = "rtsp" if isinstance(camera, RtspCamera) else "http"
    return f"{scheme}://admin:{CANARY}@127.0.0.1:{camera.port}/live?token={CANARY}-t"


@dataclass
class Viewer:
    """Reads a live source on a thread of its own, and remembers what came when."""

    source: Source
    pause_s: float = 0.0
    frames: list[tuple[float, Frame]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        with self.source as source:
            for frame in source:
                self.frames.append((time.monotonic(), frame))
                time.sleep(self.pause_s)

    def wait(self, ready: Callable[[], bool], seconds: float, what: str) -> float:
        """Seconds until `ready`."""
        began = time.monotonic()
        while not ready():
            assert time.monotonic() - began < seconds, f"{what} took more than {seconds} s"
            time.sleep(0.01)
        return time.monotonic() - began

    def stop(self) -> StreamReport:
        self.source.stop()
        self._thread.join(5)
        assert not self._thread.is_alive()
        frames = frame_counts(self.source.counts, segmented=len(self.frames))
        return StreamReport(frames=frames, **source_facts(self.source))


def open_live(address: str, events: list[Event], **options: Any) -> Source:
    return open_item(expand_sources([address])[0], on_event=events.append, **options)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """libav's own lines at their loudest, as a careless program would log them."""
    av.logging.set_level(av.logging.TRACE)
    caplog.set_level(1, logger="libav")
    logging.getLogger("libav").setLevel(1)
    yield caplog
    av.logging.set_level(None)


def outage(camera: FailingServer, mode: str, events: list[Event], stall_s: float, down_s: float) -> StreamReport:
    """Let a camera fail and recover under a viewer's eyes, and hold what the viewer saw to the promises."""
    viewer = Viewer(open_live(address_of(camera), events, give_up_s=60.0))
    viewer.wait(lambda: len(viewer.frames) > 10, 15, "the first frames")
    camera.fail(mode)
    viewer.wait(lambda: bool(events), stall_s, "seeing the outage")
    time.sleep(down_s)
    seen = len(viewer.frames)
    recovered_at = time.monotonic()
    camera.recover()
    viewer.wait(lambda: len(viewer.frames) > seen, BACK_S, "coming back")
    viewer.wait(lambda: len(viewer.frames) > seen + 10, 10, "going on")
    report = viewer.stop()
    for _, frame in viewer.frames[seen:]:
        # A camera may begin between two key frames: what has nothing to build on says that it is damaged.
        fresh = frame.corrupt or camera.sent[read_number(frame.image)] >= recovered_at
        assert fresh, "no frame is invented or repeated"
    times = [frame.time_s for _, frame in viewer.frames]
    assert times == sorted(set(times)), "time goes on across the break"
    indices = [frame.index for _, frame in viewer.frames]
    assert indices == sorted(set(indices))
    return report


def check_states(events: list[Event], report: StreamReport, mode: str) -> None:
    states = [event.state for event in events]
    assert states[0] == ("lost" if mode == "reset" else "stalled")
    assert states[-1] == "live", "its return is said"
    assert all(word in ("stalled", "lost") for word in states[:-1])
    assert len(states) <= 6, "each reason is said once, not every attempt"
    assert report.events == tuple(events)
    assert report.frames["reconnects"] >= 1
    assert report.balanced


def check_secret(events: list[Event], report: StreamReport, log: pytest.LogCaptureFixture) -> None:
    lines = [record.getMessage() for record in log.records if record.name.startswith("libav")]
    assert len(lines) > 10, "the library did talk"
    assert any("***" in line for line in lines), "and what it said of the password was masked"
    assert CANARY not in "\n".join([*lines, *map(repr, events), repr(report), log.text])


@pytest.mark.parametrize(
    ("camera", "mode"),
    [
        ("rtsp", "silent"),
        pytest.param("rtsp", "half", marks=pytest.mark.slow),
        ("rtsp", "reset"),
        pytest.param("http", "silent", marks=pytest.mark.slow),
        pytest.param("http", "half", marks=pytest.mark.slow),
        ("http", "reset"),
    ],
    indirect=["camera"],
)
def test_an_outage_is_seen_and_the_return_too(
    camera: FailingServer, mode: str, monkeypatch: pytest.MonkeyPatch, log: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("edge_seg.live.STALL_S", 0.6)
    monkeypatch.setattr("edge_seg.sources.QUICKEST_REOPENING_S", 1.0)
    events: list[Event] = []
    report = outage(camera, mode, events, stall_s=3.0, down_s=0.3)
    check_states(events, report, mode)
    check_secret(events, report, log)


OUTAGES = [(kind, mode, down_s) for mode in ("silent", "half", "reset") for down_s in (0.0, 7.3)
           for kind in ("rtsp", "http")]  # fmt: skip


@pytest.fixture(scope="module")
def suffered(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str, float], Future[Any]]:
    """What became of each of `OUTAGES`, each with a camera of its own.

    All at once, since nearly all of such a test is waiting.
    """

    def suffer(folder: Path, kind: str, mode: str, down_s: float) -> tuple[list[Event], StreamReport]:
        events: list[Event] = []
        camera = make_camera(kind, folder)
        try:
            return events, outage(camera, mode, events, stall_s=STALL_SEEN_S, down_s=down_s)
        finally:
            camera.close()

    # Nothing of it goes on when the first test looks.
    with ThreadPoolExecutor(len(OUTAGES)) as pool:
        return {case: pool.submit(suffer, tmp_path_factory.mktemp("camera"), *case) for case in OUTAGES}


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "mode", "down_s"), OUTAGES)
def test_the_promised_times_are_kept(
    suffered: dict[tuple[str, str, float], Future[Any]], kind: str, mode: str, down_s: float
) -> None:
    events, report = suffered[kind, mode, down_s].result()
    check_states(events, report, mode)


@both
def test_a_camera_that_changed_its_password_is_not_asked_again(
    camera: FailingServer, log: pytest.LogCaptureFixture
) -> None:
    events: list[Event] = []
    viewer = Viewer(open_live(address_of(camera), events, give_up_s=60.0))
    viewer.wait(lambda: len(viewer.frames) > 5, 15, "the first frames")
    camera.fail("401")
    viewer.wait(lambda: viewer.source.end.early is True, 10, "giving up")
    clients = camera.clients
    time.sleep(0.8)
    assert camera.clients == clients, "who insists is locked out"
    report = viewer.stop()
    assert "refused the user name or password (401)" in viewer.source.end.reason
    assert [event.state for event in events][-1] == "ended"
    assert report.balanced
    check_secret(events, report, log)


@both
def test_a_camera_that_stays_away_ends_after_the_deadline(camera: FailingServer) -> None:
    events: list[Event] = []
    viewer = Viewer(open_live(address_of(camera), events, give_up_s=1.0))
    viewer.wait(lambda: len(viewer.frames) > 5, 15, "the first frames")
    camera.fail("reset")
    viewer.wait(lambda: viewer.source.end.early is True, 10, "giving up")
    report = viewer.stop()
    assert "no frame for 1 s" in viewer.source.end.reason
    assert [event.state for event in events][-1] == "ended"
    assert report.balanced
    assert report.ended_early is True


@both
def test_a_wrong_password_is_one_line_with_the_cure(camera: FailingServer, log: pytest.LogCaptureFixture) -> None:
    scheme = "rtsp" if isinstance(camera, RtspCamera) else "http"
    with pytest.raises(RefusedError, match="USER:PASSWORD@HOST") as caught:
        open_live(f"{scheme}://admin:no-{CANARY}@127.0.0.1:{camera.port}/live", [])
    assert isinstance(caught.value, PermissionError)
    assert "\n" not in str(caught.value)
    assert CANARY not in str(caught.value) + log.text


@both
def test_a_slow_viewer_sees_the_present_and_the_report_says_how_old(camera: FailingServer) -> None:
    camera.pace_s = 0.01
    viewer = Viewer(open_live(address_of(camera), []), pause_s=0.1)
    viewer.wait(lambda: len(viewer.frames) > 20, 30, "20 frames")
    report = viewer.stop()
    ages = [at - camera.sent[read_number(frame.image)] for at, frame in viewer.frames[5:] if not frame.corrupt]
    # 100 frames a second are sent and 10 looked at: in a queue the 20th would be 1.8 s old, and the median 1.1 s.
    # A loaded machine makes ages of some tenths without a queue.
    assert float(np.median(ages)) < 0.7
    assert report.frames["dropped"] > 2 * len(viewer.frames)
    assert report.balanced
    claimed = [at - (frame.captured_at or 0) for at, frame in viewer.frames[5:]]
    assert float(np.median(ages)) - float(np.median(claimed)) < 0.2, "the age that is reported is the true one"


@pytest.mark.parametrize("describes", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_a_slow_camera_is_opened_at_its_first_frames(tmp_path: Path, describes: bool) -> None:
    server = RtspCamera(tmp_path, pace_s=0.1, describes=describes)
    try:
        with VideoFile(f"rtsp://127.0.0.1:{server.port}/live", network=True) as source:
            assert source.info.size == (48, 64)
            opened_with = len(server.sent)
            first = next(iter(source))
        # libav's own way is to watch 13 frames go by, which of a slow camera are seconds.
        assert opened_with <= 3 or not describes
        assert first.corrupt or read_number(first.image) in server.sent
    finally:
        server.close()


class SoundGoesOn(QuietHandler):
    """A transport stream whose picture ends after a second, and whose sound does not."""

    through = threading.Event()

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "video/mp2t")
        self.end_headers()
        step = 188 * 4
        for start in range(0, len(self.data), step):
            try:
                self.wfile.write(self.data[start : start + step])
            except OSError:
                return
            time.sleep(0.002 if start < len(self.data) // 3 else 0.02)
        self.through.set()


def test_sound_without_picture_is_a_stall(tmp_path: Path) -> None:
    clip = tmp_path / "x.ts"
    with av.open(str(clip), "w") as container:
        video: Any = container.add_stream("libx264", rate=25, options={"preset": "ultrafast", "g": "5"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        sound: Any = container.add_stream("mp2", rate=44100)
        sound.layout = "mono"
        for index in range(25):
            container.mux(video.encode(av.VideoFrame.from_ndarray(paint_number(index), "bgr24")))
        container.mux(video.encode(None))
        for start in range(0, 44100 * 60, 1152):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.int16), format="s16", layout="mono")
            frame.sample_rate, frame.pts = 44100, start
            container.mux(sound.encode(frame))
    with web_server(SoundGoesOn, clip.read_bytes()) as address:
        with VideoFile(f"{address}/x.ts", network=True, read_timeout_s=0.5) as source:
            numbers = [read_number(frame.image) for frame in source]
        assert not SoundGoesOn.through.is_set(), "it does not wait for the sound's end"
    assert numbers == list(range(len(numbers)))
    assert len(numbers) > 20
    assert source.end.early is True
    assert source.end.reason == "no picture for 0.5 s"


@pytest.fixture
def drivers(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets what each opening of camera 0 finds, the last one for ever; time limits are short."""
    monkeypatch.setattr("edge_seg.camera.sys.platform", "elsewhere")
    monkeypatch.setattr("edge_seg.camera.FROZEN_S", 0.3)
    monkeypatch.setattr("edge_seg.live.STALL_S", 0.5)
    monkeypatch.setattr("edge_seg.live.GRACE_S", 0.2)

    def give(*sensors: Callable[[], Sensor]) -> None:
        makers = itertools.chain(sensors, itertools.repeat(sensors[-1]))
        monkeypatch.setattr("edge_seg.camera.cv2.VideoCapture", lambda index: next(makers)())

    return give


def test_an_unplugged_camera_does_not_succeed_for_ever(drivers: Callable[..., None]) -> None:
    # Each opening finds the same dead picture again.
    drivers(lambda: Sensor(1, 20), lambda: Sensor(20, 1))
    events: list[Event] = []
    viewer = Viewer(open_live("0", events, give_up_s=1.5))
    viewer.wait(lambda: viewer.source.end.early is True, 10, "giving up")
    report = viewer.stop()
    assert {read_number(frame.image) for _, frame in viewer.frames} <= set(range(1, 21))
    assert report.frames["read"] - report.frames["dropped"] == len(viewer.frames) <= 20
    assert "no frame for 1.5 s" in viewer.source.end.reason
    assert "repeated one picture" in events[0].text
    assert events[-1].state == "ended"
    assert report.balanced


def test_a_camera_plugged_in_again_goes_on(drivers: Callable[..., None]) -> None:
    drivers(lambda: Sensor(1, 20), lambda: Sensor(20, 1), lambda: Sensor(100, 100))
    events: list[Event] = []
    viewer = Viewer(open_live("0", events, give_up_s=20.0))
    viewer.wait(lambda: any(read_number(frame.image) >= 100 for _, frame in viewer.frames), 10, "coming back")
    report = viewer.stop()
    assert [event.state for event in events][-1] == "live"
    assert report.frames["reconnects"] >= 2
    assert report.balanced


def test_a_driver_that_never_answers_is_seen(drivers: Callable[..., None]) -> None:
    drivers(lambda: Sensor(1, 20, hangs=True), lambda: Sensor(50, 200))
    events: list[Event] = []
    viewer = Viewer(open_live("0", events, give_up_s=20.0))
    viewer.wait(lambda: any(read_number(frame.image) >= 50 for _, frame in viewer.frames), 10, "coming back")
    report = viewer.stop()
    assert [event.state for event in events] == ["stalled", "live"]
    assert "no sign of life" in events[0].text
    assert report.balanced


@pytest.mark.slow
@pytest.mark.parametrize("camera", ["rtsp"], indirect=True)
def test_a_run_on_a_failing_camera_says_all_of_it(camera: FailingServer, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, str(SLOW_CLI), "60", address_of(camera), "-o", f"{out}/", "--save", "jsonl", "--json"]
    child = subprocess.Popen(
        [*command, "--limit", "60", "--give-up", "30"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=child_env(),
    )
    try:
        began = time.monotonic()
        while not list(out.glob("*.partial.jsonl")):
            assert child.poll() is None, child.communicate()
            assert time.monotonic() - began < 60
            time.sleep(0.05)
        camera.fail("reset")
        time.sleep(1.0)
        camera.recover()
        printed, err = child.communicate(timeout=60)
    finally:
        child.kill()
    (report,) = json.loads(printed)["sources"]
    frames = report["frames"]
    assert (child.returncode, report["status"]) == (0, "done"), err
    assert frames["segmented"] == 60
    assert frames["read"] == sum(frames[key] for key in ("segmented", "failed", "dropped", "skipped"))
    assert frames["dropped"] > 0
    assert frames["reconnects"] >= 1
    assert report["age"]["median_ms"] < 1000
    assert [event["state"] for event in report["events"]][-1] == "live"
    assert "frames were" in err
    assert "pictures again after" in err
    assert CANARY not in printed + err
    assert not [path for path in out.rglob("*") if CANARY in path.name or CANARY in path.read_text()]


@pytest.mark.parametrize(
    "text",
    [
        "rtsp://cam:554/user=admin&password=hunter2&channel=1&stream=0.sdp",
        "rtsp://cam:554/user=admin_password=hunter2_channel=1_stream=0.sdp?real_stream",
        "http://cam/cgi-bin/snapshot?usr=a;pwd=hunter2;x=1",
        'WWW "GET /live?token=hunter2 HTTP/1.1"',
    ],
)
def test_passwords_in_paths_are_redacted_and_name_no_file(text: str) -> None:
    assert "hunter2" not in redact(text)
    if "://" in text:
        assert "hunter2" not in expand_sources([text])[0].stem
        assert "hunter2" not in repr(expand_sources([text]))
