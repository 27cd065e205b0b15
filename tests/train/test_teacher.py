"""Learning from a finished network: what it thinks of each image, carried through augmentation into the loss."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest

from edge_seg.codecs import EncodeOptions
from edge_seg.encode import VideoWriter
from edge_seg.errors import ConfigurationError, MediaError
from edge_seg.spec import CAMVID_CLASSES, CAMVID_UNLABELLED
from tests.train.conftest import quickest
from train import callbacks, teacher
from train.__main__ import main
from train.augment import Example, augment, paste_rare
from train.augmentation import Augmentation
from train.batches import TrainingBatches
from train.dataset import Sample
from train.fcn8 import Fcn8Config, fcn8
from train.losses import TEACHER_SHARE, ConfusionMetric, SegmentationLoss
from train.run import load_model, open_run, save_run
from train.stores import PairStore
from train.teacher import opinion_bytes, opinions_of, unlabelled_frames

WIDTHS = {"block_widths": (4, 4, 4, 4, 4), "head_widths": (4, 4)}
FIT = (
    "--block-widths 4,4,4,4,4 --head-widths 4,4 --input-size 64x64 --crop-size 32x32 --batch-size 2 --rendered-share 0"
)
CALM = Augmentation(light=0.0, lens=0.0, paste=0.0, night=0.0, repaint=0.0)


def hot(mask: np.ndarray, classes: int = 12) -> np.ndarray:
    return np.eye(classes, dtype=np.uint8)[mask] * np.uint8(255)


def blocks(seed: int) -> np.ndarray:
    """A mask of (90, 120) in blocks of 30."""
    ids = np.random.default_rng(seed).integers(0, 11, (3, 4)).astype(np.uint8)
    return np.kron(ids, np.ones((30, 30), np.uint8))


@pytest.fixture
def dataset(make_dataset: Callable[..., Path]) -> Path:
    return make_dataset(count=8, size=(64, 64))


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A finished run of (64, 64) with drawn weights."""
    config = Fcn8Config(input_size=(64, 64), **WIDTHS)
    keras.utils.set_random_seed(4)
    record = {"fcn8": config.to_dict(), "classes": list(CAMVID_CLASSES), "unlabelled": 11, "license": "for looking at"}
    return save_run(tmp_path / "teacher", record, fcn8(config)).folder


def fit(dataset: Path, out: Path, *more: object) -> int:
    return main(["fit", str(dataset), "--out", str(out), *FIT.split(), "--policy", "float32", *map(str, more)])


def test_the_loss_is_half_the_masks_and_half_the_teachers() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, (2, 8, 8)).astype(np.uint8)
    truth[0, :4] = 3  # unlabelled: only the teacher speaks there
    logits = rng.normal(size=(2, 8, 8, 4)).astype(np.float32)
    # Half of 255 in all: rounding may leave any sum, and none must matter.
    opinion = (rng.dirichlet(np.ones(4), (2, 8, 8)) * 127 + 0.5).astype(np.uint8)
    weights = np.array([1.0, 2.0, 0.5, 0.0], np.float32)
    loss = SegmentationLoss(weights, jaccard=0.5)
    found = float(loss(np.concatenate([truth[..., None], opinion], -1), logits))
    share = opinion / opinion.sum(-1, keepdims=True)
    log = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    voice = (share * weights).sum(-1)
    theirs = (voice * -(share * log).sum(-1)).sum() / voice.sum()
    ours = float(loss(truth, logits))
    assert found == pytest.approx((1 - TEACHER_SHARE) * ours + TEACHER_SHARE * theirs, rel=1e-4)


def test_where_nothing_is_labelled_the_teacher_alone_is_learnt() -> None:
    opinion = np.random.default_rng(0).dirichlet(np.ones(12), (1, 4, 4))
    truth = np.concatenate([np.full((1, 4, 4, 1), CAMVID_UNLABELLED), opinion * 255 + 0.5], -1).astype(np.uint8)
    weights = np.ones(12, np.float32)
    weights[CAMVID_UNLABELLED] = 0.0
    model = keras.Sequential([keras.Input((4, 4, 12)), keras.layers.Conv2D(12, 1, use_bias=False)])
    inputs = np.log(opinion + 1e-3).astype(np.float32)
    model.compile(optimizer=keras.optimizers.Adam(0.1), loss=SegmentationLoss(weights, jaccard=0.5), jit_compile=False)
    losses = [float(model.train_on_batch(inputs, truth)) for _ in range(60)]
    assert losses[-1] < 0.9 * losses[0]
    share = opinion[..., :11] / opinion[..., :11].sum(-1, keepdims=True)
    found = keras.ops.convert_to_numpy(keras.ops.softmax(model(inputs)))
    assert np.abs(found[..., :11] - share).mean() < 0.04


def test_metrics_look_at_the_masks_alone() -> None:
    rng = np.random.default_rng(1)
    truth, logits = rng.integers(0, 4, (1, 8, 8)).astype(np.uint8), rng.normal(size=(1, 8, 8, 4)).astype(np.float32)
    both = []
    for target in (truth, np.concatenate([truth[..., None], np.zeros((1, 8, 8, 4), np.uint8)], -1)):
        metric = ConfusionMetric(4, 3)
        metric.update_state(target, logits)
        both.append(np.asarray(metric.matrix))
    np.testing.assert_array_equal(*both)


@pytest.mark.parametrize("seed", range(8))
def test_an_opinion_moves_with_its_image(seed: int) -> None:
    mask = blocks(seed)
    example = Example(np.stack([mask * 20] * 3, -1), mask, hot(mask)[::2, ::2])
    crop = augment(example, example, (64, 96), CALM, np.random.default_rng(seed), rare=(2, 6), fill=11)
    assert crop.opinion is not None
    assert crop.opinion.shape == (64, 96, 12)
    inside = crop.mask != 11
    assert (crop.opinion.argmax(-1) == crop.mask)[inside].mean() > 0.97
    assert crop.opinion[~inside].sum(-1).min(initial=255) > 200, "it goes on beyond the edge, as the image does"


@pytest.mark.parametrize("turned", [False, True])
def test_opinions_half_as_large_lie_where_the_image_does(turned: bool) -> None:
    """A ramp, whose value tells the place: half a pixel astray would show."""
    if turned:
        ramp = np.broadcast_to(np.arange(0, 160, 2, dtype=np.uint8)[:, None], (80, 120))
    else:
        ramp = np.broadcast_to(np.arange(0, 240, 2, dtype=np.uint8), (80, 120))
    opinion = cv2.resize(ramp, (60, 40), interpolation=cv2.INTER_AREA)[..., None].repeat(12, -1)
    example = Example(np.stack([ramp] * 3, -1), np.zeros((80, 120), np.uint8), opinion)
    for seed in range(5):
        crop = augment(example, example, (48, 64), CALM, np.random.default_rng(seed), rare=(), fill=11)
        inside = cv2.erode((crop.mask == 0).astype(np.uint8), np.ones((9, 9))) > 0
        away = crop.opinion[..., 5].astype(float) - crop.image[..., 0]  # type: ignore[index]
        assert abs(away[inside].mean()) < 0.6
        assert np.abs(away[inside]).max() <= 3


@pytest.mark.parametrize("seed", [0, 1])
def test_pasted_objects_bring_what_is_thought_of_them(seed: int) -> None:
    empty, mask = np.zeros((30, 40, 3), np.uint8), np.zeros((30, 40), np.uint8)
    other_mask = mask.copy()
    other_mask[10:20, 12:18] = 9
    kept = hot(mask)[::2, ::2]
    pasted = paste_rare(
        Example(empty, mask, kept), Example(empty + 200, other_mask, hot(other_mask)[::2, ::2]), (9,),
        np.random.default_rng(seed),
    )  # fmt: skip
    assert pasted.opinion is not None
    np.testing.assert_array_equal(pasted.opinion.argmax(-1), pasted.mask[::2, ::2])
    assert kept.argmax(-1).max() == 0, "what is kept must stay as it was"


def test_batches_carry_opinions_and_draw_the_same_crops() -> None:
    masks = [blocks(seed) for seed in range(4)]
    pairs = [(np.stack([mask * 20] * 3, -1), mask) for mask in masks]
    rendered = [(pairs[0][0], np.full_like(masks[0], 7))]

    def batches(thoughts: list[np.ndarray]) -> TrainingBatches:
        return TrainingBatches(
            pairs, size=(64, 96), batch_size=4, seed=3, augmentation=Augmentation(), rare=(2,), fill=11,
            rendered=rendered, rendered_share=0.5, opinions=thoughts,
        )  # fmt: skip

    plain, taught = batches([]), batches([hot(mask)[::2, ::2] for mask in masks])
    assert (plain.target_shape, taught.target_shape) == ((64, 96), (64, 96, 13))
    seen = 0
    for index in range(6):
        frames, ids = plain.batch(index, 0)
        same, targets = taught.batch(index, 0)
        np.testing.assert_array_equal(frames, same)
        np.testing.assert_array_equal(ids, targets[..., 0])
        assert targets.dtype == np.uint8
        for target in targets:
            inside = target[..., 0] != 11
            if (target[..., 0] == 7)[inside].mean() > 0.9:  # the rendered one: the truth stands in for an opinion
                seen += 1
                np.testing.assert_array_equal(target[..., 1:], hot(target[..., 0]))
            else:
                assert (target[..., 1:].argmax(-1) == target[..., 0])[inside].mean() > 0.9
    assert seen > 3


def test_an_opinion_is_the_mean_over_an_image_at_three_sizes(finished: Path) -> None:
    rng = np.random.default_rng(0)
    pairs = [(rng.integers(0, 256, (64, 64, 3), np.uint8), np.zeros((64, 64), np.uint8)) for _ in range(5)]
    found = opinions_of(open_run(finished), pairs, (32, 32))
    assert [opinion.shape for opinion in found] == [(32, 32, 12)] * 5
    run = open_run(finished)
    free = load_model(replace(run, config={**run.config, "fcn8": {**run.config["fcn8"], "input_size": None}}))
    for (image, _), opinion in zip(pairs, found, strict=True):
        looks = []
        # Three quarters of 64 come to 64 again: inputs are multiples of 32.
        for side in (64, 64, 96):
            seen = cv2.resize(image, (side, side), interpolation=cv2.INTER_LINEAR)
            probabilities = np.asarray(free.predict_on_batch((seen / 127.5 - 1).astype(np.float32)[None]))[0]
            looks.append(np.stack([cv2.resize(channel, (64, 64)) for channel in np.moveaxis(probabilities, -1, 0)], -1))
        mean = np.mean(looks, axis=0)
        expected = mean.reshape(32, 2, 32, 2, 12).mean((1, 3)) * 255
        assert np.abs(opinion - expected).max() < 0.51


def write_video(path: Path, frames: int, rate: int) -> Path:
    writer = VideoWriter(
        path, size=(48, 64), time_base=Fraction(1, rate), rate=Fraction(rate), options=EncodeOptions(preset="ultrafast")
    )
    for index in range(frames):
        writer.write(np.full((48, 64, 3), 2 * index, np.uint8), pts=index, duration=1)
    writer.close()
    return path


def test_a_clip_gives_two_frames_a_second_and_a_picture_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = write_video(tmp_path / "clip.mp4", 60, 20)
    cv2.imwrite(str(tmp_path / "picture.png"), np.full((20, 30, 3), 200, np.uint8))
    (tmp_path / "notes.txt").touch()
    frames = unlabelled_frames([tmp_path], (32, 40))
    assert capsys.readouterr().err == f"--unlabelled {tmp_path}: 2 sources; left out: 1 .txt\n"
    assert {frame.shape for frame in frames} == {(32, 40, 3)}
    levels = [round(float(frame.mean())) for frame in frames]
    assert levels == pytest.approx([0, 20, 40, 60, 80, 100, 200], abs=3)
    picture, mask = tmp_path / "picture.png", tmp_path / "mask.png"
    cv2.imwrite(str(mask), np.zeros((20, 30), np.uint8))
    pairs = PairStore([Sample("picture", picture, mask)], frames, 11)
    assert len(pairs) == 8
    assert [int(mask.max()) for _, mask in pairs] == [0] + [11] * 7
    np.testing.assert_array_equal(pairs[7][0], frames[6])
    assert unlabelled_frames([], (32, 40)) == []
    with pytest.raises(MediaError, match="absent"):
        unlabelled_frames([clip, tmp_path / "absent.mp4"], (32, 40))
    with pytest.raises(ConfigurationError, match="expected pictures, clips or folders of them; got camera 0"):
        unlabelled_frames([Path("0")], (32, 40))


def test_more_frames_than_memory_is_meant_for_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = write_video(tmp_path / "clip.mp4", 60, 20)
    monkeypatch.setattr(teacher, "MOST_FRAMES", 6)
    assert len(unlabelled_frames([clip], (32, 40))) == 6
    monkeypatch.setattr(teacher, "MOST_FRAMES", 5)
    with pytest.raises(ConfigurationError, match="more than 5 frames"):
        unlabelled_frames([clip], (32, 40))
    monkeypatch.setattr(teacher, "MOST_BYTES", 4 * 3 * 32 * 40)
    with pytest.raises(ConfigurationError, match="more than 4 frames of 32x40"):
        unlabelled_frames([clip], (32, 40))
    monkeypatch.setattr(teacher, "MOST_BYTES", 4 * (3 * 32 * 40 + 500) + 7 * 500)
    with pytest.raises(ConfigurationError, match="more than 4 frames of 32x40"):
        unlabelled_frames([clip], (32, 40), labelled=7, opinion=500)


def test_more_opinions_than_memory_is_meant_for_are_refused_before_the_teacher_looks(
    dataset: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    each = opinion_bytes(open_run(finished), (352, 480))
    images = [(np.zeros((64, 64, 3), np.uint8), np.zeros((64, 64), np.uint8))]
    assert opinions_of(open_run(finished), images, (352, 480))[0].nbytes == each == 32 * 32 * 12
    monkeypatch.setattr(teacher, "MOST_BYTES", 7 * each - 1)
    capsys.readouterr()
    assert fit(dataset, tmp_path / "run", "--epochs", 1, "--teacher", finished) == 2
    said = capsys.readouterr().err
    assert "--teacher: its opinions of 7 images would take 86 kB" in said
    assert "at most 86 kB, 6 images. Give fewer, or train without." in said
    assert "looking at" not in said
    assert not (tmp_path / "run").exists()


def test_devices_are_chosen_for_the_batch_that_frames_fill(
    dataset: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seven labelled images and six frames make a batch of ten."""
    found: list[int] = []

    def choosing(batch_size: int, names: tuple[str, ...]) -> None:
        found.append(batch_size)
        raise ConfigurationError("enough")

    monkeypatch.setattr("train.fit.choose_devices", choosing)
    clip = write_video(tmp_path / "clip.mp4", 60, 20)
    call = ["--epochs", 1, "--batch-size", 10, "--teacher", finished]
    assert fit(dataset, tmp_path / "run", *call, "--unlabelled", clip) == 2
    assert fit(dataset, tmp_path / "run", *call) == 2
    assert found == [10, 7]


@pytest.mark.slow
@quickest
def test_fit_records_its_teacher_and_learns_from_it(
    dataset: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = write_video(tmp_path / "clip.mp4", 60, 20)
    taught, otherwise = tmp_path / "taught", tmp_path / "otherwise"
    options = ["--epochs", 1, "--batch-size", 4, "--unlabelled", clip]
    assert fit(dataset, taught, *options, "--teacher", finished) == 0
    said, told = capsys.readouterr()
    assert "teacher teacher: looking at 13 images" in told
    assert "teacher teacher: its opinion of the training images is learnt too, and of 6 frames without masks" in said
    assert "7 train, 1 validation" in said
    assert "1 epoch of 3 steps" in said, "13 images in fours"
    config = open_run(taught).config
    assert config["teacher"]["run"] == "teacher"
    assert config["data"]["frames"]["count"] == 6
    assert config["license"] == "for looking at"
    # Of two trainings that differ in nothing but what their teachers think.
    other = save_run(tmp_path / "other", open_run(finished).config, fcn8(Fcn8Config(input_size=(64, 64), **WIDTHS)))
    assert fit(dataset, otherwise, *options, "--teacher", other.folder) == 0
    kernels = [np.asarray(load_model(open_run(run)).get_layer("conv7").kernel) for run in (taught, otherwise)]
    assert not np.allclose(*kernels)
    assert main(["ship", str(taught), "--out", str(tmp_path / "shipped")]) == 0
    shipped = (tmp_path / "shipped" / "config.json").read_text()
    assert json.loads(shipped)["teacher"] == config["teacher"]
    assert str(tmp_path) not in shipped, "no place of this machine travels"


@pytest.mark.slow
@quickest
def test_a_taught_run_is_gone_on_with_by_the_same_teacher_alone(
    dataset: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out, clip = tmp_path / "run", write_video(tmp_path / "clip.mp4", 30, 20)
    options = ["--teacher", finished, "--unlabelled", clip, "--batch-size", 4]

    def stop(self: callbacks.Progress, epoch: int, logs: dict | None = None) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(callbacks.Progress, "on_epoch_end", stop)
        assert fit(dataset, out, "--epochs", 2, *options) == 1
    capsys.readouterr()
    write_video(clip, 45, 20)
    assert main(["fit", "--out", str(out), "--resume"]) == 2
    assert "frames.count is 3 there, 5 here" in capsys.readouterr().err
    write_video(clip, 30, 20)
    kept = tmp_path / "kept"
    shutil.copytree(finished, kept)
    save_run(finished, open_run(finished).config, fcn8(Fcn8Config(input_size=(64, 64), **WIDTHS)))
    assert main(["fit", "--out", str(out), "--resume"]) == 2
    assert "teacher.hash is " in capsys.readouterr().err
    shutil.rmtree(finished)
    assert main(["fit", "--out", str(out), "--resume"]) == 1
    assert f"{finished} is not a run" in capsys.readouterr().err
    shutil.move(kept, finished)
    assert main(["fit", "--out", str(out), "--resume"]) == 0
    assert open_run(out).config["training"]["epochs"] == 2


def test_calls_that_cannot_be_say_why(
    dataset: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    assert fit(dataset, out, "--unlabelled", dataset / "images_prepped_train") == 2
    assert "--unlabelled: frames without masks are learnt from a teacher; give --teacher too" in capsys.readouterr().err
    arguments = ["fit", str(dataset), "--out", str(out), "--recipe", "notebook", "--teacher", str(finished)]
    assert main(arguments) == 2
    assert "--teacher: the notebook's recipe learns from masks alone" in capsys.readouterr().err
    config = json.loads((finished / "config.json").read_text())
    (finished / "config.json").write_text(json.dumps(config | {"classes": [name[::-1] for name in CAMVID_CLASSES]}))
    assert fit(dataset, out, "--teacher", finished) == 2
    assert f"--teacher {finished}: expected a network of the classes sky" in capsys.readouterr().err
    assert not out.exists()


def test_a_teacher_that_has_not_finished_is_told_before_the_data_is_read(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (finished / "model.weights.h5").unlink()
    assert fit(tmp_path / "nowhere", tmp_path / "run", "--teacher", finished) == 1
    assert f"{finished} has no model.weights.h5: the run has not finished." in capsys.readouterr().err
