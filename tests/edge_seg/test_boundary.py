"""What edge_seg imports and what it does not: proved in fresh interpreters."""

from __future__ import annotations

import ast
import inspect
import os
import subprocess
import sys
import typing
import zipfile
from pathlib import Path

import pytest

import edge_seg
from edge_seg import errors

PACKAGE = Path(edge_seg.__file__).parent
BANNED = {"tensorflow", "keras", "tf2onnx", "onnx", "torch", "h5py", "matplotlib", "train", "export", "benchmarks"}


def python(code: str, *, path: Path | None = None) -> str:
    """Run code in a fresh interpreter in the clone's root; what it printed."""
    begin = "import sys\n" + (f"sys.path.insert(0, {str(path)!r})\n" if path else "")
    done = subprocess.run(
        [sys.executable, "-c", begin + code], capture_output=True, text=True, cwd=PACKAGE.parent, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_import_is_fast_and_loads_nothing_heavy():
    code = (
        "import time; started = time.perf_counter(); import edge_seg; print(time.perf_counter() - started)\n"
        "print(*(name.partition('.')[0] for name in sys.modules))"
    )
    runs = [python(code).splitlines() for _ in range(3)]
    assert min(float(seconds) for seconds, _ in runs) < 0.5
    assert not (BANNED | {"onnxruntime", "av", "cv2", "numpy"}) & set(runs[0][1].split())


def test_everything_the_runtime_needs_loads_quickly_and_without_training_packages():
    """The package, numpy, OpenCV and onnxruntime together; the best of three, for a busy machine."""
    code = (
        "import time; started = time.perf_counter()\n"
        "from edge_seg import Segmenter; from edge_seg.session import load_runtime; load_runtime()\n"
        "print(time.perf_counter() - started); print(*(name.partition('.')[0] for name in sys.modules))"
    )
    runs = [python(code).splitlines() for _ in range(3)]
    assert not BANNED & set(runs[0][1].split())
    assert "onnxruntime" in runs[0][1].split()
    assert min(float(seconds) for seconds, _ in runs) < 2.0


def test_every_module_of_the_package_keeps_to_the_runtime():
    code = (
        "import importlib, pkgutil, edge_seg\n"
        "[importlib.import_module('edge_seg.' + item.name) for item in pkgutil.iter_modules(edge_seg.__path__)\n"
        " if item.name != '__main__']\n"
        "print(*(name.partition('.')[0] for name in sys.modules))"
    )
    assert not BANNED & set(python(code).split())


def test_nothing_is_written_at_home_and_nobody_is_told(tmp_path, tiny_model):
    """onnxruntime's builds keep an id of the machine there, and report to its maker."""
    environment = {key: value for key, value in os.environ.items() if key != "ORT_DISABLE_TELEMETRY"}
    program = (
        "import os, numpy as np\n"
        "from edge_seg import Segmenter\n"
        f"with Segmenter({str(tiny_model())!r}, device='cpu') as segmenter:\n"
        "    segmenter.segment(np.zeros((32, 64, 3), np.uint8))\n"
        "print(os.environ['ORT_DISABLE_TELEMETRY'])\n"
    )
    home = tmp_path / "home"
    home.mkdir()
    places = dict.fromkeys(("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME"), str(home))
    for asked, said in (({}, "1"), ({"ORT_DISABLE_TELEMETRY": "0"}, "0")):
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            cwd=PACKAGE.parent,
            env={**environment, **places, **asked},
            check=False,
        )
        assert done.stdout.strip() == said, done.stderr
        if not asked:
            assert not list(home.iterdir())


@pytest.mark.parametrize("module", ["export.cpu", "benchmarks.probes", "train.labelers"])
def test_the_other_packages_are_as_quiet(module, monkeypatch):
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    code = f"import os, {module}, onnxruntime; print(os.environ['ORT_DISABLE_TELEMETRY'])"
    assert python(code).splitlines()[-1] == "1"
    first = (PACKAGE.parent / module.partition(".")[0] / "__init__.py").read_text()
    assert "import edge_seg" in first, "which onnxruntime's own import in a module of the package comes after"


def test_a_type_checker_knows_which_names_there_are(tmp_path):
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "from edge_seg import Segmenter, Segmentr\n"
        "import cv2\n"
        "with Segmenter('x.onnx') as segmenter, segmenter.stream('y.mp4') as results:\n"
        "    for result in results:\n"
        "        result.lables\n"
        "segmenter.stream(cv2.VideoCapture(0))\n"
        "segmenter.stream(0.5)\n"
    )
    environment = {**os.environ, "MYPYPATH": str(PACKAGE.parent)}
    command = [sys.executable, "-m", "mypy", "--strict", f"--cache-dir={tmp_path}", str(wrong)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    found = [line for line in done.stdout.splitlines() if line.startswith("wrong.py")]
    assert [line.partition(": error:")[0] for line in found] == ["wrong.py:1", "wrong.py:5", "wrong.py:7"], done.stdout


def test_a_type_checker_takes_sessions_whose_members_are_read_only(tmp_path):
    own = tmp_path / "own.py"
    methods = (
        "    def run(self, batch: np.ndarray) -> dict[str, np.ndarray]: return {}\n    def close(self) -> None: ...\n"
    )
    own.write_text(
        "from dataclasses import dataclass\n"
        "import numpy as np\n"
        "from edge_seg import DeviceReport, ModelSpec, Segmenter\n"
        "class Plain:\n"
        "    spec: ModelSpec\n    device: DeviceReport\n"
        f"{methods}"
        "class Computed:\n"
        "    @property\n    def spec(self) -> ModelSpec: return ModelSpec()\n"
        "    @property\n    def device(self) -> DeviceReport: raise NotImplementedError\n"
        f"{methods}"
        "@dataclass(frozen=True)\n"
        "class Frozen:\n"
        "    spec: ModelSpec\n    device: DeviceReport\n"
        f"{methods}"
        "def use(frozen: Frozen) -> None:\n"
        "    Segmenter(Plain()), Segmenter(Computed()), Segmenter(frozen)\n"
    )
    environment = {**os.environ, "MYPYPATH": str(PACKAGE.parent)}
    command = [sys.executable, "-m", "mypy", "--strict", f"--cache-dir={tmp_path}", str(own)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
    assert not [line for line in done.stdout.splitlines() if line.startswith("own.py")], done.stdout


def imports_of(file: Path) -> set[str]:
    tree = ast.parse(file.read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level}
    return {name.partition(".")[0] for name in names}


def test_session_alone_imports_onnxruntime():
    found = {file.name for file in PACKAGE.glob("*.py") if "onnxruntime" in imports_of(file)}
    assert found == {"session.py"}
    assert not [file.name for file in PACKAGE.glob("*.py") if BANNED & imports_of(file)]


def test_all_is_sorted_whole_and_importable():
    assert edge_seg.__all__ == sorted(edge_seg.__all__)
    assert set(errors.__all__) <= set(edge_seg.__all__)
    for name in edge_seg.__all__:
        assert getattr(edge_seg, name).__doc__, name
    assert set(edge_seg.__all__) <= set(dir(edge_seg))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        edge_seg.nonsense  # noqa: B018


def test_programs_can_read_the_types():
    for name in edge_seg.__all__:
        found = getattr(edge_seg, name)
        members = vars(found).items() if inspect.isclass(found) else [(name, found)]
        for member, function in members:
            public = not member.startswith("_") or member in ("__enter__", "__next__")
            if inspect.isfunction(function) and public:
                assert typing.get_type_hints(function), (name, member)


def test_the_version_is_the_projects():
    project = (PACKAGE.parent / "pyproject.toml").read_text()
    assert f'version = "{edge_seg.__version__}"' in project


def test_missing_assets_are_named(monkeypatch, tmp_path):
    monkeypatch.setattr(edge_seg, "_ASSETS", tmp_path)
    with pytest.raises(errors.ModelFileError, match="no bundled model"):
        edge_seg.bundled_model()
    with pytest.raises(errors.MediaError, match="no bundled clip"):
        edge_seg.bundled_clip()
    for name in ("fcn8_camvid_int8.onnx", "fcn8_camvid_fast_int8.onnx", "street.mp4"):
        (tmp_path / name).touch()
    assert edge_seg.bundled_model() == edge_seg.bundled_model("best") == tmp_path / "fcn8_camvid_int8.onnx"
    assert edge_seg.bundled_model("fast").is_file()
    with pytest.raises(errors.ConfigurationError, match="The bundled models are best and fast, got 'slow'"):
        edge_seg.bundled_model("slow")
    assert edge_seg.bundled_clip().is_file()


def test_what_is_bundled_into_an_archive_is_not_called_missing(tmp_path):
    archive = tmp_path / "application.pyz"
    with zipfile.ZipFile(archive, "w") as packed:
        for path in (*PACKAGE.glob("*.py"), edge_seg.bundled_clip()):
            packed.write(path, path.relative_to(PACKAGE.parent))
    code = "import edge_seg\ntry: edge_seg.bundled_clip()\nexcept edge_seg.MediaError as error: print(error)"
    assert "application.pyz/edge_seg/assets/street.mp4: this copy of edge_seg" in python(code, path=archive)
    assert "or lies in an archive" in python(code, path=archive)


def fake_package(folder: Path, name: str, content: str) -> Path:
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(content)
    return folder


CATCH = """
import edge_seg
try:
    edge_seg.Segmenter(sys.argv[1] if len(sys.argv) > 1 else MODEL, device="cpu")
except edge_seg.MissingDependencyError as error:
    print(error)
"""


def test_opencv_without_libgl_names_the_headless_build(tmp_path, tiny_model):
    words = "libGL.so.1: cannot open shared object file: No such file or directory"
    path = fake_package(tmp_path, "cv2", f"raise ImportError({words!r})")
    said = python(f"MODEL = {str(tiny_model())!r}" + CATCH, path=path)
    assert "libGL.so.1" in said
    assert "pip install --force-reinstall opencv-python-headless" in said


def test_no_opencv_at_all_is_named(tiny_model):
    said = python(f"MODEL = {str(tiny_model())!r}; sys.modules['cv2'] = None" + CATCH)
    assert "pip install opencv-python-headless" in said


def test_frames_need_no_pyav_and_a_video_names_it(tmp_path, tiny_model):
    code = (
        "import edge_seg, numpy as np\n"
        f"segmenter = edge_seg.Segmenter({str(tiny_model())!r}, device='cpu')\n"
        "list(segmenter.stream([np.zeros((8, 8, 3), np.uint8)]))\n"
        "for source in (edge_seg.bundled_clip(), 'http://127.0.0.1:1/a.mp4'):\n"
        "    try: list(segmenter.stream(source))\n"
        "    except edge_seg.MissingDependencyError as error: print(error)\n"
    )
    words = "libavcodec.so.62: cannot open shared object file"
    for said in (
        python(code, path=fake_package(tmp_path, "av", f"raise ImportError({words!r})")),
        python(f"sys.modules['av'] = None\n{code}"),
    ):
        cures = [line.partition(")")[2] for line in said.splitlines()]
        assert cures == [". Install it: pip install --force-reinstall av"] * 2, said


def test_a_command_line_names_a_package_that_does_not_load(tmp_path):
    path = fake_package(tmp_path, "av", "raise ImportError('libavcodec.so.62: file too short', name='av._core')")
    code = (
        "import edge_seg, edge_seg.cli\n"
        "sys.stderr = sys.stdout\n"
        f"print(edge_seg.cli.main(['predict', str(edge_seg.bundled_clip()), '-o', {str(tmp_path / 'out')!r}]))"
    )
    words = "av cannot be loaded (libavcodec.so.62: file too short). Install it anew: pip install --force-reinstall av"
    assert python(code, path=path).splitlines() == [f"error: {words}", "1"]


@pytest.mark.parametrize("package", ["numpy", "av"])
def test_a_command_line_names_a_package_that_is_missing(package, tmp_path):
    code = (
        f"sys.modules[{package!r}] = None\n"
        "import edge_seg, edge_seg.cli\n"
        "sys.stderr = sys.stdout\n"
        f"call = ['predict', str(edge_seg.bundled_clip()), '-o', {str(tmp_path)!r}]\n"
        "print(edge_seg.cli.main(call))"
    )
    assert python(code).splitlines() == [f"error: {package} is not installed. Install it: pip install {package}", "1"]


def test_a_damaged_onnxruntime_is_named_with_the_cure(tmp_path, tiny_model):
    path = fake_package(tmp_path, "onnxruntime", "")
    said = python(f"MODEL = {str(tiny_model())!r}" + CATCH, path=path)
    assert "has no InferenceSession" in said
    assert "pip install onnxruntime-gpu" in said


def test_an_onnxruntime_that_does_not_load_is_named_with_the_cure(tmp_path, tiny_model):
    path = fake_package(tmp_path, "onnxruntime", "raise ImportError('libonnxruntime.so.1: file too short')")
    said = python(f"MODEL = {str(tiny_model())!r}" + CATCH, path=path)
    assert "file too short" in said
    assert "pip uninstall -y" in said


def test_no_onnxruntime_at_all_is_named_with_the_command(tiny_model):
    hide = (
        "; from edge_seg import session; session.installed_builds = dict\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'onnxruntime': raise ModuleNotFoundError('No module', name='onnxruntime')\n"
        "sys.meta_path.insert(0, Hide())\n"
    )
    said = python(f"MODEL = {str(tiny_model())!r}" + hide + CATCH)
    assert said == "onnxruntime is not installed. Install it: pip install onnxruntime-gpu (or onnxruntime)"
