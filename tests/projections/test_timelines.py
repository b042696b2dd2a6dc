"""A run over time: each thing it did or waited for has its lane, at any moment of any history."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from xml.etree import ElementTree

import pytest
from msgspec import Raw

from refold.events import types as t
from refold.events.registry import encode_event
from refold.events.stream import Row
from refold.projections.bars import KINDS, Axis, cells, stretches
from refold.projections.lanes import Lane, Segment
from refold.projections.picture import COLOURS, picture
from refold.projections.timelines import Timeline, timeline_of
from tests.replay.golden import FOLDER, read

START = datetime(2026, 1, 1, tzinfo=UTC)


def at(second: float) -> datetime:
    return START + timedelta(seconds=second)


def history(*events: t.Event) -> list[Row]:
    begin = t.RunStarted(
        id="1", at=START, workflow="ship", workflow_version="1", args=Raw(b"[]"), seed=1
    )  # fmt: skip
    claim = t.RunClaimed(id="2", at=START, owner="a", generation=1)
    every = (begin, claim, *events)
    return [Row("run-1", n, e.TAG, encode_event(e), b"", n) for n, e in enumerate(every, 1)]


def called(number: int, name: str = "charge", **more: object) -> t.StepScheduled:
    return t.StepScheduled(
        id="s", at=at(number), step=number, name=name, key=f"{name}#{number}", args=Raw(b"[]"),
        **more,  # type: ignore[arg-type]
    )  # fmt: skip


def lane(found: Timeline, name: str) -> Lane:
    (one,) = [lane for lane in found.lanes if lane.name == name]
    return one


def since(moment: datetime) -> float:
    return (moment - START).total_seconds()


def spans(lane: Lane) -> list[tuple[float, float | None, str]]:
    return [
        (
            (s.start - START).total_seconds(),
            None if s.end is None else (s.end - START).total_seconds(),
            s.kind,
        )
        for s in lane.segments
    ]


FAILURE = t.Failure(type="ValueError", message="no")


def test_attempts_at_a_step_and_the_time_between_them_are_one_lane() -> None:
    failed = t.StepAttemptFailed(id="f", at=at(2), step=1, attempt=1, error=FAILURE, retry_at=at(5))
    cost = t.CostRecorded(id="c", at=at(2), step=1, attempt=1, usd=Decimal("0.5"))
    so_far = [called(1), t.StepStarted(id="b", at=at(1), step=1), cost, failed]
    charge = lane(timeline_of(history(*so_far)), "charge#1")
    assert spans(charge) == [(1, 2, "failed"), (2, None, "retry")]
    assert charge.seconds_until(at(9)) == 1  # of work; waiting for the next attempt is none
    again = [t.StepStarted(id="b", at=at(5.5), step=1, attempt=2)]
    done = [t.StepCompleted(id="d", at=at(7), step=1, attempt=2, result=Raw(b"1"))]
    charge = lane(timeline_of(history(*so_far, *again, *done)), "charge#1")
    assert spans(charge) == [(1, 2, "failed"), (2, 5.5, "retry"), (5.5, 7, "run")]
    assert (charge.attempts, charge.failed, charge.cost) == (2, 1, Decimal("0.5"))


def test_the_deadline_of_a_gate_is_no_sleep_of_its_own() -> None:
    """Open or reached: the gate's own lane says as much. A sleep beside it is one."""
    opened = t.GateOpened(
        id="g", at=at(1), gate=1, kind="approval", name="approval#1", prompt="?", due_at=at(5)
    )
    started = [t.TimerStarted(id="t", at=at(1), timer=n, due_at=at(due)) for n, due in ((2, 5), (3, 4))]
    so_far = [opened, *started]
    for events in (so_far, [*so_far, t.TimerFired(id="f", at=at(5), timer=2)]):
        found = timeline_of(history(*events))
        assert [(lane.name, lane.number) for lane in found.lanes] == [("approval#1", 1), ("sleep", 3)]


def test_a_timer_begun_with_the_wait_after_it_is_not_called_a_sleep() -> None:
    timer = t.TimerStarted(id="t", at=at(1), timer=1, due_at=at(5))
    wait = t.WaitOpened(id="w", at=at(1), wait=2, name="go")
    assert [lane.name for lane in timeline_of(history(timer, wait)).lanes] == ["timer", "wait for go"]


def test_an_attempt_that_a_crash_cut_off_is_drawn_to_the_last_sign_of_life() -> None:
    found = timeline_of(
        history(
            called(1), called(2),
            t.StepStarted(id="b", at=at(2), step=1), t.StepStarted(id="b", at=at(3), step=2),
            t.RunClaimed(id="x", at=at(60), owner="b", generation=2),
            t.StepInterrupted(id="i", at=at(60), step=1, attempt=1),
        )
    )  # fmt: skip
    assert spans(lane(found, "charge#1")) == [(2, 3, "cut")]
    assert [(mark.at, mark.label) for mark in found.marks] == [(at(60), "owner 2")]


def test_people_decide_in_a_lane_that_says_how_and_who() -> None:
    opened = t.GateOpened(
        id="g", at=at(1), gate=1, kind="approval", name="approval#1", prompt="?", approvers=2
    )
    first = t.GateVoted(id="v", at=at(2), gate=1, vote="approve", by="user:ana")
    last = t.GateVoted(id="v", at=at(3), gate=1, vote="approve", decides="approved", by="user:bo")
    gate = lane(timeline_of(history(opened, first)), "approval#1")
    assert (gate.note, spans(gate)) == ("open, 1 of 2 approvals", [(1, None, "wait")])
    gate = lane(timeline_of(history(opened, first, last)), "approval#1")
    assert (gate.note, gate.status, spans(gate)) == ("approved by bo", "approved", [(1, 3, "wait")])
    closed = t.GateClosed(id="v", at=at(3), gate=1, outcome="timed_out", then="reject")
    assert lane(timeline_of(history(opened, closed)), "approval#1").note == "timed out: rejected"


def test_a_child_has_a_lane_that_leads_to_its_run() -> None:
    begin = t.ChildStarted(
        id="c", at=at(1), child=1, run_id="run-1~1", workflow="insure", version="1", args=Raw(b"[]")
    )  # fmt: skip
    spent = t.Spent(usd=Decimal("0.25"))
    end = t.ChildEnded(id="e", at=at(4), child=1, run_id="run-1~1b", status="failed", spent=spent)
    child = lane(timeline_of(history(begin)), "child insure")
    assert (child.run_id, child.note, spans(child)) == ("run-1~1", "running", [(1, None, "child")])
    child = lane(timeline_of(history(begin, end)), "child insure")
    assert (child.run_id, child.note, spans(child)) == ("run-1~1b", "failed", [(1, 4, "failed")])
    assert child.cost == Decimal("0.25")


def test_a_map_is_one_lane_with_its_counts_unless_every_item_is_asked_for() -> None:
    opened = t.FanOutOpened(
        id="o", at=at(1), fan_out=1, name="charge", items=Raw(b"[1,2,3]"), count=3, limit=0
    )
    items = [called(n, fan_out=1, item=n - 2) for n in (2, 3)]
    starts = [t.StepStarted(id="b", at=at(4), step=n) for n in (2, 3)]
    done = t.StepCompleted(id="d", at=at(6), step=2, result=Raw(b"1"))
    failed = t.StepFailed(id="f", at=at(7), step=3, error=FAILURE)
    rows = history(opened, *items, *starts, done, failed)
    (only,) = timeline_of(rows).lanes
    assert (only.name, only.steps, only.attempts) == ("map charge", 3, 2)
    assert only.note == "1 of 3 completed, 1 failed"
    assert spans(only) == [(4, 6, "run"), (4, 7, "failed")]
    assert [lane.name for lane in timeline_of(rows, full=True).lanes] == [
        "map charge",
        "charge#2",
        "charge#3",
    ]


def test_pauses_and_undoing_have_lanes() -> None:
    found = timeline_of(
        history(
            t.RunPaused(id="p", at=at(1), by="user:ana"), t.RunResumed(id="p", at=at(3)),
            t.RunPaused(id="p", at=at(4), by="user:bo"),
            called(5, "release", kind="compensation", undoes="hold#1"),
            t.StepStarted(id="b", at=at(6), step=5),
        )
    )  # fmt: skip
    paused = lane(found, "paused")
    assert spans(paused) == [(1, 3, "paused"), (4, None, "paused")]
    assert paused.note == "by bo"
    assert (
        spans(lane(found, "undo hold#1")) == [(6, None, "run")]
        or "undo" in spans(lane(found, "undo hold#1"))[0]
    )


def test_what_a_rewind_has_taken_back_has_no_lane() -> None:
    begin = t.ChildStarted(
        id="c", at=at(1), child=1, run_id="run-1~1", workflow="insure", version="1", args=Raw(b"[]")
    )  # fmt: skip
    slept = [
        t.TimerStarted(id="t", at=at(2), timer=2, due_at=at(9)),
        t.WaitOpened(id="w", at=at(2), wait=3, name="go"),
        called(4),
    ]
    before = timeline_of(history(begin, *slept))
    assert [lane.kind for lane in before.lanes] == ["child", "sleep", "wait", "step"]
    rewound = t.RunRewound(id="r", at=at(5), to=2, dropped=(1, 2, 3, 4))
    assert timeline_of(history(begin, *slept, rewound)).lanes == []


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.jsonl"))[::3], ids=lambda path: path.stem)
def test_any_moment_of_any_history_can_be_drawn(path: object) -> None:
    _, stored = read(path)  # type: ignore[arg-type]
    rows = [Row(stored.run_id, n, tag, state, b"", n) for n, (tag, state) in enumerate(stored.rows, 1)]
    for length in {*range(1, len(rows), max(1, len(rows) // 5)), len(rows)}:
        found = timeline_of(rows[:length])
        full = timeline_of(rows[:length], full=True)
        assert len(found.lanes) <= len(full.lanes)
        assert sum(lane.cost for lane in found.lanes) == sum(lane.cost for lane in full.lanes)
        for one in (*found.lanes, *full.lanes):
            assert all(s.end is None or s.start <= s.end for s in one.segments), one
            if found.end is not None and one.kind != "step":
                assert all(s.end is not None for s in one.segments), one
        ElementTree.fromstring(picture(full, found.end or at(10**9)))


def test_cells_of_one_kind_are_one_stretch_and_trouble_covers_the_rest() -> None:
    axis = Axis(at(0), at(10), 10)
    lane = Lane("a", "step", segments=[Segment(at(0), at(7), "run"), Segment(at(2), at(3), "failed")])
    assert stretches(cells(lane, axis, at(10))) == [(0, 2, "run"), (2, 4, "failed"), (4, 8, "run")]
    lane.steps = 2  # of two, one failed: a point, so that the other is seen
    assert stretches(cells(lane, axis, at(10))) == [(0, 3, "run"), (3, 4, "failed"), (4, 8, "run")]
    assert stretches([]) == []
    assert COLOURS.keys() == KINDS.keys()
