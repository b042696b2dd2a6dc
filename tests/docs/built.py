"""What a built site fetches from elsewhere, and which of its links lead nowhere: `python built.py site`.

Runs where the site is built, so with nothing but the standard library.
"""

import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

FETCHED = {"script": "src", "img": "src", "iframe": "src", "link": "href", "source": "src", "use": "href"}
"""What a browser gets by itself. A link that a reader may click is not fetched."""
HARMLESS = {"canonical", "alternate", "next", "prev"}
"""Kinds of `<link>` that only say something."""
STYLE = re.compile(r"(?:url\(|@import)\s*['\"]?((?:https?:)?//[^'\")\s]+)")


class Page(HTMLParser):
    """What a page fetches, links to and can be linked to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if tag in FETCHED and not HARMLESS & set(given.get("rel", "").split()):
            self.fetched.append(given.get(FETCHED[tag], ""))


def outside(address: str) -> bool:
    return address.startswith("//") or urlsplit(address).scheme not in ("", "data", "mailto")


def problems(site: Path) -> Iterator[str]:
    """Sentences; none when all is well."""
    pages = {path.resolve(): Page(path.read_text()) for path in site.rglob("*.html")}
    if not pages:
        yield f"{site} holds no page"
    for path, page in pages.items():
        yield from (f"{path}: fetches {address}" for address in page.fetched if outside(address))
        for link in page.links:
            if not outside(link) and path.name != "404.html":
                yield from dead(pages, path, link)
    for style in site.rglob("*.css"):
        yield from (f"{style}: fetches {address}" for address in STYLE.findall(style.read_text()))


def dead(pages: dict[Path, Page], path: Path, link: str) -> Iterator[str]:
    """The link, when there is nothing it leads to."""
    parts = urlsplit(link)
    goal = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if goal.is_dir():
        goal /= "index.html"
    if not goal.exists():
        yield f"{path}: the link {link} leads nowhere"
    elif parts.fragment and goal in pages and unquote(parts.fragment) not in pages[goal].anchors:
        yield f"{path}: the link {link} leads to no part of that page"


def main() -> int:
    found = list(problems(Path(sys.argv[1])))
    print("\n".join(found) or "the site fetches nothing from elsewhere, and every link in it leads somewhere")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
