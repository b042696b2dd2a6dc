"""Values as people read them: durations, money, times, JSON, and any text made harmless for a terminal."""

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from ..projections.words import clip, clock, count, seconds, size, usd, visible

__all__ = [
    "Line", "Span", "as_json", "clip", "clock", "compact", "count", "seconds", "size", "usd", "visible",
    "visible_lines", "width_of",
]  # fmt: skip

Span = tuple[str, str]
"""A piece of text and its style (`bold`, `dim`, `green` …; empty for none)."""
Line = list[Span]

_PLAIN = re.compile(r"[ -~]*")
_encode = msgspec.json.Encoder(enc_hook=str).encode


def visible_lines(text: object) -> list[str]:
    """A text of several lines, each made harmless; tabs become spaces."""
    return [visible(line.expandtabs(4)) for line in str(text).split("\n")]


def as_json(value: Any, *, indent: int | None = 2) -> str:
    r"""JSON for `--json`: what a terminal would act on is written `\uXXXX`, which means the same.

    >>> as_json({"a": "x\x9b2J"}, indent=None)
    '{"a":"x\\u009b2J"}'
    """
    packed = _encode(value)
    text = (msgspec.json.format(packed, indent=indent) if indent is not None else packed).decode()
    return "\n".join(_escape_json(line) for line in text.split("\n"))


def _escape_json(line: str) -> str:
    if _PLAIN.fullmatch(line):
        return line
    return "".join(c if c.isprintable() else _json_escape(c) for c in line)


def _json_escape(character: str) -> str:
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


def compact(value: Any) -> str:
    """A JSON value on one line, made harmless."""
    return visible(_encode(value).decode())


def width_of(line: Iterable[Span]) -> int:
    """Characters in a line."""
    return sum(len(text) for text, _ in line)
