"""What others say to a run: messages in `RUN/inbox`, copied into its stream by the owner, as causes."""

from collections.abc import Callable
from typing import Any

from ..events import types as t
from ..events.clock import Clock, new_event_id, to_datetime
from ..events.errors import AppendRefused, RefoldError
from ..events.log import Log
from ..events.store import Append, Store, Unit
from ..events.stream import INBOX, Tail, chain
from ..events.types import Event
from .live import LiveRun

TRIES = 20
"""How often a sender tries again when another sender was faster."""


def mail(run_id: str, tail: Tail, message: Event) -> Unit:
    """The unit that puts a message behind `tail` of the run's inbox and marks the run as due."""
    rows, after = chain(run_id + INBOX, tail, [message])
    return Unit((Append(run_id + INBOX, tail.version, rows, tail.hash),), mail=(run_id, after.version))


def post(store: Store, run_id: str, message: Event) -> None:
    """Send from a process that does not execute: durable when it returns. Blocks for a commit.

    Raises a `StoreError`, or `AppendRefused` when other senders were faster `TRIES` times.
    """
    refusal = None
    for _ in range(TRIES):
        (refusal,) = store.commit([mail(run_id, store.tail(run_id + INBOX), message)])
        if refusal is None:
            return
    assert refusal is not None
    raise AppendRefused(refusal.stream, refusal.expected, refusal.found)


def post_through(
    log: Log, run_id: str, message: Event, told: Callable[[RefoldError | None], None], tries: int = TRIES
) -> None:
    """Send through the group commit of the executing process; `told` hears when it is durable."""

    def stored(error: RefoldError | None) -> None:
        if isinstance(error, AppendRefused) and tries > 1:
            post_through(log, run_id, message, told, tries - 1)
        else:
            told(error)

    log.append(mail(run_id, log.store.tail(run_id + INBOX), message), stored, retry=False)


def send_evidence(store: Store, log: Log, run_id: str, ended: t.StepCompleted | t.StepFailed) -> None:
    """What a body came to after its run was taken over: the new owner copies it, nobody acts on it."""
    fields: dict[str, Any] = {
        "step": ended.step,
        "attempt": ended.attempt,
        "at": ended.at,
        "trace": ended.trace,
    }
    if isinstance(ended, t.StepCompleted):
        fields["result"] = ended.result
    else:
        fields["error"] = ended.error
    post_through(log, run_id, t.StepLate(id=new_event_id(), cause=ended.cause, **fields), lambda error: None)


def drain(store: Store, live: LiveRun) -> None:
    """Deliver every message the run has not seen, in order."""
    for row in store.read(live.run_id + INBOX, live.fold.seen):
        if live.lost or live.run.closed:
            return
        message = row.event()
        if isinstance(message, t.SignalSent):
            _signal(live, message, row.version)
        elif isinstance(message, t.CancelSent):
            head = live.head(message.id, message.by)
            live.deliver(
                t.RunCancelRequested(reason=message.reason, kind=message.kind, inbox=row.version, **head)
            )
        elif isinstance(message, t.StepLate):
            late = t.StepLate(
                step=message.step, attempt=message.attempt, result=message.result, error=message.error,
                **live.head(message.id),
            )  # fmt: skip
            live.append([late, _skipped(live, row.version, "evidence")])
        else:
            live.append([_skipped(live, row.version, f"{row.tag} is no message")])


def _signal(live: LiveRun, message: t.SignalSent, version: int) -> None:
    if message.signal_id and message.signal_id in live.signal_ids:
        live.append([_skipped(live, version, f"duplicate of signal id {message.signal_id!r}")])
        return
    head = live.head(message.id, message.by)
    copy: dict[str, Any] = {"name": message.name, "payload": message.payload, "signal_id": message.signal_id}
    live.deliver(t.SignalReceived(**copy, inbox=version, **head))


def _skipped(live: LiveRun, version: int, reason: str) -> Event:
    return t.InboxSkipped(inbox=version, reason=reason, **live.head())


def message_head(clock: Clock, by: str, trace: str = "") -> dict[str, Any]:
    """The fields every message has."""
    return {"id": new_event_id(), "at": to_datetime(clock.now()), "by": by, "trace": trace}
