"""`engine.schedules`: make, change, look at, pause, trigger and delete what starts runs by itself."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Literal, Unpack

import msgspec
from msgspec import Struct, structs

from ..events.clock import to_datetime
from ..events.errors import ActRefused, AppendRefused, ConfigurationError, ScheduleNotFound
from ..events.registry import Unknown, look_at_event
from ..events.schedule_events import (
    ScheduleBackfilled,
    ScheduleChanged,
    ScheduleCreated,
    ScheduleDeleted,
    ScheduleEvent,
    SchedulePaused,
    ScheduleResumed,
    ScheduleTriggered,
    Span,
    Standing,
)
from ..events.store import Reading, Store, Unit
from ..events.stream import SCHEDULES, Tail
from ..events.types import Event
from .names import check_name, check_text
from .queues import check_declared
from .schedule_log import Record, append, head, load, skipped
from .schedule_plan import Options, Schedule, check_schedule_name, describe, same_plan
from .schedule_rules import resumed, run_id_of
from .schedule_times import EPOCH, TICK, Times, times_of
from .workflow import Workflow

TRIES = 20
"""How often an act is tried again that met another one."""
MOST_TRIGGERS = 100
"""Runs asked for by hand that have not been started yet."""
MOST_TIMES = 10_000
"""Of one backfill."""
PAGE = 1_000

Status = Literal["active", "paused", "finished", "deleted"]


class ScheduleInfo(Struct, frozen=True, kw_only=True):
    """A schedule as it stands."""

    name: str
    workflow: str
    version: str
    args: list[Any]
    when: str
    """In words."""
    catch_up: str
    window_s: float
    overlap: str
    attributes: dict[str, Any]
    timeout_s: float
    queue: str
    priority: int
    queue_key: str
    run_on: str
    status: Status
    """`finished`: it has no further time."""
    note: str
    """Why it was paused or resumed."""
    next_at: datetime | None
    """The next time; one in the past waits for a worker that can fire it."""
    buffered: datetime | None
    """A time that waits for the run before to end."""
    running: list[str]
    """Runs it started that had not ended when it last decided."""
    fired: int
    skipped: int
    """How many of its times became runs, and how many did not."""
    last_at: datetime | None
    """The time fired last, and the run it became."""
    last_run: str
    changed_at: datetime
    """When it was made, or changed for the last time."""


Infos = list[ScheduleInfo]
Moments = list[datetime]
History = list[Event | Unknown]
Made = list[ScheduleEvent]


class Schedules:
    """The schedules of a store. Acts are durable when they return; a worker fires."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    # ---- making

    async def create(
        self,
        name: str,
        workflow: Workflow[..., Any],
        *args: Any,
        by: str = "user",
        **options: Unpack[Options],
    ) -> ScheduleInfo:
        """A new schedule; see `Schedule` for the options. One that does the same already is left as it is.

        Raises:
            ConfigurationError: an option that cannot work, or one of this name that does something else.
            ValueRefused: an argument that does not fit the handler.
        """
        return await self._make(Schedule(name, workflow, *args, **options), by, change=False)

    async def update(
        self,
        name: str,
        workflow: Workflow[..., Any],
        *args: Any,
        by: str = "user",
        **options: Unpack[Options],
    ) -> ScheduleInfo:
        """Make the schedule, or have it do this from now on; its history, and a pause, stay. See `create`."""
        return await self._make(Schedule(name, workflow, *args, **options), by, change=True)

    async def _make(self, plan: Schedule, by: str, *, change: bool) -> ScheduleInfo:
        _check_queue(self._engine.store, plan)
        await self._act(plan.name, lambda record: _made(self._now(), record, plan, by, change=change))
        return self.get(plan.name)

    async def delete(self, name: str, note: str = "", *, by: str = "user") -> None:
        """Fire it no more; what it started goes on. Raises `ScheduleNotFound`."""
        check_text(note, "note")

        def make(record: Record | None) -> Made:
            here = _there(name, record)
            after = structs.replace(
                here.last.standing, deleted=True, buffered=None, triggers=(), backfills=(), note=note
            )
            return [ScheduleDeleted(note=note, standing=after, **head(here.last, self._now(), by))]

        await self._act(name, make)

    # ---- acting

    async def pause(self, name: str, note: str = "", *, by: str = "user") -> None:
        """Let its times pass until it is resumed. `note` says why. Raises `ScheduleNotFound`."""
        check_text(note, "note")

        def make(record: Record | None) -> Made:
            here = _there(name, record)
            after = structs.replace(here.last.standing, paused=True, note=note)
            return [SchedulePaused(note=note, standing=after, **head(here.last, self._now(), by))]

        await self._act(name, make)

    async def resume(self, name: str, note: str = "", *, by: str = "user") -> None:
        """Fire again, from its next time on; those that passed are skipped. Raises `ScheduleNotFound`."""
        check_text(note, "note")
        await self._act(name, lambda record: _resumed(_there(name, record), self._now(), note, by))

    async def trigger(self, name: str, *, by: str = "user") -> str:
        """One run of it now, whatever else runs; returns the run's id. It is there once a worker has fired.

        Raises `ScheduleNotFound`; `ActRefused` when too many wait already.
        """
        asked: list[datetime] = []

        def make(record: Record | None) -> Made:
            here, now = _there(name, record), self._now()
            standing = here.last.standing
            if len(standing.triggers) >= MOST_TRIGGERS:
                raise ActRefused(
                    f"schedule {name!r}: {MOST_TRIGGERS} runs asked for by hand have not been started yet; "
                    "does a worker execute this store, and has it the workflow?"
                )
            nominal = _free(standing, times_of(here.plan.timing), now)
            asked.append(nominal)
            after = structs.replace(standing, triggers=(*standing.triggers, nominal))
            return [ScheduleTriggered(nominal=nominal, standing=after, **head(here.last, now, by))]

        await self._act(name, make)
        return run_id_of(name, asked[-1])

    async def backfill(self, name: str, first: datetime, last: datetime, *, by: str = "user") -> int:
        """Runs for its times from `first` to `last` (both included, in the past), whatever else runs.

        A time that has become a run already is left out. Returns how many times there are.

        Raises `ScheduleNotFound`; `ConfigurationError` for a span without a zone, of the future or too long.
        """
        span = _span(first, last, self._now())
        numbers: list[int] = []

        def make(record: Record | None) -> Made:
            here, now = _there(name, record), self._now()
            standing, times = here.last.standing, times_of(here.plan.timing)
            begins = times.after(span.first - TICK)
            numbers.append(_count(name, times, begins, span.last))
            if begins is None or not numbers[-1]:
                return []
            after = structs.replace(standing, backfills=(*standing.backfills, Span(begins, span.last)))
            about = head(here.last, now, by)
            return [ScheduleBackfilled(first=span.first, last=span.last, standing=after, **about)]

        await self._act(name, make)
        return numbers[-1]

    # ---- looking

    def get(self, name: str) -> ScheduleInfo:
        """How it stands. Raises `ScheduleNotFound`."""
        return info(self._find(name))

    def list(self, *, deleted: bool = False) -> "Infos":
        """All of them by name; those that were deleted only when they are asked for."""
        return list_schedules(self._engine.store, deleted=deleted)

    def next(self, name: str, count: int = 5) -> "Moments":
        """Its next times, in UTC, paused or not. Raises `ScheduleNotFound`."""
        return next_times(self._find(name), count)

    def history(self, name: str) -> "History":
        """Everything that happened to it. Raises `ScheduleNotFound`."""
        rows = self._engine.store.read(SCHEDULES + check_schedule_name(name))
        if not rows:
            raise ScheduleNotFound(name)
        return [look_at_event(row.tag, row.state, row) for row in rows]

    # ---- inside

    def declare(self, store: Store, schedules: Iterable[Schedule]) -> None:
        """Make or change those that the code declares, before anything is executed."""
        for plan in schedules:
            if not isinstance(plan, Schedule):
                raise ConfigurationError(f"schedules=[…] expects Schedule(…), got {plan!r:.80}")
            _check_queue(store, plan)
            while True:  # somebody who was faster has written: each time one of them gets on
                record = load(store, SCHEDULES + plan.name)
                events = _made(self._now(), record, plan, "engine", change=True)
                if not events or store.commit([_unit(plan.name, record, events)]) == [None]:
                    break

    def _find(self, name: Any) -> Record:
        """Raises `ScheduleNotFound`, for what can be no name, too."""
        known = isinstance(name, str) and name.isprintable()
        return _there(name, load(self._engine.store, SCHEDULES + name) if known else None)

    def _now(self) -> datetime:
        now: datetime = to_datetime(self._engine.clock.now())
        return now

    async def _act(self, name: str, make: Callable[[Record | None], Made]) -> None:
        """Append what `make` makes of the schedule as it stands; anew when somebody else was faster."""
        self._engine.check_loop()
        refused: AppendRefused | None = None
        for _ in range(TRIES):
            record = load(self._engine.store, SCHEDULES + check_schedule_name(name))
            events = make(record)
            if not events:
                return
            check_name(events[0].by, "by")
            try:
                await self._engine._append(_unit(name, record, events))
            except AppendRefused as error:
                refused = error
                continue
            if (worker := self._engine._worker) is not None:
                worker.look_again()  # its next time may be sooner than anything else
                worker.schedules.attend_safely(SCHEDULES + name)
            return
        assert refused is not None
        raise refused


def list_schedules(store: Reading, *, deleted: bool = False) -> list[ScheduleInfo]:
    """All schedules of a store by name."""
    names = [work.run_id for work, _ in store.all_work() if work.run_id.startswith(SCHEDULES)]
    found = [info(record) for name in names if (record := load(store, name)) is not None]
    return [one for one in found if deleted or one.status != "deleted"]


def next_times(record: Record, count: int) -> list[datetime]:
    """The next times of a schedule, from the first that nothing has been decided about."""
    if type(count) is not int or not 0 <= count <= MOST_TIMES:
        raise ConfigurationError(
            f"next({record.name!r}, {count!r:.80}): expected how many times, {MOST_TIMES:,} at the most"
        )

    def rest() -> Iterable[datetime]:
        at, times = record.last.standing.next_at, times_of(record.plan.timing)
        while at is not None:
            yield at
            at = times.after(at)

    return [] if record.last.standing.deleted else list(islice(rest(), count))


def info(record: Record) -> ScheduleInfo:
    """A schedule as it stands."""
    plan, standing = record.plan, record.last.standing
    ended = standing.next_at is None and standing.buffered is None
    status: Status = (
        "deleted" if standing.deleted else "paused" if standing.paused else "finished" if ended else "active"
    )
    return ScheduleInfo(
        name=record.name, workflow=plan.workflow, version=plan.workflow_version,
        args=msgspec.json.decode(plan.args, type=list), when=describe(plan.timing), catch_up=plan.catch_up,
        window_s=plan.window_s, overlap=plan.overlap, attributes=plan.attributes, timeout_s=plan.timeout_s,
        queue=plan.queue, priority=plan.priority, queue_key=plan.queue_key, run_on=plan.run_on,
        status=status, note=standing.note, next_at=standing.next_at, buffered=standing.buffered,
        running=list(standing.running), fired=standing.fired, skipped=standing.skipped,
        last_at=standing.last_at, last_run=standing.last_run, changed_at=plan.at,
    )  # fmt: skip


def _check_queue(store: Store, plan: Schedule) -> None:
    """Raises `ConfigurationError` when nobody has declared the queue of its runs."""
    if queue := plan.fields()["queue"]:
        check_declared(store, queue)


def _unit(name: str, record: Record | None, events: list[ScheduleEvent]) -> Unit:
    return append(SCHEDULES + name, Tail() if record is None else record.tail, events)[0]


def _there(name: str, record: Record | None) -> Record:
    if record is None or record.last.standing.deleted:
        raise ScheduleNotFound(name)
    return record


def _made(
    now: datetime, record: Record | None, plan: Schedule, by: str, *, change: bool
) -> list[ScheduleEvent]:
    """What makes a schedule do what is asked for; nothing when it does."""
    fields, last = plan.fields(), None if record is None else record.last
    version = 1 if record is None else record.tail.version + 1
    if record is None or record.last.standing.deleted:
        at = fields["timing"].once or times_of(fields["timing"]).after(now)
        counted = Standing(defined=version, next_at=at)
        return [ScheduleCreated(**fields, standing=counted, **head(last, now, by))]
    if same_plan(record.plan, fields):
        return []
    if not change:
        raise ConfigurationError(
            f"schedule {plan.name!r} exists and does something else: {describe(record.plan.timing)} it "
            f"starts {record.plan.workflow}; change it with engine.schedules.update(…), or take another name"
        )
    standing = structs.replace(record.last.standing, defined=version)
    if fields["timing"] != record.plan.timing:
        at = fields["timing"].once or times_of(fields["timing"]).after(now)
        standing = structs.replace(standing, next_at=at)
    return [ScheduleChanged(**fields, standing=standing, **head(last, now, by))]


def _resumed(record: Record, now: datetime, note: str, by: str) -> list[ScheduleEvent]:
    if not record.last.standing.paused:
        return []
    passed, after = resumed(record.last.standing, times_of(record.plan.timing), now, note)
    events: list[ScheduleEvent] = [ScheduleResumed(note=note, standing=after, **head(record.last, now, by))]
    if passed is not None:
        events.append(skipped(passed, {"standing": after, **head(record.last, now, by)}))
    return events


def _span(first: Any, last: Any, now: datetime) -> Span:
    for moment in (first, last):
        if not isinstance(moment, datetime) or moment.tzinfo is None:
            raise ConfigurationError(
                f"backfill({moment!r:.80}): expected a datetime with a time zone, as datetime.now(UTC) has"
            )
    if not first <= last <= now:
        raise ConfigurationError(
            f"backfill({first}, {last}): expected a span of the past, the earlier end first; it is {now}"
        )
    return Span(max(first, EPOCH).astimezone(UTC), last.astimezone(UTC))


def _count(name: str, times: Times, first: datetime | None, last: datetime) -> int:
    if first is None or first > last:
        return 0
    number, more = times.count(first, last, MOST_TIMES)
    if more or number > MOST_TIMES:
        raise ConfigurationError(
            f"schedule {name!r}: more than {MOST_TIMES:,} times between these; backfill a shorter span"
        )
    return number


def _free(standing: Standing, times: Times, now: datetime) -> datetime:
    """A moment for a run asked for by hand: none that is one of the schedule's, or of another such run."""
    taken = (*standing.triggers, standing.last_at)
    while now in taken or times.after(now - TICK) == now:
        now += TICK
    return now
