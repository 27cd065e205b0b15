"""The check that pages are held to finds what a reader would: each fault is planted in a page that else passes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.browser import Browser, check_page

pytestmark = pytest.mark.browser

DOT = "data:image/gif;base64,R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"
PAGE = f'<!doctype html><meta charset="utf-8"><title>page</title><h1>Title</h1><img src="{DOT}">'


def test_a_sound_page_passes(browser: Browser, tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text(PAGE)
    layout = check_page(browser, tmp_path / "page.html")
    assert (layout.headings, layout.pictures) == (["Title"], 1)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("<script>nowhere()</script>", "nowhere is not defined"),
        ("<script>console.error('alas')</script>", "alas"),
        ('<img src="missing.png">', "missing.png"),
        ('<link rel="stylesheet" href="missing.css">', "missing.css"),
        ('<img src="data:image/png;base64,AAAA">', "1 of 2 pictures are empty"),
        ('<script src="beside.js"></script>', "beside.js"),
        ('<div style="width: 3000px">wide</div>', "px wider than a window of 1280"),
    ],
)
def test_a_planted_fault_is_found(browser: Browser, tmp_path: Path, fault: str, words: str) -> None:
    (tmp_path / "beside.js").write_text("var fine = 1;")
    (tmp_path / "page.html").write_text(PAGE + fault)
    with pytest.raises(AssertionError, match=words):
        check_page(browser, tmp_path / "page.html")
