"""Whole or absent: what `files` promises, piece by piece. The killing is in `tests/test_crash.py`."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from edge_seg import files
from edge_seg.errors import MediaError
from edge_seg.files import LONG_STALE_S, STALE_S, Claim, create_anew, publish, replacing, sweep, temporary_path


def half_write(target: Path, error: BaseException) -> None:
    with replacing(target) as temporary:
        temporary.write_text("half")
        raise error


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_name_is_taken_only_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with replacing(target) as temporary:
        assert temporary.suffix == ".txt", "libraries choose their format by it"
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert (target.read_text(), names(tmp_path)) == ("new", ["a.txt"])


def test_a_name_may_be_as_long_as_names_are(tmp_path: Path) -> None:
    target = tmp_path / f"{'ü' * 125}.png"
    assert len(os.fsencode(target.name)) == 254
    with replacing(target) as temporary:
        assert temporary.suffix == ".png"
        temporary.write_text("new")
    assert names(tmp_path) == [target.name]


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("no"), OSError(28, "No space left on device")])
def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path, error: BaseException) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(type(error)) as caught:
        half_write(target, error)
    assert (target.read_text(), names(tmp_path)) == ("old", ["a.txt"])
    if isinstance(error, OSError):
        assert (caught.value.filename, caught.value.strerror) == (str(target), "the disk is full")  # type: ignore[attr-defined]


def test_errors_that_speak_of_something_else_are_left_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as missing, replacing(tmp_path / "a.txt"):
        (tmp_path / "input.txt").read_text()
    assert missing.value.filename == str(tmp_path / "input.txt")
    with pytest.raises(MediaError, match="two frames are missing"), replacing(tmp_path / "a.txt"):
        raise MediaError("two frames are missing")


def test_the_file_that_is_replaced_may_be_kept(tmp_path: Path) -> None:
    target, kept = tmp_path / "a.txt", tmp_path / "before.txt"
    for text in ("one", "two", "three"):
        with replacing(target, keep=kept) as temporary:
            temporary.write_text(text)
    assert (target.read_text(), kept.read_text(), names(tmp_path)) == ("three", "two", ["a.txt", "before.txt"])


def test_a_seal_that_fails_stops_the_rename(tmp_path: Path) -> None:
    def seal(made: Path, final: Path) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="the disk is full"), replacing(tmp_path / "a.txt", seal=seal) as temporary:
        temporary.write_text("new")
    assert names(tmp_path) == []


def test_a_folder_takes_the_place_of_a_folder(tmp_path: Path) -> None:
    made, final = tmp_path / "made", tmp_path / "final"
    for folder, count in ((made, 2), (final, 5)):
        folder.mkdir()
        for number in range(count):
            (folder / str(number)).write_text(folder.name)
    publish(made, final)
    assert (names(tmp_path), names(final)) == (["final"], ["0", "1"])
    assert (final / "0").read_text() == "made"


def test_a_folder_whose_rename_fails_gets_its_name_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, final = tmp_path / "made", tmp_path / "final"
    made.mkdir()
    final.mkdir()
    (final / "old").write_text("old")
    replace = os.replace

    def failing(source: Path, target: Path) -> None:
        if Path(source) == made:
            raise OSError(5, "Input/output error")
        replace(source, target)

    monkeypatch.setattr(files.os, "replace", failing)
    with pytest.raises(OSError, match="Input/output error"):
        publish(made, final)
    assert names(final) == ["old"]


def test_threads_and_processes_do_not_share_a_temporary_name(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"

    def write(number: int) -> None:
        for _ in range(20):
            with replacing(target) as temporary:
                temporary.write_text(str(number) * 10_000)

    threads = [threading.Thread(target=write, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(target.read_text())) == 1
    assert len(target.read_text()) == 10_000
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.skipif(os.name != "posix", reason="process numbers are asked about by a signal")
def test_what_dead_processes_left_goes_after_a_while(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    child.wait()
    old = time.time() - STALE_S - 5
    mine, abandoned = (temporary_path(tmp_path / name).name for name in ("a.txt", "b.txt"))
    left = {
        abandoned: time.time() - LONG_STALE_S - 5,
        f".partial-{child.pid}-0-model.onnx": old,
        f".partial-{child.pid}-1-young.onnx": time.time(),
        f"partial-{child.pid}-2-yours.onnx": old,
        ".partial-notes.txt": old,
        ".partial-99999999999999999999-0-model.onnx": old,
        mine: old,
    }
    for name, changed in left.items():
        (tmp_path / name).write_text("half")
        os.utime(tmp_path / name, (changed, changed))
    folder = tmp_path / f".partial-{child.pid}-3-model.onnx-scratch"
    folder.mkdir()
    (folder / "calibration").write_text("half")
    os.utime(folder, (old, old))
    # In a container a process with the first one's number lives always: after a day it is no longer asked.
    gone = {f".partial-{child.pid}-0-model.onnx", abandoned}
    sweep(tmp_path)
    assert set(names(tmp_path)) == set(left) - gone
    sweep(tmp_path / "gone")


def test_a_lock_that_nobody_holds_is_swept(tmp_path: Path) -> None:
    held = Claim(tmp_path / "held.mp4")
    left = tmp_path / ".partial-lock-0123456789abcdef"
    left.touch(mode=0o444)
    sweep(tmp_path)
    assert not left.exists()
    assert len(list(tmp_path.iterdir())) == 1
    held.release()
    assert not list(tmp_path.iterdir())


def test_another_users_lock_is_a_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = Claim(tmp_path / "x.mp4")
    (lock,) = tmp_path.iterdir()
    theirs.release()
    lock.touch(mode=0o444)
    opened = os.open

    def only_to_read(path: object, flags: int, *mode: int) -> int:
        if flags & os.O_RDWR:
            raise PermissionError(13, "denied")
        return opened(path, flags, *mode)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(os, "open", only_to_read)
    mine = Claim(tmp_path / "x.mp4")
    with pytest.raises(BlockingIOError, match="another run"):
        Claim(tmp_path / "x.mp4")
    mine.release()


def test_another_users_lock_stays_where_it_may_not_be_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in /tmp, whose sticky bit keeps each user's files."""
    mine = Claim(tmp_path / "x.mp4")

    def denied(path: Path, missing_ok: bool = False) -> None:
        raise PermissionError(1, "Operation not permitted", str(path))

    monkeypatch.setattr(Path, "unlink", denied)
    mine.release()
    Claim(tmp_path / "x.mp4").release()


def test_a_claim_that_loses_every_race_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_seg.files._locked", lambda handle, lock: False)
    with pytest.raises(BlockingIOError, match="other runs"):
        Claim(tmp_path / "x.mp4")


def test_what_is_replaced_and_kept_gets_its_name_back_where_the_rename_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, kept = tmp_path / "a.txt", tmp_path / "before.txt"
    target.write_text("two")
    kept.write_text("one")
    replace = os.replace

    def failing(source: Path, final: Path) -> None:
        if Path(final) == target and Path(source) != kept:
            raise OSError(5, "Input/output error")
        replace(source, final)

    monkeypatch.setattr(files.os, "replace", failing)
    with pytest.raises(OSError, match="input/output error"), replacing(target, keep=kept) as temporary:
        temporary.write_text("three")
    assert target.read_text() == "two"
    target.unlink()
    kept.write_text("one")
    with pytest.raises(OSError, match="input/output error"), replacing(target, keep=kept) as temporary:
        temporary.write_text("three")
    assert (target.exists(), kept.read_text()) == (False, "one"), "what was kept before is not what was replaced"


def test_processes_of_one_number_in_two_containers_share_no_temporary_name(tmp_path: Path) -> None:
    script = "import os; os.getpid = lambda: 1; from edge_seg.files import temporary_path; from pathlib import Path; "
    script += f"print(temporary_path(Path({str(tmp_path)!r}) / 'a.mp4'))"
    told = {subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout for _ in range(2)}
    assert len(told) == 2
    assert all(b".partial-1-" in name for name in told)


def test_a_file_made_anew_replaces_a_link_and_not_what_it_points_at(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("theirs")
    for name, link in (("soft", os.symlink), ("hard", os.link), ("nowhere", lambda _, to: os.symlink("gone", to))):
        link(victim, tmp_path / name)
        with create_anew(tmp_path / name) as file:
            file.write(b"ours")
        assert (tmp_path / name).read_bytes() == b"ours"
        assert not (tmp_path / name).is_symlink()
    assert victim.read_text() == "theirs"
    assert not (tmp_path / "gone").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_or_a_link_with_the_name_of_a_lock_holds_nobody_up(tmp_path: Path) -> None:
    held = Claim(tmp_path / "x.mp4")
    (lock,) = tmp_path.iterdir()
    held.release()
    os.mkfifo(tmp_path / ".partial-lock-x")
    sweep(tmp_path)
    lock.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        Claim(tmp_path / "x.mp4")
    assert not (tmp_path / "elsewhere").exists()
