"""The locks: every package pinned and hashed, no registry's address, and what pyproject.toml asks for."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# The extras each lock is made for, as requirements/compile.sh has them.
LOCKS = {"demo-cpu": ["cpu"], "demo-openvino": ["openvino"], "demo-cuda": ["cuda"], "test": ["gpu", "dev"]}
# opencv-python is never installed: headless in its stead.
REPLACED = {"opencv-python": "opencv-python-headless"}


def read_lock(text: str) -> dict[str, set[str]]:
    """Names and their pinned versions; fails where one has no hash, or a line is anything else."""
    pins: dict[str, set[str]] = {}
    for entry in text.replace("\\\n", " ").splitlines():
        pin = re.fullmatch(r"([\w.-]+)==([\w.!+]+)(?: ;[^#\\]*?)?((?:\s+--hash=sha256:[0-9a-f]{64})+)\s*", entry)
        assert pin, f"neither pinned nor hashed: {entry[:80]}"
        pins.setdefault(pin[1], set()).add(pin[2])
    return pins


def asked_for(extras: list[str]) -> list[Requirement]:
    """What the project and these extras of it require, the extras of the project itself opened."""
    found = [Requirement(text) for text in PROJECT["dependencies"]]
    for extra in extras:
        for item in (Requirement(text) for text in PROJECT["optional-dependencies"][extra]):
            found += asked_for(sorted(item.extras)) if item.name == PROJECT["name"] else [item]
    return found


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_pins_and_hashes_everything_the_project_asks_for(name: str) -> None:
    text = (ROOT / "requirements" / f"{name}.txt").read_text()
    pins = read_lock(text)
    assert "://" not in text
    for wanted in asked_for(LOCKS[name]):
        versions = pins[REPLACED.get(canonicalize_name(wanted.name), canonicalize_name(wanted.name))]
        assert all(wanted.specifier.contains(version) for version in versions), f"{wanted}: {name}.txt has {versions}"
    build = Requirement(tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"][0])
    assert all(build.specifier.contains(version) for version in pins[build.name])


def test_every_lock_is_looked_at_and_made() -> None:
    script = (ROOT / "requirements" / "compile.sh").read_text()
    for name, extras in LOCKS.items():
        assert f"lock {name} {' '.join(f'--extra {extra}' for extra in extras)}\n" in script
    assert {path.stem for path in (ROOT / "requirements").glob("*.txt")} == {*LOCKS, "overrides"}


@pytest.mark.parametrize(
    "line",
    ["numpy==2.4.6", "numpy>=2 \\\n    --hash=sha256:" + "0" * 64, "--extra-index-url x", "numpy==2 --hash=md5:0"],
)
def test_a_line_without_pin_or_hash_is_found(line: str) -> None:
    with pytest.raises(AssertionError, match="neither pinned nor hashed"):
        read_lock(line)


def test_installs_ask_for_hashes() -> None:
    for name in ("Makefile", ".ci/run"):
        calls = re.findall(r"^.*\s-r \S+$", (ROOT / name).read_text(), re.MULTILINE)
        assert calls
        assert all("--require-hashes" in call for call in calls)
