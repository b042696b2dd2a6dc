"""What operators do to a run that its owner has in memory."""

from collections.abc import Callable
from typing import Any

from ..events import codec, types as t
from ..events.errors import ActRefused, ConfigurationError, ValueRefused
from . import family, pause, rewind
from .commands import StepCommand
from .live import LiveRun, Told

VERBS = ("terminate", "pause", "resume", "skip", "reset", "resolve", "compensate", "attributes")


def act(live: LiveRun, request: t.RequestSent, inbox: int = 0, told: Told | None = None) -> None:
    """Do what is asked; `told` hears when it is durable. Raises `ActRefused` or `ValueRefused`."""
    do = _ACTS.get(request.verb)
    if do is None:
        raise ActRefused(f"run {live.run_id}: {request.verb!r} is no act; expected one of {', '.join(VERBS)}")
    head = live.head(request.id if inbox else "", request.by)
    do(live, request, {"inbox": inbox, **head}, told)


def cancel(
    live: LiveRun, request: t.RunCancelRequested | t.CompensateRequested, told: Told | None = None
) -> None:
    """Ask the handler to stop; a paused run is resumed for it, the request delivered first."""
    paused = live.fold.paused
    if paused:
        live.append([t.RunResumed(reason="to be cancelled", **live.head(request.id, request.by))])
    live.deliver(request, told=told)
    if paused:
        pause.resume(live)


def open_step(live: LiveRun, key: str) -> StepCommand:
    """The step of that key that has not ended. Raises `ActRefused`."""
    for command in live.run.steps.values():
        if command.key == key:
            return command
    keys = ", ".join(command.key for command in live.run.steps.values()) or "none"
    raise ActRefused(f"run {live.run_id} has no open step {key!r}; open steps: {keys}")


# ---- one function for each verb


def _terminate(live: LiveRun, request: t.RequestSent, head: dict[str, Any], told: Told | None) -> None:
    run = live.run
    children = [command.run_id for command in run.children.values()]
    numbers = sorted((*run.steps, *run.timers, *run.waits, *run.gates, *run.children))
    end = t.RunTerminated(reason=request.reason, open=tuple(numbers), **head)
    posts = family.last_words(live.run_id, run.started, end, live.untold, children)
    run.closed = True
    live.append([end], told=told, along=family.Along(posts=posts))


def _pause(live: LiveRun, request: t.RequestSent, head: dict[str, Any], told: Told | None) -> None:
    if live.fold.paused:
        raise ActRefused(f"run {live.run_id} is paused already: resume it when it may go on")
    live.append([t.RunPaused(reason=request.reason, **head)], told=told)
    live.alarms.clear()


def _resume(live: LiveRun, request: t.RequestSent, head: dict[str, Any], told: Told | None) -> None:
    if not live.fold.paused:
        raise ActRefused(f"run {live.run_id} is not paused: there is nothing to resume")
    live.append([t.RunResumed(reason=request.reason, **head)], told=told)
    pause.resume(live)


def _skip(live: LiveRun, request: t.RequestSent, head: dict[str, Any], told: Told | None) -> None:
    command = open_step(live, request.key)
    _check_result(command, request)
    live.deliver(
        t.StepSkipped(step=command.number, result=request.value, reason=request.reason, **head), told=told
    )


def _resolve(live: LiveRun, request: t.RequestSent, head: dict[str, Any], told: Told | None) -> None:
    command = open_step(live, request.key)
    number = command.number
    state = live.flight.attempts[number]
    if state.phase != "in_doubt":
        raise ActRefused(
            f"run {live.run_id}: step {request.key} is not in doubt ({state.phase}); skip it or let it run"
        )
    inbox = head.pop("inbox")
    seen = [t.InboxSkipped(inbox=inbox, reason=f"resolved {request.key}", **live.head())] if inbox else []
    if request.outcome == "completed":
        _check_result(command, request)
        live.deliver(
            t.StepCompleted(step=number, result=request.value, attempt=state.attempt, **head), told=told
        )
    elif request.outcome == "failed":
        failure = t.Failure(type="StepFailed", message=request.reason or f"{request.by} says it failed")
        live.deliver(t.StepFailed(step=number, error=failure, attempt=state.attempt, **head), told=told)
    elif request.outcome == "retry":
        live.flight.start_again([number], by=request.by, told=told)
    else:
        raise ActRefused(f"resolve({request.outcome!r}): expected 'completed', 'failed' or 'retry'")
    if seen:
        live.append(list(seen))


def _check_result(command: StepCommand, request: t.RequestSent) -> None:
    try:
        command.step.decode_result(request.value, f"result for step {command.key}")
    except ValueRefused as refused:
        raise ActRefused(str(refused)) from None


def _compensate(live: LiveRun, request: t.RequestSent, head: dict[str, Any], told: Told | None) -> None:
    cancel(live, t.CompensateRequested(reason=request.reason, **head), told)


def _attributes(live: LiveRun, request: t.RequestSent, head: dict[str, Any], told: Told | None) -> None:
    changes = codec.decoder(dict[str, Any])(request.value, "attributes")
    live.deliver(t.AttributesChanged(attributes=changes, **head), told=told)


def _reset(live: LiveRun, request: t.RequestSent, head: dict[str, Any], told: Told | None) -> None:
    rewind.rewind_live(live, request, head, told)


_ACTS: dict[str, Callable[[LiveRun, t.RequestSent, dict[str, Any], Told | None], None]] = {
    "terminate": _terminate,
    "pause": _pause,
    "resume": _resume,
    "skip": _skip,
    "resolve": _resolve,
    "compensate": _compensate,
    "attributes": _attributes,
    "reset": _reset,
}


def request_of(verb: str, head: dict[str, Any], **fields: Any) -> t.RequestSent:
    """An act as a message. Raises `ConfigurationError` for a verb there is not."""
    if verb not in VERBS:
        raise ConfigurationError(f"{verb!r} is no act; expected one of {', '.join(VERBS)}")
    return t.RequestSent(verb=verb, **fields, **head)
