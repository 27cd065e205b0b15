"""`make` makes its environments with a Python that suits and says so of one that does not; the sdist builds whole."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What `make` and setuptools read of this repository, with small stand-ins for the package and two tests."""
    for name in ("Makefile", "MANIFEST.in", "pyproject.toml", "README.md", "LICENSE"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, tmp_path)
    for name in ("edge_seg/__init__.py", "edge_seg/assets/LICENSE-weights.txt", "tests/helper.py", "tests/test_it.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for name in ("requirements/demo-cpu.txt", "train/bundled.mk"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
@pytest.mark.parametrize("given", ["an older one", "none at all"])
def test_a_python_that_does_not_suit_is_named_and_costs_no_environment(clone: Path, given: str) -> None:
    python = clone / "python"
    if given == "an older one":
        python.write_text(f'#!/bin/sh\nexec {sys.executable} -c "import sys; sys.version_info = (3, 10); $2"\n')
        python.chmod(0o755)
    kept = clone / ".venv-demo" / "kept"
    kept.parent.mkdir()
    kept.touch()
    outside = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")}
    done = subprocess.run(
        ["make", "demo", "ACCELERATOR=cpu", f"PYTHON={python}"], cwd=clone, env=outside, capture_output=True, text=True
    )
    assert done.returncode == 2
    said = f"{done.stdout}{done.stderr}"
    assert f"error: PYTHON={python} is not a Python 3.11, 3.12 or 3.13 with venv" in said
    assert kept.exists()


def test_the_sdist_holds_no_half_of_the_tests(clone: Path) -> None:
    code = "from setuptools import build_meta; build_meta.build_sdist('out')"
    subprocess.run([sys.executable, "-c", code], cwd=clone, check=True, capture_output=True)
    (sdist,) = (clone / "out").glob("*.tar.gz")
    with tarfile.open(sdist) as files:
        names = {name.partition("/")[2] for name in files.getnames()}
    assert {"pyproject.toml", "edge_seg/__init__.py", "LICENSE"} <= names
    assert not [name for name in names if name.startswith("tests")]
