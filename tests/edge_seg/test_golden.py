"""Golden frames come back bit for bit, and a damaged record is an error, never a crash."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge_seg import golden
from edge_seg.batches import run_in_parts
from edge_seg.errors import ConfigurationError, ModelFileError
from edge_seg.fake import brightness_labels
from edge_seg.golden import MAX_FRAMES, decode_golden, encode_golden
from edge_seg.proof import lost_classes


def pair(count: int = 3, size: tuple[int, int] = (8, 12)) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(2)
    return random.integers(0, 256, (count, *size, 3), np.uint8), random.integers(0, 12, (count, *size), np.uint8)


@given(
    data=st.data(),
    count=st.integers(1, 4),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
)
@settings(max_examples=40, deadline=None)
def test_what_goes_in_comes_out_bit_for_bit(data, count, size):
    frames = data.draw(hnp.arrays(np.uint8, (count, *size, 3)))
    labels = data.draw(hnp.arrays(np.uint8, (count, *size)))
    back_frames, back_labels = decode_golden(encode_golden(frames, labels))
    np.testing.assert_array_equal(back_frames, frames)
    np.testing.assert_array_equal(back_labels, labels)
    assert (back_frames.dtype, back_labels.dtype) == (np.uint8, np.uint8)


def test_other_shapes_and_types_are_wrong_calls():
    frames, labels = pair()
    for bad in (
        (frames[0], labels[0]),
        (frames, labels[:2]),
        (frames.astype(np.float32), labels),
        (frames, labels.astype(np.int64)),
        (frames[:0], labels[:0]),
        (np.repeat(frames[:1], MAX_FRAMES + 1, 0), np.repeat(labels[:1], MAX_FRAMES + 1, 0)),
    ):
        with pytest.raises(ConfigurationError, match="Golden frames must be"):
            encode_golden(*bad)


def test_more_pixels_than_are_read_back_are_not_packed(monkeypatch):
    monkeypatch.setattr(golden, "MAX_PIXELS", 2 * 8 * 12)
    encode_golden(*pair(2))
    with pytest.raises(ConfigurationError, match=r"at most 2 golden frames of 8x12 pixels; got 3.*--golden-frames 2"):
        encode_golden(*pair(3))
    monkeypatch.setattr(golden, "MAX_PIXELS", 8 * 12 - 1)
    with pytest.raises(ConfigurationError, match=r"at most 0 .*--golden none"):
        encode_golden(*pair(1))


def bomb(width: int, height: int) -> str:
    """A PNG whose header claims a huge picture over a few bytes of data."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")
    )
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"size": [8]},
        {"size": [8, 12.0]},
        {"size": [-8, -12]},
        {"size": [10**6, 10**6]},
        {"size": [16, 12]},
        {"frames": []},
        {"frames": "abc"},
        {"frames": None},
        {"frames": ["!!!!"] * 3},
        {"frames": [7] * 3},
        {"frames": [bomb(60000, 60000)] * 3},
        {"frames": [bomb(12, 8)] * 3},
        {"frames": [base64.b64encode(b"\x89PNG").decode()] * 3},
        {"labels": []},
    ],
)
def test_a_damaged_record_is_a_model_error(change):
    record = {**json.loads(encode_golden(*pair())), **change}
    with pytest.raises(ModelFileError, match="golden frames are damaged"):
        decode_golden(json.dumps(record))


def test_a_picture_that_claims_another_size_is_never_decoded(monkeypatch):
    def decode(*arguments):
        pytest.fail("a picture of 1.2 GB was decoded")

    record = {**json.loads(encode_golden(*pair())), "frames": [bomb(20000, 20000)] * 3}
    monkeypatch.setattr("edge_seg.golden.cv2", SimpleNamespace(imdecode=decode))
    with pytest.raises(ModelFileError, match="is not a PNG of 12x8 pixels"):
        decode_golden(json.dumps(record))


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "null", "{}", "[" * 100_000])
def test_text_that_is_no_record_is_a_model_error(text):
    with pytest.raises(ModelFileError, match="golden frames are damaged"):
        decode_golden(text)


def test_lists_that_take_thirty_times_their_text_are_not_parsed(monkeypatch):
    monkeypatch.setattr("edge_seg.golden.json.loads", lambda text: pytest.fail("10 MB of lists were parsed"))
    with pytest.raises(ModelFileError, match="more than a record of format"):
        decode_golden('{"format": 1, "frames": [' + "[]," * 3_000_000 + "[]]}")
    with pytest.raises(ModelFileError, match="more than a record of format"):
        decode_golden('{"format": 1, "frames": [' + "0," * 5_000_000 + "0]}")


@given(position=st.integers(0, 10**6), letter=st.characters(codec="ascii"))
@settings(max_examples=100, deadline=None)
def test_a_changed_letter_is_noticed_or_harmless(position, letter):
    text = encode_golden(*pair())
    position %= len(text)
    try:
        frames, labels = decode_golden(text[:position] + letter + text[position + 1 :])
    except ModelFileError:
        return
    assert frames.shape[:3] == labels.shape


def test_short_batches_are_filled_up_and_their_filling_left_out():
    frames, _ = pair(5)
    sizes = []

    def run(batch: np.ndarray) -> dict[str, np.ndarray]:
        sizes.append(len(batch))
        return {"labels": brightness_labels(batch, 12)}

    np.testing.assert_array_equal(run_in_parts(run, frames, 2)["labels"], brightness_labels(frames, 12))
    assert sizes == [2, 2, 2]


def test_a_lost_class_is_named_however_few_its_pixels():
    expected = np.zeros((1, 100, 100), np.uint8)
    expected[0, 0, :40] = 1  # 0.4 % of the pixels: 99.6 % agree without them
    expected[0, 1, :5] = 2  # too few to prove anything
    names = ("road", "pole", "speck")
    assert lost_classes(expected, expected, names) == ()
    found = expected.copy()
    found[0, 0, :19] = 0
    assert lost_classes(found, expected, names) == ()
    found[0, 0, :21] = 0
    found[0, 1] = 0
    (phrase,) = lost_classes(found, expected, names)
    assert phrase == "class pole keeps an IoU of 0.47 with Keras' labels; it must keep 0.50"
    found[0, 0] = 1  # spilled over its neighbours
    assert "class pole" in lost_classes(found, expected, names)[0]
