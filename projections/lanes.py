"""Lanes: a row of a timeline for each thing that a run did or waited for, whatever draws them."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from decimal import Decimal

from msgspec import Struct

MANY = 24
"""More lanes than this, and those of one name share one."""
_LAST = datetime.max.replace(tzinfo=UTC)


class Segment(Struct, frozen=True):
    """A stretch of a lane; `end` None: not over yet."""

    start: datetime
    end: datetime | None
    kind: str
    """`run`, `child`, `undo`, `failed`, `cut` (off by a crash), `cancelled`, `retry` (the time until
    the next attempt), `wait` or `paused`."""


class Lane(Struct):
    """One row of a timeline. Its words come from the log as they are: escape them for where they go."""

    name: str
    kind: str
    """`step`, `undo`, `map`, `sleep`, `wait`, `approval`, `input`, `child` or `paused`."""
    steps: int = 1
    attempts: int = 0
    failed: int = 0
    cut: int = 0
    status: str = ""
    active_s: float = 0.0
    """Seconds of the segments that are over, pauses between attempts left out."""
    cost: Decimal = Decimal(0)
    segments: list[Segment] = []
    note: str = ""
    """What came of it, in words: `approved by ana`, `9,980 of 10,000 completed`."""
    task: str = ""
    """Path of the handler's task that asked for it: `m` the handler itself, `m.2` a task that it started."""
    run_id: str = ""
    """Of a child."""
    number: int = 0
    """Its number among the commands of the run; 0 for what is none."""

    @property
    def start(self) -> datetime | None:
        return min((segment.start for segment in self.segments), default=None)

    @property
    def depth(self) -> int:
        """0: of the handler itself; 1: of a branch, or a task that it started …"""
        return self.task.count(".")

    def seconds_until(self, now: datetime) -> float:
        """`active_s` and what is not over yet."""
        going = [s.start for s in self.segments if s.end is None and s.kind != "retry"]
        return self.active_s + sum(max((now - start).total_seconds(), 0.0) for start in going)


class Mark(Struct, frozen=True):
    """A moment to point at."""

    at: datetime
    label: str


def in_order(lanes: Iterable[Lane]) -> list[Lane]:
    """By the time they begin; what has not begun comes last, in the order in which it was asked for."""
    return sorted(lanes, key=lambda lane: (lane.start or _LAST, lane.number))


def merged(lanes: Sequence[Lane]) -> list[Lane]:
    """Lanes of one name as one."""
    found: dict[tuple[str, str], Lane] = {}
    for lane in lanes:
        base = lane.name.rpartition("#")[0] or lane.name if lane.kind != "child" else lane.name
        same = found.get((lane.kind, base))
        if same is None:
            found[lane.kind, base] = _copy(lane)
            continue
        same.name, same.note, same.run_id = base, "", ""
        same.steps += lane.steps
        same.attempts, same.failed, same.cut = (
            same.attempts + lane.attempts, same.failed + lane.failed, same.cut + lane.cut
        )  # fmt: skip
        same.active_s += lane.active_s
        if lane.cost:
            same.cost += lane.cost
        same.status = lane.status if same.status in ("completed", lane.status) else same.status
        same.task = min(same.task, lane.task, key=lambda task: (task.count("."), task))
        same.segments += lane.segments
    return list(found.values())


def _copy(lane: Lane) -> Lane:
    return Lane(
        lane.name, lane.kind, lane.steps, lane.attempts, lane.failed, lane.cut, lane.status, lane.active_s,
        lane.cost, list(lane.segments), lane.note, lane.task, lane.run_id, lane.number,
    )  # fmt: skip
