"""Why a run stands where it stands: all that it waits for, folded from its own history.

What ended it is told by `why_ended.py`. Both give data; the command line makes sentences of it.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime

from msgspec import Struct, structs

from ..events import types as t
from ..events.clock import moment
from ..events.errors import StoreCorrupt
from ..events.registry import Unknown, decode_event, look_at_event
from ..events.stream import Row
from ..events.triggers import trigger_of
from ..events.types import Event
from .gates import GATES
from .own import fold_rows, records
from .records import Record
from .runs import RUNS
from .step_row import StepRow
from .steps import STEPS
from .timers import TIMERS
from .waits import WAITS
from .why_ended import End, end_of

ORDER = (
    "in_doubt", "approval", "input", "event", "child", "retry", "interrupted", "running", "held", "queued",
    "timer", "start", "queue", "worker",
)  # fmt: skip
"""Kinds of waits, those first in which somebody can do something."""

_STEP_TYPES = {
    "scheduled": "queued", "running": "running", "retrying": "retry", "interrupted": "interrupted",
    "unknown": "in_doubt",
}  # fmt: skip


class Wait(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing that is open."""

    type: str
    """One of `ORDER`."""
    number: int
    """Among the commands of the run."""
    name: str = ""
    """Key of a step, name of a gate or of an event, run id of a child; a timer has none."""
    since: datetime | None = None
    until: datetime | None = None
    """Deadline of a gate or an attempt, time of the next attempt, end of a sleep."""
    attempt: int = 0
    """The one that runs, or ran last."""
    max_attempts: int = 0
    error: str = ""
    """Of the last attempt."""
    undoes: str = ""
    """Key of the step that this one undoes."""
    workflow: str = ""
    """Of a child."""
    prompt: str = ""
    needed: int = 0
    """Approvals that are missing."""
    voters: tuple[str, ...] = ()
    """Who may still vote; empty: anybody."""
    excluded: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    on_timeout: str = ""


class Act(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What somebody did to the run."""

    by: str
    at: datetime
    reason: str = ""


class Mail(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A message that the run has not received yet."""

    what: str
    """`event paid`, `vote approve`, `request pause`, `cancel` …"""
    by: str
    at: datetime


class Standing(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a run stands, and everything that it waits for."""

    run_id: str
    workflow: str
    version: str
    status: str
    started_at: datetime
    started_by: str
    last_at: datetime
    """When its last event was written."""
    owner: str = ""
    """Who took it up last."""
    generation: int = 0
    claimed_at: datetime | None = None
    since: datetime | None = None
    """Since when it waits, or is paused."""
    waits: tuple[Wait, ...] = ()
    attention: str = "none"
    attention_reason: str = ""
    attention_since: datetime | None = None
    paused: Act | None = None
    held: int = 0
    """What came while it is paused, and is delivered once it is resumed."""
    cancel: Act | None = None
    """The last request to stop it, while it has not ended."""
    undone: int = 0
    to_undo: int = 0
    """Of a run that undoes what it did."""
    deadline: datetime | None = None
    """When the run as a whole times out."""
    parent: str = ""
    lock: str = ""
    """The concurrency key that it holds until it ends."""
    trigger: str = ""
    """What started it, in words."""
    mail: tuple[Mail, ...] = ()
    end: End | None = None
    source: str = ""
    """File in which its handler stands, by the call sites in the log."""

    @property
    def over(self) -> bool:
        return self.end is not None


def stand(rows: Sequence[Row], inbox: Iterable[Row] = ()) -> Standing:
    """Fold a run's stream, and what its inbox holds that it has not received.

    Raises ValueError when there are no events.
    """
    events = [look_at_event(row.tag, row.state, row) for row in rows]
    known = [event for event in events if isinstance(event, Event)]
    runs, steps, gates, waits, timers = fold_rows(rows, RUNS, STEPS, GATES, WAITS, TIMERS)
    if not known or not runs:
        raise ValueError("a run without events stands nowhere")
    (run,) = records(RUNS, runs)
    attempts = _attempts(steps)
    standing = _head(run, known)
    end = end_of(known, attempts, records(GATES, gates))
    if end is not None or run["ended_at"] is not None:
        return structs.replace(standing, end=end or End(status=str(run["status"]), at=known[-1].at))
    held = _held(known)
    found = [
        *_steps(attempts, _steps_in(held)),
        *_gates(records(GATES, gates)),
        *_events(records(WAITS, waits)),
        *_children(known),
    ]
    found += _timers(records(TIMERS, timers), found)
    found += _start(run, known)
    found.sort(key=lambda wait: (ORDER.index(wait.type), wait.number))
    paused = _pause(known) if run["status"] == "paused" else None
    mail = tuple(_mail(row) for row in inbox)
    return structs.replace(
        standing, waits=tuple(found), paused=paused, held=len(held), mail=mail, cancel=_cancel(known)
    )


def _head(run: Record, known: Sequence[Event]) -> Standing:
    started = next((event for event in known if isinstance(event, t.RunStarted)), known[0])
    claim = next((event for event in reversed(known) if isinstance(event, t.RunClaimed)), None)
    lock = trigger = ""
    if isinstance(started, t.RunStarted):
        lock, trigger = started.lock, str(trigger_of(started))
    return Standing(
        run_id=run["run_id"], workflow=run["workflow"], version=run["version"], status=str(run["status"]),
        started_at=started.at, started_by=started.by, last_at=known[-1].at, owner=run["owner"],
        generation=run["generation"], claimed_at=None if claim is None else claim.at,
        since=moment(run["blocked_since"]), attention=str(run["attention"]),
        attention_reason=run["attention_reason"] or "", attention_since=moment(run["attention_since"]),
        undone=run["compensation_done"], to_undo=run["compensation_total"],
        deadline=moment(run["deadline_at"] or None), parent=run["parent_id"], source=_source(known),
        lock=lock, trigger=trigger,
    )  # fmt: skip


def _source(known: Iterable[Event]) -> str:
    for event in known:
        if isinstance(event, t.StepScheduled | t.GateOpened) and event.site:
            return event.site.rpartition(":")[0]
    return ""


# ---- one function for each kind of wait ---------------------------------------------------------------


def _attempts(rows: Iterable[StepRow]) -> list[StepRow]:
    """Rows of steps as they are, not as dicts: of 10,000 that would take 0.25 s."""
    found = [row for row in rows if not row.rewound]
    return sorted(found, key=lambda row: (row.step, row.superseded == 0, row.superseded))


def _steps(attempts: Iterable[StepRow], held: set[int]) -> Iterable[Wait]:
    for row in attempts:
        type = _STEP_TYPES.get(row.status)
        if type is None or row.superseded or (type == "in_doubt" and row.error_type):
            continue
        if row.step in held:
            type = "held"
        since = row.scheduled_at if type == "queued" else row.ended_at or row.started_at
        error = f"{row.error_type}: {row.error_message}" if row.error_type else ""
        until = moment(row.retry_at) if type == "retry" else None
        yield Wait(
            type=type, number=row.step, name=row.key, since=moment(since), until=until,
            attempt=row.attempt, max_attempts=row.max_attempts, error=error, undoes=row.undoes,
        )  # fmt: skip


def _gates(rows: Iterable[Record]) -> Iterable[Wait]:
    for row in rows:
        if row["status"] != "open":
            continue
        voted = {vote["by"] for vote in row["votes"]}
        voters = tuple(v for v in row["voters"] if v not in voted and v not in row["excluded"])
        yield Wait(
            type=row["kind"], number=row["gate"], name=row["name"], since=moment(row["opened_at"]),
            until=moment(row["due_at"]), prompt=row["prompt"],
            needed=max(1, row["approvals_needed"] - row["approvals"]), voters=voters,
            excluded=tuple(row["excluded"]), options=tuple(row["options"]), on_timeout=row["on_timeout"],
        )  # fmt: skip


def _events(rows: Iterable[Record]) -> Iterable[Wait]:
    for row in rows:
        if row["status"] == "open":
            yield Wait(type="event", number=row["wait"], name=row["name"], since=moment(row["opened_at"]))


def _children(known: Iterable[Event]) -> Iterable[Wait]:
    """Those that are waited for; the read model of children also knows what they say at their end."""
    started: dict[int, t.ChildStarted] = {}
    waited: dict[int, t.ChildStarted] = {}
    for event in known:
        if isinstance(event, t.ChildStarted) and not event.detached:
            started[event.child] = waited[event.child] = event
        elif isinstance(event, t.ChildEnded | t.ChildCancelled):
            waited.pop(event.child, None)
        elif isinstance(event, t.RunRewound):
            waited = {number: started[number] for number in event.children if number in started}
    for number, child in waited.items():
        yield Wait(type="child", number=number, name=child.run_id, since=child.at, workflow=child.workflow)


def _timers(rows: Iterable[Record], found: Sequence[Wait]) -> Iterable[Wait]:
    """Sleeps and deadlines, but for those of gates, which say themselves until when they are open."""
    of_gates = [wait.until for wait in found if wait.type in ("approval", "input")]
    for row in rows:
        due = moment(row["due_at"])
        if row["status"] != "open":
            continue
        if due in of_gates:
            of_gates.remove(due)
            continue
        yield Wait(type="timer", number=row["timer"], since=moment(row["started_at"]), until=due)


def _start(run: Record, known: Sequence[Event]) -> Iterable[Wait]:
    """What a run that has not begun waits for: its time, its place in a queue, a worker with its tag."""
    first = known[0]
    if str(run["status"]) == "pending" and isinstance(first, t.RunStarted) and first.start_at is not None:
        yield Wait(type="start", number=0, since=first.at, until=first.start_at)
    if str(run["status"]) == "pending" and run["queue"]:
        yield Wait(type="queue", number=0, name=str(run["queue"]), since=moment(run["blocked_since"]))
    if str(run["status"]) == "pending" and run["run_on"]:
        yield Wait(type="worker", number=0, name=str(run["run_on"]), since=moment(run["blocked_since"]))


# ---- what others did --------------------------------------------------------------------------------


def _pause(known: Sequence[Event]) -> Act | None:
    event = next((event for event in reversed(known) if isinstance(event, t.RunPaused)), None)
    return None if event is None else Act(by=event.by, at=event.at, reason=event.reason)


def _cancel(known: Sequence[Event]) -> Act | None:
    """The last request to stop; one from before the run was brought back has had its day."""
    for event in reversed(known):
        if isinstance(event, t.RunCancelRequested):
            reason = event.reason if event.kind == "UserRequested" else event.reason or event.kind
            return Act(by=event.by, at=event.at, reason=reason)
        if isinstance(event, t.CompensateRequested):
            return Act(by=event.by, at=event.at, reason=event.reason or "to undo what it did")
        if isinstance(event, t.RunRewound | t.RunReopened):
            return None
    return None


def _held(known: Iterable[Event]) -> dict[str, t.CauseHeld]:
    held: dict[str, t.CauseHeld] = {}
    for event in known:
        held.pop(event.cause, None)
        if isinstance(event, t.CauseHeld):
            held[event.id] = event
        elif isinstance(event, t.RunRewound):
            held.clear()
    return held


def _steps_in(held: dict[str, t.CauseHeld]) -> set[int]:
    """Steps whose ends are among what is held."""
    found: set[int] = set()
    for one in held.values():
        try:
            cause = decode_event(one.tag, bytes(one.body), one.id)
        except StoreCorrupt:
            continue  # `refold verify` tells of it; here it is one thing less that can be said
        if isinstance(cause, t.StepCompleted | t.StepFailed | t.StepSkipped):
            found.add(cause.step)
    return found


def _mail(row: Row) -> Mail:
    event = look_at_event(row.tag, row.state, row)
    if isinstance(event, Unknown):
        return Mail(what=row.tag, by="", at=moment(event.body.get("at")) or _never())
    return Mail(what=_said(event), by=event.by, at=event.at)


def _never() -> datetime:
    return datetime.fromisoformat("1970-01-01T00:00:00+00:00")


def _said(event: Event) -> str:
    if isinstance(event, t.SignalSent):
        return f"event {event.name}"
    if isinstance(event, t.VoteSent):
        return f"vote {event.vote}"
    if isinstance(event, t.RequestSent):
        return f"request {event.verb}{' ' + event.key if event.key else ''}"
    if isinstance(event, t.ChildEndSent):
        return f"child {event.run_id} {event.status}"
    return "request cancel" if isinstance(event, t.CancelSent) else event.TAG
