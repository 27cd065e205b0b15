"""`fit --every N` and `fit --workers N`: what is validated and saved, and that neither changes what is learnt."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.train.conftest import Trained, quickest
from tests.train.test_fit import fit, history
from train import callbacks
from train.callbacks import due
from train.report import write_report


@pytest.fixture
def dataset(make_dataset: Callable[..., Path]) -> Path:
    return make_dataset(count=8, size=(64, 64))


def saved_epoch(out: Path, name: str = "checkpoint.npz") -> int:
    with np.load(out / name, allow_pickle=False) as file:
        return int(json.loads(file["record"].tobytes())["epoch"])


def stop_after(patch: pytest.MonkeyPatch, last: int) -> None:
    """Interrupt a training once it has said so of that epoch."""
    report = callbacks.Progress.on_epoch_end

    def stop(self: callbacks.Progress, epoch: int, logs: dict | None = None) -> None:
        report(self, epoch, logs)
        if epoch + 1 == last:
            raise KeyboardInterrupt

    patch.setattr(callbacks.Progress, "on_epoch_end", stop)


def test_each_nth_epoch_and_the_last_are_due() -> None:
    assert [epoch + 1 for epoch in range(7) if due(epoch, 3, 7)] == [3, 6, 7]
    assert [epoch + 1 for epoch in range(4) if due(epoch, 1, 4)] == [1, 2, 3, 4]
    assert [epoch + 1 for epoch in range(4) if due(epoch, 9, 4)] == [4]


@pytest.mark.usefixtures("undrawn")
def test_every_second_epoch_is_validated_and_saved(trained: Trained, tmp_path: Path) -> None:
    often, seldom = trained.run, tmp_path / "seldom"
    assert fit(trained.dataset, seldom, "--epochs", "3", "--every", "2", "--workers", "2") == 0
    rows, all_rows = history(seldom), history(often)
    assert len(rows) == 3
    scored = [name for name in rows[0] if name.startswith(("val_", "iou_"))]
    assert not any(rows[0][name] for name in scored)
    assert all(row["val_mean_iou"] and row["iou_road"] for row in rows[1:])
    # What is learnt is the same, whoever draws the batches and however often they are looked at.
    for row, other in zip(rows, all_rows, strict=True):
        assert float(row["loss"]) == pytest.approx(float(other["loss"]), rel=1e-4)
    assert float(rows[2]["val_loss"]) == pytest.approx(float(all_rows[2]["val_loss"]), rel=1e-3)
    assert (saved_epoch(seldom), saved_epoch(seldom, "checkpoint.previous.npz")) == (3, 2)
    assert "curves.png" in {path.name for path in seldom.iterdir()}
    # Of loss, mean IoU and accuracy one line through both of the validated epochs.
    assert write_report(seldom).read_text().count('stroke="var(--val)"') == 3


@quickest
def test_a_stopped_run_goes_on_from_the_epoch_that_was_saved(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        assert fit(dataset, out, "--epochs", "4", "--every", "2", "--batch-size", "4") == 1
    assert "The checkpoint after epoch 2 is kept" in capsys.readouterr().err
    assert fit(dataset, out, "--epochs", "4", "--batch-size", "4", "--resume") == 0
    assert "resuming after epoch 2 of 4" in capsys.readouterr().err
    assert [bool(row["val_loss"]) for row in history(out)] == [False, True, True, True]
