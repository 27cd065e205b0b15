"""`evaluate`: protocols, flips and scales, what is kept and written; with fakes, and with a small Keras run."""

import argparse
import csv
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import edge_seg
from edge_seg import bundled_model
from edge_seg.errors import ConfigurationError, DatasetError, ModelFileError
from edge_seg.preprocess import resize_labels, scale_frames, stack_frames
from edge_seg.spec import CAMVID_CLASSES, ModelSpec
from train.dataset import Sample, find_samples, read_image, read_mask
from train.evaluate import add_evaluate_arguments, run_evaluate
from train.evaluation import FULL_FRAME, MODEL_SIZE, Evaluation, evaluate_samples
from train.labelers import KerasLabeler, OnnxLabeler, open_onnx
from train.metrics import confusion_matrix, scores
from train.results import table_lines

SIZE = (32, 64)


class Scripted:
    """A labeler that gives the labels it was given, in order, and notes how many frames came at a time."""

    variants: tuple[str, ...] = ("plain",)

    def __init__(self, labels: Sequence[np.ndarray]) -> None:
        self.size = labels[0].shape[:2]
        self.labels, self.calls, self.given = labels, [], 0

    def label(self, frames: Sequence[np.ndarray]) -> list[np.ndarray]:
        self.calls.append(len(frames))
        self.given += len(frames)
        return [np.stack(self.labels[self.given - len(frames) : self.given])]


class FakeModel:
    """Class probabilities that lean on brightness, and to the left: not the same when mirrored."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def predict_on_batch(self, frames: np.ndarray) -> np.ndarray:
        self.shapes.append(frames.shape)
        left = np.linspace(1, 0, frames.shape[2], dtype=np.float32)
        bright = (frames.mean(axis=-1) + 1) / 2
        return np.stack([bright, np.broadcast_to(left, bright.shape), 1 - bright], axis=-1)


def truths(samples: Sequence[Sample]) -> list[np.ndarray]:
    return [read_mask(sample.mask) for sample in samples]


def evaluate(labels: Sequence[np.ndarray], samples: Sequence[Sample], **options: Any) -> Evaluation:
    return evaluate_samples(Scripted(labels), samples, classes=12, unlabelled=11, **options)


def test_perfect_labels_score_one_in_both_protocols(make_dataset: Callable[..., Path]) -> None:
    samples = find_samples(make_dataset(count=5, size=(32, 64)))
    found = evaluate(truths(samples), samples, batch=2)
    for protocol in (MODEL_SIZE, FULL_FRAME):
        assert found.result(protocol).scores.mean_iou == 1.0
        assert found.result(protocol).scores.confusion.sum() == 5 * 32 * 64
    assert [item.mean_iou for item in found.images] == [1.0] * 5


def test_the_protocols_resize_mask_or_labels_by_nearest(make_dataset: Callable[..., Path]) -> None:
    samples = find_samples(make_dataset(count=3, size=(64, 96)))
    rng = np.random.default_rng(0)
    labels = [rng.integers(0, 12, SIZE, np.uint8) for _ in samples]
    found = evaluate(labels, samples)
    small = sum(confusion_matrix(resize_labels(t, SIZE), p, 12) for t, p in zip(truths(samples), labels, strict=True))
    full = sum(confusion_matrix(t, resize_labels(p, t.shape), 12) for t, p in zip(truths(samples), labels, strict=True))
    np.testing.assert_array_equal(found.result(MODEL_SIZE).scores.confusion, small)
    np.testing.assert_array_equal(found.result(FULL_FRAME).scores.confusion, full)
    assert small.sum() == 3 * 32 * 64
    assert full.sum() == 3 * 64 * 96


def test_batches_are_bounded_and_all_samples_seen(make_dataset: Callable[..., Path]) -> None:
    samples = find_samples(make_dataset(count=5, size=(32, 64)))
    labeler, seen = Scripted(truths(samples)), []
    evaluate_samples(labeler, samples, classes=12, unlabelled=11, batch=2, on_batch=lambda *step: seen.append(step))
    assert labeler.calls == [2, 2, 1]
    assert seen == [(2, 5), (4, 5), (5, 5)]
    with pytest.raises(ConfigurationError, match="no image"):
        evaluate_samples(labeler, [], classes=12, unlabelled=11)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 6, 9])
def test_best_and_worst_are_in_order_and_apart(make_dataset: Callable[..., Path], count: int) -> None:
    samples = find_samples(make_dataset(count=count, size=(32, 64)))
    order = np.random.default_rng(count).permutation(count)
    labels = truths(samples)
    for place, label in zip(order, labels, strict=True):
        label[:, : 4 * place] = (label[:, : 4 * place] + 1) % 11
    found = evaluate(labels, samples, batch=4)
    ranked = sorted(found.images, key=lambda item: -item.mean_iou)
    best, worst = [item.score for item in found.best], [item.score for item in found.worst]
    assert best == ranked[: len(best)]
    assert worst == ranked[::-1][: len(worst)]
    assert len(best) + len(worst) == min(count, 6)
    by_stem = {sample.stem: label for sample, label in zip(samples, labels, strict=True)}
    for item in (*found.best, *found.worst, *found.evenly):
        np.testing.assert_array_equal(item.labels, by_stem[item.score.sample.stem])
    assert len(found.evenly) == min(3, count)


def test_the_first_batch_does_not_count_among_the_times(
    make_dataset: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = find_samples(make_dataset(count=5))
    clock = iter([0.0, 60.0, 100.0, 100.2, 200.0, 200.1] * 2)
    monkeypatch.setattr("train.evaluation.time.perf_counter", lambda: next(clock))
    assert evaluate(truths(samples), samples, batch=2).label_ms == pytest.approx(100)
    assert evaluate(truths(samples), samples, batch=5).label_ms == pytest.approx(12000)


def test_plain_labels_are_the_model_own_and_batches_are_filled_up() -> None:
    model = FakeModel()
    labeler = KerasLabeler(model, SIZE, batch=4)
    frames = [np.random.default_rng(i).integers(0, 256, (40, 50, 3), np.uint8) for i in range(3)]
    (labels,) = labeler.label(frames)
    expected = FakeModel().predict_on_batch(scale_frames(stack_frames(frames, SIZE))).argmax(axis=-1)
    np.testing.assert_array_equal(labels, expected)
    assert model.shapes == [(4, *SIZE, 3)]
    assert labeler.variants == ("plain",)


def test_flipping_averages_with_the_mirror_image() -> None:
    frames = [np.random.default_rng(i).integers(0, 256, (*SIZE, 3), np.uint8) for i in range(2)]
    plain, augmented = KerasLabeler(FakeModel(), SIZE, batch=2, flip=True).label(frames)
    model, inputs = FakeModel(), scale_frames(np.stack(frames))
    straight, mirrored = model.predict_on_batch(inputs), model.predict_on_batch(inputs[:, :, ::-1])[:, :, ::-1]
    np.testing.assert_array_equal(plain, straight.argmax(axis=-1))
    np.testing.assert_array_equal(augmented, (straight + mirrored).argmax(axis=-1))
    assert (plain != augmented).any()
    # What leans to the left on one and to the right on the other leans nowhere: mirrored frames, mirrored labels.
    flipped = [np.ascontiguousarray(frame[:, ::-1]) for frame in frames]
    again = KerasLabeler(FakeModel(), SIZE, batch=2, flip=True).label(flipped)[1]
    np.testing.assert_array_equal(again, augmented[:, :, ::-1])


def test_scales_run_at_multiples_of_32_and_come_back_to_size() -> None:
    model = FakeModel()
    labeler = KerasLabeler(model, (64, 96), batch=1, scales=(0.75, 1, 1.25), flip=True)
    plain, augmented = labeler.label([np.full((64, 96, 3), 200, np.uint8)])
    # 48 rounds to 64 and 72 to 64; 80 rounds to 64 and 120 to 128. The plain input runs once.
    assert [shape[1:3] for shape in model.shapes] == [(64, 96), (64, 64), (64, 64), (64, 96), (64, 128), (64, 128)]
    assert plain.shape == augmented.shape == (1, 64, 96)
    assert labeler.variants == ("plain", "augmented")


def test_the_table_names_every_class_and_both_means() -> None:
    confusion = np.diag(np.arange(12))
    confusion[3, 4] = 5
    lines = table_lines(scores(confusion, 11), CAMVID_CLASSES)
    assert len(lines) == 12 + 3
    assert lines[4].split() == ["3", "road", "3", "0", "5", "0.375", "0.375"]
    assert lines[12].split() == ["11", "unlabelled", "11", "0", "0", "1.000", "–"]
    assert "with unlabelled" in lines[13]
    assert "without unlabelled" in lines[14]


def command(*arguments: object) -> int:
    parser = argparse.ArgumentParser()
    add_evaluate_arguments(parser)
    return run_evaluate(parser.parse_args([str(argument) for argument in arguments]))


@dataclass
class SmallRun:
    folder: Path
    dataset: Path
    model: Any


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    import keras

    from train.fcn8 import Fcn8Config, fcn8
    from train.run import save_run, versions

    dataset = tmp_path_factory.mktemp("dataset")
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for folder, shape in ((f"images_prepped_{split}", (48, 80, 3)), (f"annotations_prepped_{split}", (48, 80))):
            (dataset / folder).mkdir()
            for index in range(5):
                cv2.imwrite(str(dataset / folder / f"drive_{index}.png"), rng.integers(0, 12, shape, np.uint8))
    keras.utils.set_random_seed(0)
    config = Fcn8Config(input_size=SIZE, block_widths=(4, 4, 4, 4, 4), head_widths=(4, 4))
    stems = [f"drive_{index}" for index in range(5)]
    data = {"root": str(dataset), "images": None, "masks": None, "train": stems[:2], "val": stems[2:]}
    record = {
        "fcn8": config.to_dict(),
        "classes": list(CAMVID_CLASSES),
        "unlabelled": 11,
        "data": data,
        "versions": versions(),
    }
    model = fcn8(config)
    folder = tmp_path_factory.mktemp("run")
    save_run(folder, record, model)
    return SmallRun(folder, dataset, model)


def predicted(run: SmallRun, split: str, stems: Sequence[str]) -> np.ndarray:
    """Confusion at full frame, by the model itself and cv2 alone."""
    total = np.zeros((12, 12), np.int64)
    for sample in find_samples(run.dataset, split):
        if sample.stem in stems:
            frame = cv2.resize(read_image(sample.image), (64, 32), interpolation=cv2.INTER_LINEAR)
            labels = run.model.predict_on_batch(frame[None].astype(np.float32) / 127.5 - 1)[0].argmax(axis=-1)
            large = cv2.resize(labels.astype(np.uint8), (80, 48), interpolation=cv2.INTER_NEAREST)
            np.add.at(total, (read_mask(sample.mask), large), 1)
    return total


def test_the_validation_split_is_the_run_own(small_run: SmallRun, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(small_run.folder) == 0
    out = small_run.folder / "evaluate-val"
    expected = predicted(small_run, "train", ["drive_2", "drive_3", "drive_4"])
    record = json.loads((out / "summary.json").read_text())
    assert (record["split"], record["images"], record["input_size"]) == ("val", 3, [32, 64])
    full = next(item for item in record["results"] if item["protocol"] == FULL_FRAME)
    assert full["confusion"] == expected.tolist()
    assert full["mean_iou"] == pytest.approx(scores(expected, 11).mean_iou)
    with open(out / "classes.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["protocol"] == FULL_FRAME]
    assert [int(row["tp"]) for row in rows] == np.diag(expected).tolist()
    assert [int(row["fp"]) + int(row["tp"]) for row in rows] == expected.sum(axis=0).tolist()
    with open(out / "confusion.csv", newline="") as file:
        assert [[int(v) for v in row[1:]] for row in list(csv.reader(file))[1:]] == expected.tolist()
    with open(out / "images.csv", newline="") as file:
        assert [row["image"] for row in csv.DictReader(file)] == ["drive_2", "drive_3", "drive_4"]
    for name in ("confusion", "iou", "best", "worst", "samples"):
        assert cv2.imread(str(out / f"{name}.png")) is not None
    assert "on val: 3 images" in capsys.readouterr().out
    assert (small_run.folder / "report.html").is_file()


def test_the_test_folder_at_another_size_with_flips_and_scales(small_run: SmallRun, tmp_path: Path) -> None:
    options = ("--split", "test", "--input-size", "64x64", "--flip", "--scales", "0.5,1", "--batch", 2)
    assert command(small_run.folder, small_run.dataset, "--out", tmp_path, *options) == 0
    record = json.loads((tmp_path / "summary.json").read_text())
    assert (record["images"], record["input_size"], record["options"]) == (
        5,
        [64, 64],
        {"flip": True, "scales": [0.5, 1.0], "ignore_id": None},
    )
    kinds = [(item["protocol"], item["variant"]) for item in record["results"]]
    assert kinds == [(p, v) for v in ("plain", "augmented") for p in (MODEL_SIZE, FULL_FRAME)]


def test_plain_folders_are_evaluated_whole(small_run: SmallRun, tmp_path: Path) -> None:
    folders = (
        "--images",
        small_run.dataset / "images_prepped_test",
        "--masks",
        small_run.dataset / "annotations_prepped_test",
    )
    assert command(small_run.folder, *folders, "--out", tmp_path) == 0
    record = json.loads((tmp_path / "summary.json").read_text())
    full = next(item for item in record["results"] if item["protocol"] == FULL_FRAME)
    assert full["confusion"] == predicted(small_run, "test", [f"drive_{i}" for i in range(5)]).tolist()
    with pytest.raises(ConfigurationError, match="evaluated whole"):
        command(small_run.folder, small_run.dataset, *folders)


def test_no_picture_of_an_earlier_evaluation_stays(small_run: SmallRun, tmp_path: Path) -> None:
    images, masks, out = (tmp_path / name for name in ("images", "masks", "out"))
    for folder, kind in ((images, "images"), (masks, "annotations")):
        shutil.copytree(small_run.dataset / f"{kind}_prepped_test", folder)
    call = (small_run.folder, "--images", images, "--masks", masks, "--out", out)
    assert command(*call) == 0
    assert (out / "worst.png").exists()
    for path in (*sorted(images.iterdir())[1:], *sorted(masks.iterdir())[1:]):
        path.unlink()
    assert command(*call) == 0
    assert json.loads((out / "summary.json").read_text())["images"] == 1
    assert (out / "best.png").exists()
    assert not (out / "worst.png").exists()


def test_what_cannot_be_evaluated(small_run: SmallRun, make_dataset: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(ModelFileError, match="is not a run"):
        command(tmp_path, small_run.dataset)
    with pytest.raises(ModelFileError, match=r"an HDF5 file \(Keras \.h5 weights\)\. Export it first"):
        command(small_run.folder / "model.weights.h5", small_run.dataset)
    with pytest.raises(ModelFileError, match=r"No model at .*GONE\.ONNX"):
        command(tmp_path / "GONE.ONNX", small_run.dataset)
    with pytest.raises(ConfigurationError, match="multiples of 32"):
        command(small_run.folder, "--input-size", "50x50")
    other = make_dataset(count=3)
    with pytest.raises(DatasetError, match="lacks 3 of the 3 val images that the run recorded") as caught:
        command(small_run.folder, other)
    assert caught.value.problems == ("drive_2", "drive_3", "drive_4")
    for wrong in (["--scales", "9"], ["--batch", "0"], ["--input-size", "big"], ["--split", "all"]):
        with pytest.raises(SystemExit) as exited:
            command(small_run.folder, *wrong)
        assert exited.value.code == 2


def test_a_link_in_a_run_is_refused_before_anything_runs(
    small_run: SmallRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, elsewhere = shutil.copytree(small_run.folder, tmp_path / "run"), tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "summary.json").write_text("mine")
    (run / "evaluate-test").symlink_to(elsewhere)
    monkeypatch.setattr("train.evaluate.evaluate_subject", lambda *_, **__: pytest.fail("it was evaluated"))
    with pytest.raises(ConfigurationError, match=r"evaluate-test is a link: .* Remove the link, or name a folder"):
        command(run, "--split", "test")
    assert [(path.name, path.read_text()) for path in elsewhere.iterdir()] == [("summary.json", "mine")]


def test_what_else_is_damaged_in_a_run_does_not_end_an_evaluation(
    small_run: SmallRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = shutil.copytree(small_run.folder, tmp_path / "run")
    (run / "evaluate-zz").mkdir()
    (run / "evaluate-zz" / "summary.json").write_text("{")
    assert command(run, "--split", "test") == 0
    said = capsys.readouterr()
    assert "page brought up to date" in said.out
    assert "leaves out, damaged: evaluate-zz/summary.json" in said.err


def test_a_bad_file_is_named_before_anything_runs(
    small_run: SmallRun, make_dataset: Callable[..., Path], tmp_path: Path
) -> None:
    root = make_dataset(count=3, splits=("test",))
    mask = root / "annotations_prepped_test/drive_001.png"
    cv2.imwrite(str(mask), np.full((48, 64), 40, np.uint8))
    with pytest.raises(DatasetError, match="1 problem") as caught:
        command(small_run.folder, root, "--split", "test", "--out", tmp_path / "out")
    assert str(mask) in caught.value.problems[0]
    assert not (tmp_path / "out").exists()


def test_an_onnx_file_is_evaluated_by_the_same_protocol(
    make_dataset: Callable[..., Path], tiny_model: Callable[..., Path], tiny_reference: Any, tmp_path: Path
) -> None:
    root, model = make_dataset(count=3, size=(48, 80), splits=("test",)), tiny_model(size=SIZE)
    assert command(model, root, "--out", tmp_path / "out", "--batch", 2) == 0
    samples = find_samples(root, "test")
    labels = tiny_reference(stack_frames([read_image(sample.image) for sample in samples], SIZE), 12)
    record = json.loads((tmp_path / "out" / "summary.json").read_text())
    expected = evaluate(list(labels), samples)
    for item in record["results"]:
        assert item["confusion"] == expected.result(item["protocol"]).scores.confusion.tolist()


def test_a_bundled_model_is_evaluated_by_its_name(
    make_dataset: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    root = make_dataset(count=1, size=(48, 80), splits=("test",))
    for given in ("fast", bundled_model("fast")):
        assert command(given, root, "--out", tmp_path / Path(given).stem) == 0
    named, path = (
        json.loads((tmp_path / name / "summary.json").read_text())["results"]
        for name in ("fast", bundled_model("fast").stem)
    )
    assert named == path


def test_what_is_bundled_is_evaluated_beside_it(
    make_dataset: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = make_dataset(count=1)
    bundled = Path(edge_seg.__file__).parent / "assets" / "keras_fast"
    before = sorted(bundled.rglob("*"))
    monkeypatch.chdir(tmp_path)
    folders = ["--images", str(root / "images_prepped_train"), "--masks", str(root / "annotations_prepped_train")]
    assert command(bundled, *folders) == 0
    assert (tmp_path / "keras_fast-evaluate-plain-folders" / "summary.json").is_file()
    assert sorted(bundled.rglob("*")) == before


def test_an_onnx_file_needs_no_keras(
    make_dataset: Callable[..., Path], tiny_model: Callable[..., Path], tmp_path: Path
) -> None:
    call = ["evaluate", tiny_model(size=SIZE), make_dataset(count=1, splits=("test",)), "--out", tmp_path / "out"]
    code = "import sys; from train.__main__ import main; print(main(sys.argv[1:]), 'keras' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, call)], capture_output=True, text=True, cwd=Path(__file__).parents[2]
    )
    assert done.stdout.splitlines()[-1] == "0 False", done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--split", "val"], "records no 'val' split"),
        (["--flip"], "average probabilities"),
        (["--scales", "1,2"], "average"),
    ],
)
def test_what_an_onnx_file_cannot_do(tmp_path: Path, options: list[str], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        command(tmp_path / "model.onnx", tmp_path, *options)


def test_an_onnx_file_keeps_its_size_unless_it_takes_others(tiny_model: Callable[..., Path]) -> None:
    with pytest.raises(ConfigurationError, match=r"takes frames of 32x64 alone; evaluate it without --input-size"):
        open_onnx(tiny_model(size=SIZE), input_size=(64, 64), batch=1)
    for asked, size in ((None, SIZE), ((64, 96), (64, 96))):
        labeler, _ = open_onnx(tiny_model(size=SIZE, dynamic=True), input_size=asked, batch=1)
        assert labeler.size == size
        (labels,) = labeler.label([np.zeros((40, 50, 3), np.uint8)])
        assert labels.shape == (1, *size)


def test_onnx_labels_come_at_the_model_size() -> None:
    @dataclass
    class Result:
        labels: np.ndarray

    class FakeSegmenter:
        spec = ModelSpec(input_size=SIZE)

        def segment_batch(self, frames: list[np.ndarray]) -> list[Result]:
            return [Result(frame[:, :, 0]) for frame in frames]

    (labels,) = OnnxLabeler(FakeSegmenter(), SIZE).label(
        [np.full((10, 20, 3), 7, np.uint8), np.zeros((90, 80, 3), np.uint8)]
    )
    assert labels.shape == (2, *SIZE)
    assert (labels[0] == 7).all()


def test_a_finished_run_shows_itself(small_run: SmallRun) -> None:
    from train.evaluate import write_run_pictures
    from train.run import open_run

    run = open_run(small_run.folder)
    assert write_run_pictures(run, small_run.model) == small_run.folder / "report.html"
    assert cv2.imread(str(small_run.folder / "samples.png")) is not None
    record = json.loads((small_run.folder / "evaluate-val" / "summary.json").read_text())
    full = next(item for item in record["results"] if item["protocol"] == FULL_FRAME)
    assert full["confusion"] == predicted(small_run, "train", ["drive_2", "drive_3", "drive_4"]).tolist()


def test_a_run_without_validation_shows_training_images(small_run: SmallRun, tmp_path: Path) -> None:
    from train.evaluate import write_run_pictures
    from train.run import Run

    data = {**json.loads((small_run.folder / "config.json").read_text())["data"], "val": []}
    run = Run(tmp_path, {**json.loads((small_run.folder / "config.json").read_text()), "data": data})
    (tmp_path / "config.json").write_text(json.dumps(run.config))
    write_run_pictures(run, small_run.model)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "report.html", "samples.png"]
    assert "Sample predictions" in (tmp_path / "report.html").read_text()
