"""The HTML page: names stay names, nothing is loaded, and a real browser shows the figures."""

import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from qwd.report.render import html

from .builders import model, report, several, tensor

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


class Page(HTMLParser):
    def __init__(self, content: str):
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.words: list[str] = []
        self.feed(content)

    def handle_starttag(self, tag: str, attrs) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_names_are_never_markup() -> None:
    name = "<script>alert(1)</script><img src=x onerror=y>"
    plain = Page(html.render(report()))
    hostile = Page(html.render(report(replace(model(name), tensors=(tensor(name),)))))
    assert hostile.tags == plain.tags
    assert hostile.attributes == plain.attributes
    assert name in hostile.words


def test_nothing_is_loaded_from_elsewhere() -> None:
    page = Page(html.render(several()))
    assert not page.tags & {"script", "link", "img", "iframe", "object"}
    assert not page.attributes & {"src", "href", "style", "onload"}


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_a_browser_shows_the_tables(tmp_path: Path) -> None:
    assert CHROMIUM is not None
    (tmp_path / "r.html").write_text(html.render(several()), encoding="utf-8")
    options = (
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
        *("--no-first-run", "--disable-component-update", "--disable-sync", "--dump-dom"),
    )
    command = [
        CHROMIUM,
        *options,
        f"--user-data-dir={tmp_path}/profile",
        f"file://{tmp_path}/r.html",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    shown = Page(done.stdout)
    expected = Page(html.render(several()))
    words = [word.strip() for word in expected.words if word.strip()]
    assert [word.strip() for word in shown.words if word.strip()] == words
