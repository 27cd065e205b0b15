"""Finding pairs, and reading images and masks."""

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from edge_seg.errors import ConfigurationError, DatasetError
from train import stores
from train.dataset import data_hash, find_samples, read_image, read_mask
from train.run import Run


def write_layout(root: Path, stems: tuple[str, ...], split: str = "train") -> None:
    for folder, shape in ((f"images_prepped_{split}", (6, 8, 3)), (f"annotations_prepped_{split}", (6, 8))):
        (root / folder).mkdir(parents=True)
        for number, stem in enumerate(stems):
            cv2.imwrite(str(root / folder / f"{stem}.png"), np.full(shape, number, np.uint8))


def test_pairs_are_found_by_stem_in_order(tmp_path: Path) -> None:
    write_layout(tmp_path, ("b", "a", "c"), "test")
    found = find_samples(tmp_path, "test")
    assert [sample.stem for sample in found] == ["a", "b", "c"]
    assert found[0].image.parent.name == "images_prepped_test"
    assert found[0].mask.parent.name == "annotations_prepped_test"
    plain = find_samples(None, images=tmp_path / "images_prepped_test", masks=tmp_path / "annotations_prepped_test")
    assert plain == found


def test_every_orphan_is_named(tmp_path: Path) -> None:
    write_layout(tmp_path, ("a", "b", "c"))
    (tmp_path / "images_prepped_train" / "a.png").unlink()
    (tmp_path / "annotations_prepped_train" / "c.png").unlink()
    with pytest.raises(DatasetError, match="2 orphan") as caught:
        find_samples(tmp_path)
    assert sorted(Path(problem.split(": ")[0]).name for problem in caught.value.problems) == ["a.png", "c.png"]


def test_two_files_of_one_stem_are_refused_rather_than_one_taken(tmp_path: Path) -> None:
    write_layout(tmp_path, ("a", "b"))
    cv2.imwrite(str(tmp_path / "images_prepped_train" / "a.jpg"), np.zeros((6, 8, 3), np.uint8))
    with pytest.raises(DatasetError, match=r"a\.png: shares its stem with a\.jpg"):
        find_samples(tmp_path)


def test_a_name_is_one_however_its_umlauts_are_spelt(tmp_path: Path) -> None:
    one, two = "stra\u00df\u00e4", "stra\u00dfa\u0308"
    write_layout(tmp_path, (one, "strab"))
    named, before = find_samples(tmp_path), data_hash(find_samples(tmp_path))
    masks, images = tmp_path / "annotations_prepped_train", tmp_path / "images_prepped_train"
    (masks / f"{one}.png").rename(masks / f"{two}.png")
    (found,) = [sample for sample in find_samples(tmp_path) if sample.stem == one]
    assert (found.image.name, found.mask.name) == (f"{one}.png", f"{two}.png")
    (images / f"{one}.png").rename(images / f"{two}.png")
    assert [sample.stem for sample in find_samples(tmp_path)] == [sample.stem for sample in named]
    assert data_hash(find_samples(tmp_path)) == before
    # As a run recorded it, and as the disk has it now.
    for recorded in (one, two):
        run = Run(Path("run"), {"data": {"root": str(tmp_path), "val": [recorded]}})
        assert [sample.image.name for sample in run.samples("val")] == [f"{two}.png"]
    (images / f"{one}.png").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"spelt with other Unicode code points\); keep one of the two"):
        find_samples(tmp_path)


def test_a_run_whose_data_is_gone_says_where_it_was(tmp_path: Path) -> None:
    write_layout(tmp_path, ("a", "b"))
    gone = Run(Path("runs/mine"), {"data": {"root": str(tmp_path / "gone"), "val": ["a"]}})
    for split in ("val", "test"):
        with pytest.raises(DatasetError, match=r"gone is not a folder \(any more\), and runs/mine records .* DATASET"):
            gone.samples(split)
    assert [sample.stem for sample in gone.samples("val", tmp_path)] == ["a"]


def test_a_name_outside_utf8_is_read_as_any_other(tmp_path: Path) -> None:
    ids = np.arange(12, dtype=np.uint8).reshape(3, 4)
    path = tmp_path / os.fsdecode(b"stra\xdfe_1.png")
    try:
        path.write_bytes(cv2.imencode(".png", ids)[1].tobytes())
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    # In a process of its own: cv2.imread ended it.
    code = "import sys; from pathlib import Path; from train import dataset as d; p = Path(sys.argv[1]); "
    code += "print(d.read_mask(p).sum(), d.read_image(p).shape, len(d.data_hash([d.Sample(p.stem, p, p)])))"
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True)
    assert done.stdout == "66 (3, 4, 3) 16\n", done.stderr


def test_a_missing_folder_and_half_a_pair_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="is not a folder"):
        find_samples(tmp_path)
    with pytest.raises(DatasetError, match=r"is no folder to read .File name too long.") as caught:
        find_samples("a" * 5000)
    assert len(str(caught.value)) < 300
    with pytest.raises(ConfigurationError, match="come as a pair"):
        find_samples(None, images=tmp_path)
    with pytest.raises(ConfigurationError, match="Give a dataset folder"):
        find_samples(None)


def test_a_mask_of_one_channel_and_of_three_equal_ones_read_the_same(tmp_path: Path) -> None:
    ids = np.arange(12, dtype=np.uint8).reshape(3, 4)
    cv2.imwrite(str(tmp_path / "one.png"), ids)
    cv2.imwrite(str(tmp_path / "three.png"), cv2.merge([ids, ids, ids]))
    np.testing.assert_array_equal(read_mask(tmp_path / "one.png"), ids)
    np.testing.assert_array_equal(read_mask(tmp_path / "three.png"), ids)


@pytest.mark.parametrize("pixels", [np.zeros((4, 4), np.uint16), np.arange(48, dtype=np.uint8).reshape(4, 4, 3)])
def test_a_mask_of_another_kind_is_refused_by_name(tmp_path: Path, pixels: np.ndarray) -> None:
    cv2.imwrite(str(tmp_path / "mask.png"), pixels)
    with pytest.raises(DatasetError, match=r"mask\.png: expected an 8-bit single-channel mask"):
        read_mask(tmp_path / "mask.png")


def test_what_is_no_image_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    for read in (read_image, read_mask):
        with pytest.raises(DatasetError, match=r"text\.png: not a readable"):
            read(tmp_path / "text.png")


def test_a_store_keeps_no_more_than_there_is_room_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_layout(tmp_path, ("a", "b", "c"))
    store = stores.PairStore(find_samples(tmp_path))
    monkeypatch.setattr(stores, "CACHE_BYTES", 2 * sum(array.nbytes for array in store[0]))
    store = stores.PairStore(store.samples)
    first, second, third = store[0], store[1], store[2]
    assert (store[0] is first, store[1] is second, store[2] is third) == (True, True, False)


def test_a_run_without_names_says_what_to_evaluate_it_on() -> None:
    with pytest.raises(ConfigurationError, match="shipped without their names"):
        Run(Path("shipped"), {"data": {"root": None}}).samples("val")


def test_the_hash_follows_names_and_bytes(tmp_path: Path) -> None:
    write_layout(tmp_path, ("a", "b"))
    found = find_samples(tmp_path)
    first = data_hash(found)
    assert data_hash(find_samples(tmp_path)) == first
    cv2.imwrite(str(found[1].mask), np.full((6, 8), 9, np.uint8))
    assert data_hash(found) != first
    assert data_hash(found[:1]) != first
