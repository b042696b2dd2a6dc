"""What others say to a run: messages in `RUN/inbox`, copied into its stream by the owner, as causes."""

import asyncio
from collections.abc import Callable
from typing import Any

from msgspec import structs

from ..events import types as t
from ..events.blobs import bring_back, put_away
from ..events.clock import Clock, new_event_id, to_datetime
from ..events.errors import ActRefused, AppendRefused, ValueRefused
from ..events.log import Log
from ..events.registry import encode_event
from ..events.store import Post, Store, Unit, read_rows
from ..events.stream import INBOX
from ..events.types import Event
from . import acts, ballots, family, rewind
from .live import LiveRun

STALE = "sent before the run ended and was brought back"
LATER_S = 0.005
"""Pause before an act that cannot be done while an append is under way."""
PAGE = 500
"""Messages delivered at a time: a million signals to one run must not hold up the others."""


def mail(run_id: str, message: Event, expected: int = -1) -> Unit:
    """The unit that puts a message into a run's inbox; `expected`: only if it is at this version."""
    small, blobs = put_away(message)
    return Unit(posts=(Post(run_id, message.TAG, encode_event(small), expected),), blobs=blobs)


def post(store: Store, run_id: str, message: Event, expected: int = -1) -> None:
    """Send from a process that does not execute: durable when it returns. Blocks for a commit.

    Raises a `StoreError`, or `AppendRefused` when the inbox is not where it was expected.
    """
    (refusal,) = store.commit([mail(run_id, message, expected)])
    if refusal is not None:
        raise AppendRefused(refusal.stream, refusal.expected, refusal.found)


def send_evidence(log: Log, run_id: str, ended: t.StepCompleted | t.StepFailed) -> None:
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
    message = t.StepLate(id=new_event_id(), cause=ended.cause, **fields)
    log.append(mail(run_id, message), lambda error: None, retry=False)


def drain(store: Store, live: LiveRun) -> bool:
    """Deliver messages the run has not seen, in order, a page of them; whether there are more."""
    rows = read_rows(store, live.run_id + INBOX, live.fold.seen, PAGE)
    for row in rows:
        if live.lost or live.run.closed:
            return False
        message = bring_back(row.event(), store.blob)
        take = _TAKE.get(type(message))
        if take is None:
            skip(live, row.version, f"{row.tag} is no message")
        else:
            try:
                take(live, message, row.version)
            except rewind.NotYet:
                asyncio.get_running_loop().call_later(LATER_S, live.host.mail_for, live.run_id)
                return False
    return len(rows) == PAGE


def skip(live: LiveRun, version: int, reason: str) -> None:
    """Note that a message was looked at and not delivered."""
    live.append([t.InboxSkipped(inbox=version, reason=reason, **live.head())])


def _signal(live: LiveRun, message: t.SignalSent, version: int) -> None:
    if message.signal_id and message.signal_id in live.signal_ids:
        skip(live, version, f"duplicate of signal id {message.signal_id!r}")
        return
    head = live.head(message.id, message.by)
    copy: dict[str, Any] = {"name": message.name, "payload": message.payload, "signal_id": message.signal_id}
    live.deliver(t.SignalReceived(**copy, inbox=version, **head))


def _cancel(live: LiveRun, message: t.CancelSent, version: int) -> None:
    if version <= live.stale_mail:
        skip(live, version, STALE)
        return
    head = live.head(message.id, message.by)
    acts.cancel(live, t.RunCancelRequested(reason=message.reason, kind=message.kind, inbox=version, **head))


def _late(live: LiveRun, message: t.StepLate, version: int) -> None:
    late = structs.replace(message, **live.head(message.id))
    live.append([late, t.InboxSkipped(inbox=version, reason="evidence", **live.head())])


def _vote(live: LiveRun, message: t.VoteSent, version: int) -> None:
    vote, reason = ballots.judge(live, message, live.head(message.id, message.by), version)
    if vote is None:
        skip(live, version, f"vote refused: {reason}")
        return
    if live.fold.paused:  # it is judged once more when it is delivered, and no deadline passes until then
        vote = structs.replace(vote, at=message.at)
    live.deliver(vote)


def _child_ended(live: LiveRun, message: t.ChildEndSent, version: int) -> None:
    if message.status != "completed" and not family.still_ended(live.host.store, message):
        skip(live, version, f"child {message.run_id} was repaired after it had ended so")
        return
    head = live.head(message.id, message.by)
    live.deliver(
        t.ChildEnded(
            child=message.child, run_id=message.run_id, status=message.status, result=message.result,
            error=message.error, spent=message.spent, inbox=version, **head,
        )
    )  # fmt: skip


def _request(live: LiveRun, message: t.RequestSent, version: int) -> None:
    if version <= live.stale_mail:
        skip(live, version, STALE)
        return
    try:
        acts.act(live, message, version)
    except (ActRefused, ValueRefused) as refused:
        skip(live, version, f"{message.verb} refused: {refused}"[:8_192])


_TAKE: dict[type[Event], Callable[[LiveRun, Any, int], None]] = {
    t.SignalSent: _signal,
    t.CancelSent: _cancel,
    t.StepLate: _late,
    t.VoteSent: _vote,
    t.ChildEndSent: _child_ended,
    t.RequestSent: _request,
}


def message_head(clock: Clock, by: str, trace: str = "") -> dict[str, Any]:
    """The fields every message has."""
    return {"id": new_event_id(), "at": to_datetime(clock.now()), "by": by, "trace": trace}
