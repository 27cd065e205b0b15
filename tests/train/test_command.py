"""The command line of training as a whole: quick to answer, one line for what goes wrong."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from export.__main__ import build_parser as export_parser
from train.__main__ import build_parser as train_parser
from train.__main__ import main

ROOT = Path(__file__).parents[2]


def test_help_waits_for_neither_keras_nor_matplotlib() -> None:
    code = (
        "import sys; from train.__main__ import main\n"
        "try: main(['fit', '--help'])\n"
        "except SystemExit: pass\n"
        "print([name for name in ('keras', 'tensorflow', 'matplotlib', 'h5py') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.endswith("\n[]\n"), done.stdout + done.stderr
    assert "--learning-rate" in done.stdout


@pytest.mark.parametrize("parser", [train_parser, export_parser], ids=["train", "export"])
def test_help_says_what_kind_of_value_an_option_takes(parser: Callable[[], argparse.ArgumentParser]) -> None:
    # argparse's own "--input-size INPUT_SIZE" says nothing; "--input-size HxW" does.
    waiting, silent = [parser()], []
    while waiting:
        for action in waiting.pop()._actions:
            if isinstance(action, argparse._SubParsersAction):
                waiting += action.choices.values()
            elif action.nargs != 0 and not action.choices and not action.metavar:
                silent.append(action.dest)
    assert not silent


def test_unlabelled_is_never_a_class_in_one_command_and_a_folder_in_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["inspect", "data", "--out", str(tmp_path), "--unlabelled", "sky"])
    assert stop.value.code == 2
    assert "unrecognized arguments: --unlabelled" in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_one_line(
    make_dataset: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long = tmp_path / ("long" * 100)
    assert main(["inspect", str(make_dataset(count=1)), "--out", str(long)]) == 1
    assert capsys.readouterr().err == f"error: {long}: File name too long\n"


def test_no_command_at_all_is_a_wrong_call(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([])
    assert stop.value.code == 2
    assert "required: COMMAND" in capsys.readouterr().err


@pytest.mark.parametrize(
    "call", [["inspect", "data"], ["evaluate", "run"], ["ship", "run"], ["study", "parts", "data"], ["clip"]], ids=str
)
def test_an_empty_name_is_a_wrong_call_and_not_the_working_directory(
    call: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*call, "--out", ""])
    assert stop.value.code == 2
    assert "expected a name, got none" in capsys.readouterr().err


@pytest.mark.parametrize(
    "call",
    [
        ["inspect", ""],
        ["evaluate", ""],
        ["evaluate", "run", ""],
        ["fit", ""],
        ["fit", "--images", ""],
        ["fit", "--unlabelled", ""],
        ["fit", "--teacher", ""],
        ["average", "run", ""],
        ["study", "parts", ""],
    ],
    ids=str,
)
def test_an_empty_name_of_what_is_read_is_a_wrong_call_too(call: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(call)
    assert stop.value.code == 2
    assert "expected a name, got none" in capsys.readouterr().err


@pytest.mark.parametrize("below", ["", "below"])
@pytest.mark.parametrize(
    "call",
    [["inspect", "data"], ["evaluate", "run"], ["ship", "run"], ["study", "parts", "data"], ["fit", "data"]],
    ids=lambda call: call[0],
)
def test_a_file_where_a_folder_is_to_be_is_a_wrong_call(
    tmp_path: Path, call: list[str], below: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(SystemExit) as stop:
        main([*call, "--out", str(tmp_path / "file" / below)])
    assert stop.value.code == 2
    assert "file' is a file; name a folder" in capsys.readouterr().err
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_what_cannot_be_is_told_before_anything_is_done(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", "parts", "data", "--out", str(tmp_path / "study"), "--crop-size", "30x30"]) == 2
    assert "multiples of 32" in capsys.readouterr().err
    assert main(["inspect", "data", "--out", str(tmp_path / "study"), "--samples", "51"]) == 2
    assert "--samples must be at most 50" in capsys.readouterr().err
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize("inside", ["", "deeper"])
@pytest.mark.parametrize("where", ["images_prepped_train", "annotations_prepped_test"])
@pytest.mark.parametrize("command", ["inspect", "fit", "evaluate", "study"])
def test_nothing_is_written_among_the_images(
    make_dataset: Callable[..., Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    command: str,
    where: str,
    inside: str,
) -> None:
    root = make_dataset(count=1)
    (root / where).mkdir(exist_ok=True)
    (tmp_path / "link").symlink_to(root / where)
    before = sorted(root.rglob("*"))
    call = {"evaluate": [command, "run", str(root)], "study": [command, "parts", str(root)]}
    call |= {name: [name, str(root)] for name in ("inspect", "fit")}
    assert main([*call[command], "--out", str(tmp_path / "link" / inside)]) == 2
    assert f"lies in {root / where}, whose pictures are data" in capsys.readouterr().err
    assert sorted(root.rglob("*")) == before


def test_plain_folders_and_frames_without_masks_are_data_too(
    make_dataset: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = make_dataset(count=1)
    images, masks = root / "images_prepped_train", root / "annotations_prepped_train"
    plain = ["--images", str(images), "--masks", str(masks)]
    assert main(["inspect", *plain, "--out", str(masks)]) == 2
    assert f"lies in {masks}" in capsys.readouterr().err
    clips = tmp_path / "clips"
    clips.mkdir()
    assert main(["fit", *plain, "--teacher", "x", "--unlabelled", str(clips), "--out", str(clips / "run")]) == 2
    assert f"lies in {clips}" in capsys.readouterr().err
    # Beside them is as good a place as any.
    assert main(["inspect", str(root), "--out", str(root / "look")]) == 0
