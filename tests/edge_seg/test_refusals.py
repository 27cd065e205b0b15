"""What a user sees when a model or a device is refused: one line that names the file and the cure, and the exit code.

The checks themselves are tested where they live; here each goes through the command line, once a row of faults.
"""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_seg.cli import main

Change = Callable[[Any], None]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """(exit code, the error line) of a command that must fail with one line."""
    capsys.readouterr()
    code = main(list(arguments))
    printed = capsys.readouterr()
    lines = [line for line in printed.err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, printed.err
    assert "Traceback" not in printed.err + printed.out
    return code, lines[0]


def zip_file(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("config.json", "{}")


def hdf5(path: Path) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        file["w"] = np.ones(3)


def pickle(path: Path) -> None:
    path.write_bytes(b"\x80\x04\x95\x0b\0\0\0")


WRONG_FILES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "missing": (lambda path: None, "No model at .* Export one: python -m export"),
    "empty": (lambda path: path.write_bytes(b""), "is empty .* Copy or export it again"),
    "folder": (lambda path: path.mkdir(), r"is not a file\. .* python -m export \S+ --out model\.onnx"),
    "pipe": (lambda path: os.mkfifo(path), r"is not a file\. Pass the path of a \.onnx file"),
    "git lfs": (
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"),
        "is a Git LFS pointer .*git lfs pull",
    ),
    "page": (lambda path: path.write_text("<!DOCTYPE html><html>404"), r"web page .*Download the \.onnx file again"),
    "keras": (zip_file, r"zip archive \(a \.keras file\?\).*python -m export RUN"),
    "h5": (hdf5, "HDF5 file .*python -m export RUN"),
    "pt": (pickle, "Python pickle, which edge_seg never opens. Export an ONNX model"),
    "zeros": (lambda path: path.write_bytes(bytes(4096)), r"holds only zeros: an interrupted copy\. Copy it again"),
    "noise": (lambda path: path.write_bytes(bytes(range(1, 200))), "not a whole ONNX model .*copy or export it again"),
}


@pytest.mark.parametrize("command", ["info", "verify", "predict"])
@pytest.mark.parametrize("name", sorted(WRONG_FILES))
def test_the_wrong_kind_of_file(tmp_path: Path, capsys: Any, name: str, command: str) -> None:
    make, words = WRONG_FILES[name]
    path = tmp_path / "model.onnx"
    make(path)
    (tmp_path / "a.png").write_bytes(b"")
    options = [str(tmp_path / "a.png"), "-m", str(path), "-o", str(tmp_path / "out")]
    code, line = run(capsys, command, *(options if command == "predict" else [str(path)]))
    assert code == 1
    assert str(path) in line
    assert re.search(words, line), line
    assert not (tmp_path / "out").exists()


def cut(model: Any) -> None:
    model.graph.initializer[-1].raw_data = model.graph.initializer[-1].raw_data[:40]


def outside(model: Any) -> None:
    # Without the flag, so that the package that writes the test's file leaves it alone.
    model.graph.initializer[0].external_data.add(key="location", value="../../etc/passwd")


def domain(model: Any) -> None:
    model.opset_import.add(domain="com.microsoft", version=1)


def unknown(model: Any) -> None:
    model.graph.node[0].op_type = "Loop"


def circle(model: Any) -> None:
    model.graph.node[0].input[0] = "centered"


def newer_opset(model: Any) -> None:
    model.opset_import[0].version = 99


def newer_ir(model: Any) -> None:
    model.ir_version = 77


HOSTILE_MODELS: dict[str, tuple[Change, str]] = {
    "cut weights": (cut, "not a whole ONNX model .*tensor 'kernel' declares 1296 bytes and holds 40.* export it again"),
    "data outside": (outside, r"keeps weights outside the file \('\.\./\.\./etc/passwd'\)\. .*Export it again"),
    "domain": (domain, "operator domain 'com.microsoft' is not the standard one.* Export it again"),
    "operator": (unknown, "operator 'Loop' is none that an edge_seg model has. Export it again"),
    "circle": (circle, "reads 'centered', which nothing before it makes. Export it again"),
    "newer opset": (
        newer_opset,
        r"has opset 99; onnxruntime [\d.]+ reads up to \d+\. Upgrade it: pip install -U onnxruntime(-gpu)?; .*--opset",
    ),
    "newer IR": (newer_ir, r"has IR version 77; onnxruntime [\d.]+ reads up to \d+\. Upgrade it: pip install -U"),
}


@pytest.mark.parametrize("name", sorted(HOSTILE_MODELS))
def test_a_model_that_is_refused(tiny_model: Callable[..., Path], capsys: Any, name: str) -> None:
    change, words = HOSTILE_MODELS[name]
    path = tiny_model(change=change)
    code, line = run(capsys, "verify", str(path), "--device", "cpu")
    assert code == 1
    assert str(path) in line
    assert re.search(words, line), line


def test_a_model_that_asks_for_more_memory_than_there_is(tiny_model: Any, capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("edge_seg.session.available_memory", lambda: 10_000)
    path = tiny_model()
    code, line = run(capsys, "verify", str(path), "--device", "cpu")
    assert code == 1
    assert f"cpu has no memory for {path}: " in line
    assert "takes 124 kB, 10 kB are free. Use a model of a smaller size" in line


@pytest.mark.parametrize("command", ["verify", "predict"])
def test_cuda_that_is_not_there_is_an_error_never_the_cpu(
    tiny_model: Any, gpu_machine: Any, tmp_path: Path, capsys: Any, command: str
) -> None:
    from tests.edge_seg.clips import write_image

    picture = str(write_image(tmp_path / "a.png", 3))
    path = str(tiny_model())
    rest = [path] if command == "verify" else [picture, "-m", path, "-o", str(tmp_path / "out")]
    gpu_machine.gpus = None
    code, line = run(capsys, command, *rest, "--device", "cuda")
    assert code == 1
    assert "device cuda:0 cannot be had: no NVIDIA driver answers" in line
    assert "docker run --gpus all" in line
    gpu_machine.gpus, gpu_machine.silent_cpu = 1, True
    code, line = run(capsys, command, *rest, "--device", "cuda")
    assert code == 1
    assert "the session got CPUExecutionProvider instead of CUDAExecutionProvider" in line
    assert "pip install 'onnxruntime-gpu[cuda,cudnn]'" in line
    assert not (tmp_path / "out").exists()


def test_a_provider_that_computes_other_labels_is_found_by_verify(
    tiny_model: Any, gpu_machine: Any, capsys: Any
) -> None:
    path = str(tiny_model())
    assert main(["verify", path, "--device", "cuda"]) == 0
    gpu_machine.wrong = True
    capsys.readouterr()
    assert main(["verify", path, "--device", "all"]) == 1
    printed = capsys.readouterr().out
    assert "cpu: passed" in printed
    assert "cuda:0: FAILED: 0.0000 % of pixels agree with Keras" in printed
    assert "Use a device that passes (--device), or update this one's driver and onnxruntime" in printed
    assert main(["verify", path, "--device", "cuda", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["passed"] is False


def test_info_prints_json_whatever_numbers_a_file_holds(tiny_model: Any, capsys: Any) -> None:
    path = tiny_model(training={"val_accuracy": float("nan"), "start": [{"loss": float("inf")}]})
    assert main(["info", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert found["training"] == {"val_accuracy": None, "start": [{"loss": None}]}


def test_info_gives_a_terminal_no_orders(tiny_model: Any, capsys: Any) -> None:
    path = tiny_model(
        training={"notes": "\x1b]0;owned\x07\x9b2J"}, change=lambda m: setattr(m, "producer_name", "\x1b[2J")
    )
    assert main(["info", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "?]0;owned??2J" in printed
    assert all(letter.isprintable() or letter == "\n" for letter in printed)
