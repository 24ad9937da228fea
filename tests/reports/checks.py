"""What every HTML page of the package must satisfy."""

from __future__ import annotations

import base64
import re
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field
from html.parser import HTMLParser

from fastvit.reports.figures import DARK

# Words that a page uses another term for: "validation images", "ground truth", "prediction", "IQR", "backend", ...
RETIRED = re.compile(
    r"held[- ]out|named right|named wrong|\bquartiles\b|\bsettled\b|\bdamaged\b|\banswers?\b|(?<!ground )\btruth\b"
    r"|\bproved\b|\bjudged\b|\bof the floor\b|\btaking turns\b",
    re.IGNORECASE,
)
HEADS = {"what", "which", "why", "held", "bar", "way"}
# Width of a phone of 390 CSS pixels without the page's margins.
PHONE = 358


@dataclass
class Page(HTMLParser):
    """The parts of a page that are checked."""

    html: str
    metas: dict[str, str] = field(default_factory=dict)
    images: list[dict[str, str]] = field(default_factory=list)
    parents: list[tuple[str, str]] = field(default_factory=list)  # tag and class of each open element
    loose: list[str] = field(default_factory=list)  # tables and plots that are not in a box that scrolls
    heads: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    sources: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()
        self.feed(self.html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        known = {name: value or "" for name, value in attrs}
        self.sources += [known[name] for name in ("src", "href") if name in known]
        if tag == "meta" and "name" in known:
            self.metas[known["name"]] = known["content"]
        boxes = {name for _, name in self.parents}
        if tag == "img":
            self.images.append(known)
            self.texts.append(known.get("alt", ""))
            if not boxes & {"plot", "gallery"}:
                self.loose.append("img")
        if tag == "table" and "table" not in boxes:
            self.loose.append("table")
        if tag not in ("img", "meta", "br"):
            self.parents.append((tag, known.get("class", "")))

    def handle_endtag(self, tag: str) -> None:
        assert self.parents.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        if self.parents and self.parents[-1][0] != "style":
            self.texts.append(data)
            if self.parents[-1][0] == "th":
                self.heads.append(data)


def check_page(html: str) -> Page:
    """Assert that a page stands alone, has alternative texts, follows the color scheme and fits a phone."""
    page = Page(html)
    assert page.metas["viewport"] == "width=device-width, initial-scale=1"
    assert page.metas["color-scheme"] == "light dark"
    assert "@media (prefers-color-scheme: dark)" in html
    assert "overflow-x: auto" in re.search(r"\.plot, \.table \{.*?\}", html)[0]  # type: ignore[index]
    assert page.loose == []
    assert all(source.startswith("data:image/") for source in page.sources), "a page needs no other file"
    headings = re.findall(r"<h[12]>(.*?)</h", html)
    assert len(headings) == len(set(headings))
    for image in page.images:
        assert len(image["alt"]) > 20, "an alternative text says what the picture shows"
        assert image["alt"] not in headings
        kind, _, content = image["src"].partition(";base64,")
        if kind == "data:image/svg+xml":
            check_svg(base64.b64decode(content).decode())
    assert HEADS.isdisjoint(page.heads)
    found = RETIRED.search("\n".join(page.texts))
    assert not found, found
    return page


def check_svg(text: str) -> None:
    """Assert that every color of a plot that has a dark version follows the color scheme."""
    ET.fromstring(text)
    style, drawn = re.search(r"<style.*?</style>", text, re.DOTALL), re.sub(r"<style.*?</style>", "", text, flags=re.S)
    assert style
    assert "@media (prefers-color-scheme: dark)" in style[0]
    assert DARK.keys().isdisjoint(re.findall(r"#[0-9a-f]{6}\b", drawn))
    variables = set(re.findall(r"var\((--c[0-9a-f]{6})\)", drawn))
    assert variables
    assert all(style[0].count(f"{name}: ") == 2 for name in variables), "a light and a dark value each"
