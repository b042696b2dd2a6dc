"""Holding a run: what comes while it is paused is stored at once and delivered once it is resumed."""

from collections.abc import Iterable
from typing import Any

from msgspec import Raw, structs

from ..events import types as t
from ..events.blobs import bring_back
from ..events.registry import decode_event, encode_event
from ..events.types import Event
from . import ballots

_STEP_ENDS = frozenset(kind.TAG for kind in (t.StepCompleted, t.StepFailed, t.StepSkipped))


def hold(live: Any, cause: Event, told: Any) -> None:
    """Store a cause that may not be delivered now; `told` hears when it is durable."""
    if isinstance(cause, t.SignalReceived) and cause.signal_id:
        live.signal_ids.add(cause.signal_id)
    body, inbox = Raw(encode_event(cause)), getattr(cause, "inbox", 0)
    held = t.CauseHeld(tag=cause.TAG, body=body, inbox=inbox, **live.head(cause.cause))
    live.held[held.id] = held
    live.append([held], told=told)


def release(live: Any) -> None:
    """Deliver what was held, in order."""
    for held in list(live.held.values()):
        if live.lost or live.run.closed:
            return
        del live.held[held.id]
        cause = bring_back(cause_in(held), live.host.store.blob)
        if (made := again(live, cause, live.head(held.id, cause.by))) is not None:
            live.deliver(made)
        else:
            reason = f"{cause.TAG} came too late"
            live.append([t.InboxSkipped(inbox=0, reason=reason, **live.head(held.id))])


def cause_in(held: t.CauseHeld) -> Event:
    """The cause that was held."""
    return decode_event(held.tag, bytes(held.body), f"{t.CauseHeld.TAG} {held.id}")


def held_steps(held: Iterable[t.CauseHeld]) -> set[int]:
    """Steps whose ends are in the log, waiting to be delivered."""
    causes = (cause_in(one) for one in held if one.tag in _STEP_ENDS)
    return {cause.step for cause in causes}  # type: ignore[attr-defined]


def again(live: Any, cause: Event, head: dict[str, Any]) -> Event | None:
    """A cause that could not be delivered when it came, as it is now; None: it came too late for that."""
    if isinstance(cause, t.GateVoted):
        return ballots.judge(live, cause, head, cause.inbox)[0]
    return structs.replace(cause, **head)


def resume(live: Any) -> None:
    """The run is no longer paused: deliver what was held, begin what waited for it."""
    release(live)
    if live.lost or live.run.closed:
        return
    again_, unknown = live.flight.not_begun()
    live.flight.start_again(again_)
    for step in unknown:
        live.flight.recover(step)
    live.deadlines.arm_all()
