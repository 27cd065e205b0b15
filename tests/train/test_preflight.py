"""Planted faults: whatever is planted, all of it is named in one run, and nothing else is."""

import contextlib
import os
import struct
import tempfile
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import train.preflight
from edge_seg.errors import DatasetError
from edge_seg.image_files import ImageFault, check_complete, read_header
from edge_seg.spec import CAMVID_UNLABELLED
from train.classes import CAMVID
from train.dataset import dataset_folders
from train.preflight import check_dataset, preflight

PICTURE = np.random.default_rng(0).integers(0, 256, (24, 32, 3), np.uint8)
IDS = np.random.default_rng(1).integers(0, 12, (24, 32), np.uint8)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, bits: int, color: int, pixels: bytes, *extra: bytes, interlaced: int = 0) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, interlaced))
    body = chunk(b"IDAT", zlib.compress(pixels))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + body + chunk(b"IEND", b"")


def palette_png(ids: np.ndarray) -> bytes:
    rows = b"".join(b"\0" + row.tobytes() for row in ids)
    colors = np.random.default_rng(2).integers(0, 256, (12, 3), np.uint8).tobytes()
    return png(ids.shape[1], ids.shape[0], 8, 3, rows, chunk(b"PLTE", colors))


def encoded(suffix: str, pixels: np.ndarray) -> bytes:
    return cv2.imencode(suffix, pixels)[1].tobytes()


def rotated_jpeg(pixels: np.ndarray, orientation: int) -> bytes:
    exif = b"Exif\0\0II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    jpeg = encoded(".jpg", pixels)
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]


def bmp_header(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IIIIiiHHIIIIII", 99, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)


def tiff_header(width: int, height: int) -> bytes:
    entries = [(256, width), (257, height), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (279, 1)]
    return (
        b"II*\0"
        + struct.pack("<IH", 8, len(entries))
        + b"".join(struct.pack("<HHII", t, 4, 1, v) for t, v in entries)
        + bytes(4)
    )


def jpeg_header(width: int, height: int) -> bytes:
    jpeg = bytearray(encoded(".jpg", PICTURE))
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(jpeg)


BOMBS = {
    "png": png(60000, 60000, 8, 2, b"\0" * 1000),
    "jpeg": jpeg_header(65000, 65000),
    "bmp": bmp_header(40000, -40000),
    "tiff": tiff_header(50000, 50000),
    "webp": b"RIFF" + struct.pack("<I4s4sIIHBHB", 22, b"WEBP", b"VP8X", 10, 0, 64999, 0, 64999, 0),
}

# fault -> (folder it goes in, words the problem must hold, what it does to the file)
Fault = tuple[str, str, Callable[[Path], object]]
FAULTS: dict[str, Fault] = {
    "orphan image": ("images", "no mask of that name", lambda path: (mask_of(path)).unlink()),
    "orphan mask": ("masks", "no image of that name", lambda path: (image_of(path)).unlink()),
    "cut image": ("images", "truncated", lambda path: path.write_bytes(encoded(".png", PICTURE)[:-40])),
    "cut mask": ("masks", "truncated", lambda path: path.write_bytes(path.read_bytes()[:-13])),
    "cut jpeg": ("images", "truncated", lambda path: path.write_bytes(encoded(".jpg", PICTURE)[:-100])),
    "zeros at the end": (
        "images",
        "truncated",
        lambda path: path.write_bytes(encoded(".jpg", PICTURE)[:-300] + bytes(300)),
    ),
    "flipped bit": ("images", "checksum", lambda path: flip_bit(path, -30)),
    "empty": ("images", "empty file", lambda path: path.write_bytes(b"")),
    "text": ("masks", "not a PNG, JPEG, BMP, TIFF or WebP", lambda path: path.write_text("<html>not found</html>")),
    "git lfs": (
        "images",
        "Git LFS pointer",
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1"),
    ),
    "folder": ("images", "cannot be read", lambda path: (path.unlink(), path.mkdir())),
    "pipe": ("masks", "not a file", lambda path: (path.unlink(), os.mkfifo(path))),
    "palette": ("masks", "palette", lambda path: path.write_bytes(palette_png(IDS))),
    "rgb": ("masks", "colour mask", lambda path: path.write_bytes(encoded(".png", PICTURE))),
    "rgba": ("masks", "RGBA", lambda path: path.write_bytes(encoded(".png", np.dstack([PICTURE, IDS])))),
    "0/255": ("masks", "0/255", lambda path: path.write_bytes(encoded(".png", (IDS > 5) * np.uint8(255)))),
    "16 bit": ("masks", "16-bit", lambda path: path.write_bytes(encoded(".png", IDS.astype(np.uint16)))),
    "1 bit": ("masks", "1-bit", lambda path: path.write_bytes(png(32, 24, 1, 0, b"\0\xff\0\xff\xff" * 24))),
    "jpeg mask": ("masks", "JPEG", lambda path: path.write_bytes(encoded(".jpg", IDS))),
    "ids": ("masks", "id 12, 200 in 2 pixels", lambda path: write_ids(path, 12, 200)),
    "size": ("masks", "30x24 pixels, but its image has 32x24", lambda path: cv2.imwrite(str(path), IDS[:, :30])),
    "turned": ("masks", "turned", lambda path: cv2.imwrite(str(path), np.ascontiguousarray(IDS.T))),
    "bomb": ("images", "bomb", lambda path: path.write_bytes(BOMBS["png"])),
    "twice": ("images", "shares its stem", lambda path: path.with_suffix(".jpg").write_bytes(encoded(".jpg", PICTURE))),
}


def mask_of(image: Path) -> Path:
    return image.parent.parent / "masks" / image.name


def image_of(mask: Path) -> Path:
    return mask.parent.parent / "images" / mask.name


def flip_bit(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 4
    path.write_bytes(data)


def write_ids(path: Path, *ids: int) -> None:
    mask = IDS.copy()
    mask[0, : len(ids)] = ids
    cv2.imwrite(str(path), mask)


def write_good(root: Path, count: int) -> tuple[Path, Path]:
    images, masks = root / "images", root / "masks"
    images.mkdir()
    masks.mkdir()
    for index in range(count):
        cv2.imwrite(str(images / f"{index:02}.png"), PICTURE)
        cv2.imwrite(str(masks / f"{index:02}.png"), IDS)
    return images, masks


@settings(max_examples=25, deadline=None)
@given(planted=st.lists(st.sampled_from(sorted(FAULTS)), max_size=12), spare=st.integers(1, 3))
def test_every_planted_fault_is_named_and_nothing_else(planted: list[str], spare: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        images, masks = write_good(Path(folder), len(planted) + spare)
        expected = {}
        for index, name in enumerate(planted):
            where, words, spoil = FAULTS[name]
            path = Path(folder) / where / f"{index:02}.png"
            spoil(path)
            # Of two files of one stem the later in the alphabet is the one too many, which here is the PNG.
            expected[path] = words
        report = preflight(images, masks, CAMVID)
    found = {Path(problem.split(": ")[0]): problem for problem in report.problems}
    assert len(found) == len(report.problems) == len(planted)
    assert found.keys() == expected.keys()
    for path, words in expected.items():
        assert words in found[path]
    assert len(report.samples) == spare + planted.count("twice")


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_each_fault_alone(tmp_path: Path, name: str) -> None:
    images, masks = write_good(tmp_path, 2)
    where, words, spoil = FAULTS[name]
    spoil(tmp_path / where / "00.png")
    with pytest.raises(DatasetError, match="1 problem") as caught:
        check_dataset(images, masks, CAMVID)
    (problem,) = caught.value.problems
    assert "\n" not in problem
    assert problem.startswith(f"{tmp_path / where / '00.png'}: ")
    assert words in problem


def test_faults_of_one_file_share_its_line(tmp_path: Path) -> None:
    images, masks = write_good(tmp_path, 1)
    cv2.imwrite(str(masks / "00.png"), np.full((10, 10), 99, np.uint8))
    (problem,) = preflight(images, masks, CAMVID).problems
    assert "id 99" in problem
    assert "10x10" in problem


def test_a_good_dataset_is_counted_and_passes(tmp_path: Path) -> None:
    images, masks = write_good(tmp_path, 3)
    cv2.imwrite(str(images / "02.png"), PICTURE[:20])
    cv2.imwrite(str(masks / "02.png"), cv2.merge([IDS[:20]] * 3))
    report = check_dataset(images, masks, CAMVID)
    assert (report.images, report.masks, report.warnings) == (3, 3, ())
    assert report.sizes == {(24, 32): 2, (20, 32): 1}
    assert report.class_pixels[0].tolist() == np.bincount(IDS.ravel(), minlength=12).tolist()
    assert report.class_pixels[2].tolist() == np.bincount(IDS[:20].ravel(), minlength=12).tolist()


def test_what_is_odd_is_a_warning(tmp_path: Path) -> None:
    images, masks = write_good(tmp_path, 4)
    (images / "notes.txt").write_text("mine")
    (images / "01.png").write_bytes(rotated_jpeg(PICTURE, 6))
    (images / "03.png").write_bytes(rotated_jpeg(PICTURE, 1))
    cv2.imwrite(str(masks / "02.png"), np.full((24, 32), CAMVID_UNLABELLED, np.uint8))
    report = preflight(images, masks, CAMVID)
    assert report.problems == ()
    names = {Path(warning.split(": ")[0]).name: warning for warning in report.warnings}
    assert sorted(names) == ["01.png", "02.png", "notes.txt"]
    assert "EXIF orientation 6" in names["01.png"]
    assert "nothing in it is labelled" in names["02.png"]


def test_empty_folders_are_problems_and_missing_ones_an_error(tmp_path: Path) -> None:
    images, masks = write_good(tmp_path, 0)
    report = preflight(images, masks, CAMVID)
    assert len(report.problems) == 2
    assert report.class_pixels.shape == (0, 12)
    with pytest.raises(DatasetError, match="cannot be listed"):
        preflight(tmp_path / "none", masks, CAMVID)


@pytest.mark.parametrize("kind", sorted(BOMBS))
def test_a_bomb_is_refused_before_anything_decodes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    images, masks = write_good(tmp_path, 1)
    (images / "00.png").write_bytes(BOMBS[kind])

    def decode(path: Path) -> np.ndarray:
        raise AssertionError(f"{path} was decoded")

    monkeypatch.setattr(train.preflight, "read_image", decode)
    (problem,) = preflight(images, masks, CAMVID).problems
    assert "bomb" in problem
    assert f"{len(BOMBS[kind])} bytes" in problem


def test_the_pixel_cap_is_inclusive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, masks = write_good(tmp_path, 1)
    monkeypatch.setattr(train.preflight, "MAX_PIXELS", 24 * 32)
    assert not preflight(images, masks, CAMVID).problems
    monkeypatch.setattr(train.preflight, "MAX_PIXELS", 24 * 32 - 1)
    assert len(preflight(images, masks, CAMVID).problems) == 2


def test_a_png_whose_pixels_are_compressed_beyond_its_size_is_not_unpacked() -> None:
    # 50 MB of zeros in 50 KB behind an honest little header: no more than a piece of it is unpacked.
    data = png(8, 8, 8, 0, bytes(50_000_000))
    tracemalloc.start()
    check_complete(data, read_header(data))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000_000


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tiff"])
@pytest.mark.parametrize("pixels", [PICTURE, IDS], ids=["colour", "grey"])
def test_every_whole_file_passes_and_every_cut_one_does_not(suffix: str, pixels: np.ndarray) -> None:
    data = encoded(suffix, pixels)
    header = read_header(data)
    assert (header.width, header.height) == (32, 24)
    assert header.color == ("RGB" if pixels.ndim == 3 else "grey")
    check_complete(data, header)
    for cut in range(len(data)):
        with pytest.raises(ImageFault):
            check_complete(data[:cut], read_header(data[:cut]))


def test_an_interlaced_png_is_measured_by_its_passes() -> None:
    # 5x5 grey by Adam7: 1x1, 1x1, 2x1, 1x2... each row with its filter byte.
    passes = [(1, 1), (1, 1), (2, 1), (1, 2), (3, 1), (2, 3), (5, 2)]
    pixels = b"".join(bytes(1 + width) * height for width, height in passes)
    whole = png(5, 5, 8, 0, pixels, interlaced=1)
    assert cv2.imdecode(np.frombuffer(whole, np.uint8), cv2.IMREAD_UNCHANGED).shape == (5, 5)
    check_complete(whole, read_header(whole))
    short = png(5, 5, 8, 0, pixels[:-1], interlaced=1)
    with pytest.raises(ImageFault, match="truncated"):
        check_complete(short, read_header(short))


@settings(max_examples=300, deadline=None)
@given(data=st.data(), kind=st.sampled_from([".png", ".jpg", ".bmp", ".tiff"]))
def test_damaged_files_give_a_fault_or_a_header_and_nothing_else(data: st.DataObject, kind: str) -> None:
    changed = bytearray(encoded(kind, PICTURE[:6, :6]))
    for _ in range(data.draw(st.integers(1, 6))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    del changed[data.draw(st.integers(0, len(changed))) :]
    with contextlib.suppress(ImageFault):
        check_complete(bytes(changed), read_header(bytes(changed)))


@pytest.mark.data
@pytest.mark.parametrize(("split", "count"), [("train", 367), ("test", 101)])
def test_the_real_dataset_is_whole(split: str, count: int) -> None:
    root = os.environ.get("EDGE_SEG_DATA")
    if not root:
        pytest.skip("EDGE_SEG_DATA is not set")
    report = check_dataset(*dataset_folders(Path(root) / "dataset1", split), CAMVID)
    assert len(report.samples) == count
    assert report.sizes == {(360, 480): count}
    assert (report.class_pixels.sum(axis=0) > 0).all()
