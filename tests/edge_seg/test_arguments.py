"""Wrong calls are one line on every command line, and exit 2, before anything is read or written."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.__main__ import main as benchmarks
from edge_seg.arguments import number, positive
from edge_seg.cli import main as edge_seg
from export.__main__ import main as export
from train.__main__ import main as train


@pytest.mark.parametrize(
    ("main", "call", "words"),
    [
        (edge_seg, "", "COMMAND"),
        (edge_seg, "predict", "the following arguments are required: SOURCE. Help: edge-seg predict --help"),
        (
            edge_seg,
            "predict a.mp4 --alpha 2",
            "--alpha: expected a number from 0 to 1; got '2'. Help: edge-seg predict",
        ),
        (edge_seg, "predict a.mp4 -m https://me:x@host/m.onnx", "--model: expected a file or folder of this machine;"),
        (edge_seg, "predict a.mp4 -o rtsp://me:x@host/out", "--out: expected a file or folder of this machine; got an"),
        (edge_seg, "predict a.mp4 --stride 0", "--stride: expected a whole number above 0; got '0'"),
        (edge_seg, "predict a.mp4 --device gpu", "--device: device must be auto, cpu, openvino"),
        (edge_seg, "verify --device everything", "got 'everything'"),
        (edge_seg, "predict a.mp4 --frobnicate", "arguments: --frobnicate. Help: edge-seg predict --help"),
        (edge_seg, "--frobnicate", "Help: edge-seg --help"),
        (edge_seg, "predict a.mp4 --over", "unrecognized arguments: --over"),
        (edge_seg, "info --js", "unrecognized arguments: --js"),
        (edge_seg, "predict a.mp4 --resume --overwrite", "not allowed with argument --resume"),
        (train, "fit data", "required: --out. Help: python -m train fit --help"),
        (train, "inspect data --out run --im pictures", "unrecognized arguments: --im pictures"),
        (train, "fit data --out run --epochs 0", "--epochs: expected a whole number above 0; got '0'"),
        (export, "run --out a.onnx --precision int4", "--precision: invalid choice: 'int4'"),
        (export, "run --out a.onnx --prec int8", "unrecognized arguments: --prec int8"),
        (
            benchmarks,
            "compare a b --other",
            "arguments: --other. Help: python -m benchmarks compare --help",
        ),
        (benchmarks, "--quick --other", "unrecognized arguments: --other. Help: python -m benchmarks run --help"),
        (benchmarks, "run --repeats many", "--repeats: expected a whole number above 0; got 'many'"),
    ],
)
def test_a_wrong_call_is_one_line_and_two(
    main: Callable[[list[str]], int], call: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(call.split())
    assert stop.value.code == 2
    said = capsys.readouterr()
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert said.err.startswith("error: ")
    assert words in said.err


def test_a_file_that_looks_like_an_option_is_told_how_to_be_written(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "-dash.mp4").write_bytes(b"")
    for call, hint in ((["predict", "-dash.mp4"], True), (["predict", "-other.mp4"], False)):
        with pytest.raises(SystemExit):
            edge_seg(call)
        assert ("is written ./-dash.mp4. Help:" in capsys.readouterr().err) is hint


@pytest.mark.parametrize("call", [["info", ""], ["verify", ""], ["predict", "a", "-m", ""], ["demo", "-o", ""]])
def test_an_empty_name_is_not_the_default(call: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """`verify "$MODEL"` without a MODEL shall not say that the bundled one passed."""
    with pytest.raises(SystemExit) as stop:
        edge_seg(call)
    assert stop.value.code == 2
    assert "expected a name, got none" in capsys.readouterr().err


def test_a_misspelled_device_is_told_before_results_that_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "edge_seg_out").mkdir()
    for name in ("a.mp4", "edge_seg_out/a_overlay.mp4"):
        (tmp_path / name).write_bytes(b"x")
    assert edge_seg(["predict", "a.mp4"]) == 2
    assert "Already there" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        edge_seg(["predict", "a.mp4", "--device", "gpu"])
    assert "Already there" not in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "-1", "1.5", "nan", "0", "x"])
def test_what_is_no_positive_number_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="above 0"):
        positive(text)
    assert positive(" 12 ") == 12


@pytest.mark.parametrize("text", ["", "nan", "1.01", "-0.01", "inf"])
def test_what_lies_outside_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="from 0 to 1"):
        number(text, 0, 1)
    assert number("0.25", 0, 1) == 0.25
