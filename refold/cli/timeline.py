"""A run as text bars: a lane for all that it did and waited for, over one axis of time."""

from collections.abc import Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

from ..projections.bars import KINDS, Axis, cells
from ..projections.lanes import Lane, Mark
from .screen import Screen
from .text import Line, Span, clip, count, seconds, usd, visible

TIMES = "\N{MULTIPLICATION SIGN}"
NAME_WIDTH = 28
NOTE_WIDTH = 34

GLYPHS = {
    # kind: (glyph, ASCII glyph, style)
    "wait": ("·", ".", "cyan"),
    "retry": ("╌", "~", "yellow"),
    "paused": ("=", "=", "yellow"),
    "child": ("▄", "%", "blue"),
    "run": ("█", "#", "green"),
    "undo": ("▚", "u", "magenta"),
    "cancelled": ("░", "-", "dim"),
    "failed": ("▓", "x", "red"),
    "cut": ("▒", "!", "yellow"),
}
_BAD = {"failed": "red", "timed_out": "red", "rejected": "red", "unknown": "yellow", "waiting": "cyan"}


def draw(
    screen: Screen, rows: Sequence[Lane], start: datetime, end: datetime, marks: Sequence[Mark] = ()
) -> None:
    """Print the lanes with their bars from `start` to `end`, the marks pointed at, and a legend."""
    for line in lines(screen, rows, start, end, marks):
        screen.print(line)


def lines(
    screen: Screen, rows: Sequence[Lane], start: datetime, end: datetime, marks: Sequence[Mark] = ()
) -> list[Line]:
    """The same, as lines to print."""
    named = [
        (_name(screen, lane), _came_to(lane), seconds(lane.seconds_until(end)), usd(lane.cost))
        for lane in rows
    ]
    header = ("step", "attempts", "time", "cost")
    widths = [max(len(header[i]), *(len(row[i]) for row in named), 0) for i in range(4)]
    widths[0], widths[1] = min(widths[0], NAME_WIDTH), min(widths[1], NOTE_WIDTH)
    if not any(row[3] for row in named):
        widths[3] = 0
    left = sum(width + 2 for width in widths if width)
    axis = Axis(start, end, max(screen.width - left - 3, 10))
    pointed = sorted({axis.cell(mark.at): mark for mark in marks}.items())
    top = _columns([(name, "dim") for name in header], widths)
    found: list[Line] = [[("  ", ""), *top, *_scale(screen, axis, pointed)]]
    used: set[str] = set()
    for lane, texts in zip(rows, named, strict=True):
        trouble = "yellow" if lane.failed + lane.cut else "" if lane.note else "dim"
        spans = [(texts[0], _BAD.get(lane.status, "")), (texts[1], trouble), (texts[2], ""), (texts[3], "")]
        kinds = cells(lane, axis, end)
        used.update(kinds)
        found.append([("  ", ""), *_columns(spans, widths), *_bar(screen, kinds, pointed)])
    return found + _legend(screen, used)


def _name(screen: Screen, lane: Lane) -> str:
    name = visible(lane.name)
    indent = "  " * min(lane.depth, 3)
    if lane.kind == "child" and lane.run_id:
        name = visible(lane.run_id)
    return indent + (
        f"{name} {TIMES if screen.unicode else 'x'}{lane.steps}"
        if lane.steps > 1
        else name.removesuffix("#1")
    )


def _came_to(lane: Lane) -> str:
    if lane.kind in ("step", "undo", "map") and not (lane.kind == "map" and lane.note):
        pairs = ((lane.failed, "failed"), (lane.cut, "cut off"))
        notes = [f"{number} {word}" for number, word in pairs if number]
        notes += [visible(lane.note)] if lane.note else []
        return f"{lane.attempts}" + (f" ({', '.join(notes)})" if notes else "")
    if lane.kind == "child":
        return f"{visible(lane.name)}: {visible(lane.note)}" if lane.note else ""
    return visible(lane.note)


def _columns(spans: Sequence[Span], widths: Sequence[int]) -> Line:
    line: Line = []
    for i, ((text, style), width) in enumerate(zip(spans, widths, strict=True)):
        if width:
            text = clip(text, width)
            line += [(text.rjust(width) if i >= 2 else text.ljust(width), style), ("  ", "")]
    return line


def _scale(screen: Screen, axis: Axis, pointed: Sequence[tuple[int, Mark]]) -> Line:
    """`0 s … 4.7 s` with the marks' labels where they fit."""
    found = [" "] * axis.width
    bold: set[int] = set()
    for cell, mark in pointed:
        arrow = "▼" if screen.unicode else "v"
        after, before = f"{arrow} {mark.label}", f"{mark.label} {arrow}"
        for label, at in ((after, cell), (before, cell - len(before) + 1), (arrow, cell)):
            free = at >= 0 and at + len(label) <= axis.width
            if free and all(c == " " for c in found[max(at - 1, 0) : at + len(label) + 1]):
                found[at : at + len(label)] = label
                bold.update(range(at, at + len(label)))
                break
    end = seconds(axis.total_s)
    for text, at in (("0 s", 0), (end, axis.width - len(end))):
        if all(c == " " for c in found[max(at - 1, 0) : at + len(text) + 1]):
            found[at : at + len(text)] = text
    styles = groupby(enumerate(found), key=lambda at: "bold yellow" if at[0] in bold else "dim")
    return [("".join(c for _, c in run), style) for style, run in styles]


def _bar(screen: Screen, kinds: Sequence[str], pointed: Sequence[tuple[int, Mark]]) -> Line:
    marked = {cell for cell, _ in pointed}
    line: Line = []
    for i, kind in enumerate(kinds):
        if kind:
            glyph, plain, style = GLYPHS[kind]
            piece = (glyph if screen.unicode else plain, style)
        else:
            piece = (("┊" if screen.unicode else "|") if i in marked else " ", "yellow")
        if line and line[-1][1] == piece[1]:
            piece = (line.pop()[0] + piece[0], piece[1])
        line.append(piece)
    return line


def _legend(screen: Screen, used: set[str]) -> list[Line]:
    line: Line = [("  ", "")]
    for kind, meaning in KINDS.items():
        if kind in used:
            glyph, plain, style = GLYPHS[kind]
            line += [(glyph if screen.unicode else plain, style), (f" {meaning}   ", "dim")]
    return [line] if used - {"run", ""} else []


def summary(row: dict[str, Any]) -> str:
    """`97 steps, 107 attempts, 2 retries` of a row of `runs`."""
    parts = [count(row["steps_total"], "step"), count(row["attempts"], "attempt")]
    if row["retries"]:
        parts.append(count(row["retries"], "retry", "retries"))
    if row["recoveries"]:
        parts.append(f"{row['recoveries']} cut off")
    return ", ".join(parts)
