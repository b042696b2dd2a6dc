"""Values in words, for whatever draws or prints them: durations, money, counts, times, harmless text."""

import re
from datetime import datetime
from decimal import Decimal

from ..events.clock import moment

_PLAIN = re.compile(r"[ -~]*")


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


def clip(text: str, width: int) -> str:
    """At most `width` characters, the cut shown."""
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"


def size(count: int) -> str:
    """Bytes.

    >>> size(512), size(412_345)
    ('512 B', '412 kB')
    """
    return (
        f"{count} B" if count < 1_000 else f"{count / 1e3:.0f} kB" if count < 1e6 else f"{count / 1e6:.1f} MB"
    )
