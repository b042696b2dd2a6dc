"""The site has every page, and what looks at the built one finds what it is for."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.docs.built import problems
from tests.docs.pages import DOCS, PAGES, ROOT, links

SITE = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]


def named(entry: Any) -> list[str]:
    """The pages below an entry of the navigation."""
    if isinstance(entry, str):
        return [entry]
    children = entry.values() if isinstance(entry, dict) else entry
    return [page for child in children for page in named(child)]


def test_every_page_is_in_the_navigation_once() -> None:
    assert sorted(named(SITE["nav"])) == sorted(p.relative_to(DOCS).as_posix() for p in DOCS.rglob("*.md"))


def test_the_landing_page_leads_to_every_page() -> None:
    reached = {target for target, _ in links(DOCS / "index.md")}
    reached |= {f"examples/{target}" for target, _ in links(DOCS / "examples" / "index.md")}
    reached |= {"index.md"}
    assert not {p.relative_to(DOCS).as_posix() for p in DOCS.rglob("*.md")} - reached


def test_fonts_are_the_readers_own() -> None:
    assert SITE["theme"]["font"] is False


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_code_is_fenced_as_the_site_understands_it(page: Path) -> None:
    """Options it does not know turn a block into text, and Mermaid would be fetched from elsewhere."""
    for fence in re.findall(r"^ *```(\S.*)$", page.read_text(), re.MULTILINE):
        assert re.fullmatch(r'(?!mermaid)\w+( title="[^"]+")?', fence), fence


@pytest.mark.parametrize(
    ("html", "found"),
    [
        ('<a href="https://example.org">there</a><img src=""><h2 id="x">X</h2><a href="#x">', ""),
        ('<script src="https://example.org/a.js"></script>', "fetches https://example.org/a.js"),
        ('<link rel="stylesheet" href="//example.org/a.css">', "fetches //example.org/a.css"),
        ('<link rel="canonical" href="https://example.org/">', ""),
        ('<a href="gone.html">gone</a>', "leads nowhere"),
        ('<a href="index.html#gone">gone</a>', "leads to no part of that page"),
    ],
)
def test_what_is_wrong_with_a_built_site_is_found(html: str, found: str, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text(html)
    assert [found in problem for problem in problems(tmp_path)] == ([True] if found else [])


def test_a_style_that_fetches_a_font_is_found(tmp_path: Path) -> None:
    (tmp_path / "index.html").touch()
    (tmp_path / "a.css").write_text("@font-face { src: url('https://example.org/a.woff2') }")
    assert len(list(problems(tmp_path))) == 1
