"""A run's life: started, claimed, paused, repaired, ended."""

from datetime import datetime
from typing import Any

from msgspec import Raw, Struct

from .event import Event, Failure, Spent
from .triggers import Trigger


class Ancestor(Struct, frozen=True):
    """A run above this one."""

    run_id: str
    workflow: str


class Carried(Struct, frozen=True, omit_defaults=True):
    """A signal on its way from one run to the one that continues it."""

    name: str
    payload: Raw
    signal_id: str = ""


class RunStarted(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Cause. The run exists; everything the handler may depend on is in here."""

    TAG = "run.started"
    workflow: str
    workflow_version: str
    args: Raw
    """JSON array of the handler's positional arguments after `ctx`."""
    seed: int
    """64 bits from which `ctx.random` and the order of sets of tasks follow."""
    key: str = ""
    """Idempotency key of `start(key=…)`."""
    attributes: dict[str, Any] = {}
    """Searchable labels, as given to `start`."""
    trigger: str = "manual"
    runtime: dict[str, str] = {}
    """`python`, `anyio`, `refold` versions and `code`, a digest of the handler's bytecode."""
    timeout_s: float = 0.0
    """Limit of the whole run in seconds, counted from this event; 0: none."""
    ancestors: tuple[Ancestor, ...] = ()
    """The runs above this one, the root first, its parent last; empty for a root."""
    child: int = 0
    """Number of the parent's `child.started`; 0 for a root."""
    detached: bool = False
    """The parent does not wait for it, and it outlives its parent."""
    max_depth: int = 5
    """How deep children of children may go; the root's setting, for the whole tree."""
    continued_from: str = ""
    """The run that this one goes on for, after `continue_as_new`."""
    carried: tuple[Carried, ...] = ()
    """Signals that the run before had received and not consumed."""
    spent_before: Spent = Spent()
    """By the runs that it continues."""
    forked_from: str = ""
    """The run whose history this one shares …"""
    forked_at: int = 0
    """… up to this version of its stream."""
    files: str = ""
    """Folder under which the run keeps `artifacts/RUN` and `logs/RUN`; empty: none."""
    start_at: datetime | None = None
    """Not to begin before; None: at once."""
    queue: str = ""
    """The queue in which it waits for its place; empty: none."""
    priority: int = 0
    """Among those that wait in its queue: the lower the sooner."""
    queue_key: str = ""
    """Whose run it is, for limits for each key and for taking turns; empty: nobody's."""
    run_on: str = ""
    """Tag that a worker must have to execute it; empty: any worker."""
    lock: str = ""
    """Concurrency key that it holds until it ends; empty: none."""
    triggered_by: Trigger | None = None
    """What belongs to `trigger`; None: nothing."""
    is_triggered_by_hook: bool = False
    """A hook started it, or a run above it: it calls no hooks itself."""


class RunClaimed(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Fact. An owner took the run; whoever owned it before can no longer append."""

    TAG = "run.claimed"
    owner: str
    generation: int
    """1 for the first owner, then one more for each."""


class RunCancelRequested(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Cause. Somebody asked the run to stop; the handler sees `CancelledError`."""

    TAG = "run.cancel_requested"
    reason: str = ""
    kind: str = "UserRequested"
    """`UserRequested`, `Timeout`, `FailFast`, `ParentCancelled`, `EngineShutdown` or `LeaseLost`."""
    inbox: int = 0
    """Version of the inbox message this is a copy of; 0 when it did not come through the inbox."""


class RunCompleted(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Command, and the run's end: the handler returned."""

    TAG = "run.completed"
    result: Raw
    open: tuple[int, ...] = ()
    """Numbers of the timers, waits and gates that were still open."""


class RunFailed(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Command, and the run's end: the handler raised."""

    TAG = "run.failed"
    error: Failure
    open: tuple[int, ...] = ()
    """Numbers of the timers, waits and gates that were still open."""


class RunCancelled(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Command, and the run's end: the handler let the cancellation through."""

    TAG = "run.cancelled"
    reason: str = ""
    kind: str = "UserRequested"
    inbox: int = 0
    """Version of the inbox message that asked for it, when its handler was not asked."""
    unbegun: bool = False
    """Its handler was not asked: it waited for its time, or for a place in its queue. A fact, then."""
    open: tuple[int, ...] = ()
    """Numbers of the timers, waits and gates that were still open."""


class RunAttention(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Fact. The run cannot go on by itself (`diverged`, `missing_version`, …), or can again (`none`)."""

    TAG = "run.attention"
    kind: str
    reason: str = ""


class RunContinued(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Command, and the run's end: `continue_as_new`. The next run is started in the same append."""

    TAG = "run.continued"
    next_run: str
    args: Raw
    open: tuple[int, ...] = ()
    inbox: int = 0
    """Version of the last inbox message that the run received or that went along to the next one."""


class RunCompensated(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Command, and the run's end: everything it had done and could undo is undone."""

    TAG = "run.compensated"
    because: str = ""
    """How it had ended before that: `failed`, `cancelled` or `completed`."""
    error: Failure | None = None
    """Why it had failed."""
    open: tuple[int, ...] = ()


class RunCompensationFailed(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Command, and the run's end: some of it could not be undone. `retry` tries exactly these again."""

    TAG = "run.compensation_failed"
    failed: tuple[str, ...]
    """Keys of the steps that are not undone."""
    because: str = ""
    error: Failure | None = None
    open: tuple[int, ...] = ()


class RunTerminated(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Fact, and the run's end: somebody stopped it hard; the handler was not asked."""

    TAG = "run.terminated"
    reason: str = ""
    open: tuple[int, ...] = ()
    """Numbers of the steps, timers, waits, gates and children that were still open."""
    inbox: int = 0


class CompensationStarted(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Command. The run has come to its end and now undoes what it did, in reverse order."""

    TAG = "compensation.started"
    because: str
    """`failed`, `cancelled`, or `completed` and later undone by hand."""
    steps: tuple[str, ...]
    """Keys of the steps to undo, in this order."""


class RunReopened(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Cause, after an end: undo by hand what the run did, or what could not be undone before."""

    TAG = "run.reopened"
    reason: str = ""
    mail: int = 0
    """Version of the inbox at that time: acts up to it were meant for what the run was before."""


class CompensateRequested(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Cause. The run shall be stopped and undone, whatever its workflow's policy says."""

    TAG = "run.compensate_requested"
    reason: str = ""
    inbox: int = 0


class RunPaused(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Fact. Nothing is delivered to the handler and nothing new begins until the run is resumed."""

    TAG = "run.paused"
    reason: str = ""
    inbox: int = 0


class RunResumed(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Fact. What was held is delivered now, in order."""

    TAG = "run.resumed"
    reason: str = ""
    inbox: int = 0


class CauseHeld(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Fact. A cause that came while the run was paused; delivered, as a new event, once it is resumed."""

    TAG = "cause.held"
    tag: str
    """Of the cause."""
    body: Raw
    """The cause, as JSON."""
    inbox: int = 0


class RunRewound(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Fact. The run goes on as if nothing after version `to` had happened; audit and costs keep all of it."""

    TAG = "run.rewound"
    to: int
    """Version of the run's stream; the end of an activation."""
    reason: str = ""
    verb: str = "retry"
    """`retry` or `reset`."""
    dropped: tuple[int, ...] = ()
    """Numbers of the commands that are as if never asked for."""
    steps: tuple[int, ...] = ()
    """Steps that are open again."""
    timers: dict[int, datetime] = {}
    """Timers that are open again, and when they are due."""
    waits: dict[int, str] = {}
    """Waits that are open again, and for what."""
    gates: tuple[int, ...] = ()
    """Gates that are open again."""
    children: tuple[int, ...] = ()
    """Children that are waited for again."""
    inbox: int = 0
    mail: int = 0
    """For a run that had ended, the version of its inbox: acts up to it were meant for what it was before."""


class RunDismissed(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Fact. Lists leave the run out from now on (or no longer); nothing is deleted."""

    TAG = "run.dismissed"
    dismissed: bool = True


class AttributesSet(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Command. The handler changed the run's searchable labels."""

    TAG = "attributes.set"
    attributes: dict[str, Any]
    """Merged over those there are; null removes one."""


class AttributesChanged(Event, frozen=True, kw_only=True, omit_defaults=True):
    """Cause. Somebody outside changed the run's searchable labels."""

    TAG = "attributes.changed"
    attributes: dict[str, Any]
    inbox: int = 0
