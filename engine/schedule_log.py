"""A schedule as the log has it: two rows tell how it stands, however long it has been firing."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, cast

from msgspec import Struct

from ..events import types as t
from ..events.blobs import bring_back, put_all_away
from ..events.clock import new_event_id
from ..events.schedule_events import Defined, ScheduleEvent, ScheduleSkipped
from ..events.schedule_work import schedule_work
from ..events.store import Append, Post, Reading, Unit
from ..events.stream import SCHEDULES, Tail, chain
from .family import LAST_ROWS, NOTHING_ALONG, Along
from .schedule_rules import Skip


class Record(Struct, frozen=True):
    """One schedule."""

    stream: str
    tail: Tail
    last: ScheduleEvent
    plan: Defined

    @property
    def name(self) -> str:
        return self.stream.removeprefix(SCHEDULES)


def load(store: Reading, stream: str, known: Record | None = None) -> Record | None:
    """How a schedule stands, one that was deleted, too; None when there never was one.

    `known`: how it stood, perhaps not long ago.
    """
    tail = store.tail(stream)
    if not tail.version:
        return None
    if known is not None and known.tail == tail:
        return known
    row = store.read(stream, tail.version - 1, 1)[0]
    last = cast(ScheduleEvent, row.event())
    tail, defined = Tail(row.version, row.hash), last.standing.defined
    if known is not None and known.last.standing.defined == defined:
        return Record(stream, tail, last, known.plan)
    plan = last if defined == row.version else store.read(stream, defined - 1, 1)[0].event()
    return Record(stream, tail, last, cast(Defined, bring_back(plan, store.blob)))


def append(
    stream: str,
    tail: Tail,
    events: list[ScheduleEvent],
    along: Along = NOTHING_ALONG,
    posts: tuple[Post, ...] = (),
) -> tuple[Unit, Tail]:
    """What stores these events of a schedule, with its row of `work`; and where its stream ends then."""
    stored, blobs = put_all_away(events)
    rows, end = chain(stream, tail, stored)
    unit = Unit(
        (Append(stream, tail.version, rows, tail.hash), *along.appends),
        (schedule_work(stream, events[-1]), *along.works),
        (*posts, *along.posts),
        (*blobs, *along.blobs),
    )
    return unit, end


def head(last: ScheduleEvent | None, at: datetime, by: str) -> dict[str, Any]:
    """What the next event has of its own; log time never goes back."""
    return {"id": new_event_id(), "at": at if last is None else max(at, last.at), "by": by}


def skipped(skip: Skip, about: dict[str, Any]) -> ScheduleSkipped:
    """The event of times that do not become runs."""
    return ScheduleSkipped(
        first=skip.first, last=skip.last, count=skip.number, more=skip.more, reason=skip.reason,
        detail=skip.detail, **about,
    )  # fmt: skip


def goes_on(store: Reading, run_id: str) -> str:
    """The run, or the one it went on as, if that has not ended; empty: it has."""
    while (work := store.work(run_id)) is not None:
        if work.state != "done":
            return run_id
        following = _next_run(store, run_id) if work.status == "continued" else ""
        if not following:
            return ""
        run_id = following
    return ""


def _next_run(store: Reading, run_id: str) -> str:
    tail = store.tail(run_id).version
    for row in reversed(store.read(run_id, max(0, tail - LAST_ROWS))):
        if row.tag == t.RunContinued.TAG:
            return cast(t.RunContinued, row.event()).next_run
    return ""


def workflow_of(plan: Defined, workflows: Mapping[tuple[str, str], Any]) -> Any:
    """The workflow of its runs: the version it names, else the last one listed; None: it is not here."""
    exact = workflows.get((plan.workflow, plan.workflow_version))
    named = [flow for (name, _), flow in workflows.items() if name == plan.workflow]
    return exact if exact is not None or not named else named[-1]
