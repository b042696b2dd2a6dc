"""What becomes a lane: attempts at steps, sleeps, waits, gates, maps, children and pauses of one run."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import pairwise

import msgspec

from ..events.stream import Row as Entry
from ..events.wait_events import STEP_RUN
from .fan_out_rows import FanOutRow
from .gate_row import GateRow
from .gates import stages
from .lanes import Lane, Segment
from .reading import RunRewound, Seen
from .reading_waits import ChildCancelled, ChildEnded, ChildStarted
from .step_row import StepRow
from .timers import TimerRow
from .waits import WaitRow
from .words import count

Signs = Sequence[tuple[datetime, datetime]]
"""For each time a new owner came: the last event before, and its claim."""

_KINDS = {
    "failed": "failed", "timed_out": "failed", "retrying": "failed", "unknown": "cut", "interrupted": "cut",
    "cancelled": "cancelled",
}  # fmt: skip
time = datetime.fromisoformat


def last_signs(rows: Sequence[Entry], claims: Sequence[datetime]) -> Signs:
    """When the run's earlier owners were last heard of."""
    if not claims:
        return ()
    found = []
    for before, row in pairwise(rows):
        if row.tag == "run.claimed":
            found.append((_at(before), _at(row)))
    return found


def _at(row: Entry) -> datetime:
    return time(msgspec.json.decode(row.state, type=Seen).at)


# ---- steps and maps --------------------------------------------------------------------------------------


def steps_and_maps(
    steps: Iterable[StepRow], maps: Sequence[FanOutRow], children: Sequence[Lane], signs: Signs, *, full: bool
) -> list[Lane]:
    """A lane for each step, each map and each child; of a map's items only when `full`.

    Args:
        steps: in the order of their numbers, the attempts at each in order.
        children: their lanes; those of maps are told by their numbers.
    """
    shared = {row.fan_out: _map_lane(row) for row in maps}
    found: dict[int, Lane] = {}
    for row in steps:
        lane = None if full or not row.fan_out else shared.get(row.fan_out)
        if lane is None:
            lane = found.get(row.step)
            if lane is None:
                lane = found[row.step] = _step_lane(row)
            _tell(lane, row)
        _add_attempt(lane, row, signs)
    own = []
    for child in children:
        place = next((s for s in maps if s.fan_out < child.number <= s.fan_out + s.total), None)
        if place is None or full:
            own.append(child)
        else:
            lane = shared[place.fan_out]
            lane.segments += child.segments
            lane.active_s, lane.cost = lane.active_s + child.active_s, lane.cost + child.cost
    if full:
        for whole in maps:
            shared[whole.fan_out].segments = [Segment(time(whole.opened_at), _time(whole.closed_at), "wait")]
    return [*shared.values(), *found.values(), *own]


def _step_lane(row: StepRow) -> Lane:
    if row.undoes:
        return Lane(f"undo {row.undoes}", "undo", task=row.task, number=row.step)
    return Lane(row.key, "step", task=row.task, number=row.step)


def _tell(lane: Lane, row: StepRow) -> None:
    lane.status = row.status
    if row.status == "unknown":
        lane.note = "in doubt"
    elif row.status == "compensated":
        lane.note = "undone"
    elif row.status == "skipped":
        lane.note = f"skipped by {who(row.skipped_by)}" if row.skipped_by else "left out"


def _add_attempt(lane: Lane, row: StepRow, signs: Signs) -> None:
    kind = _KINDS.get(row.status, "undo" if row.undoes else "run")
    if row.cost_usd != "0":
        lane.cost += Decimal(row.cost_usd)
    if row.started_at is None:
        return
    lane.active_s += row.duration_s or 0.0
    lane.attempts += 1
    lane.failed += kind == "failed"
    lane.cut += kind == "cut"
    start, end = time(row.started_at), _time(row.ended_at)
    if lane.segments and lane.segments[-1].kind == "retry":
        lane.segments[-1] = Segment(lane.segments[-1].start, start, "retry")
    if kind == "cut" and row.duration_s is None:  # nobody knows its end: draw it to the last sign of life
        end = next((last for last, claimed in signs if start <= last < claimed), end)
    lane.segments.append(Segment(start, end, kind))
    if row.retry_at is not None and end is not None and lane.kind != "map":
        if row.status == "retrying":
            lane.segments.append(Segment(end, None, "retry"))
        elif row.superseded:  # until the next attempt, whose row is the next one
            lane.segments.append(Segment(end, time(row.retry_at), "retry"))


def _map_lane(row: FanOutRow) -> Lane:
    lane = Lane(f"map {row.name}", "map", row.total, task=row.task, number=row.fan_out)
    lane.note = f"{row.completed:,} of {row.total:,} completed"
    for number, word in (
        (row.failed, "failed"), (row.running, "running"), (row.skipped, "left out"),
        (row.cancelled, "given up"),
    ):  # fmt: skip
        if number:
            lane.note += f", {number:,} {word}"
    lane.status = "running" if row.closed_at is None else "failed" if row.failed else "completed"
    return lane


# ---- waits -----------------------------------------------------------------------------------------------


def sleeps(rows: Iterable[TimerRow], gates: Iterable[GateRow], waits: Iterable[WaitRow]) -> Iterator[Lane]:
    """Timers, but for deadlines that were not reached, and those of gates, whose lanes say as much."""
    due = Counter(stage.due_at for gate in gates for stage in stages(gate))
    opened = {row.wait: row.opened_at for row in waits}
    for row in rows:
        if due[row.due_at]:
            due[row.due_at] -= 1
        elif row.status not in ("cancelled", "ended"):
            status = "waiting" if row.status == "open" else "completed"
            # Begun with the wait after it: its deadline as a rule, though the log does not say so.
            name = "timer" if opened.get(row.timer + 1) == row.started_at else "sleep"
            yield _span(name, "sleep", row.timer, row.started_at, row.closed_at, status)


def waits(rows: Iterable[WaitRow]) -> Iterator[Lane]:
    """Waits for events."""
    for row in rows:
        if not row.wait:  # what came early
            continue
        lane = _span(
            f"wait for {row.name}", "wait", row.wait, row.opened_at, row.closed_at, _STATUS[row.status]
        )
        if row.status == "received" and row.received_by:
            lane.note = f"sent by {who(row.received_by)}"
        elif row.status == "cancelled":
            lane.note = "given up"
        yield lane


_STATUS = {"open": "waiting", "received": "completed", "cancelled": "cancelled", "ended": "cancelled"}


def gates(rows: Iterable[GateRow]) -> Iterator[Lane]:
    """Approvals and questions, with how they were decided and by whom."""
    for row in rows:
        status = "waiting" if row.status == "open" else "cancelled" if row.status == "ended" else row.status
        lane = _span(row.name, row.kind, row.gate, row.opened_at, row.decided_at, status)
        lane.task, lane.note = row.task, _decision(row)
        yield lane


def _decision(row: GateRow) -> str:
    if row.status == "open":
        stage = f", escalated {count(row.stage, 'time')}" if row.stage else ""
        if row.kind == "input":
            return f"open{stage}"
        return f"open, {row.approvals} of {count(row.approvals_needed, 'approval')}{stage}"
    if row.status == "timed_out":
        means = {"reject": "rejected", "approve": "approved", "fail": "failed"}.get(
            row.timeout_means, "went on"
        )
        return f"timed out: {means}"
    if row.status in ("cancelled", "ended"):
        return "given up"
    return f"{row.status} by {who(row.decided_by)}"


def who(by: str) -> str:
    """`ana` of `user:ana`."""
    return by.removeprefix("user:") or "nobody"


def _span(name: str, kind: str, number: int, opened_at: str, closed_at: str | None, status: str) -> Lane:
    start, end = time(opened_at), _time(closed_at)
    lane = Lane(name, kind, status=status, number=number, segments=[Segment(start, end, "wait")])
    if end is not None:
        lane.active_s = (end - start).total_seconds()
    return lane


def _time(at: str | None) -> datetime | None:
    return None if at is None else time(at)


# ---- children and pauses, from their events ----------------------------------------------------------------


def children(rows: Iterable[Entry], ended_at: datetime | None) -> list[Lane]:
    """The runs that it started. A child's status is the one that its parent was told."""
    found: dict[int, Lane] = {}
    for row in rows:
        if row.tag == "child.started":
            start = msgspec.json.decode(row.state, type=ChildStarted)
            step = start.workflow.removeprefix(STEP_RUN)
            called = f"child {step}" if step == start.workflow else f"{step} on {start.run_on}"
            found[start.child] = Lane(
                called, "child", status="running", task=start.task, run_id=start.run_id,
                segments=[Segment(time(start.at), None, "child")], number=start.child, note="running",
            )  # fmt: skip
            if start.detached:
                _end(found[start.child], time(start.at), "detached")
        elif row.tag == "child.ended":
            told = msgspec.json.decode(row.state, type=ChildEnded)
            if (lane := found.get(told.child)) is not None:
                _end(lane, time(told.at), told.status)
                lane.run_id, lane.cost = told.run_id, lane.cost + told.spent.usd
        elif row.tag == "child.cancelled":
            gone = msgspec.json.decode(row.state, type=ChildCancelled)
            if gone.child in found:
                _end(found[gone.child], time(gone.at), "cancelled")
        elif row.tag == "run.rewound":
            back = msgspec.json.decode(row.state, type=RunRewound)
            for number in back.dropped:
                found.pop(number, None)
            for number in back.children:
                if number in found:
                    lane = found[number]
                    lane.status = lane.note = "running"
                    lane.segments, lane.active_s = [Segment(lane.segments[0].start, None, "child")], 0.0
    if ended_at is not None:
        for lane in found.values():
            if lane.status == "running":
                _end(lane, ended_at, "cancelled")
    return list(found.values())


def _end(lane: Lane, at: datetime, status: str) -> None:
    start = lane.segments[0].start
    kind = {"failed": "failed", "cancelled": "cancelled", "terminated": "cancelled"}.get(status, "child")
    lane.segments, lane.status, lane.note = [Segment(start, at, kind)], status, status.replace("_", " ")
    lane.active_s = (at - start).total_seconds()


class _By(Seen, frozen=True):
    by: str = ""


def pauses(rows: Iterable[Entry], ended_at: datetime | None) -> list[Lane]:
    """One lane for all pauses of the run; none when it was never paused."""
    lane = Lane("paused", "paused", 0, status="completed")
    since: _By | None = None
    for row in rows:
        if row.tag == "run.paused" and since is None:
            since = msgspec.json.decode(row.state, type=_By)
            lane.steps += 1
            lane.note = f"by {who(since.by)}"
        elif row.tag == "run.resumed" and since is not None:
            _pause(lane, time(since.at), _at(row))
            since = None
    if since is not None:
        _pause(lane, time(since.at), ended_at)
        lane.status = "waiting" if ended_at is None else "completed"
    return [lane] if lane.steps else []


def _pause(lane: Lane, start: datetime, end: datetime | None) -> None:
    lane.segments = [*lane.segments, Segment(start, end, "paused")]
    if end is not None:
        lane.active_s += (end - start).total_seconds()
