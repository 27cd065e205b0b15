"""ImageNet kernels by path: both layouts of VGG16's notop file, the .npz, and what is refused."""

from __future__ import annotations

from pathlib import Path

import h5py
import keras
import numpy as np
import pytest

from edge_seg.errors import ModelFileError
from train.fcn8 import IMAGENET_MEAN_BGR, Fcn8Config, fcn8
from train.weights import ENCODER_LAYERS, even_out, fits_whole, load_encoder, read_encoder, strongest_filters

WIDTHS = (4, 5, 6, 7, 8)
TINY = Fcn8Config(input_size=(32, 32), block_widths=WIDTHS, head_widths=(4, 4))


def encoder_arrays() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Random kernels in the shapes of TINY's encoder."""
    rng = np.random.default_rng(0)
    arrays, channels = {}, 3
    for name in ENCODER_LAYERS:
        filters = WIDTHS[int(name[5]) - 1]
        arrays[name] = (rng.normal(size=(3, 3, channels, filters)).astype("f"), rng.normal(size=filters).astype("f"))
        channels = filters
    return arrays


def write_h5(path: Path, keras_version: int) -> Path:
    """A file of the layout in which Keras 1 and 2 published VGG16's weights."""
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in ENCODER_LAYERS]
        for name, (kernel, bias) in encoder_arrays().items():
            group = file.create_group(name)
            names = (f"{name}_W_1:0", f"{name}_b_1:0") if keras_version == 1 else (f"{name}/kernel:0", f"{name}/bias:0")
            group.attrs["weight_names"] = [text.encode() for text in names]
            group.create_dataset(names[0], data=kernel)
            group.create_dataset(names[1], data=bias)
    return path


def write_npz(path: Path) -> Path:
    arrays = {}
    for name, (kernel, bias) in encoder_arrays().items():
        arrays |= {f"{name}_kernel": kernel, f"{name}_bias": bias}
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize("kind", ["keras1", "keras2", "npz"])
def test_every_layout_gives_the_same_kernels(tmp_path: Path, kind: str) -> None:
    path = write_npz(tmp_path / "w.npz") if kind == "npz" else write_h5(tmp_path / "vgg16_notop.h5", int(kind[-1]))
    found = read_encoder(path)
    assert list(found) == list(ENCODER_LAYERS)
    for name, arrays in encoder_arrays().items():
        for ours, theirs in zip(found[name], arrays, strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("kernel", "bias", "words"),
    [
        (np.float32(1), np.float32(1), "expected .3, 3, 3, out. and .out,."),
        (np.zeros((3, 3), "f"), np.zeros(3, "f"), "holds a kernel .3, 3. and a bias .3,."),
        (np.zeros((3, 3, 3, 4), "f"), np.zeros(5, "f"), "a bias .5,."),
        (np.zeros((3, 3, 5, 4), "f"), np.zeros(4, "f"), "expected .3, 3, 3, out."),
        (np.full((3, 3, 3, 4), np.nan, "f"), np.zeros(4, "f"), "not finite"),
        (np.full((3, 3, 3, 4), "x"), np.zeros(4, "f"), "not finite numbers"),
    ],
    ids=["scalars", "flat", "another bias", "other channels", "nan", "text"],
)
def test_arrays_that_are_no_encoder_are_refused(
    tmp_path: Path, kernel: np.ndarray, bias: np.ndarray, words: str
) -> None:
    np.savez(tmp_path / "w.npz", block1_conv1_kernel=kernel, block1_conv1_bias=bias)
    with pytest.raises(ModelFileError, match=words):
        read_encoder(tmp_path / "w.npz")


def test_rescaled_first_layer_means_what_it_meant(tmp_path: Path) -> None:
    model = fcn8(TINY)
    assert load_encoder(model, write_npz(tmp_path / "w.npz")) == list(ENCODER_LAYERS)
    frames = np.random.default_rng(1).integers(0, 256, (1, 32, 32, 3)).astype(np.float32)
    kernel, bias = encoder_arrays()["block1_conv1"]
    caffe = keras.ops.conv(frames - np.array(IMAGENET_MEAN_BGR, "f"), kernel, padding="valid") + bias
    ours = model.get_layer("block1_conv1")
    scaled = keras.ops.conv(frames / 127.5 - 1, ours.kernel, padding="valid") + ours.bias
    np.testing.assert_allclose(np.asarray(scaled), np.asarray(caffe), rtol=1e-3, atol=0.05)


def test_notebook_loads_the_numbers_as_they_stand(tmp_path: Path) -> None:
    model = fcn8(TINY)
    load_encoder(model, write_npz(tmp_path / "w.npz"), rescale=False)
    np.testing.assert_array_equal(model.get_layer("block1_conv1").get_weights()[0], encoder_arrays()["block1_conv1"][0])


def test_only_layers_that_fit_are_loaded(tmp_path: Path) -> None:
    model = fcn8(Fcn8Config(input_size=(32, 32), block_widths=(4, 5, 6, 9, 9), head_widths=(4, 4)))
    assert load_encoder(model, write_npz(tmp_path / "w.npz")) == [name for name in ENCODER_LAYERS if name[5] in "123"]


def test_narrow_layers_take_the_strongest_filters_and_what_those_read() -> None:
    stored = encoder_arrays()
    stored["block1_conv1"][0][..., [1, 3]] *= 100  # two filters of four, made the strongest
    found = strongest_filters(stored, dict.fromkeys(ENCODER_LAYERS, 2))
    assert [kernel.shape for kernel, _ in found.values()] == [(3, 3, 3, 2)] + [(3, 3, 2, 2)] * 12
    np.testing.assert_array_equal(found["block1_conv1"][0], stored["block1_conv1"][0][..., [1, 3]])
    np.testing.assert_array_equal(found["block1_conv1"][1], stored["block1_conv1"][1][[1, 3]])
    second = stored["block1_conv2"][0][:, :, [1, 3]]
    best = np.sort(np.argsort(-np.abs(second).sum((0, 1, 2)))[:2])
    np.testing.assert_array_equal(found["block1_conv2"][0], second[..., best])


def test_narrowing_ends_where_a_layer_is_wider_than_stored(tmp_path: Path) -> None:
    model = fcn8(Fcn8Config(input_size=(32, 32), block_widths=(2, 5, 9, 2, 2), head_widths=(4, 4)), batch_norm_from=1)
    loaded = load_encoder(model, write_npz(tmp_path / "w.npz"), narrow=True)
    assert loaded == [name for name in ENCODER_LAYERS if name[5] in "12"]


def test_whole_blocks_are_told_from_narrowed_ones() -> None:
    stored = encoder_arrays()
    assert fits_whole(stored, WIDTHS, 5)
    assert fits_whole(stored, (4, 5, 1, 1, 1), 2)
    assert not fits_whole(stored, (4, 2, 6, 7, 8), 2)
    del stored["block2_conv2"]
    assert not fits_whole(stored, WIDTHS, 2)


def test_files_that_cannot_serve_are_named(tmp_path: Path) -> None:
    model = fcn8(Fcn8Config(input_size=(32, 32), block_widths=(2, 2, 2, 2, 2), head_widths=(4, 4)))
    with pytest.raises(ModelFileError, match="no such weights file"):
        load_encoder(model, tmp_path / "absent.h5")
    with pytest.raises(ModelFileError, match="none of its kernels fits"):
        load_encoder(model, write_npz(tmp_path / "w.npz"))
    (tmp_path / "page.h5").write_bytes(b"<html>not found</html>")
    with pytest.raises(ModelFileError, match=r"page\.h5"):
        load_encoder(model, tmp_path / "page.h5")
    np.savez(tmp_path / "other.npz", weights=np.zeros(3))
    with pytest.raises(ModelFileError, match="holds none of VGG16"):
        load_encoder(model, tmp_path / "other.npz")


def test_pickles_are_not_run(tmp_path: Path) -> None:
    arrays = {f"block1_conv1_{kind}": np.array([{"a": 1}], object) for kind in ("kernel", "bias")}
    np.savez(tmp_path / "evil.npz", **arrays)
    with pytest.raises(ModelFileError, match="pickle"):
        read_encoder(tmp_path / "evil.npz")


def test_kernels_are_evened_out_and_compute_the_same() -> None:
    keras.utils.set_random_seed(0)
    model = fcn8(TINY)
    rng = np.random.default_rng(0)
    for layer in model.layers:
        layer.set_weights([rng.normal(size=array.shape, scale=0.3).astype("f") for array in layer.get_weights()])
    first, after = model.get_layer("block1_conv1"), model.get_layer("block3_conv1")
    first.set_weights([array * 300 for array in first.get_weights()])
    after.set_weights([after.get_weights()[0] / 5000, after.get_weights()[1]])
    frames = rng.uniform(-1, 1, (1, 32, 32, 3)).astype("f")
    before = np.asarray(model.predict_on_batch(frames))
    even_out(model)
    np.testing.assert_array_equal(np.asarray(model.predict_on_batch(frames)), before)
    # What each holds beside a fresh kernel, sqrt(2 / inputs) a weight.
    sizes = [
        float(np.std(layer.get_weights()[0])) * (layer.get_weights()[0][..., 0].size / 2) ** 0.5
        for layer in (first, after)
    ]
    assert 0.4 < sizes[0] / sizes[1] < 2.5
