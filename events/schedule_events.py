"""A schedule's life: made, changed, paused, and each of its times: fired, held back, or skipped and why."""

from datetime import datetime
from typing import Any

from msgspec import Raw, Struct

from .event import Event


class Timing(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """At which times a schedule fires: one of `cron`, `every_s` and `once`."""

    cron: str = ""
    timezone: str = "UTC"
    """In which `cron` is meant: a name of the IANA database."""
    every_s: float = 0.0
    anchor: datetime | None = None
    """A time of an interval; None: 1970-01-01 UTC."""
    once: datetime | None = None


class Span(Struct, frozen=True):
    """Times that are still to be made up for, both ends included."""

    first: datetime
    last: datetime


class Standing(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a schedule stands after an event: so two rows tell all of it, the last one and its definition."""

    defined: int
    """Version of the event that says what it does."""
    next_at: datetime | None = None
    """The first time that nothing has been decided about; None: there is none."""
    paused: bool = False
    note: str = ""
    """Why it was paused or resumed."""
    running: tuple[str, ...] = ()
    """Runs it started that had not ended when it last looked."""
    buffered: datetime | None = None
    """A time that waits for the run before to end."""
    triggers: tuple[datetime, ...] = ()
    """Asked for by hand, not fired yet."""
    backfills: tuple[Span, ...] = ()
    fired: int = 0
    skipped: int = 0
    last_at: datetime | None = None
    """The time that was fired last …"""
    last_run: str = ""
    """… and the run it became."""
    deleted: bool = False


class ScheduleEvent(Event, frozen=True, kw_only=True, omit_defaults=True):
    """What all events of a schedule have."""

    standing: Standing


class Defined(ScheduleEvent, frozen=True, kw_only=True, omit_defaults=True):
    """What a schedule does."""

    workflow: str
    workflow_version: str
    args: Raw
    """JSON array, as in `run.started`."""
    timing: Timing
    catch_up: str = "latest"
    """Of times that were missed: `skip`, `latest` or `all`."""
    window_s: float = 86_400.0
    """How late a time may be fired."""
    overlap: str = "skip"
    """While its last run goes on: `skip`, `buffer_one`, `cancel_other` or `allow_all`."""
    attributes: dict[str, Any] = {}
    timeout_s: float = 0.0
    queue: str = ""
    priority: int = 0
    queue_key: str = ""
    run_on: str = ""


class ScheduleCreated(Defined, frozen=True, kw_only=True, omit_defaults=True):
    """Fact. From now on it fires."""

    TAG = "schedule.created"


class ScheduleChanged(Defined, frozen=True, kw_only=True, omit_defaults=True):
    """Fact. It does something else from now on; its history stays."""

    TAG = "schedule.changed"


class SchedulePaused(ScheduleEvent, frozen=True, kw_only=True, omit_defaults=True):
    """Fact. Its times pass until it is resumed."""

    TAG = "schedule.paused"
    note: str = ""


class ScheduleResumed(ScheduleEvent, frozen=True, kw_only=True, omit_defaults=True):
    """Fact. It fires again, from the next time on."""

    TAG = "schedule.resumed"
    note: str = ""


class ScheduleTriggered(ScheduleEvent, frozen=True, kw_only=True, omit_defaults=True):
    """Fact. Somebody wants one run of it now."""

    TAG = "schedule.triggered"
    nominal: datetime


class ScheduleBackfilled(ScheduleEvent, frozen=True, kw_only=True, omit_defaults=True):
    """Fact. Somebody wants the runs of its times in a past span."""

    TAG = "schedule.backfilled"
    first: datetime
    last: datetime


class ScheduleFired(ScheduleEvent, frozen=True, kw_only=True, omit_defaults=True):
    """Fact. One of its times became a run, whose start is in the same append."""

    TAG = "schedule.fired"
    nominal: datetime
    """The time it is for, however late it is."""
    run_id: str
    why: str = "time"
    """`time`, `buffered`, `trigger` or `backfill`."""


class ScheduleBuffered(ScheduleEvent, frozen=True, kw_only=True, omit_defaults=True):
    """Fact. One of its times waits until the run before has ended."""

    TAG = "schedule.buffered"
    nominal: datetime
    cancelled: tuple[str, ...] = ()
    """Runs that were asked, in the same append, to stop."""


class ScheduleSkipped(ScheduleEvent, frozen=True, kw_only=True, omit_defaults=True):
    """Fact. Times that do not become runs."""

    TAG = "schedule.skipped"
    first: datetime
    last: datetime
    count: int = 1
    more: bool = False
    """There were more of them than is worth counting."""
    reason: str = ""
    """`late`, `missed`, `overlap`, `replaced`, `paused`, `exists` or `refused`."""
    detail: str = ""
    """The run that goes on, or what was refused."""


class ScheduleDeleted(ScheduleEvent, frozen=True, kw_only=True, omit_defaults=True):
    """Fact. It fires no more; what it started goes on. One of the same name may be made again."""

    TAG = "schedule.deleted"
    note: str = ""
