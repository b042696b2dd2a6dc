"""`Schedule`: which workflow starts by itself, with what, and when."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, TypedDict, get_args

import msgspec
from msgspec import Raw, structs

from ..events.errors import ConfigurationError
from ..events.event import Event
from ..events.schedule_events import Defined, Timing
from .names import check_name, is_number
from .placement import placement
from .schedule_times import EPOCH, timing
from .starting import check_timeout, plain_attributes
from .step import LONGEST_S
from .workflow import Workflow

CatchUp = Literal["skip", "latest", "all"]
Overlap = Literal["skip", "buffer_one", "cancel_other", "allow_all"]

LONGEST_NAME = 150
"""Characters: the ids of its runs begin with it."""
WINDOW_S = {"skip": 60.0, "latest": 86_400.0, "all": 86_400.0}
"""How late a time may be fired, unless it is said."""
_ABOUT = frozenset(Event.__struct_fields__) | {"standing"}


class Options(TypedDict, total=False):
    """What a schedule takes beside its name, its workflow and that one's arguments."""

    cron: str | None
    timezone: str
    every: float | None
    anchor: datetime | None
    at: datetime | None
    catch_up: CatchUp
    window: float | None
    overlap: Overlap
    attributes: Mapping[str, Any] | None
    timeout: float | None
    queue: str | None
    priority: int
    queue_key: str | None
    run_on: str | None


class Schedule:
    """Starts runs of a workflow at its times; for `Engine(schedules=[Schedule(…)])`.

        Schedule("nightly", report, "sales", cron="30 2 * * *", timezone="Europe/Madrid")

    Args:
        name: what it is called; the ids of its runs begin so.
        workflow: of its runs.
        args: what the handler gets after `ctx`, each time.
        cron: five fields, `minute hour day month weekday`; needs the extra `refold[schedules]`.
        timezone: in which `cron` is meant.
        every: seconds, instead of `cron`.
        anchor: a time of the interval; default: 1970-01-01 UTC, so that `every=60` is the full minute.
        at: one moment, instead of `cron` and `every`.
        catch_up: what becomes of times that passed while nobody executed: the last one is made up for
            (`latest`), all are (`all`), or none (`skip`).
        window: seconds that a time may be late and still be fired; default: a day, or a minute for `skip`.
        overlap: when its last run still goes on: leave the new one out (`skip`), start it once that has ended
            (`buffer_one`), the same and ask that one to stop (`cancel_other`), start it beside (`allow_all`).
        attributes: labels of its runs; `schedule` and `scheduled_for` are added.
        timeout: seconds each run may take; default: the workflow's.
        queue, priority, queue_key, run_on: as for `start`.

    Raises:
        ConfigurationError: an option that cannot work, or cron without its library.
        ValueRefused: an argument that does not fit the handler.
    """

    def __init__(
        self,
        name: str,
        workflow: Workflow[..., Any],
        *args: Any,
        cron: str | None = None,
        timezone: str = "UTC",
        every: float | None = None,
        anchor: datetime | None = None,
        at: datetime | None = None,
        catch_up: CatchUp = "latest",
        window: float | None = None,
        overlap: Overlap = "skip",
        attributes: Mapping[str, Any] | None = None,
        timeout: float | None = None,
        queue: str | None = None,
        priority: int = 0,
        queue_key: str | None = None,
        run_on: str | None = None,
    ) -> None:
        self.name = check_schedule_name(name)
        if not isinstance(workflow, Workflow):
            raise ConfigurationError(f"schedule {name!r}: expected a @workflow, got {workflow!r:.80}")
        if catch_up not in get_args(CatchUp):
            raise ConfigurationError(f"catch_up={catch_up!r:.80}: expected one of skip, latest, all")
        if overlap not in get_args(Overlap):
            raise ConfigurationError(
                f"overlap={overlap!r:.80}: expected one of skip, buffer_one, cancel_other, allow_all"
            )
        if window is not None and not (is_number(window) and 0 < window < LONGEST_S):
            raise ConfigurationError(f"window={window!r:.80}: expected seconds, more than 0, or None")
        self.workflow = workflow
        self._args = workflow.encode_args(args)
        self._when = timing(cron, timezone, every, anchor, at)
        self._window = WINDOW_S[catch_up] if window is None else float(window)
        self._catch_up, self._overlap = catch_up, overlap
        self._attributes = plain_attributes(attributes or {})
        check_timeout(timeout, workflow)
        self._timeout = timeout or 0.0
        self._place = placement(
            EPOCH, queue=queue, priority=priority, queue_key=queue_key, start_at=None, delay=None,
            run_on=run_on, lock=None,
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"<schedule {self.name} of {self.workflow.name}, {describe(self._when)}>"

    def fields(self) -> dict[str, Any]:
        """As `schedule.created` has them."""
        return {
            "workflow": self.workflow.name, "workflow_version": self.workflow.version, "args": self._args,
            "timing": self._when, "catch_up": self._catch_up, "window_s": self._window,
            "overlap": self._overlap, "attributes": self._attributes, "timeout_s": self._timeout,
            "queue": self._place.queue, "priority": self._place.priority,
            "queue_key": self._place.queue_key, "run_on": self._place.run_on,
        }  # fmt: skip


def check_schedule_name(value: Any) -> str:
    """The value, if it can be a schedule's name. Raises `ConfigurationError`."""
    name = check_name(value, "schedule name")
    if "/" in name or name != name.strip() or len(name) > LONGEST_NAME:
        raise ConfigurationError(
            f"schedule name {name!r:.200}: expected at most {LONGEST_NAME} characters, no '/', and no spaces "
            "around it"
        )
    return name


def same_plan(plan: Defined, fields: dict[str, Any]) -> bool:
    """Whether a schedule does what these fields say."""
    now = {name: value for name, value in structs.asdict(plan).items() if name not in _ABOUT}
    return {**now, "args": _plain(plan.args)} == {**fields, "args": _plain(fields["args"])}


def _plain(args: Raw) -> Any:
    return msgspec.json.decode(args)


def describe(when: Timing) -> str:
    """When, in a few words."""
    if when.once is not None:
        return f"once at {when.once:%Y-%m-%d %H:%M:%S} UTC"
    if when.every_s:
        since = "" if when.anchor is None else f" since {when.anchor:%Y-%m-%d %H:%M:%S} UTC"
        return f"every {when.every_s:g} s{since}"
    return f"cron {when.cron} ({when.timezone})"
