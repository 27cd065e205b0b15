"""What the three files say, and that they say all of it."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import cv2
import pytest

from benchmarks import figures
from benchmarks.report import new_folder, write_report
from benchmarks.rows import read_result
from benchmarks.table import render
from edge_seg.errors import ConfigurationError
from tests.browser import check_page


@pytest.fixture
def written(result, tmp_path):
    return write_report(result, new_folder(tmp_path / "out"))


def test_the_json_gives_the_same_result_back(result, written):
    assert read_result(written[0]) == result


def test_the_table_has_every_row_and_says_what_failed(result):
    text = render(result)
    for part in (
        "batch 1",
        "batch 4",
        "Keras predict",
        "57.90 %",
        "99.900 %",
        "failed: broken, batch 4: <planted>",
        "Test CPU",
    ):
        assert part in text
    assert re.search(r"edge_seg cpu int8 +20\.0 +24\.0 +50\.0 +5\.00 +4\.90-5\.10 +500 ", text)
    assert re.search(r"edge_seg cpu int8 +1 +40\.0 +12\.0 +44\.0 +91 % +2\.0 +20\.0 +6\.0 +300", text)
    assert "not here: openvino" in text
    # README's name for the column, whose figures `readme` takes from the same rows.
    assert "of possible" in text
    assert "of possible" in figures.clip_table(result)


def test_one_of_a_thing_is_not_several(result):
    settings = {**result.settings, "repeats": 1, "frames": 1}
    rows = tuple(replace(row, calls=1) for row in result.rows)
    text = render(replace(result, settings=settings, rows=rows, data={**result.data, "frames": 1}))
    assert ": 1 frame, segmented" in text
    assert "\n1 interleaved repeat of 1 frame each, 1 timed call of each contender; " in text


def test_the_chart_is_a_picture_that_changes_with_the_figures(result, written, tmp_path):
    picture = cv2.imread(str(written[1]))
    assert picture is not None
    assert picture.shape[1] > 1200
    assert picture.std() > 10
    slower = tuple(
        replace(row, frames_per_s=row.frames_per_s / 7, repeats_ms=tuple(7 * ms for ms in row.repeats_ms))
        for row in result.rows
        if row.status == "ok"
    )
    other = cv2.imread(str(write_report(replace(result, rows=slower), new_folder(tmp_path / "other"))[1]))
    assert other.shape != picture.shape or (other != picture).any()


def test_the_page_is_whole_escaped_and_needs_nothing_else(written):
    page = written[2].read_text()
    seen = Tags()
    seen.feed(page)
    assert seen.open == []
    # Two batch sizes, the clip and the machine's limits.
    assert seen.count["table"] == 4
    assert "<td>123 GFLOP/s</td><td>onnxruntime, 3x3 convolution</td>" in page
    assert "<td>none here</td><td>see the notes</td>" in page
    assert seen.count["img"] == 1
    assert seen.sources[0].startswith("data:image/png;base64,iVBOR")
    assert "&lt;planted&gt;" in page
    assert "<planted>" not in page
    assert not re.search(r'(src|href)="(?!data:)', page)


@pytest.mark.browser
@pytest.mark.parametrize(("width_px", "dark"), [(1280, False), (1280, True), (390, False)])
def test_the_page_renders_in_a_browser(browser, written, width_px, dark):
    layout = check_page(browser, written[2], width_px=width_px, dark=dark)
    assert {"edge_seg benchmark", "Batch 1", "Batch 4", "How it was measured", "Environment"} <= set(layout.headings)
    assert layout.pictures == 1


class Tags(HTMLParser):
    """Counts tags, and remembers which were never closed."""

    VOID = ("meta", "img", "br", "link")

    def __init__(self):
        super().__init__()
        self.open, self.count, self.sources = [], {}, []

    def handle_starttag(self, tag, attributes):
        self.count[tag] = self.count.get(tag, 0) + 1
        self.sources += [value for name, value in attributes if name == "src"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_limits_are_in_the_table_and_on_the_page(result, tmp_path):
    peak = {"gflops": 123.4, "library": "a library", "what": "a product", "reason": ""}
    none = {**peak, "gflops": None, "library": "", "reason": "no such units"}
    memory = {"read_gb_s": 9.5, "copy_gb_s": 8.0, "best_gb_s": 9.5}
    limited = replace(result, limits={"peaks": {"fp32": peak, "bf16": none}, "bandwidth": memory})
    text = render(limited)
    assert re.search(r"fp32 +123 GFLOP/s +a library, a product", text)
    assert re.search(r"bf16 +none here +see the notes", text)
    assert "9.5 GB/s" in text
    page = write_report(limited, new_folder(tmp_path))[2].read_text()
    assert "123 GFLOP/s" in page
    assert "123 GFLOP/s" not in render(replace(result, limits={}))


def test_only_failures_still_make_a_report(result, tmp_path):
    bare = replace(result, rows=tuple(row for row in result.rows if row.status != "ok"), clip_rows=(), clip={})
    for path in write_report(bare, new_folder(tmp_path)):
        assert path.stat().st_size > 0


def test_each_run_gets_a_folder_of_its_own(tmp_path):
    assert len({new_folder(tmp_path) for _ in range(5)}) == 5


def test_a_folder_that_cannot_be_is_one_clear_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="--out"):
        new_folder(tmp_path / "file")


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", '{"format": 1}', '{"format": 99}', '{"format": 1, "rows": [{}], "clip_rows": []}'),
        "[" * 100_000,
    ],
    ids=lambda text: text[:60],
)
def test_other_files_are_no_results(tmp_path, text):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(ConfigurationError, match=r"results\.json"):
        read_result(path)


@pytest.mark.parametrize(
    ("where", "value", "named"),
    [
        (("environment",), {}, "'cpu'"),
        (("environment",), [], "list indices"),
        (("settings", "batch_sizes"), None, "'batch_sizes'"),
        (("models", 0), {"label": "int8"}, "'digest'"),
        (("rows", 0), "a word", "'str' object"),
        (("rows", 0, "repeats_ms"), [], "figures of Keras predict"),
        (("clip_rows", 0, "repeats_fps"), [], "figures of edge_seg cpu int8"),
        (("rows", 0, "ms_median"), "fast", "Keras predict: ms_median is 'fast'"),
        (("rows", 0, "repeats_ms"), [100.0, float("nan")], "Keras predict: repeats_ms is nan"),
        (("rows", 0, "repeats_ms"), [100.0, 0], "figures of Keras predict"),
        (("clip_rows", 0, "stage_ms"), {"decode": None}, "edge_seg cpu int8: stage_ms is None"),
        (("environment", "packages"), [], "'list' object"),
        (("environment", "cpu_features"), 5, "not iterable"),
        (("environment", "cpu_features"), [5], "an instruction set is 5"),
        (("rows", 0, "repeats_ms"), [100.0, 10**400], "int too large"),
        (("rows", 0, "name"), ["x"], "name is ('x',)"),
        (("rows", 0, "name"), {}, "name is {}"),
        (("rows", 0, "ms_median"), [1], "Keras predict: ms_median is (1,)"),
        (("rows", 0, "repeats_ms"), 100.0, "Keras predict: repeats_ms is 100.0"),
        (("models", 0, "label"), ["x"], "a model's label is ['x']"),
        (("models", 0, "digest"), {}, "a model's digest is {}"),
    ],
)
def test_a_result_that_lacks_a_part_is_one_line(result, tmp_path, where, value, named):
    values = json.loads(result.to_json())
    *way, last = where
    place = values
    for key in way:
        place = place[key]
    if value is None:
        del place[last]
    else:
        place[last] = value
    path = tmp_path / "results.json"
    path.write_text(json.dumps(values))
    with pytest.raises(ConfigurationError, match="not a whole results") as caught:
        read_result(path)
    assert named in str(caught.value)
