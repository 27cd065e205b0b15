"""What SOURCE arguments mean, what results are called, and pictures and chains as sources."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edge_seg import redact as redacting
from edge_seg.errors import ConfigurationError, MediaError
from edge_seg.image_files import ImageFault, ImageHeader, check_complete, read_header
from edge_seg.images import ImageFiles, read_image
from edge_seg.items import expand_sources
from edge_seg.names import check_free, parse_kinds, partial_path, plan_outputs
from edge_seg.record_lines import RECORDS_NAME
from edge_seg.redact import redact, redact_foreign, remember_secrets
from edge_seg.sources import open_item, open_source
from tests.edge_seg.clips import make_clip, paint_number, read_number, write_image


@pytest.fixture
def media(tmp_path: Path) -> Path:
    make_clip(tmp_path / "drive.mp4", count=6)
    make_clip(tmp_path / "drive.mkv", count=4)
    write_image(tmp_path / "still.png", 7)
    (tmp_path / "notes.txt").write_text("not media")
    (tmp_path / ".hidden.mp4").write_bytes(b"")
    return tmp_path


def test_a_name_that_is_empty_is_no_folder(media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`predict "$CLIP"` without a CLIP shall not segment the folder it is called in."""
    monkeypatch.chdir(media)
    with pytest.raises(ConfigurationError, match="has no name"):
        expand_sources([""])
    assert expand_sources([Path()])


def test_what_is_left_out_of_a_folder_is_said_and_earlier_results_are_left_out(media: Path) -> None:
    (media / "sub").mkdir()
    (media / "noext").write_bytes(b"")
    (media / "more.txt").write_text("")
    (media / "lost.mp4").symlink_to(media / "gone.mp4")
    write_image(media / "still_overlay.png", 7)
    make_clip(media / "drive_overlay.partial.mp4", count=2)
    (media / RECORDS_NAME).write_text('{"result": "still_overlay.png"}\n')
    wanted = ["drive.mkv", "drive.mp4", "lost.mp4", "still.png"]
    left = "left out: 2 .txt, 2 earlier results, 1 without a suffix, 1 folder"
    for source in (media, media / "*"):
        said: list[str] = []
        assert [Path(item.location).name for item in expand_sources([source], say=said.append)] == wanted
        assert said[0].startswith(f"{source}: 4 sources; left out: ")
        assert sorted(said[0].partition("left out: ")[2].split(", ")) == sorted(
            left.removeprefix("left out: ").split(", ")
        )
    # Who names one wants it.
    assert len(expand_sources([media / "still_overlay.png"])) == 1
    with pytest.raises(MediaError, match=r"lost\.mp4: no such file"):
        open_source(media / "lost.mp4")
    for number in range(9):
        (media / "sub" / f"x.{number}").write_bytes(b"")
    with pytest.raises(ConfigurationError, match=r"no picture in it; left out: 1 \.\d, .*, 3 more\."):
        expand_sources([media / "sub"])


def test_what_may_not_be_looked_at_is_an_item_and_opening_it_says_so(
    media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that may be listed and no more, in a pattern of several."""
    stat = os.stat

    def locked(path: object, **options: object) -> os.stat_result:
        if str(path) == str(media / "drive.mp4"):
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, **options)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(os, "stat", locked)
    names = [Path(item.location).name for item in expand_sources([media / "*.m*"])]
    assert names == ["drive.mkv", "drive.mp4"]
    with pytest.raises(MediaError, match=r"drive\.mp4: cannot be read \(permission denied\)"):
        open_source(media / "drive.mp4")


@pytest.mark.parametrize("refusal", [errno.EACCES, errno.EMFILE])
@pytest.mark.parametrize("reader", ["opening.refers_elsewhere", "video.measure"])
def test_a_video_that_the_system_refuses_to_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reader: str, refusal: int
) -> None:
    """For want of rights, or of file descriptors."""

    def refusing(path: Path) -> Any:
        raise OSError(refusal, os.strerror(refusal), str(path))

    clip = make_clip(tmp_path / "drive.mp4", count=4)
    monkeypatch.setattr(f"edge_seg.{reader}", refusing)
    with pytest.raises(MediaError, match=rf"^{clip}: cannot be read \({os.strerror(refusal).lower()}\)\.$"):
        open_source(clip)


def test_a_folder_that_the_system_refuses_to_list_is_named(media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(path: Path) -> Any:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))

    monkeypatch.setattr(Path, "iterdir", refusing)
    with pytest.raises(MediaError, match=rf"^{media}: cannot be read \(too many open files\)\.$"):
        open_source(media)


def test_a_folder_gives_its_media_in_order(media: Path) -> None:
    items = expand_sources([media])
    assert [Path(item.location).name for item in items] == ["drive.mkv", "drive.mp4", "still.png"]
    assert [item.kind for item in items] == ["video", "video", "image"]


def test_a_quoted_glob(media: Path) -> None:
    items = expand_sources([str(media / "dr*.mp4"), str(media / "**" / "*.png")])
    assert [Path(item.location).name for item in items] == ["drive.mp4", "still.png"]


def test_a_folder_that_a_pattern_may_not_look_into_is_an_item(media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`glob` passes over it in silence, and its videos would be missing without a word."""
    (media / "sub").mkdir()
    (media / "loop").symlink_to("loop")
    scan = os.scandir

    def locked(path: Any) -> Any:
        if str(path) == str(media / "sub"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", locked)
    for pattern, found in {"*/*.mp4": ["sub"], "**/*.mp4": ["drive.mp4", "sub"], "sub/*": ["sub"]}.items():
        assert [Path(item.location).name for item in expand_sources([media / pattern])] == found
    with pytest.raises(ConfigurationError, match="a pattern with no video"):
        expand_sources([media / "nowhere" / "*.mp4"])


def test_a_file_whose_name_looks_like_a_glob_or_a_camera(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_clip(tmp_path / "day[1].mp4", count=2)
    (tmp_path / "0").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    assert expand_sources(["day[1].mp4"])[0].kind == "video"
    assert expand_sources(["0"])[0].kind == "video"
    assert expand_sources(["1"])[0].kind == "camera"


@pytest.mark.parametrize("address", ["rtsp://cam/live", "http://host/a.mp4", "https://host/a.mp4", "rtsps://cam/x"])
def test_addresses(address: str) -> None:
    (item,) = expand_sources([address])
    assert (item.kind, item.live) == ("stream", True)


@pytest.mark.parametrize("address", ["ftp://host/a.mp4", "file:///etc/passwd", "concat://a", "data://x"])
def test_other_addresses_are_refused(address: str) -> None:
    with pytest.raises(ConfigurationError, match="rtsp://"):
        expand_sources([address])


@pytest.mark.parametrize(
    "address",
    ["rtsp://[bad/x", "rtsp://a:hunter2@cam:99999/x", "http://", "https:///clip.mp4"],
)
def test_addresses_that_are_none_are_the_callers_fault(address: str) -> None:
    with pytest.raises(ConfigurationError, match=r"Expected (rtsp|https?)://HOST\[:PORT\]/PATH") as caught:
        expand_sources([address])
    assert "hunter2" not in str(caught.value)


def test_a_password_with_a_bare_slash_is_the_callers_fault() -> None:
    for sign in "/?#":
        with pytest.raises(ConfigurationError, match=r"\*\*\*@cam/x: write / \? # .* as %2F, %3F, %23") as caught:
            expand_sources([f"rtsp://a:x{sign}hunter2@cam/x"])
        assert "hunter2" not in str(caught.value)


def test_nothing_to_read_is_the_callers_fault(tmp_path: Path) -> None:
    for argument in (tmp_path, str(tmp_path / "*.mp4")):
        with pytest.raises(ConfigurationError, match="no video and no picture"):
            expand_sources([argument])
    with pytest.raises(ConfigurationError, match="No source"):
        expand_sources([])


def test_a_missing_file_is_an_item_that_fails_alone(tmp_path: Path) -> None:
    (item,) = expand_sources([tmp_path / "gone.mp4"])
    with pytest.raises(MediaError, match=r"gone\.mp4: no such file"):
        open_item(item)


def test_files_named_twice_count_once(media: Path) -> None:
    items = expand_sources([media / "drive.mp4", str(media / "*.mp4"), media / "drive.mp4"])
    assert len(items) == 1


def test_equal_stems_are_told_apart_and_stay_the_same(tmp_path: Path) -> None:
    names = ["a/x.mp4", "b/x.mp4", "b/x.mov", "c/X.mp4", "c/y.mp4"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    stems = {item.location: item.stem for item in expand_sources([tmp_path / name for name in names])}
    assert len({stem.casefold() for stem in stems.values()}) == 5
    assert stems[str(tmp_path / "c/y.mp4")] == "y"
    again = expand_sources([tmp_path / name for name in reversed(names)])
    assert {item.location: item.stem for item in again} == stems


def test_one_source_into_a_file(media: Path, tmp_path: Path) -> None:
    items = expand_sources([media / "drive.mp4"])
    (plan,) = plan_outputs(items, ("overlay", "labels", "jsonl"), tmp_path / "o" / "night.mp4")
    assert {kind: path.name for kind, path in plan.items()} == {
        "overlay": "night.mp4",
        "labels": "night_labels",
        "jsonl": "night.jsonl",
    }
    with pytest.raises(ConfigurationError, match=r"expected \.mp4; got \.avi"):
        plan_outputs(items, ("overlay",), tmp_path / "night.avi")


def test_many_sources_into_a_folder(media: Path, tmp_path: Path) -> None:
    items = expand_sources([media])
    plans = plan_outputs(items, ("overlay", "mask", "labels", "jsonl"), tmp_path / "out")
    names = [{kind: path.name for kind, path in plan.items()} for plan in plans]
    assert names[2] == {
        "overlay": "still_overlay.png",
        "mask": "still_mask.png",
        "labels": "still.png",
        "jsonl": "still.jsonl",
    }
    assert names[1]["overlay"] == "drive_mp4_overlay.mp4"
    assert {path.parent for plan in plans for path in plan.values()} == {tmp_path / "out"}
    with pytest.raises(ConfigurationError, match=f"is a file; {len(items)} sources need a folder"):
        plan_outputs(items, ("overlay",), media / "drive.mp4")
    (media / "out").touch()
    with pytest.raises(ConfigurationError, match=r"out is a file; expected a folder as OUT, or a file's name"):
        plan_outputs(items[:1], ("overlay",), media / "out")
    with pytest.raises(ConfigurationError, match=r"null is a device or pipe; expected a folder as OUT"):
        plan_outputs(items[:1], ("overlay",), Path("/dev/null"))
    with pytest.raises(ConfigurationError, match="results are files and cannot go to standard output"):
        plan_outputs(items[:1], ("jsonl",), Path("-"))
    assert plan_outputs(items[:1], ("jsonl",), Path("-"), folder_asked=True)[0]["jsonl"].parent == Path("-")


def test_a_files_name_for_many_sources_is_refused_and_a_folder_of_that_name_is_not(media: Path, tmp_path: Path) -> None:
    items = expand_sources([media / "drive.mp4", media / "still.png"])
    out = tmp_path / "all.mp4"
    with pytest.raises(
        ConfigurationError, match=r"all\.mp4 is a file's name, and 2 sources need a folder .*all\.mp4/$"
    ):
        plan_outputs(items, ("overlay",), out)
    assert plan_outputs(items, ("overlay",), out, folder_asked=True)[0]["overlay"].parent == out
    out.mkdir()
    assert plan_outputs(items, ("overlay",), out)[1]["overlay"] == out / "still_overlay.png"


def test_a_result_never_replaces_a_source(media: Path) -> None:
    with pytest.raises(ConfigurationError, match="belongs to"):
        plan_outputs(expand_sources([media / "still.png"]), ("labels",), media)
    with pytest.raises(ConfigurationError, match="belongs to"):
        plan_outputs(expand_sources([media / "drive.mp4"]), ("overlay",), media / "drive.mp4")
    # What an earlier run left is a source too, and would be written over.
    with pytest.raises(ConfigurationError, match="belongs to"):
        plan_outputs(expand_sources([media / "drive.partial.mp4"]), ("overlay",), media / "drive.mp4")


def test_earlier_results_are_named_whole_or_partial(tmp_path: Path) -> None:
    plan = {"overlay": tmp_path / "a.mp4", "jsonl": tmp_path / "a.jsonl"}
    check_free([plan])
    partial_path(plan["overlay"]).write_bytes(b"x")
    with pytest.raises(ConfigurationError, match=r"a\.partial\.mp4.*--resume.*--overwrite"):
        check_free([plan])


def test_kinds() -> None:
    assert parse_kinds("jsonl, overlay,jsonl") == ("jsonl", "overlay")
    for text in ("", "overlay,video", ","):
        with pytest.raises(ConfigurationError, match="overlay, mask, labels, jsonl"):
            parse_kinds(text)


def size_of(data: bytes) -> tuple[int, int]:
    header = read_header(data)
    return header.height, header.width


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp"])
def test_pictures(tmp_path: Path, suffix: str) -> None:
    path = write_image(tmp_path / f"p{suffix}", 77, (50, 70))
    assert size_of(path.read_bytes()) == (50, 70)
    assert read_number(read_image(path)) == 77


@pytest.mark.skipif(not hasattr(cv2, "Animation"), reason="this OpenCV writes no animation")
@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_an_animation_is_no_picture(tmp_path: Path, suffix: str) -> None:
    """Its other pictures would be lost without a word."""
    animation = cv2.Animation()
    animation.frames = [np.full((32, 48, 3), shade, np.uint8) for shade in (0, 90, 200)]
    animation.durations = [40, 40, 40]
    assert cv2.imwriteanimation(str(tmp_path / f"a{suffix}"), animation)
    with pytest.raises(MediaError, match=r"an animation, of which the first picture alone would be read"):
        read_image(tmp_path / f"a{suffix}")


def test_webp_headers(tmp_path: Path) -> None:
    image = paint_number(5, (33, 65))
    lossless = cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, 101])[1].tobytes()
    lossy = cv2.imencode(".webp", image, [cv2.IMWRITE_WEBP_QUALITY, 50])[1].tobytes()
    assert (lossless[12:16], lossy[12:16]) == (b"VP8L", b"VP8 ")
    assert size_of(lossless) == size_of(lossy) == (33, 65)


def jpeg_bomb() -> bytes:
    data = bytearray(cv2.imencode(".jpg", paint_number(5))[1].tobytes())
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 65000, 65000)
    return bytes(data)


BOMBS = {
    "png": b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sIIBBBBB", 13, b"IHDR", 65000, 65000, 8, 2, 0, 0, 0) + bytes(4),
    "jpg": jpeg_bomb(),
    "bmp": b"BM" + struct.pack("<IIIIiiHHIIIIII", 99, 0, 54, 40, 65000, -65000, 1, 24, 0, 0, 0, 0, 0, 0),
    "webp": b"RIFF" + struct.pack("<I4s4sIIHBHB", 22, b"WEBP", b"VP8X", 10, 0, 64999, 0, 64999, 0),
}


@pytest.mark.parametrize("kind", sorted(BOMBS))
def test_a_picture_bomb_is_refused_by_its_header(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(*arguments: object) -> None:
        pytest.fail("12 GB of pixels were decoded")

    monkeypatch.setattr("edge_seg.images.cv2.imdecode", decode)
    bomb = tmp_path / f"bomb.{kind}"
    bomb.write_bytes(BOMBS[kind])
    with pytest.raises(MediaError, match=rf"bomb\.{kind}: 65000x65000 exceeds the limit of \d+ pixels; scale it down"):
        read_image(bomb)


def test_a_file_larger_than_any_picture_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(2**40)  # sparse: takes no disk
    with pytest.raises(MediaError, match=r"huge\.png: 1048576 MB is more than any picture"):
        read_image(tmp_path / "huge.png")
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(MediaError, match=r"pipe\.png: is not a file"):
        read_image(tmp_path / "pipe.png")


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp"])
def test_a_picture_cut_anywhere_is_refused_never_filled_in(tmp_path: Path, suffix: str) -> None:
    data = write_image(tmp_path / f"whole{suffix}", 1).read_bytes()
    cut = tmp_path / f"cut{suffix}"
    for length in range(0, len(data), 1 + len(data) // 150):
        cut.write_bytes(data[:length])
        with pytest.raises(MediaError, match=rf"cut\{suffix}: "):
            read_image(cut)
    cut.write_bytes(data[:-1])
    with pytest.raises(MediaError, match="truncated"):
        read_image(cut)


def test_damaged_pictures(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(MediaError, match=r"text\.png: not a PNG, JPEG, BMP, TIFF or WebP file"):
        read_image(tmp_path / "text.png")
    write_image(tmp_path / "scan.tiff", 1).rename(tmp_path / "scan.png")
    with pytest.raises(MediaError, match=r"scan\.png: a TIFF; edge_seg reads PNG, JPEG, BMP, WebP\. Save it as PNG"):
        read_image(tmp_path / "scan.png")
    with pytest.raises(MediaError, match=r"gone\.png: cannot be read"):
        read_image(tmp_path / "gone.png")


def with_exif(jpeg: bytes, tiff: bytes) -> bytes:
    exif = b"Exif\0\0" + tiff
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]


def test_an_exif_turn_is_ignored_as_in_training(tmp_path: Path) -> None:
    """One policy for pictures, images and masks: the pixels as they are stored."""
    from train.dataset import read_image as read_training_image

    path = write_image(tmp_path / "turned.jpg", 77, (50, 70))
    path.write_bytes(with_exif(path.read_bytes(), b"II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, 6, 0, 0)))
    assert read_header(path.read_bytes()).orientation == 6
    assert read_image(path).shape == (50, 70, 3)
    assert (read_image(path) == read_training_image(path)).all()
    assert read_number(read_image(path)) == 77


def test_tables_that_all_point_at_the_same_bytes_are_not_unpacked(tmp_path: Path) -> None:
    """A picture of 64 KB had 700 MB of tables."""
    tags = 2700
    start = 14 + 12 * tags
    shared = 65_000 - start
    entries = b"".join(struct.pack("<HHII", 300 + index, 1, shared, start) for index in range(tags))
    tiff = b"II*\0" + struct.pack("<IH", 8, tags) + entries + bytes(4 + shared)
    data = with_exif(write_image(tmp_path / "p.jpg", 1).read_bytes(), tiff)
    tracemalloc.start()
    read_header(data)
    with pytest.raises(ImageFault, match="without pixels"):
        check_complete(tiff, ImageHeader("TIFF", 8, 8, "RGB", 8))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000_000


def test_a_run_of_fill_bytes_among_a_jpegs_pixels_is_passed_once(tmp_path: Path) -> None:
    """Searched anew from each of its bytes, 2 MB of them took a day, and no signal ended it."""
    jpeg = write_image(tmp_path / "p.jpg", 1).read_bytes()
    pixels = jpeg.index(b"\xff\xda") + 14
    (tmp_path / "long.jpg").write_bytes(jpeg[:pixels] + b"\xff" * 2_000_000 + b"\0" + jpeg[pixels:])
    code = f"from edge_seg.images import read_image; print(read_image({str(tmp_path / 'long.jpg')!r}).shape)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout == f"{read_image(tmp_path / 'p.jpg').shape}\n", done.stderr


def test_compressed_pixels_are_handed_on_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not yet unpacked used to be copied for each megabyte: 192 MB took 38 s."""
    fed = 0
    plain = zlib.decompressobj

    class Counting:
        def __init__(self) -> None:
            self._inner = plain()

        def decompress(self, data: bytes, most: int) -> bytes:
            nonlocal fed
            fed += len(data)
            return self._inner.decompress(data, most)

        def __getattr__(self, name: str) -> object:
            return getattr(self._inner, name)

    noise = np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), np.uint8)
    data = cv2.imencode(".png", noise)[1].tobytes()
    monkeypatch.setattr("edge_seg.image_files.zlib.decompressobj", Counting)
    check_complete(data, read_header(data))
    assert fed <= 1.1 * len(data)


def test_pictures_as_a_source(tmp_path: Path) -> None:
    paths = [write_image(tmp_path / f"{number}.png", number, (40 + number, 64)) for number in range(4)]
    paths.insert(2, tmp_path / "gone.png")
    problems: list[Path] = []
    with ImageFiles(paths, on_error=lambda path, error: problems.append(path)) as source:
        frames = list(source)
    assert [read_number(frame.image) for frame in frames] == [0, 1, 2, 3]
    assert problems == [tmp_path / "gone.png"]
    assert (source.counts.read, source.counts.failed) == (5, 1)


def test_a_folder_as_one_stream(media: Path) -> None:
    with open_source(media) as source:
        frames = list(source)
    assert [frame.index for frame in frames] == list(range(11))
    assert [Path(frame.name).name for frame in frames] == ["drive.mkv"] * 4 + ["drive.mp4"] * 6 + ["still.png"]
    assert [read_number(frame.image) for frame in frames] == [0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 7]
    assert source.counts.read == 11


def test_one_file_as_a_stream(media: Path) -> None:
    with open_source(media / "drive.mp4") as source:
        assert [frame.time_s for frame in source] == [pytest.approx(number / 25) for number in range(6)]


@pytest.mark.parametrize(
    "text",
    [
        "rtsp://admin:hunter2@cam.example/live",
        "cannot open rtsp://admin:hunter2@10.0.0.1:554/x: timed out",
        "http://cam/stream?user=a&password=hunter2&x=1",
        "request: GET /\r\nAuthorization: Basic aHVudGVyMg==\r\nHost: x",
        "rtsp://admin:p@hunter2@cam/live",
        "rtsp://admin:p/hunter2@cam/live",
        "rtsp://admin:p?#hunter2@cam:554/live",
        "rtmp://live.example/app/hunter2",
        "rtmps://live.example:443/app/hunter2?x=1",
        "rtmp://live.example/app/stream token=hunter2 live=1",
        "rtmp://live.example/app/s?st=hunter2x&e=5",
        "rtmp://live.example/app playpath=hunter2",
        "https://host/a?hash=hunter2&x=1",
        "http://host/clip.mp4?token=Zm9v/hunter2+a==",
        "no 'http://host/a?psw=hunter2' here",
        "http://host/a?jwt=hunter2",
        "http://host/a?credential=hunter2",
        "http://host/a?code=xhunter2x",
        'http://host/a?password="hunter2"&x=1',
        "http://host/a?password=it's/hunter2",
        "rtsp:/admin:hunter2@cam/stream: no such file",
    ],
)
def test_credentials_are_redacted(text: str) -> None:
    assert "hunter2" not in redact(text)
    assert "aHVudGVyMg" not in redact(text)
    assert "***" in redact(text)


def test_remembered_secrets_are_redacted_anywhere_in_the_words_of_libraries() -> None:
    remember_secrets("rtsp://admin:corr%40ct-horse@cam/live")
    assert redact_foreign("password is corr@ct-horse, really corr%40ct-horse") == "password is ***, really ***"
    kept = ("nothing to hide at http://host/path", "rtsp://cam:554/user@home", "http://host/a@b", "udp://@239.1.2.3:5")
    for plain in kept:
        assert redact(plain) == redact_foreign(plain) == plain


def test_a_weak_password_garbles_no_name_and_no_address(tmp_path: Path) -> None:
    """It may be a word of any path, and the host or port of its own address."""
    for password in ("2024", "localhost", "554"):
        (item,) = expand_sources([f"rtsp://admin:{password}@localhost:554/live_2024"])
        assert (item.name, item.stem) == ("rtsp://***@localhost:554/live_2024", "localhost_live_2024")
    clip = make_clip(tmp_path / "dash_2024.mp4", count=1)
    with open_source(clip) as source:
        assert source.info.name == str(clip)
    with pytest.raises(MediaError, match=r"gone_2024\.mp4: no such file"):
        open_source(tmp_path / "gone_2024.mp4")


def test_of_many_secrets_the_latest_are_remembered() -> None:
    for number in range(redacting._MOST_SECRETS + 5):
        remember_secrets(f"http://host/a?token=secret{number:04}x")
    assert len(redacting._secrets) == redacting._MOST_SECRETS
    assert redact_foreign("secret0000x") == "secret0000x"
    assert redact_foreign(f"secret{number:04}x") == "***"


def test_a_key_to_publish_under_is_in_no_name_and_no_line() -> None:
    (item,) = expand_sources(["RTMP://live.example/app/hunter2"])
    (other,) = expand_sources(["rtmp://live.example/app/other"])
    assert item.location == "rtmp://live.example/app/hunter2", "libav knows schemes in small letters alone"
    assert item.name == "rtmp://live.example/app/***"
    assert "hunter2" not in item.stem
    assert item.stem.startswith("live.example_app_")
    assert item.stem != other.stem


@pytest.mark.parametrize(
    "text",
    [
        "lake/author=jane/clip.mp4 -> out_key=3/clip_overlay.mp4",
        "design=2/keyframes=9 and monkey_hash=1",
        "http://host/x.mp4?w=640&h=480",
        "100 frames of clip_480p.mp4, no video track, live/stream",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    for address in (
        "http://h/a?h=480",
        "http://h/a?st=100",
        "rtmp://camping/live/video",
        "rtmp://h/live/stream",
        "http://h/a?spinning=100",
    ):
        remember_secrets(address)
    assert redact(text) == text


@pytest.mark.parametrize(
    "line",
    [
        "'http://h/a?token=hunter2': lost",
        "rtmp://h/live/hunter2: lost",
        "http://h/a?token=hunter2: lost.",
        "rtmp://h//hunter2.",
        "rtmp://h/hunter2",
    ],
)
def test_a_masked_line_is_masked_no_further(line: str) -> None:
    once = redact(line)
    assert redact(once) == once == line.replace("hunter2", "***")


def test_a_link_that_leads_nowhere_is_already_there(media: Path, tmp_path: Path) -> None:
    plans = plan_outputs(expand_sources([media / "drive.mp4"]), ("overlay",), tmp_path / "out")
    (tmp_path / "out").mkdir()
    check_free(plans)
    partial_path(plans[0]["overlay"]).symlink_to("gone.mp4")
    with pytest.raises(ConfigurationError, match=r"Already there: .*partial"):
        check_free(plans)


def test_names_do_not_depend_on_how_a_folder_is_written(media: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (media / "sub").mkdir()
    make_clip(media / "sub" / "drive.mp4", count=2)
    given = [str(media / "drive.mp4"), str(media / "sub" / "drive.mp4")]
    expected = [item.stem for item in expand_sources(given)]
    monkeypatch.chdir(media / "sub")
    assert [item.stem for item in expand_sources(["../drive.mp4", "drive.mp4"])] == expected


def test_an_empty_folder_beside_other_sources_is_one_that_fails(media: Path) -> None:
    """A camera that recorded nothing today."""
    (media / "cam2").mkdir()
    given = [media / "drive.mp4", media / "cam2", media / "cam3*.mp4"]
    items = expand_sources(given)
    assert [item.location for item in items] == [str(path) for path in given]
    for item, what in zip(items[1:], ("a folder", "a pattern"), strict=False):
        with pytest.raises(MediaError, match=rf": {what} with no video and no picture in it\."):
            open_item(item)
    for alone in (given[1:2], given[1:]):
        with pytest.raises(ConfigurationError, match="no video and no picture"):
            expand_sources(alone)


def test_a_folder_gives_videos_under_cameras_own_suffixes(media: Path) -> None:
    folder = media / "cards"
    folder.mkdir()
    for name in ("a.INSV", "b.lrv", "c.h265", "d.dav"):
        (folder / name).write_bytes(b"x")
    assert len(expand_sources([folder])) == 4
