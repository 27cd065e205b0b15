"""Which images are trained on and which are held out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_seg.errors import ConfigurationError
from tests.train.conftest import quickest
from train import study
from train.__main__ import build_parser, main
from train.dataset import Sample, find_samples
from train.options import read_begun
from train.splits import drive_split, random_split, split_samples, time_split


def samples(*stems: str) -> list[Sample]:
    return [Sample(stem, Path(f"{stem}.jpg"), Path(f"{stem}.png")) for stem in stems]


@given(st.integers(0, 60), st.floats(0, 1), st.integers(0, 99))
def test_a_random_split_is_whole_disjoint_and_repeatable(count: int, share: float, seed: int) -> None:
    everything = samples(*(f"{index:03}" for index in range(count)))
    training, validation = random_split(everything, share, seed)
    assert count * share - 1 < len(training) < count * share + 1e-6
    assert sorted((*training, *validation), key=lambda sample: sample.stem) == everything
    assert random_split(everything, share, seed) == (training, validation)


def test_a_share_in_hundredths_loses_no_image_to_floating_point() -> None:
    for count in range(2, 120):
        # Of 700,000 images, which take longer to name than to part, each is named once a count.
        everything = samples(*map(str, range(count)))
        for hundredths in range(1, 100):
            training, _ = random_split(everything, 1.0 - hundredths / 100, 1)
            assert len(training) == count * (100 - hundredths) // 100, (count, hundredths)


def test_the_notebook_share_gives_its_counts() -> None:
    training, validation = random_split(samples(*(f"{index:03}" for index in range(367))), 0.85, 0)
    assert (len(training), len(validation)) == (311, 56)


def test_a_time_split_holds_out_the_end_of_each_drive() -> None:
    drives = {"0001TP": 10, "0016E5": 20, "Seq05VD_f": 5}
    stems = [
        f"{drive}_{index:05}" if drive[-1] != "f" else f"{drive}{index:05}"
        for drive, n in drives.items()
        for index in range(n)
    ]
    training, validation = time_split(samples(*stems), 0.2)
    assert [sample.stem for sample in validation] == [*stems[8:10], *stems[26:30], stems[34]]
    assert {sample.stem for sample in training} | {sample.stem for sample in validation} == set(stems)


def test_frames_of_a_drive_are_in_the_order_of_their_numbers() -> None:
    training, validation = time_split(samples(*sorted(f"frame_{index}" for index in range(1, 21))), 0.2)
    assert [sample.stem for sample in training] == [f"frame_{index}" for index in range(1, 17)]
    assert [sample.stem for sample in validation] == ["frame_17", "frame_18", "frame_19", "frame_20"]


@pytest.mark.parametrize("form", ["2026-11-28_{0:02}-{1:02}-{2:02}", "car 20261128T{0:02}.{1:02}.{2:02}"])
def test_a_time_of_day_is_a_number_and_not_a_drive_a_minute(form: str) -> None:
    names = [form.format(8 + minute // 60, minute % 60, second) for minute in range(50, 70) for second in (0, 20, 40)]
    training, validation = time_split(samples(*reversed(names)), 0.2)
    assert [sample.stem for sample in (*training, *validation)] == names
    assert len(validation) == 12


def test_names_that_make_no_drives_are_one_drive_in_their_order() -> None:
    stems = [f"street-{letter}" for letter in "jihgfedcba"]
    training, validation = time_split(samples(*stems), 0.2)
    assert [sample.stem for sample in training] == [f"street-{letter}" for letter in "abcdefgh"]
    assert [sample.stem for sample in validation] == ["street-i", "street-j"]
    assert time_split(samples(*stems), 0.0)[1] == []


def test_numbers_within_names_are_their_order() -> None:
    stems = [f"{index}_left" for index in range(1, 21)]
    assert [sample.stem for sample in time_split(samples(*sorted(stems)), 0.2)[1]] == stems[16:]


def test_drives_most_of_which_are_too_short_still_hold_out_the_share() -> None:
    stems = [f"clip{clip:03}_{frame}" for clip in range(100) for frame in range(7 if clip == 50 else 3)]
    training, validation = time_split(samples(*stems), 0.15)
    assert len(training) + len(validation) == len(stems)
    assert [sample.stem for sample in validation] == stems[-46:]  # and not one frame of the longest clip


def test_whole_drives_are_held_out_by_their_names() -> None:
    stems = [*(f"0001TP_{index:05}" for index in range(4)), *(f"0006R0_f{index:05}" for index in range(3))]
    training, validation = drive_split(samples(*stems), ["0006R0"])
    assert [sample.stem for sample in training] == stems[:4]
    assert [sample.stem for sample in validation] == stems[4:]
    for unknown, told in (("0016E5", r"of 0016E5\. .* are of 0001TP, 0006R0"), ("0006", r"of 0006\.")):
        with pytest.raises(ConfigurationError, match=told):
            drive_split(samples(*stems), ["0006R0", unknown])


def test_a_drive_is_held_out_however_its_umlauts_are_spelt(make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    one, two = "K\u00f6ln S\u00fcd", "Ko\u0308ln Su\u0308d"
    root = make_dataset(count=8)
    for path in root.glob("*/drive_00[567].png"):
        path.rename(path.with_name(path.name.replace("drive", two)))
    for spelt in (one, two):
        call = build_parser().parse_args(["fit", str(root), "--out", str(tmp_path / "run"), "--hold-out", spelt])
        assert call.held_out == (one,)
        validation = drive_split(find_samples(root), [spelt])[1]
        assert [sample.image.stem for sample in validation] == [f"{two}_00{number}" for number in (5, 6, 7)]


@pytest.fixture
def two_drives(make_dataset: Callable[..., Path]) -> Path:
    """Images of `drive`, 0 to 4, and of `other`, 5 to 7."""
    root = make_dataset(count=8)
    for path in root.glob("*/drive_*"):
        if int(path.stem[-1]) > 4:
            path.rename(path.with_name(path.name.replace("drive", "other")))
    return root


FIT = ["--epochs", "1", "--block-widths", "4,4,4,4,4", "--head-widths", "4,4", "--input-size", "32x32"]
FIT += ["--batch-size", "4", "--policy", "float32"]


@quickest
def test_fit_holds_out_a_drive_and_is_gone_on_with_so(
    two_drives: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["fit", str(two_drives), "--out", str(tmp_path / "run"), *FIT, "--rendered-share", "0"]
    assert main([*call, "--hold-out", "other"]) == 0
    assert "5 train, 3 validation (drives held out: other)" in capsys.readouterr().out
    recipe, _ = read_begun(tmp_path / "run")
    assert recipe.held_out == ("other",)
    assert (
        main(["evaluate", str(tmp_path / "run"), str(two_drives), "--split", "val", "--out", str(tmp_path / "e")]) == 0
    )
    assert "3 images" in capsys.readouterr().out
    resume = ["fit", "--out", str(tmp_path / "run"), "--resume"]
    assert main(resume) == 0
    assert main([*resume, "--hold-out", "drive"]) == 2
    assert "recipe.held_out is other there, drive here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--hold-out", "others"], "--hold-out: no image is of others. By what stands before their numbers"),
        (["--hold-out", "drive,other"], "8 image(s) with --hold-out drive,other leave none to train on"),
        (["--hold-out", "other", "--validation-share", "0.1"], "takes the place of --split and --validation-share"),
        (["--hold-out", "other", "--split", "time"], "takes the place of --split and --validation-share"),
    ],
)
def test_what_cannot_be_held_out_is_told_and_nothing_written(
    two_drives: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], given: list[str], told: str
) -> None:
    assert main(["fit", str(two_drives), "--out", str(tmp_path / "run"), *FIT, *given]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("text", ["a,a", "a,", ""])
def test_drives_are_named_each_once(tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["fit", str(tmp_path), "--out", str(tmp_path / "x"), "--hold-out", text])
    assert stopped.value.code == 2
    assert "expected different names of drives" in capsys.readouterr().err


def test_a_study_holds_out_drives_too(two_drives: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (base, *_) = study.part_variants()
    recipe = study.study_recipe(base, 8, (160, 224), 8, ("other",))
    assert [sample.stem for sample in split_samples(find_samples(two_drives), recipe, 1)[1]] == [
        "other_005", "other_006", "other_007",
    ]  # fmt: skip
    call = ["study", "parts", str(two_drives), "--out", str(tmp_path / "x"), "--hold-out", "third"]
    assert main(call) == 2
    said = capsys.readouterr().err
    assert "no image is of third" in said
    assert "study: " not in said, "nothing was begun"
