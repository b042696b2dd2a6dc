"""Attempts whose outcome nobody knows: a probe may find out, else the step's options or a person decide."""

from typing import Any

from msgspec import Struct

from ..events import codec, types as t
from ..events.errors import ConfigurationError
from .bodies import Body, Outcome, timed_out
from .callee import Callee

MAX_CRASHES = 10
"""So many attempts of a step may end with their process, one after the other; then a person must say. A step
that kills its process would else take everything down with it, for ever."""


class Happened(Struct, frozen=True):
    """A probe says: the cut-off attempt had its effect; this is the step's result."""

    result: Any = None
    """What the step's body would have returned."""


class NotHappened(Struct, frozen=True):
    """A probe says: it had none, and will have none; the step may begin anew."""


class Probe(Body):
    """Asks whether a cut-off attempt had its effect: runs like an attempt, with its arguments and timeout."""

    __slots__ = ("verdict",)

    is_attempt = False

    def __init__(self, probe: Callee, *about: Any) -> None:
        super().__init__(*about)
        self.callee = probe
        self.verdict = "unknown"

    def _timeout_outcome(self) -> Outcome:
        return Outcome("failed", failure=timed_out(f"the probe took longer than {self.limit} s"))

    def _completed(self, value: Any) -> Outcome:
        step = self.command.step
        if isinstance(value, Happened):
            what = f"result of step {self.command.key}, by its probe"
            result = codec.encode(value.result, what)
            decoded = step.decode_result(result, what)
            self.verdict = "happened"
            return Outcome("completed", result, decoded)
        if isinstance(value, NotHappened):
            self.verdict = "not_happened"
        elif value is not None:
            raise ConfigurationError(
                f"the probe of step {step.name} returned {value!r:.80}: expected Happened(result), "
                "NotHappened() or None"
            )
        return Outcome("completed")


def recover(live: Any, step: int) -> None:
    """Go on with a step whose last attempt has an unknown outcome."""
    command, state = live.run.steps[step], live.flight.attempts[step]
    function = command.step.probe
    if function is None:
        _decide(live, step)
    elif not live.host.closing:
        probe = Probe(function, live.flight, live.run_id, command, state.attempt, state.started_id)
        live.flight.bodies[step] = probe
        live.host.bodies.start(probe)


def probed(live: Any, probe: Probe, outcome: Outcome) -> None:
    """The probe has come to an end: the step has its result, begins anew, or is in doubt.

    Nothing is kept of a probe that was cut off, by a crash, a shutdown or a pause: it is asked again.
    """
    step, flight = probe.command.number, live.flight
    if flight.bodies.get(step) is not probe:
        return  # it did not heed its timeout
    del flight.bodies[step]
    if live.lost or live.host.closing or step not in live.run.steps or outcome.kind == "cancelled":
        if live.idle:
            live.host.settled(live)
        return
    verdict = probe.verdict if outcome.kind == "completed" else "unknown"
    head = live.head(probe.started_id)
    attempt, failure = probe.attempt, outcome.failure
    live.note(t.StepProbed(step=step, attempt=attempt, outcome=verdict, error=failure, **head))
    if verdict == "happened":
        head = live.head(probe.started_id)
        live.deliver(
            t.StepCompleted(step=step, result=outcome.result, attempt=attempt, **head), outcome.value
        )
    elif live.fold.paused:
        return
    elif verdict == "not_happened":
        flight.start_again([step])
    else:
        _decide(live, step)


def _decide(live: Any, step: int) -> None:
    """Nobody knows: do as the step's options say."""
    flight, unknown = live.flight, live.run.steps[step].step.options.unknown
    state = flight.attempts[step]
    crashes = state.crashes
    if unknown == "retry" and crashes < MAX_CRASHES:
        flight.start_again([step])
    elif unknown in ("retry", "ask"):
        flight.attempts.doubted(step)
        why = f"its process died {crashes} times in a row while it ran" if unknown == "retry" else ""
        live.note(t.StepInDoubt(step=step, attempt=state.attempt, reason=why, **live.head()))
    else:
        failure = t.Failure(
            type="StepInterrupted",
            message=f"attempt {state.attempt} was cut off and may not be repeated: its outcome is unknown",
            error_class="interrupted",
        )
        live.deliver(t.StepFailed(step=step, error=failure, attempt=state.attempt, **live.head()))
