"""Runs a handler in a random world, keeps its history as a store would, and plays it again."""

import random
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any

import msgspec
from msgspec import Raw, Struct

from refold.engine.activation import Activation
from refold.engine.commands import Command, StepCommand
from refold.engine.loader import activations
from refold.engine.run import Run
from refold.engine.workflow import Workflow
from refold.events import codec, types as t
from refold.events.clock import to_datetime
from refold.events.registry import decode_event, encode_event
from refold.events.types import Event

EPOCH = 1_750_000_000.0
Stored = tuple[str, bytes]
"""Tag and JSON of one event: what a store keeps."""


class History(Struct):
    """One run as stored, with what is needed to run its handler again."""

    run_id: str
    rows: list[Stored]

    def activations(self) -> list[Activation]:
        """Decoded anew: nothing of the objects that were written is left."""
        return activations([decode_event(tag, state) for tag, state in self.rows])

    @property
    def ended(self) -> bool:
        return self.rows[-1][0] in {kind.TAG for kind in t.ENDS}


class World:
    """Answers a run: steps end in any order, timers fire when due, signals come from nowhere."""

    def __init__(
        self, workflow: Workflow[Any, Any], args: Sequence[Any], rng: random.Random, cancel: float
    ) -> None:
        self.rng, self.cancel = rng, cancel
        self.now = EPOCH
        self.count = self.signals = 0
        started = t.RunStarted(
            workflow=workflow.name, workflow_version=workflow.version, args=workflow.encode_args(tuple(args)),
            seed=rng.getrandbits(62), runtime=workflow.runtime, **self.head(),
        )  # fmt: skip
        self.run = Run(workflow, f"run-{started.seed}", started)
        self.history = History(self.run.run_id, [])
        self.started = started

    def head(self) -> dict[str, Any]:
        self.count += 1
        return {"id": f"e{self.count}", "at": to_datetime(self.now)}

    def feed(self, cause: Event, *value: Any) -> None:
        self.run.activate(cause, *value)
        commands = [command.event(self.head()) for command in self.run.take()]
        self.history.rows += [(event.TAG, encode_event(event)) for event in (cause, *commands)]

    def play(self, limit: int = 400) -> History:
        try:
            self.feed(self.started)
            for _ in range(limit):
                if self.run.closed or not self.step():
                    break
        finally:
            self.run.evict()
        return self.history

    def step(self) -> bool:
        """One more cause; False when nothing can happen any more."""
        run, rng = self.run, self.rng
        if self.cancel and rng.random() < self.cancel:
            self.cancel = 0.0
            self.feed(t.RunCancelRequested(reason="enough", **self.head()))
            return True
        pending = sorted([*run.steps, *run.timers])
        if self.signals < 12 and (rng.random() < 0.15 or (run.waits and not pending)):
            self.signals += 1
            name = rng.choice("ab")
            self.feed(t.SignalReceived(name=name, payload=Raw(b"%d" % self.signals), **self.head()))
            return True
        if not pending:
            return False
        number = rng.choice(pending)
        if number in run.steps:
            self.end_step(number)
        else:
            number = min(run.timers, key=lambda n: (run.timers[n].due_at, n))
            self.now = max(self.now, run.timers[number].due_at.timestamp())
            self.feed(t.TimerFired(timer=number, **self.head()))
        return True

    def end_step(self, number: int) -> None:
        """Run the body, here and at once. One that may be retried fails now and then."""
        command = self.run.steps[number]
        self.now += self.rng.choice([0, 0.25, 1.0])
        args, kwargs = command.step.decode_call(command.args, command.kwargs, command.count)
        try:
            self.maybe_fail(command)
            body_result = run_body(command.step.fn(*args, **kwargs))
        except Exception as error:
            failure = t.Failure(type=type(error).__name__, message=str(error))
            self.feed(t.StepFailed(step=number, error=failure, **self.head()))
            return
        result = codec.encode(body_result)
        value = command.step.decode_result(result, "result")
        self.feed(t.StepCompleted(step=number, result=result, **self.head()), value)

    def maybe_fail(self, command: StepCommand) -> None:
        """Failed attempts are facts: they are in the log, and the handler never hears of them."""
        for attempt in range(1, command.step.options.retry.max_attempts):
            if self.rng.random() < 0.6:
                return
            fact = t.StepAttemptFailed(
                step=command.number, attempt=attempt, error=t.Failure(type="Oops", message=""),
                retry_at=to_datetime(self.now + 1), **self.head(),
            )  # fmt: skip
            self.history.rows.append((fact.TAG, encode_event(fact)))
            self.now += 1
        if command.step.options.retry.max_attempts > 1 and self.rng.random() < 0.3:
            raise RuntimeError("it failed every time")


def play(workflow: Workflow[Any, Any], args: Sequence[Any], rng: random.Random, cancel: float) -> History:
    """The history of one run in a random world; `cancel`: chance before each cause that it is cancelled."""
    return World(workflow, args, rng, cancel).play()


def run_body(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of a body that awaits nothing."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("a body of these tests awaits nothing")


class Difference(AssertionError):
    """A replay asked for something else."""


def replay(workflow: Workflow[Any, Any], history: History, crash: int, size: int = 500) -> Run:
    """Rebuild the run from its first `crash` activations, then feed the causes of the others.

    Raises `Difference`, or `NonDeterminismError` when the run does so itself.
    """
    whole = history.activations()
    started = whole[0].cause
    assert isinstance(started, t.RunStarted)
    run = Run(workflow, history.run_id, started)
    try:
        for _ in run.replay_slices(whole[:crash], size):
            pass
        for cause, recorded, _, floors, _ in whole[crash:]:
            if floors is not None:
                run.raise_floors(floors)
            run.activate(cause)
            compare(run.take(), recorded, cause)
        run.expect_nothing()
        if run.closed != history.ended:
            raise Difference(f"closed={run.closed}, the history says {history.ended}")
    except BaseException:
        run.evict()
        raise
    return run


def compare(commands: Sequence[Command], recorded: list[Event], cause: Event) -> None:
    """The very same events, field by field: numbers, keys, arguments, task paths, causal order."""
    asked = [command.event(_same_head(event)) for command, event in zip(commands, recorded, strict=False)]
    asked = [decode_event(event.TAG, encode_event(event)) for event in asked]
    pairs = list(zip(asked, recorded, strict=False))
    ours = [_comparable(mine, theirs) for mine, theirs in pairs]
    known = [_comparable(theirs, mine) for mine, theirs in pairs]
    if ours != known or len(commands) != len(recorded):
        raise Difference(f"after {cause}\n  log has  {recorded}\n  now asks {asked}")


def _same_head(event: Event) -> dict[str, Any]:
    return {"id": event.id, "at": event.at, "by": event.by, "cause": event.cause, "trace": event.trace}


def _comparable(event: Event, other: Event) -> Event:
    """Without what is for people only: tracebacks, call sites, the order inside a set of strings."""
    replace = msgspec.structs.replace
    if isinstance(event, t.ENDS) and () in (event.open, getattr(other, "open", ())):  # type: ignore[attr-defined]
        event = replace(event, open=())  # histories of the first release do not say what was open
    if (
        isinstance(event, t.RunFailed | t.RunCompensated | t.RunCompensationFailed)
        and event.error is not None
    ):
        return replace(event, error=t.Failure(type=event.error.type, message=event.error.message))
    if isinstance(event, t.GateOpened | t.ChildStarted | t.FanOutOpened):
        return replace(event, site="")
    if isinstance(event, t.StepScheduled) and isinstance(other, t.StepScheduled):
        # Iterations are counted by call site: they begin anew when the lines of a file have moved.
        iteration = event.iteration if event.site == other.site else 0
        args = Raw(b"[]") if event.name == "sets" else event.args
        return replace(event, site="", iteration=iteration, args=args)
    return event


def check(workflow: Workflow[Any, Any], history: History, crashes: Iterable[int] | None = None) -> int:
    """Crash after each of these activations (all) and go on; returns how many replays that were.

    Nothing may be left over: an ended run has no task any more.
    """
    points = range(1, len(history.activations()) + 1) if crashes is None else crashes
    count = 0
    for crash in points:
        run = replay(workflow, history, crash)
        if run.closed and run.loop.tasks:
            raise Difference(f"ended, and these tasks are left: {[task.path for task in run.loop.tasks]}")
        run.evict()
        count += 1
    return count
