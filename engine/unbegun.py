"""What is said to a run that may not begin yet: it has no handler, so whoever sees the message acts on it.

It is cancelled, terminated, held or resumed at once. Signals and labels are stored as causes that are held,
to be delivered, in their order, after its start.
"""

from typing import Any

from msgspec import Raw

from ..events import codec, types as t
from ..events.blobs import bring_back
from ..events.clock import new_event_id, to_datetime
from ..events.errors import AppendRefused, RefoldError
from ..events.registry import encode_event
from ..events.stream import INBOX, Row
from ..events.types import Event
from . import family
from .loader import History

PAGE = 500


def must_wait(history: History, now: float) -> bool:
    """Whether the run has not begun, and is held, or its time has not come."""
    work = history.work([]).row()
    return work.state == "pending" and (work.due_at is None or work.due_at > now)


def attend(worker: Any, history: History) -> None:
    """Act on what was said to the run since it was looked at last."""
    run_id = history.run_id
    seen = history.work([]).seen
    reader = _Reader(worker, history)
    for row in worker.store.read(run_id + INBOX, seen, PAGE):
        if reader.end is None:
            reader.take(row)
    events, end = reader.events, reader.end
    if not events or worker.closing:
        return
    posts = () if end is None else family.last_words(run_id, history.started, end, history.untold, ())

    def stored(error: RefoldError | None) -> None:
        if isinstance(error, AppendRefused):  # somebody else was faster
            worker.mail_for(run_id)
        elif error is None and end is not None:
            worker.blocked.pop(run_id, None)
            worker.ends.tell(run_id, end)
            for post in posts:
                worker.mail_for(post.run_id)
        elif error is None:
            worker.look_again()

    worker.log.append(history.unit(events, posts), stored)


class _Reader:
    """From messages to the events that the run's stream gets."""

    def __init__(self, worker: Any, history: History) -> None:
        self._store, self._history = worker.store, history
        self._last = max(to_datetime(worker.clock.now()), history.last_at)
        self._paused, self._signals = history.paused, set(history.signal_ids)
        self.events: list[Event] = []
        self.end: Event | None = None

    def _head(self, cause: str = "", by: str = "engine") -> dict[str, Any]:
        trace = self._history.started.trace
        return {"id": new_event_id(), "at": self._last, "by": by, "cause": cause, "trace": trace}

    def take(self, row: Row) -> None:
        """One message."""
        message = bring_back(row.event(), self._store.blob)
        stale = row.version <= self._history.stale_mail
        if isinstance(message, t.SignalSent):
            self._signal(message, row.version)
        elif isinstance(message, t.CancelSent | t.RequestSent) and not stale:
            self._ask(message, row.version)
        else:
            self._skip(row.version, "sent before the run has begun")

    def _ask(self, message: t.CancelSent | t.RequestSent, version: int) -> None:
        verb = message.verb if isinstance(message, t.RequestSent) else "cancel"
        head = self._head(message.id, message.by)
        if verb in ("cancel", "compensate"):
            kind = getattr(message, "kind", "UserRequested")
            self.end = t.RunCancelled(
                reason=message.reason, kind=kind, inbox=version, unbegun=True, **head
            )  # fmt: skip
            self.events.append(self.end)
        elif verb == "terminate":
            self.end = t.RunTerminated(reason=message.reason, inbox=version, **head)
            self.events.append(self.end)
        elif verb == "pause" and not self._paused:
            self._paused = True
            self.events.append(t.RunPaused(reason=message.reason, inbox=version, **head))
        elif verb == "resume" and self._paused:
            self._paused = False
            self.events.append(t.RunResumed(reason=message.reason, inbox=version, **head))
        elif verb == "attributes" and isinstance(message, t.RequestSent):
            labels = codec.decoder(dict[str, Any])(message.value, "attributes")
            self._hold(t.AttributesChanged(attributes=labels, inbox=version, **head), version)
        else:
            why = "it is paused already" if verb == "pause" else "the run has not begun"
            self._skip(version, f"{verb} refused: {why}")

    def _signal(self, message: t.SignalSent, version: int) -> None:
        if message.signal_id and message.signal_id in self._signals:
            self._skip(version, f"duplicate of signal id {message.signal_id!r}")
            return
        if message.signal_id:
            self._signals.add(message.signal_id)
        received = t.SignalReceived(
            name=message.name, payload=message.payload, signal_id=message.signal_id, inbox=version,
            **self._head(message.id, message.by),
        )  # fmt: skip
        self._hold(received, version)

    def _hold(self, cause: Event, version: int) -> None:
        body = Raw(encode_event(cause))
        self.events.append(t.CauseHeld(tag=cause.TAG, body=body, inbox=version, **self._head(cause.cause)))

    def _skip(self, version: int, reason: str) -> None:
        self.events.append(t.InboxSkipped(inbox=version, reason=reason, **self._head()))
