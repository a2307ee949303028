"""A page of a report as its tests read it."""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser

from duo_unlearn.report.page import write_report
from duo_unlearn.runs.folder import Run

VOID = {"meta", "link", "img", "input", "br", "hr", "wbr", "col"}


def _words(source: str) -> str:
    """The text of a piece of HTML, with single spaces."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", source.replace("<wbr>", ""))).split())


class Page(HTMLParser):
    """A page's elements and words, with a check that the elements are balanced."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.source = text
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        """All words, with single spaces."""
        return " ".join(" ".join(self.words).split())

    def section(self, name: str) -> str:
        """The words of the section whose heading has this id."""
        return _words(self.source.partition(f'aria-labelledby="{name}"')[2].partition("</section>")[0])

    def rows(self, header: str) -> list[list[str]]:
        """The cells of every table row whose header has these words."""
        rows = [part.partition("</tr>")[0] for part in self.source.split("<tr>")[1:]]
        return [
            [_words(cell.partition("</td>")[0]) for cell in row.split("<td>")[1:]]
            for row in rows
            if _words(row.partition("<td>")[0]) == header
        ]

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of every element of a kind."""
        return [attributes for name, attributes in self.elements if name == tag]

    def classed(self, name: str) -> list[dict[str, str | None]]:
        """The attributes of every element of a class."""
        return [a for _, a in self.elements if name in (a.get("class") or "").split()]


def page_of(run: Run) -> Page:
    """The page of a run, made now."""
    return Page(write_report(run).read_text(encoding="utf-8"))


def assert_inert(page: Page) -> None:
    """No script, no handler, and nothing that is fetched: only data: URIs and places on the page itself."""
    tags = {tag for tag, _ in page.elements}
    assert not tags & {"script", "iframe", "object", "embed", "link", "base", "form"}
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name == "src":
                assert (value or "").startswith("data:image/webp;base64,")
            if name in ("href", "xlink:href"):
                assert (value or "").startswith("#")
            if name == "style":
                assert "url(" not in (value or "").replace("url(#", "")
