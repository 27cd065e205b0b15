"""A run's page: whole HTML, nothing fetched from elsewhere, robust to what is missing. And its charts."""

import json
import os
import re
import subprocess
import sys
import zlib
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest

from edge_seg.spec import CAMVID_CLASSES
from tests.browser import Browser, check_page
from train.classes import ClassList
from train.evaluation import FULL_FRAME, MODEL_SIZE, Evaluation, Result, Subject
from train.metrics import scores
from train.report import write_report
from train.results import summary
from train.svg import Line, line_chart, sparkline, ticks

VOID = {"meta", "img", "br"}


class Outline(HTMLParser):
    """Checks that tags close in order; gathers headings, addresses and tags."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.headings: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("h1", "h2", "h3"):
            self.headings.append(data)


def outline(path: Path) -> Outline:
    found = Outline()
    found.feed(path.read_text())
    assert not found.open
    assert all(address.startswith("data:image/jpeg;base64,") for address in found.addresses)
    assert "://" not in path.read_text()
    return found


def write_history(folder: Path, epochs: int, classes: Sequence[str], *, validation: bool = True) -> None:
    rates = [
        "epoch",
        "loss",
        "accuracy",
        "mean_iou",
        "val_loss",
        "val_accuracy",
        "val_mean_iou",
        "learning_rate",
        "seconds",
    ]
    lines = [",".join([*rates, *(f"iou_{name}" for name in classes)])]
    for epoch in range(1, epochs + 1):
        held_out = ["0.9", "0.5", "0.4"] if validation else ["", "", ""]
        ious = [f"{epoch / 10:.2f}" if validation else "" for _ in classes]
        lines.append(",".join([str(epoch), "1.5", "0.6", "0.5", *held_out, "0.001", "75", *ious]))
    (folder / "history.csv").write_text("\n".join(lines) + "\n")


def write_config(folder: Path, **extra: object) -> None:
    data = {"root": "data", "train": [f"image{i}" for i in range(20)], "val": ["a", "b"]}
    config = {
        "recipe": {"name": "default", "epochs": 3},
        "seed": 5,
        "data": data,
        "versions": {"keras": "3.12"},
        **extra,
    }
    (folder / "config.json").write_text(json.dumps(config))


def write_evaluation_of(folder: Path, split: str, classes: Sequence[str]) -> None:
    confusion = np.full((len(classes),) * 2, 3, np.int64)
    np.fill_diagonal(confusion, 1234)
    found = scores(confusion, len(classes) - 1)
    subject = Subject(
        name="run",
        split=split,
        samples=[],
        classes=ClassList(names=tuple(classes), unlabelled=len(classes) - 1),
        palette=(),
        labeler=None,
    )  # type: ignore[arg-type]
    results = tuple(Result(protocol, "plain", found) for protocol in (MODEL_SIZE, FULL_FRAME))
    evaluation = Evaluation(size=(224, 224), results=results, images=(), best=(), worst=(), evenly=(), label_ms=1.0)
    place = folder / f"evaluate-{split}"
    place.mkdir()
    (place / "summary.json").write_text(json.dumps(summary(subject, evaluation, {})))
    for name in ("best", "worst"):
        cv2.imwrite(str(place / f"{name}.png"), np.zeros((32, 48, 3), np.uint8))


def test_a_full_run_shows_everything_in_order(tmp_path: Path) -> None:
    write_config(tmp_path)
    write_history(tmp_path, 4, CAMVID_CLASSES)
    write_evaluation_of(tmp_path, "test", CAMVID_CLASSES)
    write_evaluation_of(tmp_path, "val", CAMVID_CLASSES)
    found = outline(write_report(tmp_path))
    wanted = ["Training", "Loss", "Mean IoU", "Accuracy", "Learning rate", "sky", "unlabelled", "Validation images"]
    wanted += ["Best images", "Worst images", "Test folder", "Best images", "Configuration", "Run", "Versions"]
    positions, start = [], 0
    for heading in wanted:
        start = found.headings.index(heading, start)
        positions.append(start)
    assert positions == sorted(positions)
    assert len(found.addresses) == 4
    page = (tmp_path / "report.html").read_text()
    assert page.count("<svg") == 4 + 12
    # 1234 right of 1234 + 11 * 3: the matrix shows 97 %, and each class' IoU where labelled is 1234 / (1267 + 30).
    assert page.count(">97</td>") == 2 * 12
    assert "0.951" in page
    assert "20 entries" in page
    assert "4</b><span>epochs in 5 min" in page
    # The same unit as `evaluate` prints: 1234 of 1267 pixels.
    assert page.count("<b>0.974</b><span>global accuracy") == 2
    assert "keras" in page


def test_one_epoch_is_not_several(tmp_path: Path) -> None:
    write_history(tmp_path, 1, CAMVID_CLASSES)
    assert "1</b><span>epoch in 1 min" in write_report(tmp_path).read_text()


@pytest.mark.parametrize("pieces", [(), ("config",), ("history",), ("history", "config"), ("evaluation",)])
def test_what_is_missing_is_left_out(tmp_path: Path, pieces: tuple[str, ...]) -> None:
    if "config" in pieces:
        write_config(tmp_path)
    if "history" in pieces:
        write_history(tmp_path, 1, CAMVID_CLASSES, validation=False)
    if "evaluation" in pieces:
        write_evaluation_of(tmp_path, "test", CAMVID_CLASSES)
    found = outline(write_report(tmp_path))
    assert ("Configuration" in found.headings) == ("config" in pieces)
    assert ("Loss" in found.headings) == ("history" in pieces)
    assert ("Test folder" in found.headings) == ("evaluation" in pieces)
    assert "IoU of each class over the epochs" not in found.headings
    assert ("no history and no evaluation" in (tmp_path / "report.html").read_text()) == (not set(pieces) - {"config"})


def test_names_are_text_and_never_markup(tmp_path: Path) -> None:
    classes = ("<script>alert(1)</script>", "a&b", "unlabelled")
    write_config(tmp_path, classes=classes, note="<img src=x>")
    write_history(tmp_path, 2, ("x",))
    write_evaluation_of(tmp_path, "val", classes)
    found = outline(write_report(tmp_path))
    assert "script" not in found.tags
    assert found.tags.count("img") == 2


def test_a_folder_whose_name_is_not_utf8_has_its_pictures(tmp_path: Path) -> None:
    (tmp_path / "ascii").mkdir()
    write_config(tmp_path / "ascii")
    write_evaluation_of(tmp_path / "ascii", "val", CAMVID_CLASSES)
    place = (tmp_path / "ascii").rename(tmp_path / os.fsdecode(b"m\xfcller"))
    # In a process of its own: what is wrong with such a name ends the whole of it.
    code = "import sys; from train.report import write_report; write_report(sys.argv[1])"
    done = subprocess.run([sys.executable, "-c", code, place], cwd=Path(__file__).parents[2], capture_output=True)
    assert done.returncode == 0, done.stderr
    assert (place / "report.html").read_text().count('src="data:image/jpeg') == 2


HEAD = "epoch,loss,seconds\n"


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("history.csv", HEAD + "1,2," + "9" * 200_000, "field larger than field limit"),
        ("history.csv", HEAD.encode() + b"1,\xff,3\n", "can't decode"),
        ("history.csv", "loss,seconds\n1,2\n", "damaged ('epoch')"),
        ("history.csv", HEAD + "nan,2,3\n", "invalid literal"),
        ("history.csv", HEAD + "2,2,3\n1,2,3\n", "not in order"),
        ("history.csv", HEAD + "1,2,3,4\n", "different lengths"),
        ("history.csv", HEAD + "1\n", "different lengths"),
        ("evaluate-zz/summary.json", "{", "Expecting property name"),
        ("evaluate-zz/summary.json", "[" * 100_000, "recursion"),
        ("evaluate-zz/summary.json", "{}", "'results'"),
        ("evaluate-zz/summary.json", '{"results": []}', "StopIteration"),
        ("config.json", '{"versions": 5}', "'int' object"),
        ("config.json", '{"classes": 5}', "'int' object"),
    ],
)
def test_what_is_damaged_is_left_out_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: str | bytes, words: str
) -> None:
    write_config(tmp_path)
    write_history(tmp_path, 4, CAMVID_CLASSES)
    write_evaluation_of(tmp_path, "test", CAMVID_CLASSES)
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    found = outline(write_report(tmp_path))
    page, (line,) = (tmp_path / "report.html").read_text(), capsys.readouterr().err.splitlines()
    assert f"Left out, damaged: {name} (" in page
    assert line.startswith(f"warning: {tmp_path / 'report.html'} leaves out, damaged: {name} (")
    assert words in line
    assert "Test folder" in found.headings
    assert ("Loss" in found.headings) == (name != "history.csv")
    assert ("Configuration" in found.headings) == (name != "config.json")
    assert "zz" not in found.headings


@pytest.mark.parametrize("values", [("1e999", "3"), ("1e308", "-1e308"), ("5e-324", "5e-324"), ("-inf", "inf")])
def test_figures_that_no_chart_can_show_do_no_harm(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], values: tuple[str, str]
) -> None:
    lines = (f"{epoch},{value},{value},0.1,{value},{value}" for epoch, value in enumerate(values, 1))
    (tmp_path / "history.csv").write_text("\n".join(["epoch,loss,seconds,val_loss,iou_sky,learning_rate", *lines]))
    outline(write_report(tmp_path))
    page = (tmp_path / "report.html").read_text()
    assert "2</b><span>epochs in 0" in page or "2</b><span>epochs in 3" in page
    assert "nan" not in page
    assert not capsys.readouterr().err


def test_a_picture_that_declares_too_much_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_evaluation_of(tmp_path, "test", CAMVID_CLASSES)
    path = tmp_path / "evaluate-test" / "best.png"
    data = bytearray(path.read_bytes())
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    path.write_bytes(data)
    write_report(tmp_path)
    assert "leaves out, damaged: evaluate-test/summary.json (OpenCV" in capsys.readouterr().err


def test_the_page_is_made_anew_each_time(tmp_path: Path) -> None:
    write_config(tmp_path)
    first = write_report(tmp_path).read_text()
    write_history(tmp_path, 3, CAMVID_CLASSES)
    assert write_report(tmp_path).read_text() != first
    assert not list(tmp_path.glob(".partial*"))


@pytest.mark.browser
@pytest.mark.parametrize(("width_px", "dark"), [(1280, False), (1280, True), (390, False)])
def test_the_page_renders_in_a_browser(browser: Browser, tmp_path: Path, width_px: int, dark: bool) -> None:
    write_config(tmp_path)
    write_history(tmp_path, 4, CAMVID_CLASSES)
    write_evaluation_of(tmp_path, "val", CAMVID_CLASSES)
    layout = check_page(browser, write_report(tmp_path), width_px=width_px, dark=dark)
    assert {"Training", "Loss", "Validation images", "Best images", "Configuration"} <= set(layout.headings)
    assert (layout.pictures, layout.charts) == (2, 4 + 12)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (1, 10, [2, 4, 6, 8, 10]),
        (0, 0.0012, [0, 0.0005, 0.001]),
        (-3, 3, [-2, 0, 2]),
    ],
)
def test_ticks_are_round_and_within(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high, 5) == pytest.approx(expected)


def points_of(svg: str) -> list[list[tuple[float, float]]]:
    ElementTree.fromstring(svg)
    return [
        [tuple(map(float, pair.split(","))) for pair in text.split()] for text in re.findall(r'points="([^"]+)"', svg)
    ]


def test_a_line_rises_where_its_values_do_and_breaks_where_they_are_missing() -> None:
    values = np.array([0.1, 0.2, np.nan, 0.4, 0.3])
    first, second = points_of(line_chart(np.arange(1.0, 6.0), [Line("a<b", values, "red")]))
    assert [len(first), len(second)] == [2, 2]
    assert first[0][1] > first[1][1] > second[1][1] > second[0][1]
    assert first[0][0] < first[1][0] < second[0][0] < second[1][0]
    (small,) = points_of(sparkline(np.array([30, 60, 70]), np.array([0.0, 0.5, 1.0]), "red"))
    assert small == [(3.0, 41.0), (111.0, 22.0), (147.0, 3.0)], "by epoch: after the last one it is validated anyway"


def test_nothing_to_draw_draws_nothing_and_one_point_is_a_dot() -> None:
    nothing = np.full(3, np.nan)
    assert line_chart(np.arange(3.0), [Line("a", nothing, "red")]) == ""
    assert sparkline(np.arange(len(nothing)), nothing, "red") == ""
    alone = line_chart(np.array([1.0]), [Line("a", np.array([0.5]), "red")])
    ElementTree.fromstring(alone)
    assert 'r="3"' in alone


@pytest.mark.parametrize("value", [0.001, 250.0, 0.0])
def test_a_value_that_never_changes_lies_between_ticks_like_it(value: float) -> None:
    svg = line_chart(np.arange(1.0, 4.0), [Line("rate", np.full(3, value), "red")])
    labels = [float(text) for text in re.findall(r'text-anchor="end">([^<]+)<', svg)]
    assert min(labels) <= value <= max(labels)
    assert max(labels) - min(labels) <= 0.3 * (value or 1.0)


def test_names_at_the_ends_of_lines_do_not_meet() -> None:
    lines = [Line(f"line {i}", np.array([0.0, 0.5]), "red") for i in range(4)]
    svg = line_chart(np.array([1.0, 2.0]), lines)
    heights = sorted(float(y) for y in re.findall(r'class="label" x="\d+" y="([\d.]+)"', svg))
    assert len(heights) == 4
    assert min(np.diff(heights)) >= 13.9


def test_one_epoch_whose_rate_ended_at_0_has_no_other_epoch_and_no_rate_below_it() -> None:
    chart = line_chart(np.array([1.0]), [Line("rate", np.array([0.0]), "red")])
    places = re.findall(r'<text class="axis"[^>]*text-anchor="(middle|end)">([^<]+)<', chart)
    assert [float(place) for side, place in places if side == "middle"] == [1]
    assert min(float(place) for side, place in places if side == "end") == 0
