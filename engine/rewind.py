"""Going back: from a run's history to the events that make it go on as if its last part had not been.

The plan is a fold of the log and needs no handler, so any process may repair a run that has ended.
"""

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, NamedTuple

from msgspec import Raw, structs

from ..events import types as t
from ..events.clock import new_event_id
from ..events.errors import ActRefused, RefoldError
from ..events.registry import encode_event
from ..events.types import Event, Spent
from . import family
from .activation import Activation
from .commands import event_number
from .ending import ALWAYS
from .loader import History, whole_history
from .pause import cause_in

_CHILD_OVER = (t.ChildEnded, t.ChildCancelled)


class NotYet(RefoldError):
    """What is asked for is possible once what is under way is durable."""


class Plan(NamedTuple):
    """Where to go back to, and what to deliver again from there."""

    to: int
    """Version of the last event that counts; the end of an activation, or 1."""
    fields: dict[str, Any]
    """Of `run.rewound`: what is dropped, and what is open again."""
    again: list[Event]
    """Causes that reached the run later and are delivered again, in order."""
    orphans: list[t.ChildStarted]
    """Children that are as if never started, and still run."""

    def events(self, head: Callable[[], dict[str, Any]], **said: Any) -> list[Event]:
        """What to append."""
        rewound = t.RunRewound(to=self.to, **self.fields, **said, **head())
        held = [
            t.CauseHeld(tag=cause.TAG, body=Raw(encode_event(cause)), **{**head(), "cause": cause.id})
            for cause in self.again
        ]
        return [rewound, *held]


class Still(NamedTuple):
    """What is open after some activations, by number."""

    steps: dict[int, t.StepScheduled]
    timers: dict[int, datetime]
    waits: dict[int, str]
    gates: set[int]
    children: dict[int, t.ChildStarted]


def still_open(activations: Iterable[Activation]) -> Still:
    """Fold activations to what they leave open."""
    still = Still({}, {}, {}, set(), {})
    for activation in activations:
        for event in (activation.cause, *activation.commands):
            _apply(still, event)
    return still


def _apply(still: Still, event: Event) -> None:
    if isinstance(event, t.StepScheduled):
        still.steps[event.step] = event
    elif isinstance(event, t.StepCompleted | t.StepFailed | t.StepSkipped | t.StepCancelled):
        still.steps.pop(event.step, None)
    elif isinstance(event, t.TimerStarted):
        still.timers[event.timer] = event.due_at
    elif isinstance(event, t.TimerFired | t.TimerCancelled):
        still.timers.pop(event.timer, None)
    elif isinstance(event, t.WaitOpened):
        still.waits[event.wait] = event.name
    elif isinstance(event, t.WaitCancelled):
        still.waits.pop(event.wait, None)
    elif isinstance(event, t.SignalReceived):
        taker = next((wait for wait, name in still.waits.items() if name == event.name), None)
        if taker is not None:
            del still.waits[taker]
    elif isinstance(event, t.GateOpened):
        still.gates.add(event.gate)
    elif isinstance(event, t.GateClosed) or (isinstance(event, t.GateVoted) and event.decides):
        still.gates.discard(event.gate)
    elif isinstance(event, t.ChildStarted):
        if not event.detached:
            still.children[event.child] = event
    elif isinstance(event, t.ChildEnded | t.ChildCancelled):
        still.children.pop(event.child, None)


def plan(history: History, kept: int, *, keep: bool = True, but: frozenset[int] = frozenset()) -> Plan:
    """Go back to the end of the first `kept` activations (0: to the very beginning).

    `keep`: what steps, children and people came to meanwhile counts, for what is open there; except for the
    numbers in `but`, and for failures. Signals always count.
    """
    activations = history.activations
    if kept:
        first, rest, to = activations[:kept], activations[kept:], history.ends_at[kept - 1]
    else:
        start = activations[0]
        first, to = [start._replace(commands=[])], 1
        rest = [start, *activations[1:]]
    still = still_open(first)
    commands = [event for activation in rest for event in activation.commands]
    if any(isinstance(event, t.CompensationStarted | t.StepCompensated) for event in commands):
        raise ActRefused(
            f"run {history.run_id}: something it did has been undone since then, and would count as done: "
            "start a new run, or fork it from an earlier event"
        )
    fields = {
        "dropped": tuple(sorted({n for event in commands if (n := _given(event))})),
        "steps": tuple(sorted(still.steps)),
        "timers": still.timers,
        "waits": still.waits,
        "gates": tuple(sorted(still.gates)),
        "children": tuple(sorted(still.children)),
    }
    causes = [activation.cause for activation in rest if activation.cause is not activations[0].cause]
    again = [made for cause in causes if (made := _again(cause, still, keep, but)) is not None]
    late = [cause_in(held) for held in history.held.values()]  # it was paused, and then ended
    again += [made for cause in late if (made := _again(cause, still, keep, but, heard=False)) is not None]
    over = {e.child for a in rest for e in (a.cause, *a.commands) if isinstance(e, _CHILD_OVER)}
    orphans = [e for e in commands if isinstance(e, t.ChildStarted) and e.child not in over]
    return Plan(to, fields, again, [child for child in orphans if not child.detached])


def _given(event: Event) -> int:
    opens = (
        t.StepScheduled, t.TimerStarted, t.WaitOpened, t.GateOpened, t.ChildStarted, t.FanOutOpened,
        t.BranchSkipped,
    )  # fmt: skip
    return event_number(event) if isinstance(event, opens) else 0


def _again(
    cause: Event, still: Still, keep: bool, but: frozenset[int], *, heard: bool = True
) -> Event | None:
    if isinstance(cause, t.SignalReceived | t.AttributesChanged):
        return structs.replace(cause, inbox=0)
    if not keep or event_number(cause) in but:
        return None
    if isinstance(cause, t.StepCompleted | t.StepSkipped):
        return cause if cause.step in still.steps else None
    if isinstance(cause, t.GateVoted):
        return structs.replace(cause, inbox=0) if cause.gate in still.gates else None
    if isinstance(cause, t.ChildEnded) and cause.child in still.children:
        spent = Spent() if heard else cause.spent  # its costs are counted already
        return structs.replace(cause, inbox=0, spent=spent)
    return None


# ---- where to


def before_failure(history: History) -> tuple[int, frozenset[int]]:
    """To retry a run that has ended: how many activations to keep, and what not to deliver again.

    Back to before the first of the steps that failed together with the last one; without a failed step, to
    before the cause on which the handler ended.
    """
    activations = history.activations
    if isinstance(history.end, t.RunTerminated) or getattr(history.end, "unbegun", False):
        return len(activations), frozenset()  # nothing went wrong: go on where it stood
    if (end := handler_end(activations)) is not None:
        activations = activations[: end + 1]
    failed = [place for place, a in enumerate(activations) if _is_failure(a.cause)]
    if not failed:
        return _before_last(history, activations), frozenset()
    number = event_number(activations[failed[-1]].cause)
    began = next(
        (p for p, a in enumerate(activations) if any(_given(event) == number for event in a.commands)), 0
    )
    together = [place for place in failed if place > began]
    return together[0], frozenset(event_number(activations[place].cause) for place in together)


def _before_last(history: History, activations: list[Activation]) -> int:
    """Before the cause on which the handler ended; before the request, when it was cancelled; and when it
    ended at a deadline, before that was set: it would pass again at once."""
    last = len(activations) - 1
    if isinstance(history.end, t.RunCancelled):
        asked = [p for p, a in enumerate(activations) if isinstance(a.cause, t.RunCancelRequested)]
        return asked[-1] if asked else last
    cause = activations[last].cause
    if isinstance(cause, t.TimerFired):
        for place, activation in enumerate(activations):
            if any(isinstance(e, t.TimerStarted) and e.timer == cause.timer for e in activation.commands):
                return place
    return last


def handler_end(activations: list[Activation]) -> int | None:
    """Place of the activation in which the handler ended: its steps come before, those of `always` after."""
    for place, activation in enumerate(activations):
        if any(_ends_handler(event) for event in activation.commands):
            return place
    return None


def _ends_handler(event: Event) -> bool:
    if isinstance(event, t.CheckpointRecorded):
        return event.name == ALWAYS and not event.task
    return isinstance(event, (t.CompensationStarted, *t.ENDS))


def undone_since(history: History, shared: Iterable[Activation]) -> list[str]:
    """Keys of what these activations have done, and the run has undone."""
    undone = {e.key for a in history.activations for e in a.commands if isinstance(e, t.StepCompensated)}
    keys = {e.step: e.key for a in history.activations for e in a.commands if isinstance(e, t.StepScheduled)}
    done = [keys.get(a.cause.step, "") for a in shared if isinstance(a.cause, t.StepCompleted)]
    done += [e.key for a in shared for e in a.commands if isinstance(e, t.CompensationRegistered)]
    return [key for key in done if key in undone]


def _is_failure(cause: Event) -> bool:
    return isinstance(cause, t.StepFailed) or (
        isinstance(cause, t.ChildEnded) and cause.status != "completed"
    )


def before_end_of_step(history: History, key: str) -> tuple[int, int]:
    """How many activations to keep so that the step is open again, and its number. Raises `ActRefused`."""
    number = _number_of_key(history, key)
    for place, activation in enumerate(history.activations):
        cause = activation.cause
        if isinstance(cause, t.StepCompleted | t.StepFailed | t.StepSkipped) and cause.step == number:
            return place, number
    raise ActRefused(f"run {history.run_id}: step {key} has not ended; there is nothing to go back to")


def _number_of_key(history: History, key: str) -> int:
    keys: dict[str, int] = {
        event.key: event.step
        for activation in history.activations
        for event in activation.commands
        if isinstance(event, t.StepScheduled)
    }
    if key not in keys:
        known = ", ".join(list(keys)[-5:]) or "none"
        raise ActRefused(f"run {history.run_id} has no step {key!r}; its last steps: {known}")
    return keys[key]


def at_version(history: History, version: int) -> int:
    """How many activations ended at or before the first cause after this version. Raises `ActRefused`."""
    if not 1 <= version <= history.tail.version:
        raise ActRefused(
            f"run {history.run_id} has events 1 to {history.tail.version}, there is no event {version}"
        )
    for first, last in history.dropped:
        if first < version <= last:
            raise ActRefused(
                f"run {history.run_id}: event {version} is in a part that was rewound (events {first + 1} to "
                f"{last}): give an event before or after it"
            )
    kept = sum(1 for at in history.causes_at if at <= version) if version > 1 else 0
    end = handler_end(history.activations)
    if end is not None and kept > end:
        raise ActRefused(
            f"run {history.run_id}: its handler ended with the event {history.causes_at[end]}, and nothing "
            f"follows from event {version}: give one before that"
        )
    return kept


# ---- a run that its owner has in memory


def rewind_live(live: Any, request: t.RequestSent, head: dict[str, Any], told: Any) -> None:
    """Reset a step of a run that goes on: its handler is built again from before that step's end."""
    if live.fold.paused:
        raise ActRefused(f"run {live.run_id} is paused: resume it, then reset the step")
    if live.undurable:
        raise NotYet(f"run {live.run_id} is in the middle of an append: try again")
    once = [b.command.key for b in live.flight.bodies.values() if not b.command.step.options.repeats_unknown]
    if once:
        raise ActRefused(f"run {live.run_id}: step {once[0]} runs and may not be repeated: wait for its end")
    history = whole_history(live.host.store, live.run_id)
    kept, number = before_end_of_step(history, request.key)
    planned = plan(history, kept, but=frozenset({number}))
    first = [head]

    def next_head() -> dict[str, Any]:
        return first.pop() if first else {**live.head(by=request.by), "id": new_event_id()}

    events = planned.events(next_head, verb=request.verb, reason=request.reason)
    live.flight.stop_all()
    live.alarms.clear()

    def stored(error: RefoldError | None) -> None:
        if told is not None:
            told(error)
        if error is None:
            live.host.reload(live)

    posts = tuple(
        family.cancel_message(live.run_id, _given_up(child, events[0])) for child in planned.orphans
    )
    live.append(events, told=stored, along=family.Along(posts=posts))
    live.lost = True  # what comes in until then is kept, and fed to the new handler


def _given_up(child: t.ChildStarted, by: Event) -> t.ChildCancelled:
    return t.ChildCancelled(
        child=child.child, run_id=child.run_id, id=by.id, at=by.at, by=by.by, trace=by.trace
    )
