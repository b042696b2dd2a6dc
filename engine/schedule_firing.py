"""Firing: what of the schedules is due becomes runs, each decision in one append with the runs it starts.

Any worker may do it. Two that try are told apart by the log: the schedule's stream is at the version that one
of them expects, and the other one looks again.
"""

import asyncio
import logging
from collections.abc import Iterable
from datetime import datetime
from time import monotonic
from typing import Any

from msgspec import structs

from ..events import types as t
from ..events.clock import Alarm, new_event_id, own_timers, to_datetime
from ..events.errors import AppendRefused, RefoldError, StoreCorrupt, StoreError
from ..events.schedule_events import (
    ScheduleBuffered,
    ScheduleEvent,
    ScheduleFired,
    Standing,
)
from ..events.store import Post
from ..events.stream import SCHEDULES
from ..events.triggers import Trigger
from .family import NOTHING_ALONG, Newborn, born, post
from .names import LONGEST_TEXT
from .placement import Placement
from .schedule_log import Record, append, goes_on, head, load, skipped, workflow_of
from .schedule_rules import Case, Decided, Decision, Fire, Hold, decide, run_id_of, still_running
from .schedule_times import times_of
from .starting import start_of
from .workflow import Workflow

ELSEWHERE_S = 5.0
"""Real seconds after which a schedule that cannot be fired here is looked at again."""
WAIT_S = 1.0
"""How often to ask whether the run before has ended in another process, while a time waits for that."""
RETRY_S = 1.0
AT_ONCE = 20
"""Schedules that are attended to in one turn of the host loop, 0.3 ms each."""

_log = logging.getLogger("refold.schedules")


class Firing:
    """The schedules of one worker's store."""

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self._loop = asyncio.get_running_loop()
        self._busy: set[str] = set()
        """Streams of schedules whose append is under way."""
        self.coming: dict[str, None] = {}
        """Streams that a look has found due."""
        self._known: dict[str, Record] = {}
        self._awaited: dict[str, str] = {}
        """Runs whose end a time of a schedule waits for."""
        self._alarms: dict[str, Alarm] = {}
        self._taken: set[str] = set()
        """Ids of runs that turned out not to be free, of the schedule that was refused last."""
        self._elsewhere: dict[str, float] = {}
        self._told: set[tuple[str, str]] = set()

    @property
    def elsewhere(self) -> set[str]:
        """Schedules that cannot be fired here: others may have the code."""
        now = monotonic()
        self._elsewhere = {stream: until for stream, until in self._elsewhere.items() if until > now}
        return set(self._elsewhere)

    def run_ended(self, run_id: str) -> None:
        """A run has ended here; perhaps a time of a schedule waits for that."""
        if (stream := self._awaited.pop(run_id, None)) is not None:
            self.attend_safely(stream)

    def take(self, stream: str) -> None:
        """A look has found it due. Of very many at once each turn of the host loop attends to some."""
        if not self.coming:
            self._loop.call_soon(self._attend_some)
        self.coming[stream] = None

    def _attend_some(self) -> None:
        for stream in list(self.coming)[:AT_ONCE]:
            del self.coming[stream]
            self.attend_safely(stream)
        if self.coming:
            self._loop.call_soon(self._attend_some)

    def attend(self, stream: str) -> None:
        """Decide what becomes of what is due of a schedule, and store that. Raises `StoreError`."""
        if stream in self._busy or self._worker.closing:
            return
        try:
            self._attend(stream)
        except StoreError as error:
            if not isinstance(error, StoreCorrupt):
                raise
            self._leave_to_others(stream, str(error))
        except RefoldError as error:  # of this schedule: the others go on
            self._leave_to_others(stream, str(error))

    def attend_safely(self, stream: str) -> None:
        """The same, and again a little later when the store cannot be read."""
        try:
            self.attend(stream)
        except StoreError as error:
            _log.error("schedule %s cannot be read, trying again: %s", stream.removeprefix(SCHEDULES), error)
            self._loop.call_later(RETRY_S, self._worker.look_again)

    def _attend(self, stream: str) -> None:
        worker, store = self._worker, self._worker.store
        record = load(store, stream, self._known.get(stream))
        if record is None:
            return
        self._known[stream] = record
        plan, standing = record.plan, record.last.standing
        flow = workflow_of(plan, worker.workflows)
        if flow is None:
            self._leave_to_others(stream, f"no engine here has its workflow {plan.workflow!r}")
            return
        running = standing.running
        if plan.overlap != "allow_all":
            running = still_running(running, lambda run_id: goes_on(store, run_id))
        now = to_datetime(worker.clock.now())
        case = Case(
            record.name, plan, times_of(plan.timing), standing, now, running, self._taken, _misfit(flow, plan)
        )
        if decided := decide(case):
            self._store(record, flow, decided, now)
            return
        if standing.buffered is not None and not standing.paused:
            self._wait(stream, running, standing.next_at, now)
            return
        worker.claims.let_go(stream)  # any worker may fire the next one
        if standing.next_at is not None and not standing.paused:  # not seen by a look before this
            following = worker.following
            following.look_at = min(following.look_at, standing.next_at.timestamp())

    def _wait(self, stream: str, running: Iterable[str], next_at: datetime | None, now: datetime) -> None:
        """A time waits for runs to end: those here tell, those elsewhere are asked; and more times come."""
        self._awaited.update(dict.fromkeys(running, stream))
        own = own_timers(self._worker.clock)
        delay = float("inf") if next_at is None else (next_at - now).total_seconds()
        if own is None:
            delay = min(delay, WAIT_S)
        if (before := self._alarms.pop(stream, None)) is not None:
            before.cancel()
        if delay < float("inf"):
            ring = self._loop.call_later if own is None else own
            self._alarms[stream] = ring(delay, self.attend_safely, stream)

    def _leave_to_others(self, stream: str, reason: str) -> None:
        self._elsewhere[stream] = monotonic() + ELSEWHERE_S
        self._worker.claims.let_go(stream)
        if (stream, reason) not in self._told:
            self._told.add((stream, reason))
            _log.warning(
                "schedule %s cannot be fired here: %s; its times wait for a worker that can",
                stream.removeprefix(SCHEDULES),
                reason,
            )

    def _note_taken(self, runs: list[Newborn]) -> bool:
        """Which of the runs were there already; False: that cannot be seen now."""
        try:
            self._taken = {run.run_id for run in runs if self._worker.store.tail(run.run_id).version}
        except StoreError:
            return False
        return True

    def _store(self, record: Record, flow: Workflow[Any, Any], decided: Decided, now: datetime) -> None:
        worker, stream, along = self._worker, record.stream, NOTHING_ALONG
        events: list[ScheduleEvent] = []
        runs: list[Newborn] = []
        posts: tuple[Post, ...] = ()
        for decision, standing in decided:
            event = _event(record, decision, standing, now)
            events.append(event)
            if isinstance(event, ScheduleFired):
                newborn, more = born(event.run_id, flow, self._start(record, flow, event))
                runs.append(newborn)
                along += more
            elif isinstance(event, ScheduleBuffered):
                posts += tuple(_cancel(record.name, event, run_id) for run_id in event.cancelled)
        unit, tail = append(stream, record.tail, events, along, posts)
        after = Record(stream, tail, events[-1], record.plan)
        self._busy.add(stream)

        def stored(error: RefoldError | None) -> None:
            self._busy.discard(stream)
            if error is None:
                self._known[stream] = after
                for newborn in runs:
                    worker.begin(newborn)
                for message in posts:
                    worker.mail_for(message.run_id)
            elif not isinstance(error, AppendRefused) or not self._note_taken(runs):
                self._loop.call_later(RETRY_S, worker.look_again)
                return
            self.attend_safely(stream)  # there may be more of it

        worker.log.append(unit, stored, retry=False)

    def _start(self, record: Record, flow: Workflow[Any, Any], fired: ScheduleFired) -> t.RunStarted:
        plan, worker = record.plan, self._worker
        labels = {"schedule": record.name, "scheduled_for": fired.nominal.isoformat()}
        place = Placement(None, plan.queue, plan.priority, plan.queue_key, plan.run_on)
        started = start_of(
            flow, plan.args, worker.settings, fired.at, key="",
            trigger=Trigger.schedule(record.name, fired.nominal), attributes=plan.attributes | labels,
            trace=None, timeout=plan.timeout_s or None, by=f"schedule:{record.name}", clock=worker.clock,
            place=place,
        )  # fmt: skip
        return structs.replace(started, cause=fired.id)


def _event(record: Record, decision: Decision, standing: Standing, now: datetime) -> ScheduleEvent:
    about = {**head(record.last, now, "engine"), "standing": standing}
    if isinstance(decision, Fire):
        run_id = run_id_of(record.name, decision.nominal)
        return ScheduleFired(nominal=decision.nominal, run_id=run_id, why=decision.why, **about)
    if isinstance(decision, Hold):
        return ScheduleBuffered(nominal=decision.nominal, cancelled=decision.cancelled, **about)
    return skipped(decision, about)


def _cancel(name: str, event: ScheduleBuffered, run_id: str) -> Post:
    sent = t.CancelSent(
        reason=f"schedule {name} starts its next run", kind="UserRequested", id=new_event_id(), at=event.at,
        by=f"schedule:{name}", cause=event.id,
    )  # fmt: skip
    return post(run_id, sent)


def _misfit(flow: Workflow[Any, Any], plan: Any) -> str:
    """Why the stored arguments no longer fit the handler; empty: they do."""
    try:
        flow.encode_args(tuple(flow.decode_args(plan.args)))
    except RefoldError as error:
        return str(error)[:LONGEST_TEXT]
    return ""
