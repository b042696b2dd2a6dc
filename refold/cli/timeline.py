"""A run as text bars: a lane for each step, sleep and wait, over one axis of time."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any

from msgspec import Struct

from ..events import types as t
from ..events.registry import Unknown
from ..events.types import Event
from .screen import Screen
from .text import Line, Span, clip, count, moment, seconds, usd, visible

MANY = 24
"""More lanes than this, and those of one name share one."""

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
_KINDS = {
    "failed": "failed", "timed_out": "failed", "retrying": "failed", "unknown": "cut", "interrupted": "cut",
    "cancelled": "cancelled",
}  # fmt: skip


class Segment(Struct, frozen=True):
    """A stretch of a lane; `end` None: not over yet."""

    start: datetime
    end: datetime | None
    kind: str


class Lane(Struct):
    """One row of the timeline."""

    name: str
    kind: str
    """`step`, `sleep` or `wait`."""
    steps: int = 1
    attempts: int = 0
    failed: int = 0
    cut: int = 0
    status: str = ""
    active_s: float = 0.0
    cost: Decimal = Decimal(0)
    segments: list[Segment] = []

    @property
    def start(self) -> datetime | None:
        return min((segment.start for segment in self.segments), default=None)


class Mark(Struct, frozen=True):
    """A moment to point at."""

    at: datetime
    label: str


# ---- lanes --------------------------------------------------------------------------------------


def lanes(
    steps: Sequence[dict[str, Any]], events: Iterable[Event | Unknown], *, full: bool = False
) -> list[Lane]:
    """Lanes of a run, by the time they begin: from its rows of `steps` (one per attempt) and its history."""
    history = [event for event in events if isinstance(event, Event)]
    signs = _last_signs(history)
    found: dict[int, Lane] = {}
    for row in steps:
        lane = found.setdefault(row["step"], Lane(visible(row["key"]), "step"))
        _add_attempt(lane, row, signs)
    every = [*found.values(), *_sleeps(history), *_waits(history)]
    if not full and len(every) > MANY:
        every = _merged(every)
    last = history[-1].at if history else None
    return sorted(every, key=lambda lane: (lane.start is None, lane.start or last))


def _add_attempt(lane: Lane, row: dict[str, Any], signs: list[tuple[datetime, datetime]]) -> None:
    status = str(row["status"])
    kind = _KINDS.get(status, "run")
    lane.status = status
    lane.cost += row["cost_usd"]
    lane.active_s += row["duration_s"] or 0.0
    start, end = moment(row["started_at"]), moment(row["ended_at"])
    if start is None:
        return
    lane.attempts += 1
    lane.failed += kind == "failed"
    lane.cut += kind == "cut"
    if (
        kind == "cut" and row["duration_s"] is None
    ):  # nobody knows when it ended: draw it to the last sign of life
        end = next((last for last, claimed in signs if start <= last < claimed), end)
    lane.segments.append(Segment(start, end, kind))


def _last_signs(history: Sequence[Event]) -> list[tuple[datetime, datetime]]:
    """For each time a new owner came: the last event before, and its claim."""
    found = []
    for before, event in pairwise(history):
        if isinstance(event, t.RunClaimed) and event.generation > 1:
            found.append((before.at, event.at))
    return found


def claims(history: Iterable[Event | Unknown]) -> list[Mark]:
    """When the second and every later owner took the run."""
    taken = [event for event in history if isinstance(event, t.RunClaimed) and event.generation > 1]
    return [Mark(event.at, f"owner {event.generation}") for event in taken]


def _sleeps(history: Iterable[Event]) -> list[Lane]:
    found: dict[int, Lane] = {}
    for event in history:
        if isinstance(event, t.TimerStarted):
            found[event.timer] = Lane(
                "sleep", "sleep", status="waiting", segments=[Segment(event.at, None, "wait")]
            )
        elif isinstance(event, t.TimerFired | t.TimerCancelled) and event.timer in found:
            lane = found[event.timer]
            _close(lane, event.at, "completed" if isinstance(event, t.TimerFired) else "cancelled")
    return [lane for lane in found.values() if lane.status != "cancelled"]  # deadlines that were not reached


def _waits(history: Iterable[Event]) -> list[Lane]:
    found: dict[int, Lane] = {}
    open_waits: dict[str, list[int]] = {}
    kept: dict[str, int] = {}
    for event in history:
        if isinstance(event, t.WaitOpened):
            lane = Lane(f"wait for {visible(event.name)}", "wait", status="waiting")
            lane.segments = [Segment(event.at, None, "wait")]
            found[event.wait] = lane
            if kept.get(event.name, 0):
                kept[event.name] -= 1
                _close(lane, event.at, "completed")
            else:
                open_waits.setdefault(event.name, []).append(event.wait)
        elif isinstance(event, t.SignalReceived):
            if queue := open_waits.get(event.name):
                _close(found[queue.pop(0)], event.at, "completed")
            else:
                kept[event.name] = kept.get(event.name, 0) + 1
        elif isinstance(event, t.WaitCancelled) and event.wait in found:
            _close(found[event.wait], event.at, "cancelled")
            for queue in open_waits.values():
                if event.wait in queue:
                    queue.remove(event.wait)
    return list(found.values())


def _close(lane: Lane, at: datetime, status: str) -> None:
    start = lane.segments[0].start
    lane.segments = [Segment(start, at, "wait")]
    lane.status, lane.active_s = status, (at - start).total_seconds()


def _merged(every: Sequence[Lane]) -> list[Lane]:
    """Lanes of one name as one."""
    found: dict[tuple[str, str], Lane] = {}
    for lane in every:
        base = lane.name.rpartition("#")[0] if lane.kind == "step" else lane.name
        same = found.get((lane.kind, base))
        if same is None:
            found[lane.kind, base] = Lane(
                lane.name, lane.kind, 1, lane.attempts, lane.failed, lane.cut, lane.status, lane.active_s,
                lane.cost, list(lane.segments),
            )  # fmt: skip
            continue
        same.name, same.steps = base, same.steps + 1
        same.attempts, same.failed, same.cut = (
            same.attempts + lane.attempts, same.failed + lane.failed, same.cut + lane.cut
        )  # fmt: skip
        same.active_s, same.cost = same.active_s + lane.active_s, same.cost + lane.cost
        same.status = lane.status if same.status in ("completed", lane.status) else same.status
        same.segments += lane.segments
    return list(found.values())


# ---- drawing ------------------------------------------------------------------------------------


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
    return f"{lane.name} {TIMES}{lane.steps}" if lane.steps > 1 else lane.name.removesuffix("#1")


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
