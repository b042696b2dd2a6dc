"""Values as people read them: durations, money, times, JSON, and any text made harmless for a terminal."""

import re
from collections.abc import Iterable
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec

from ..events.clock import moment

Span = tuple[str, str]
"""A piece of text and its style (`bold`, `dim`, `green` …; empty for none)."""
Line = list[Span]

_PLAIN = re.compile(r"[ -~]*")
_encode = msgspec.json.Encoder(enc_hook=str).encode


def visible(text: object) -> str:
    r"""The text with everything unprintable written out, so that no run id or payload can steer a terminal.

    Control characters of both sets (C1 holds a one-character CSI), line and bidirectional marks, and
    what has no UTF-8 form.

    >>> visible("a\x1b[2Jb\u202e\n")
    'a\\x1b[2Jb\\u202e\\n'
    """
    plain = str(text)
    if _PLAIN.fullmatch(plain):
        return plain
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in plain)


def visible_lines(text: object) -> list[str]:
    """A text of several lines, each made harmless; tabs become spaces."""
    return [visible(line.expandtabs(4)) for line in str(text).split("\n")]


def clip(text: str, width: int) -> str:
    """At most `width` characters, the cut shown."""
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"


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


def seconds(value: float | None) -> str:
    """A duration with three significant digits or so.

    >>> [seconds(s) for s in (0.00004, 0.0123, 1.5, 75, 3700, 200_000, None)]
    ['0.04 ms', '12 ms', '1.50 s', '1 min 15 s', '1 h 1 min', '2 d 7 h', '']
    """
    if value is None:
        return ""
    if value < 0.001:
        return f"{value * 1e3:.2f} ms"
    if value < 0.9995:
        return f"{value * 1e3:.0f} ms"
    if value < 59.995:
        return f"{value:.2f} s"
    whole = round(value)
    for size, unit, next_size, next_unit in (
        (86_400, "d", 3_600, "h"), (3_600, "h", 60, "min"), (60, "min", 1, "s")
    ):  # fmt: skip
        if whole >= size:
            rest = whole % size // next_size
            return f"{whole // size} {unit}" + (f" {rest} {next_unit}" if rest else "")
    return f"{whole} s"


def size(count: int) -> str:
    """Bytes.

    >>> size(512), size(412_345)
    ('512 B', '412 kB')
    """
    return (
        f"{count} B" if count < 1_000 else f"{count / 1e3:.0f} kB" if count < 1e6 else f"{count / 1e6:.1f} MB"
    )


def usd(value: Decimal | str) -> str:
    """Money, empty when nothing was spent.

    >>> usd("0.01400"), usd("0"), usd("3")
    ('$0.014', '', '$3.00')
    """
    amount = Decimal(value)
    if not amount:
        return ""
    text = format(amount.normalize(), "f")
    whole, _, fraction = text.partition(".")
    return f"${whole}.{fraction:0<2}"


def count(number: int, one: str, many: str = "") -> str:
    """`1 run`, `2 runs`.

    >>> count(1, "run"), count(0, "entry", "entries")
    ('1 run', '0 entries')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def clock(at: datetime | str | None, *, micro: bool = False) -> str:
    """A time in UTC: `2026-01-31 12:00:00`."""
    found = moment(at)
    if found is None:
        return ""
    text = f"{found:%Y-%m-%d %H:%M:%S}"
    return f"{text}.{found.microsecond // 1000:03}" if micro else text


def width_of(line: Iterable[Span]) -> int:
    """Characters in a line."""
    return sum(len(text) for text, _ in line)
