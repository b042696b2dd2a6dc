"""Reads the catalogue, docs/reference/errors.md: which messages it lists under which class."""

import re
from functools import cache

from refold import errors
from tests.errors.sites import HOLE, ROOT

PAGE = (ROOT / "docs" / "reference" / "errors.md").read_text()

Entry = tuple[str, str]
"""(class, message), with `…` for what differs."""


@cache
def entries() -> tuple[Entry, ...]:
    """Every message of the catalogue, in the order of the page."""
    return tuple((kind, pattern) for kind in errors.__all__ for pattern in _first_cells(section(f"`{kind}`")))


def section(heading: str) -> str:
    """What stands under a heading of the second level; empty: there is none."""
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    return found[1] if found else ""


def _first_cells(text: str) -> list[str]:
    return [found[2].strip() for found in re.finditer(r"^\| (`{1,2})(.+?)\1 \| ", text, re.MULTILINE)]


def rows(text: str) -> list[list[str]]:
    """The rows of the tables in a text, cell by cell, without code marks."""
    lines = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("|--")]
    return [[cell.strip(" `") for cell in line.strip("| ").split(" | ")] for line in lines]


def says(pattern: str, text: str) -> bool:
    """Whether a text is what a pattern of the catalogue describes."""
    return _compiled(pattern).fullmatch(text) is not None


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, pattern.split(HOLE))), re.DOTALL)
