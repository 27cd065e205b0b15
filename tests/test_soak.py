"""For hours: memory, descriptors and threads stay flat while clips go by and a camera breaks off again and again.

EDGE_SEG_SOAK_S says how long, 20 s by default, 600 for the real thing; EDGE_SEG_SOAK_MODEL another model than a tiny
one.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.edge_seg.clips import make_clip
from tests.edge_seg.servers import WebCamera
from tests.soak import complaints, growth

SOAK_S = float(os.environ.get("EDGE_SEG_SOAK_S", "20"))
OUTAGE_EVERY_S = 4.0
SOAK = Path(__file__).with_name("soak.py")
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory and descriptors from /proc")


@pytest.fixture
def camera() -> Iterator[WebCamera]:
    server = WebCamera(pace_s=0.04)
    yield server
    server.close()


def soak(camera: WebCamera, model: Path, folder: Path, seconds: float, *more: str) -> dict[str, Any]:
    clip = make_clip(folder / "clip.mp4", count=25, audio="aac")
    address = f"http://127.0.0.1:{camera.port}/live"
    command = [sys.executable, SOAK, model, clip, address, seconds, folder / "out", *more]
    words = list(map(str, command))
    child = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        while child.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(OUTAGE_EVERY_S)
                break
            camera.fail("reset")
            time.sleep(0.3)
            camera.recover()
        out, err = child.communicate(timeout=60)
    finally:
        child.kill()
    assert child.returncode == 0, err
    print(out)
    return dict(json.loads(out))


@pytest.mark.slow
def test_nothing_grows(camera: WebCamera, tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    found = soak(camera, Path(os.environ.get("EDGE_SEG_SOAK_MODEL") or tiny_model()), tmp_path, SOAK_S)
    assert found["complaints"] == [], found
    assert found["clips"] >= 8, "too few to tell"
    assert found["camera"]["reconnects"] >= SOAK_S / OUTAGE_EVERY_S / 4
    assert found["camera"]["frames"] > 20
    assert found["camera"]["balanced"]
    assert found["descriptors"][1] <= found["descriptors"][0], "all that was opened is closed at the end"
    assert found["threads"][1] <= found["threads"][0]


@pytest.mark.slow
def test_a_planted_leak_is_found(camera: WebCamera, tiny_model: Callable[..., Path], tmp_path: Path) -> None:
    found = soak(camera, tiny_model(), tmp_path, 15.0, "leak")
    assert {text.split()[0] for text in found["complaints"]} >= {"memory_mb", "descriptors", "threads"}, found


def test_growth_is_what_came_after_warming_up() -> None:
    warm = [(100.0 + 10 * step, 10, 5) for step in range(30)]
    flat = [(400.0 + step % 3, 12 + step % 2, 7) for step in range(70)]
    assert complaints(growth([*warm, *flat])) == []
    rising = [(400.0 + step, 12 + step // 10, 7 + step // 10) for step in range(70)]
    assert [text.split()[0] for text in complaints(growth([*warm, *rising]))] == [
        "memory_mb", "peak_mb", "descriptors", "threads",
    ]  # fmt: skip
