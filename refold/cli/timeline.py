"""A run as text bars: a lane for each step, sleep and wait, over one axis of time."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from ..projections.lanes import Lane, Mark
from .screen import Screen
from .text import Line, Span, clip, count, seconds, usd, visible

TIMES = "\N{MULTIPLICATION SIGN}"

GLYPHS = {
    # kind: (glyph, ASCII glyph, style, what it means); the later ones cover the earlier ones in one cell
    "wait": ("·", ".", "cyan", "waiting"),
    "run": ("█", "#", "green", "running"),
    "cancelled": ("░", "-", "dim", "given up"),
    "failed": ("▓", "x", "red", "failed"),
    "cut": ("▒", "!", "yellow", "cut off"),
}
_RANK = {kind: rank for rank, kind in enumerate(GLYPHS)}


class Axis:
    """From moments to cells."""

    def __init__(self, start: datetime, end: datetime, width: int) -> None:
        self.start, self.width = start, width
        self.total_s = max((end - start).total_seconds(), 1e-6)

    def cell(self, at: datetime) -> int:
        """The cell of a moment."""
        share = (at - self.start).total_seconds() / self.total_s
        return min(max(int(share * self.width), 0), self.width - 1)


def draw(
    screen: Screen, rows: Sequence[Lane], start: datetime, end: datetime, marks: Sequence[Mark] = ()
) -> None:
    """Print the lanes with their bars from `start` to `end`, the marks pointed at, and a legend."""
    named = [(_name(lane), _attempts(lane), seconds(_time(lane, end)), usd(lane.cost)) for lane in rows]
    header = ("step", "attempts", "time", "cost")
    widths = [
        max(len(header[i]), *(len(row[i]) for row in named)) if named else len(header[i]) for i in range(4)
    ]
    widths[0] = min(widths[0], 28)
    if not any(row[3] for row in named):
        widths[3] = 0
    left = sum(width + 2 for width in widths if width)
    axis = Axis(start, end, max(screen.width - left - 3, 10))
    pointed = sorted({axis.cell(mark.at): mark for mark in marks}.items())
    screen.print("  ", _columns([(name, "dim") for name in header], widths), _scale(screen, axis, pointed))
    used: set[str] = set()
    for lane, texts in zip(rows, named, strict=True):
        style = {"failed": "red", "timed_out": "red"}.get(lane.status, "")
        spans = [(texts[0], style), (texts[1], "yellow" if lane.failed + lane.cut else "dim"), (texts[2], ""),
                 (texts[3], "")]  # fmt: skip
        bar = _bar(screen, lane, axis, end, [cell for cell, _ in pointed], used)
        screen.print("  ", _columns(spans, widths), bar)
    _legend(screen, used)


def _name(lane: Lane) -> str:
    name = visible(lane.name)
    return f"{name} {TIMES}{lane.steps}" if lane.steps > 1 else name.removesuffix("#1")


def _time(lane: Lane, end: datetime) -> float:
    """Seconds of all its attempts, those that still run included."""
    open_since = [segment.start for segment in lane.segments if segment.end is None]
    return lane.active_s + sum((end - start).total_seconds() for start in open_since)


def _attempts(lane: Lane) -> str:
    notes = [
        f"{number} {word}" for number, word in ((lane.failed, "failed"), (lane.cut, "cut off")) if number
    ]
    if lane.kind != "step":
        return ""
    return f"{lane.attempts}" + (f" ({', '.join(notes)})" if notes else "")


def _columns(spans: Sequence[Span], widths: Sequence[int]) -> Line:
    line: Line = []
    for i, ((text, style), width) in enumerate(zip(spans, widths, strict=True)):
        if width:
            text = clip(text, width)
            line += [(text.rjust(width) if i >= 2 else text.ljust(width), style), ("  ", "")]
    return line


def _scale(screen: Screen, axis: Axis, pointed: Sequence[tuple[int, Mark]]) -> Line:
    """`0 s … 4.7 s` with the marks' labels where they fit."""
    cells = [" "] * axis.width
    bold: set[int] = set()
    for cell, mark in pointed:
        arrow = "▼" if screen.unicode else "v"
        after, before = f"{arrow} {mark.label}", f"{mark.label} {arrow}"
        for label, at in ((after, cell), (before, cell - len(before) + 1), (arrow, cell)):
            free = at >= 0 and at + len(label) <= axis.width
            if free and all(c == " " for c in cells[max(at - 1, 0) : at + len(label) + 1]):
                cells[at : at + len(label)] = label
                bold.update(range(at, at + len(label)))
                break
    end = seconds(axis.total_s)
    for text, at in (("0 s", 0), (end, axis.width - len(end))):
        if all(c == " " for c in cells[max(at - 1, 0) : at + len(text) + 1]):
            cells[at : at + len(text)] = text
    return [(c, "bold yellow" if i in bold else "dim") for i, c in enumerate(cells)]


def _bar(
    screen: Screen, lane: Lane, axis: Axis, end: datetime, pointed: Sequence[int], used: set[str]
) -> Line:
    cells: list[str] = [""] * axis.width
    for segment in lane.segments:
        used.add(segment.kind)
        for i in range(axis.cell(segment.start), axis.cell(segment.end or end) + 1):
            if not cells[i] or _RANK[segment.kind] > _RANK[cells[i]]:
                cells[i] = segment.kind
    line: Line = []
    for i, kind in enumerate(cells):
        if kind:
            glyph, plain, style, _ = GLYPHS[kind]
            line.append((glyph if screen.unicode else plain, style))
        else:
            line.append((("┊" if screen.unicode else "|") if i in pointed else " ", "yellow"))
    return line


def _legend(screen: Screen, used: set[str]) -> None:
    line: Line = [("  ", "")]
    for kind, (glyph, plain, style, meaning) in GLYPHS.items():
        if kind in used:
            line += [(glyph if screen.unicode else plain, style), (f" {meaning}   ", "dim")]
    if used - {"run"}:
        screen.print(line)


def summary(row: dict[str, Any]) -> str:
    """`97 steps, 107 attempts, 2 retries` of a row of `runs`."""
    parts = [count(row["steps_total"], "step"), count(row["attempts"], "attempt")]
    if row["retries"]:
        parts.append(count(row["retries"], "retry", "retries"))
    if row["recoveries"]:
        parts.append(f"{row['recoveries']} cut off")
    return ", ".join(parts)
