"""Checkpoints that were damaged: the one before is taken and that is said, or the error names both files."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edge_seg.errors import ModelFileError
from train.checkpoint import DAMAGED, NAME, PREVIOUS, kept, load_checkpoint, save_checkpoint

SEED = int(os.environ.get("EDGE_SEG_TEST_SEED", random.SystemRandom().randrange(2**31)))


class Variable(np.ndarray):
    """An array that can be assigned to, as Keras' variables can."""

    path = "kernel"

    def assign(self, array: np.ndarray) -> None:
        self[...] = array


class Stand:
    """A model and its optimizer, as far as a checkpoint looks at them."""

    def __init__(self, value: float) -> None:
        self.variables = [np.full((20, 30), value, np.float32).view(Variable) for _ in range(3)]
        self.optimizer: Any = type("", (), {"variables": [np.full(5, value).view(Variable)]})()

    def values(self) -> set[float]:
        return {float(x) for array in [*self.variables, *self.optimizer.variables] for x in np.unique(array)}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for epoch in (1, 2):
        save_checkpoint(tmp_path, Stand(epoch), {"epoch": epoch, "history": []})  # type: ignore[arg-type]
    return tmp_path


def load(folder: Path) -> tuple[int, str, set[float]]:
    model = Stand(-1)
    record, note = load_checkpoint(folder, model)  # type: ignore[arg-type]
    return record["epoch"], note, model.values()


def test_the_newest_is_taken_and_nothing_said(folder: Path) -> None:
    assert load(folder) == (2, "", {2.0})
    assert kept(folder) == "The checkpoint after epoch 2 is kept; go on from it with --resume"
    assert {path.name for path in folder.iterdir()} == {NAME, PREVIOUS}


def test_damage_anywhere_falls_back_aloud_or_does_no_harm(folder: Path) -> None:
    whole = (folder / NAME).read_bytes()
    draw = random.Random(SEED)
    fallen = 0
    for turn in range(300):
        data = bytearray(whole)
        if turn % 3 == 0:
            del data[draw.randrange(len(data)) :]
        else:
            for _ in range(draw.choice((1, 1, 8))):
                data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        (folder / NAME).write_bytes(data)
        epoch, note, values = load(folder)
        # A flip in what zip does not check, such as a time of day, changes nothing.
        assert (epoch, values) in ((1, {1.0}), (2, {2.0})), f"seed {SEED}, turn {turn}: {epoch} {values} {note}"
        assert (epoch == 1) == (f"going on from {PREVIOUS}" in note and f"{NAME}: " in note), f"seed {SEED}: {note}"
        fallen += epoch == 1
    assert fallen > 200


def test_a_damaged_one_never_takes_the_place_of_the_one_gone_on_from(folder: Path) -> None:
    damaged = (folder / NAME).read_bytes()[:500]
    (folder / NAME).write_bytes(damaged)
    assert load(folder)[0] == 1
    assert (folder / DAMAGED).read_bytes() == damaged
    save_checkpoint(folder, Stand(2), {"epoch": 2})  # type: ignore[arg-type]
    (folder / NAME).write_bytes(damaged)
    assert load(folder) == (
        1,
        f"{NAME}: a damaged .npz (File is not a zip file); kept as {DAMAGED}; going on from {PREVIOUS}",
        {1.0},
    )


def test_when_both_are_damaged_both_are_named_with_the_cure(folder: Path) -> None:
    for name in (NAME, PREVIOUS):
        (folder / name).write_bytes((folder / name).read_bytes()[:500])
    with pytest.raises(ModelFileError, match=rf"{NAME}: .*; {PREVIOUS}: .*Start again with another --out\.$"):
        load(folder)
    (folder / "config.json").write_text("{}")
    assert kept(folder) == "No checkpoint had been written; start over with --resume"


@pytest.mark.parametrize(
    "error", [MemoryError("Unable to allocate 540 MiB"), OSError(5, "Input/output error")], ids=repr
)
def test_one_that_cannot_be_read_now_is_not_taken_for_damaged(
    folder: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """Going on from the one before would be work lost, and deleting the run all of it."""
    model = Stand(-1)

    def failing(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(np, "load", failing)
    with pytest.raises(type(error)) as caught:
        load_checkpoint(folder, model)  # type: ignore[arg-type]
    if isinstance(caught.value, OSError):
        assert (caught.value.filename, caught.value.errno) == (str(folder / NAME), 5)
    assert model.values() == {-1.0}


def test_one_that_may_not_be_opened_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    really = Path.open

    def refusing(self: Path, *given: Any, **named: Any) -> Any:
        if self.name == NAME:
            raise PermissionError(13, "Permission denied", str(self))
        return really(self, *given, **named)

    monkeypatch.setattr(Path, "open", refusing)
    with pytest.raises(PermissionError, match=NAME):
        load_checkpoint(folder, Stand(-1))  # type: ignore[arg-type]


def test_one_of_another_network_is_not_taken(folder: Path) -> None:
    model = Stand(1)
    model.variables.append(np.zeros(3).view(Variable))
    save_checkpoint(folder, model, {"epoch": 3})  # type: ignore[arg-type]
    epoch, note, values = load(folder)
    assert (epoch, values) == (2, {2.0})
    assert "holds 4 model variables, this network has 3" in note


@pytest.mark.parametrize(
    "record", [{"epoch": "\x1b[2J"}, {"epoch": 3, "history": [5]}, {"epoch": 3, "history": [{}]}, {"epoch": [3]}]
)
def test_one_whose_record_makes_no_sense_is_not_taken(folder: Path, record: dict[str, Any]) -> None:
    save_checkpoint(folder, Stand(3), record)  # type: ignore[arg-type]
    epoch, note, values = load(folder)
    assert (epoch, values) == (2, {2.0})
    assert f"going on from {PREVIOUS}" in note
    assert "\x1b" not in kept(folder)


def test_a_save_that_fails_keeps_both(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="the disk is full") as caught:
        save_checkpoint(folder, Stand(3), {"epoch": 3})  # type: ignore[arg-type]
    assert caught.value.filename == str(folder / NAME)
    monkeypatch.undo()
    assert load(folder) == (2, "", {2.0})
    with np.load(folder / PREVIOUS, allow_pickle=False) as file:
        assert json.loads(file["record"].tobytes())["epoch"] == 1
    assert {path.name for path in folder.iterdir()} == {NAME, PREVIOUS}


def test_what_is_wrong_is_said_however_long_the_folder_is(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 220)
    folder.mkdir()
    for name in (NAME, PREVIOUS):
        (folder / name).write_bytes(b"no archive" * 20)
    with pytest.raises(ModelFileError) as caught:
        load_checkpoint(folder, Stand(1.0))  # type: ignore[arg-type]
    assert str(caught.value).count("x" * 100) == 2, caught.value  # the folder, which is named once
