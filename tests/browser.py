"""Debian's chromium, headless, driven by chromedriver: what a page or a video shows there, and what it complains of."""

from __future__ import annotations

import base64
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--mute-audio",
    # Pages are opened as a user does, from the disk; a canvas may read a video that lies beside its page.
    "--allow-file-access-from-files",
)  # fmt: skip
WAIT_S = 60
# Runs `body`, an async function's, and gives back its result, or what it threw as {error}.
ASYNC = "const done = arguments[arguments.length - 1]; (async () => {%s})().then(done, e => done({error: String(e)}));"
HAPPENS = """
const video = document.querySelector('video');
const happens = name => new Promise((right, wrong) => {
  const failed = () => wrong(`the video cannot be played (${video.error && video.error.message})`);
  if (video.error) failed();
  video.addEventListener(name, right, {once: true});
  video.addEventListener('error', failed, {once: true});
});
const pictured = () => { if (!video.videoWidth) throw 'the video has no picture that this browser can decode'; };
"""
PLAY = (
    HAPPENS
    + """
const ended = happens('ended');
await video.play();
await ended;
pictured();
return {duration_s: video.duration, end_s: video.currentTime, width: video.videoWidth, height: video.videoHeight,
        frames: video.getVideoPlaybackQuality().totalVideoFrames, audio_bytes: video.webkitAudioDecodedByteCount};
"""
)
DRAW = (
    HAPPENS
    + """
// `seeked` can come before the new picture does: that one's time says it is here. A picture that stands already may
// not come again.
const time_s = arguments[0];
const presented = new Promise(right => {
  const look = (now, {mediaTime}) => {
    if (mediaTime <= time_s + 1e-6 && time_s < mediaTime + 0.1) right();
    else video.requestVideoFrameCallback(look);
  };
  video.requestVideoFrameCallback(look);
});
const seeked = happens('seeked');
video.currentTime = time_s;
await seeked;
await Promise.race([presented, new Promise(right => setTimeout(right, 3000))]);
pictured();
const canvas = Object.assign(document.createElement('canvas'), {width: video.videoWidth, height: video.videoHeight});
canvas.getContext('2d').drawImage(video, 0, 0);
return canvas.toDataURL('image/png');
"""
)
LAYOUT = """
const shown = element => { const box = element.getBoundingClientRect(); return box.width > 0 && box.height > 0; };
return {
  headings: [...document.querySelectorAll('h1, h2, h3')].filter(shown).map(heading => heading.textContent),
  empty_pictures: [...document.images].filter(image => !(image.complete && image.naturalWidth && shown(image))).length,
  pictures: document.images.length,
  charts: [...document.querySelectorAll('svg')].filter(shown).length,
  too_wide_px: document.documentElement.scrollWidth - document.documentElement.clientWidth,
};
"""


@dataclass(frozen=True)
class Played:
    """What a browser says of a video that it played to its end."""

    duration_s: float
    end_s: float
    width: int
    height: int
    frames: int
    audio_bytes: int


@dataclass(frozen=True)
class Layout:
    """What a browser made of a page: headings with a size, pictures, charts, overflow."""

    headings: list[str]
    empty_pictures: int
    pictures: int
    charts: int
    too_wide_px: int


class Browser:
    """One chromium with a profile of its own; `close` ends it.

    Raises:
        FileNotFoundError: chromium or chromedriver is not installed.
    """

    def __init__(self, profile: Path) -> None:
        chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
        if not chromium or not driver:
            raise FileNotFoundError("no chromium with chromedriver: apt-get install chromium chromium-driver")
        options = ChromeOptions()
        options.binary_location = chromium
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self._driver = Chrome(options=options, service=Service(driver))
        self._driver.set_script_timeout(WAIT_S)

    def close(self) -> None:
        self._driver.quit()

    def open(self, path: Path, *, width_px: int = 1280, dark: bool = False) -> None:
        """Open a file in a window of this width; what was complained of and asked for before is forgotten."""
        self._driver.get("about:blank")
        self.complaints()
        self.requests()
        self._driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width_px, "height": 900, "deviceScaleFactor": 1, "mobile": False},
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self._driver.get(path.resolve().as_uri())

    def complaints(self) -> list[str]:
        """Errors of the console since the last call: scripts that failed, and whatever could not be loaded."""
        return [entry["message"] for entry in self._driver.get_log("browser") if entry["level"] == "SEVERE"]

    def requests(self) -> list[str]:
        """Addresses asked for since the last call."""
        events = [json.loads(entry["message"])["message"] for entry in self._driver.get_log("performance")]
        return [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]

    def layout(self) -> Layout:
        """What the open page shows."""
        return Layout(**self._driver.execute_script(LAYOUT))

    def open_video(self, path: Path) -> None:
        """Open a page, written beside the video, that holds it."""
        page = path.with_suffix(".html")
        page.write_text(
            f'<!doctype html><meta charset="utf-8"><title>{path.stem}</title><video src="{path.name}" muted>'
        )
        self.open(page)

    def play(self) -> Played:
        """Play the open page's video to its end. Raises ValueError if it cannot be."""
        return Played(**self._run(PLAY))

    def draw(self, time_s: float) -> np.ndarray:
        """The picture (H, W, 3) uint8 BGR that the open page's video shows at `time_s`."""
        return _decode(self._run(DRAW, time_s).partition(",")[2])

    def screenshot(self, path: Path) -> None:
        """The whole open page as a PNG."""
        shot = self._driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
        path.write_bytes(base64.b64decode(shot["data"]))

    def _run(self, body: str, *arguments: Any) -> Any:
        found = self._driver.execute_async_script(ASYNC % body, *arguments)
        if isinstance(found, dict) and "error" in found:
            raise ValueError(found["error"])
        return found


def check_page(browser: Browser, path: Path, *, width_px: int = 1280, dark: bool = False) -> Layout:
    """Open a page that needs nothing but itself; fails on a complaint, a request, an empty picture, or overflow."""
    browser.open(path, width_px=width_px, dark=dark)
    layout = browser.layout()
    complaints = browser.complaints()
    assert not complaints, "\n".join(complaints)
    further = [url for url in browser.requests() if not url.startswith("data:") and url != path.resolve().as_uri()]
    assert not further, f"the page asks for {further}"
    assert layout.empty_pictures == 0, f"{layout.empty_pictures} of {layout.pictures} pictures are empty"
    assert layout.too_wide_px <= 0, f"{layout.too_wide_px} px wider than a window of {width_px}"
    return layout


def _decode(png: str) -> np.ndarray:
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(png), np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None
    return picture
