"""Weights from strangers: plain arrays are read, everything else is refused in one line, and no code of a file runs.

The canary is a file that the code inside a hostile file would write. Each hostile file is first shown to write it when
it is opened the careless way, so that its absence means something.
"""

from __future__ import annotations

import contextlib
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_seg.errors import ModelFileError
from train.stored import check_h5, read_h5, read_npz


def plain_h5(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        file.create_dataset("layers/conv/vars/0", data=np.arange(12, dtype="f").reshape(3, 4))
        file.create_dataset("layers/conv/vars/1", data=np.ones(4, "f2"), compression="gzip", shuffle=True)
    return path


def test_plain_arrays_pass_and_are_counted(tmp_path: Path) -> None:
    assert check_h5(plain_h5(tmp_path / "w.h5")) == 12 * 4 + 4 * 2
    np.savez(tmp_path / "w.npz", a=np.arange(3), b=np.zeros((2, 2), "f"))
    np.savez_compressed(tmp_path / "c.npz", a=np.arange(3))
    assert sorted(read_npz(tmp_path / "w.npz")) == ["a", "b"]
    assert read_npz(tmp_path / "c.npz")["a"].tolist() == [0, 1, 2]


def external_link(path: Path, secret: Path) -> None:
    with h5py.File(path, "w") as file:
        file["w"] = h5py.ExternalLink(str(secret), "/layers/conv/vars/0")


def soft_link(path: Path, secret: Path) -> None:
    with h5py.File(path, "w") as file:
        file["w"] = h5py.SoftLink("/elsewhere")


def circle(path: Path, secret: Path) -> None:
    with h5py.File(path, "w") as file:
        inner = file.create_group("a/b")
        inner["again"] = file["a"]


def external_storage(path: Path, secret: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("w", (8,), "u1", external=[(str(secret), 0, 8)])


def virtual(path: Path, secret: Path) -> None:
    layout = h5py.VirtualLayout((3, 4), "f")
    layout[:] = h5py.VirtualSource(str(secret), "layers/conv/vars/0", shape=(3, 4))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("w", layout)


def objects(path: Path, secret: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("w", data=["text"], dtype=h5py.string_dtype())


def stored_type(path: Path, secret: Path) -> None:
    with h5py.File(path, "w") as file:
        file["w"] = np.dtype("f8")


def plug_in(path: Path, secret: Path) -> None:
    with h5py.File(path, "w") as file:
        settings_ = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        settings_.set_chunk((8,))
        settings_.set_filter(32001, h5py.h5z.FLAG_OPTIONAL, (1,))
        h5py.h5d.create(file.id, b"w", h5py.h5t.NATIVE_FLOAT, h5py.h5s.create_simple((8,)), settings_)


def bomb(path: Path, secret: Path) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("w", (10**6, 10**6), "f", chunks=(1000, 1000), compression="gzip")


def many_bombs(path: Path, secret: Path) -> None:
    with h5py.File(path, "w") as file:
        for index in range(20):
            file.create_dataset(f"w{index}", (10**4, 10**4), "f", chunks=(100, 100), compression="gzip")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (external_link, "/w is a link into another file .*secret"),
        (soft_link, "/w is a soft link"),
        (circle, "/a/b/again is reached twice"),
        (external_storage, "/w keeps its values in another file .*secret"),
        (virtual, "/w is a virtual dataset, which reads other files"),
        (objects, "/w holds object, not numbers"),
        (stored_type, "/w is a stored type"),
        (plug_in, "/w needs the filter plug-in 32001"),
        (bomb, "declare 4000000000000 bytes, and at most 2147483648 are expected"),
        (many_bombs, "declare 8000000000 bytes"),
    ],
)
def test_what_hdf5_can_do_beyond_arrays_is_refused(
    tmp_path: Path, make: Callable[[Path, Path], None], words: str
) -> None:
    secret = plain_h5(tmp_path / "secret.h5")
    path = tmp_path / "weights.h5"
    make(path, secret)
    assert path.stat().st_size < 2_000_000
    with pytest.raises(ModelFileError, match=words) as caught:
        check_h5(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert any(cure in message for cure in ("save_weights", "Give the weights"))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", r"empty \(0 bytes\).*Copy or download it again"),
        (b"PK\x03\x04" + b"\0" * 50, r"zip archive \(a \.keras model\?\), which can carry code.*save_weights"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS pointer.*git lfs pull"),
        (b"\n<!DOCTYPE html>", "web page.*Download it again"),
        (b"\x80\x04\x95", "pickle, which can run code"),
        (b"\x08\x08:\xa7\x06", "got a file that begins with"),
        (b"\x89HDF\r\n\x1a\n" + b"\0" * 200, "damaged HDF5"),
    ],
)
def test_other_kinds_of_file_are_named(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "weights.h5"
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=words) as caught:
        check_h5(path)
    assert str(path) in str(caught.value)
    assert str(caught.value).isprintable()


def test_pipes_and_folders_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.h5")
    for path in (tmp_path / "pipe.h5", tmp_path):
        with pytest.raises(ModelFileError, match="not a file; expected HDF5 weights"):
            check_h5(path)
        with pytest.raises(ModelFileError, match=r"not a file; expected an \.npz"):
            read_npz(path)


def test_a_config_larger_than_any_is_not_read(tmp_path: Path) -> None:
    from train.run import open_run

    with (tmp_path / "config.json").open("wb") as file:
        file.truncate(2**40)  # sparse: takes no disk
    with pytest.raises(ModelFileError, match=r"config\.json: damaged \(it has 1099511627776 bytes"):
        open_run(tmp_path)


def test_every_cut_is_refused_or_whole(tmp_path: Path) -> None:
    data = plain_h5(tmp_path / "w.h5").read_bytes()
    cut = tmp_path / "cut.h5"
    for length in range(0, len(data), 97):
        cut.write_bytes(data[:length])
        with pytest.raises(ModelFileError, match=r"cut\.h5"):
            check_h5(cut)


def test_arrays_are_read_by_group_and_only_those_asked_for(tmp_path: Path) -> None:
    file = plain_h5(tmp_path / "w.h5")
    (layers,) = read_h5(file, ["layers"]).values()
    np.testing.assert_array_equal(layers[0], np.arange(12, dtype="f").reshape(3, 4))
    assert [(array.dtype, array.shape) for array in layers] == [("f4", (3, 4)), ("f2", (4,))]
    assert read_h5(file, ["conv1"]) == {}


def test_an_array_that_cannot_be_unpacked_is_refused_though_its_header_is_right(tmp_path: Path) -> None:
    file = plain_h5(tmp_path / "w.h5")
    with h5py.File(file) as opened:
        place = opened["layers/conv/vars/1"].id.get_chunk_info(0)
    data = bytearray(file.read_bytes())
    data[place.byte_offset : place.byte_offset + place.size] = b"\xff" * place.size
    file.write_bytes(data)
    check_h5(file)
    with pytest.raises(ModelFileError, match=r"w\.h5: damaged HDF5 \(.+\)\. Copy or download it again"):
        read_h5(file, ["layers"])


def npz(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(name.replace("_npy", ".npy"), data)
    return path


def npy(shape: tuple[int, ...], data: bytes, descr: str = "<f4") -> bytes:
    header = repr({"descr": descr, "fortran_order": False, "shape": shape}).ljust(117).encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


@pytest.mark.parametrize(
    ("members", "words"),
    [
        ({"a_npy": npy((10**6, 10**6), b"\0" * 16)}, "'a.npy' declares 4000000000000 bytes and holds 16"),
        ({"a_npy": npy((2,), b"\0" * 16)}, "'a.npy' declares 8 bytes and holds 16"),
        ({"a_npy": npy((-1,), b"")}, "'a.npy' declares"),
        ({"a_npy": npy((600_000_000,), b"\0" * 100)}, "declares 2400000000 bytes"),
        ({"a_npy": npy((2,), b"\0" * 16, "|O")}, "'a.npy' is a pickle, which can run code"),
        ({"a_npy": b"not an array"}, "damaged .npz"),
        ({"config.json": b"{}"}, "expected arrays alone; it holds 'config.json'"),
        ({"a_npy": b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 65535}, "damaged .npz"),
        ({"a_npy": b"\x93NUMPY\x01\x00\x28\x23" + b"~" * 8999 + b"1"}, "damaged .npz"),  # too much for the parser
    ],
)
def test_an_npz_must_hold_what_it_declares(tmp_path: Path, members: dict[str, bytes], words: str) -> None:
    path = npz(tmp_path / "w.npz", **members)
    with pytest.raises(ModelFileError, match=words) as caught:
        read_npz(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_zeros_without_end_are_not_unpacked(tmp_path: Path) -> None:
    """40 MB in 40 KB, honestly declared: the bound is what this network may have."""
    path = npz(tmp_path / "w.npz", a_npy=npy((10_000_000,), bytes(40_000_000)))
    assert path.stat().st_size < 60_000
    with pytest.raises(ModelFileError, match="declare 40000000 bytes, and at most 1000000 are expected"):
        read_npz(path, max_bytes=1_000_000)


@settings(max_examples=80, deadline=None, derandomize=True)
@given(place=st.floats(0, 1, exclude_max=True), value=st.integers(0, 255), cut=st.integers(0, 30))
def test_a_spoiled_npz_is_read_or_refused(place: float, value: int, cut: int, tmp_path_factory: Any) -> None:
    path = tmp_path_factory.getbasetemp() / "spoiled.npz"
    np.savez(path, a=np.arange(5), b=np.ones((2, 3), "f"))
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] = value
    path.write_bytes(data[: len(data) - cut])
    with contextlib.suppress(ModelFileError):
        assert read_npz(path).keys() <= {"a", "b"}


def test_a_compressed_npz_spoiled_anywhere_is_read_or_refused(tmp_path: Path) -> None:
    """What is deflated fails in other words than what is stored, and so does a header that numpy parses as text."""
    path = tmp_path / "spoiled.npz"
    np.savez_compressed(path, a=np.arange(5), b=np.ones((2, 3), "f"))
    data, refused = path.read_bytes(), []
    for place in range(len(data)):
        spoiled = bytearray(data)
        spoiled[place] ^= 0x10
        path.write_bytes(spoiled)
        try:
            read_npz(path)
        except ModelFileError as error:
            refused.append(str(error))
    assert all(words.startswith(f"{path}: ") for words in refused)
    assert len(refused) > len(data) / 2


class Evil:
    """Unpickled, it writes the canary."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return Path.write_text, (self.canary, "ran")


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


def evil_npz(path: Path, canary: Path) -> Path:
    hostile = np.empty(1, object)
    hostile[0] = Evil(canary)
    np.savez(path, block1_conv1_kernel=hostile, block1_conv1_bias=hostile)
    with np.load(path, allow_pickle=True) as file:
        file["block1_conv1_kernel"]
    assert canary.read_text() == "ran", "the file is not hostile, so its refusal would prove nothing"
    canary.unlink()
    return path


def evil_model(path: Path, canary: Path) -> Path:
    import keras

    # A lambda travels as bytecode, so its text is the canary's.
    write = eval(f"lambda x: (open({str(canary)!r}, 'w').close(), x)[1]")
    keras.Sequential([keras.Input((4,)), keras.layers.Lambda(write)]).save(path)
    canary.unlink(missing_ok=True)
    keras.models.load_model(path, safe_mode=False)
    assert canary.exists(), "the file is not hostile, so its refusal would prove nothing"
    canary.unlink()
    return path


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_saved_models_with_code_are_refused_and_nothing_runs(
    tmp_path: Path, canary: Path, suffix: str, make_dataset: Any, capsys: Any
) -> None:
    from train.__main__ import main as train

    path = evil_model(tmp_path / f"evil{suffix}", canary)
    words = "saved model with code" if suffix == ".h5" else "can carry code and is never opened"
    data = str(make_dataset(count=4))
    out = tmp_path / "run"
    capsys.readouterr()
    assert train(["fit", data, "--out", str(out), "--weights", str(path), "--epochs", "1"]) == 1
    error = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(error) == 1
    assert f"{path}: " in error[0]
    assert words in error[0]
    assert not canary.exists()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_saved_model_in_place_of_a_run_is_refused(
    tmp_path: Path, canary: Path, suffix: str, make_dataset: Any, capsys: Any
) -> None:
    from export.__main__ import main as export
    from train.__main__ import main as train

    path = evil_model(tmp_path / f"evil{suffix}", canary)
    run, data = tmp_path / "run", str(make_dataset(count=2, splits=("test",)))
    run.mkdir()
    widths = {"block_widths": [4] * 5, "head_widths": [4, 4], "input_size": [32, 32]}
    (run / "config.json").write_text(json.dumps({"fcn8": widths}))
    (run / "model.weights.h5").write_bytes(path.read_bytes())
    capsys.readouterr()
    for folder in (path, run):
        for command in (
            lambda folder=folder: export([str(folder), "--out", str(tmp_path / "m.onnx"), "--golden", "none"]),
            lambda folder=folder: train(["evaluate", str(folder), data, "--split", "test"]),
        ):
            code = command()
            error = capsys.readouterr().err.splitlines()
            lines = [line for line in error if line.startswith("error: ")]
            assert code == 1, error
            assert len(lines) == 1
            assert str(folder) in lines[0]
            assert "Traceback" not in "\n".join(error)
            assert not canary.exists()
    assert not (tmp_path / "m.onnx").exists()


def test_pickles_in_an_npz_are_refused_and_nothing_runs(tmp_path: Path, canary: Path) -> None:
    from train.weights import read_encoder

    path = evil_npz(tmp_path / "evil.npz", canary)
    with pytest.raises(ModelFileError, match="is a pickle, which can run code and is never opened"):
        read_encoder(path)
    assert not canary.exists()


def test_a_layer_of_its_own_in_a_saved_model_is_named(tmp_path: Path) -> None:
    config = {"class_name": "Functional", "config": {"layers": [{"class_name": "Stealer", "config": {"name": "x"}}]}}
    path = plain_h5(tmp_path / "w.h5")
    with h5py.File(path, "a") as file:
        file.attrs["model_config"] = json.dumps(config)
    with pytest.raises(ModelFileError, match=r"code or layers of its own \(Stealer\)"):
        check_h5(path)


def test_a_plain_saved_model_gives_its_arrays(tmp_path: Path) -> None:
    """As Keras saves VGG16 whole: a description without code does no harm, since nobody follows it."""
    import keras

    keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 3), keras.layers.Flatten()]).save(
        tmp_path / "whole.h5"
    )
    assert check_h5(tmp_path / "whole.h5") == 4 * (3 * 3 * 3 * 2 + 2)


@pytest.mark.parametrize(
    "config",
    [
        "[]",
        "{}",
        "{",
        '{"fcn8": 3}',
        '{"fcn8": {"block_widths": [1e9, 1, 1, 1, 1]}}',
        '{"fcn8": {"block_widths": [100000, 100000, 1, 1, 1]}}',
        '{"fcn8": {"block_widths": "wide!"}}',
        '{"fcn8": {"classes": 3}}',
        '{"fcn8": {"surprise": 3}}',
        '{"fcn8": {"input_size": [33, 33]}}',
        '{"fcn8": {}, "unlabelled": 99}',
        '{"fcn8": {}, "data": []}',
        '{"fcn8": {}, "training": {"epochs": null}}',
        '{"fcn8": {}, "classes": 5}',
        '{"fcn8": {"classes": 2}, "unlabelled": null, "classes": ["sky\\u001b]0;PWNED\\u0007", "road"]}',
        '{"fcn8": {"classes": 2}, "unlabelled": null, "classes": ["sky\\n", "road"]}',
        '{"fcn8": {}, "data": {"val": 5}}',
        '{"fcn8": {}, "data": {"train": [["a"]]}}',
        '{"fcn8": {}, "data": {"root": 5, "val": ["a"]}}',
        '{"fcn8": {}, "data": {"images": 5, "masks": 6}}',
        '{"fcn8": {}, "data": {"seen": {"names": 5}}}',
        "[" * 100_000,
        "\udcff",
    ],
)
def test_a_config_of_any_content_is_one_line(tmp_path: Path, config: str) -> None:
    from train.run import open_run

    (tmp_path / "config.json").write_bytes(config.encode("utf-8", "surrogateescape"))
    with pytest.raises(ModelFileError, match=r"config\.json: damaged .*train it again") as caught:
        open_run(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_network_that_the_weights_do_not_fill_is_not_built(tmp_path: Path, monkeypatch: Any) -> None:
    """config.json may say anything: 2 GB of zeros are not made before the file is looked at."""
    import train.run

    monkeypatch.setattr(train.run, "fcn8", lambda *rest, **options: pytest.fail("the network was built"))
    (tmp_path / "config.json").write_text('{"fcn8": {"block_widths": [64, 128, 256, 512, 1024]}}')
    plain_h5(tmp_path / "model.weights.h5")
    with pytest.raises(ModelFileError, match="of another network: 56 bytes of arrays"):
        train.run.load_model(train.run.open_run(tmp_path))
