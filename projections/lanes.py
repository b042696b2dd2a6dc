"""A run over time: a lane for each step, sleep and wait; what every drawing of it starts from."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any

from msgspec import Struct

from ..events import types as t
from ..events.clock import moment
from ..events.registry import Unknown
from ..events.types import Event

MANY = 24
"""More lanes than this, and those of one name share one."""

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


def lanes_of(
    steps: Sequence[dict[str, Any]], events: Iterable[Event | Unknown], *, full: bool = False
) -> list[Lane]:
    """Lanes of a run, by the time they begin: from its rows of `steps` (one per attempt) and its history."""
    history = [event for event in events if isinstance(event, Event)]
    signs = _last_signs(history)
    found: dict[int, Lane] = {}
    for row in steps:
        lane = found.setdefault(row["step"], Lane(row["key"], "step"))
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
            lane = Lane(f"wait for {event.name}", "wait", status="waiting")
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
