"""Runs that belong together: children and their parents, and runs that continue one another."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from msgspec import Raw, structs
from msgspec.structs import asdict

from ..events import locks, types as t
from ..events.blobs import Contents, bring_back, put_all_away, put_away
from ..events.clock import new_event_id, seed_below
from ..events.errors import StoreError
from ..events.registry import decode_event, encode_event
from ..events.run_events import Ancestor, Carried
from ..events.store import Append, Post
from ..events.stream import INBOX, Tail, chain
from ..events.types import Event, Spent
from ..events.work import Work, WorkFold
from . import onward, pause
from .children import ChildCommand
from .commands import Command
from .placement import AT_ONCE, Placement
from .workflow import Workflow


class Newborn(NamedTuple):
    """A run that is stored with the append of another one, and begun once that is durable."""

    run_id: str
    workflow: Workflow[Any, Any]
    started: t.RunStarted
    tail: Tail
    fold: WorkFold


class Along(NamedTuple):
    """What is stored in one unit with a run's own rows."""

    appends: tuple[Append, ...] = ()
    works: tuple[Work, ...] = ()
    posts: tuple[Post, ...] = ()
    blobs: Contents = ()

    def __add__(self, other: "Along") -> "Along":  # type: ignore[override]
        return Along(
            self.appends + other.appends,
            self.works + other.works,
            self.posts + other.posts,
            self.blobs + other.blobs,
        )


NOTHING_ALONG = Along()
LAST_ROWS = 100
"""Of a stream, among which its end is looked for: few facts follow an end."""
_REPAIRS: tuple[type[Event], ...] = (t.RunRewound, t.RunReopened)
_ENDS_AND_REPAIRS = frozenset(kind.TAG for kind in (*t.ENDS, *_REPAIRS))


def stored_start(run_id: str, started: t.RunStarted) -> tuple[Tail, WorkFold, Along]:
    """Where a new run stands after its first event, and what stores it."""
    stored, blobs = put_all_away([started])
    rows, tail = chain(run_id, Tail(), stored)
    fold = WorkFold(run_id)
    fold.apply(started)
    return tail, fold, Along((Append(run_id, 0, rows),), (fold.row(),), (), blobs)


def born(run_id: str, workflow: Workflow[Any, Any], started: t.RunStarted) -> tuple[Newborn, Along]:
    """A new run, and what stores it."""
    tail, fold, along = stored_start(run_id, started)
    return Newborn(run_id, workflow, started, tail, fold), along


def child_of(
    parent: Any, workflow: Workflow[Any, Any], event: t.ChildStarted, place: Placement = AT_ONCE
) -> tuple[Newborn, Along]:
    """The run that a parent's `child.started` stands for."""
    above: t.RunStarted = parent.started
    started = t.RunStarted(
        workflow=workflow.name, workflow_version=workflow.version, args=event.args,
        seed=seed_below(above.seed, event.run_id),
        attributes={name: value for name, value in parent.ctx.attributes.items() if name != "title"},
        trigger="parent", is_triggered_by_hook=above.is_triggered_by_hook, runtime=workflow.runtime,
        timeout_s=workflow.options.timeout or 0.0,
        ancestors=(*above.ancestors, Ancestor(parent.run_id, above.workflow)), child=event.child,
        detached=event.detached, max_depth=above.max_depth, files=above.files, id=new_event_id(),
        at=event.at, by=above.by, cause=event.id, trace=above.trace,
        **asdict(place.of(workflow.options.run_on)),
    )  # fmt: skip
    return born(event.run_id, workflow, started)


def next_of(live: Any, event: t.RunContinued) -> tuple[Newborn, Along]:
    """The run that continues this one: its place in the family, its labels and the signals it had in hand."""
    run, before = live.run, live.run.started
    kept = [signal for signals in run.signals.values() for signal in signals]
    held = [pause.cause_in(held) for held in live.held.values()]  # resumed, it went on before it had them all
    kept += [bring_back(cause, live.host.store.blob) for cause in held if isinstance(cause, t.SignalReceived)]
    carried = tuple(Carried(signal.name, signal.payload, signal.signal_id) for signal in kept)
    spent = before.spent_before + live.spent
    started = t.RunStarted(
        workflow=before.workflow, workflow_version=before.workflow_version, args=event.args,
        seed=seed_below(before.seed, event.next_run),
        attributes=run.ctx.attributes, trigger="continue_as_new", runtime=run.workflow.runtime,
        timeout_s=before.timeout_s, ancestors=before.ancestors, child=before.child, detached=before.detached,
        max_depth=before.max_depth, continued_from=run.run_id, carried=carried, files=before.files,
        queue=before.queue, priority=before.priority, queue_key=before.queue_key, run_on=before.run_on,
        lock=before.lock, is_triggered_by_hook=before.is_triggered_by_hook,
        spent_before=spent, id=new_event_id(), at=event.at, by=before.by, cause=event.id, trace=before.trace,
    )  # fmt: skip
    return born(event.next_run, run.workflow, started)


Concerns = tuple[list[Newborn], Along] | None
"""What is stored, and begun, with a command of the handler's that concerns other runs; None: nothing."""


def goes_on(live: Any, end: t.RunContinued, before: list[Event]) -> tuple[t.RunContinued, Concerns]:
    """The end with the place up to which messages go along, and what is stored, and begun, with it.

    `before`: what is appended with it; the last message received is among that. See `onward` for those
    that come later.
    """
    seen = max([live.fold.seen, *(getattr(event, "inbox", 0) for event in before)])
    try:
        unseen = live.host.store.read(live.run_id + INBOX, seen)
    except StoreError:  # nobody can look just now: they are passed on as those that come later
        unseen = []
    end = structs.replace(end, inbox=unseen[-1].version if unseen else seen)
    following, along = next_of(live, end)
    posts = onward.posts(unseen, end.next_run)
    posts += locks.handed_on(live.run_id, end.next_run, live.run.started, end)
    return end, ([following], along + Along(posts=posts))


def follows(live: Any, command: Command, event: Event) -> Concerns:
    """What concerns other runs of a command of the handler's, or of its end."""
    kind = type(event)
    if kind is t.ChildStarted:
        assert isinstance(command, ChildCommand)
        assert isinstance(event, t.ChildStarted)
        child, along = child_of(live.run, command.workflow, event, command.place)
        return [child], along
    if kind is t.ChildCancelled:
        assert isinstance(event, t.ChildCancelled)
        return [], Along(posts=(cancel_message(live.run_id, event),))
    if kind in t.ENDS:
        posts = end_message(live.run_id, live.run.started, event, live.untold)
        return [], Along(posts=posts + locks.freed(live.run_id, live.run.started, event))
    return None


def spent_of(event: t.CostRecorded) -> Spent:
    """What one record of costs adds to a total."""
    return Spent(
        usd=event.usd,
        input_tokens=event.input_tokens,
        output_tokens=event.output_tokens,
        cache_tokens=event.cache_tokens,
        turns=event.turns,
    )


def parent_of(started: t.RunStarted) -> str:
    """The run that waits for this one's end; empty: none."""
    return started.ancestors[-1].run_id if started.ancestors and not started.detached else ""


def end_message(run_id: str, started: t.RunStarted, end: Event, spent: Spent) -> tuple[Post, ...]:
    """What a run's last append tells its parent; `spent` since it told it so the last time."""
    parent = parent_of(started)
    if not parent or isinstance(end, t.RunContinued):
        return ()
    message = t.ChildEndSent(
        child=started.child, run_id=run_id, status=end.TAG.removeprefix("run."),
        result=getattr(end, "result", Raw(b"null")), error=_failure(end), spent=spent,
        id=new_event_id(), at=end.at, by=end.by, cause=end.id, trace=end.trace,
    )  # fmt: skip
    return (post(parent, message),)


def last_words(
    run_id: str, started: t.RunStarted, end: Event, spent: Spent, children: Iterable[str]
) -> tuple[Post, ...]:
    """What a run whose handler is not asked tells its children that are waited for, its parent, its lock."""
    told = tuple(terminate_message(child, end) for child in children)
    return told + end_message(run_id, started, end, spent) + locks.freed(run_id, started, end)


def _failure(end: Event) -> t.Failure | None:
    if isinstance(end, t.RunCancelled | t.RunTerminated):
        return t.Failure(type=type(end).__name__, message=end.reason)
    error: t.Failure | None = getattr(end, "error", None)
    return error


def post(run_id: str, message: Event) -> Post:
    """A message for a run's inbox; its large values are those of an event that is stored with it."""
    small, _ = put_away(message)
    return Post(run_id, message.TAG, encode_event(small))


def still_ended(store: Any, message: t.ChildEndSent) -> bool:
    """Whether the end that a child has told of is its end still; a repaired child tells of another one."""
    tail = store.tail(message.run_id).version
    for row in reversed(store.read(message.run_id, max(0, tail - LAST_ROWS))):
        if row.tag in _ENDS_AND_REPAIRS:
            event = decode_event(row.tag, row.state, row)
            return event.id == message.cause
    return True


def cancel_message(run_id: str, cause: Event) -> Post:
    """Asks a child to stop because its parent no longer waits for it."""
    sent = t.CancelSent(
        reason=f"its parent {run_id} no longer waits for it", kind="ParentCancelled", id=new_event_id(),
        at=cause.at, by=cause.by, cause=cause.id, trace=cause.trace,
    )  # fmt: skip
    return post(getattr(cause, "run_id", ""), sent)


def terminate_message(child_id: str, end: Event) -> Post:
    """Stops a child hard because its parent was."""
    sent = t.RequestSent(
        verb="terminate", reason=getattr(end, "reason", ""), id=new_event_id(), at=end.at, by=end.by,
        cause=end.id, trace=end.trace,
    )  # fmt: skip
    return post(child_id, sent)
