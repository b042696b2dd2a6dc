"""The program of a run: its handler, what follows it, and how it ends."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from msgspec import Raw

from ..events import codec, errors, types as t
from ..events.errors import ValueRefused
from . import artifacts, compensation
from .commands import CancelCommand, EndCommand, MarkerCommand
from .failures import failure_of
from .loop import Evicted

ALWAYS = "always"
"""Checkpoint, of no task, that says where the handler had ended and its workflow's `always` began …"""
ALWAYS_FAILED = "always failed"
"""… and that it raised."""


class ContinueAsNew(BaseException):
    """Unwinds a handler that goes on as a new run; control flow, not an error. Only `ctx` raises it."""

    def __init__(self, args: Raw) -> None:
        super().__init__("the run goes on as a new one")
        self.new_args = args


class HandlerExit(errors.HandlerError):
    """The handler raised `SystemExit` or another `BaseException`: the run fails, the process goes on."""


class End:
    """How a run ends: the event, without its head."""

    __slots__ = ("fields", "kind")

    def __init__(self, kind: type[t.Event], /, **fields: Any) -> None:
        self.kind, self.fields = kind, fields

    @property
    def status(self) -> str:
        """`completed`, `failed`, `cancelled` …"""
        return self.kind.TAG.removeprefix("run.")

    def command(self, left: tuple[int, ...]) -> EndCommand:
        """The command that ends the run; `left`: numbers of what is still open."""
        kind: Any = self.kind
        fields = self.fields
        return EndCommand(kind, lambda head: kind(**fields, open=left, **head))


class Aftermath:
    """What follows the handler of a run that has something to undo, or an `always`."""

    __slots__ = ("because", "end", "error")

    def __init__(self, end: End) -> None:
        self.because, self.error = end.status, end.fields.get("error")
        self.end = end
        """How the run ends as things stand."""


async def program(run: Any, args: Raw) -> Any:
    """What the main task of a run does."""
    try:
        artifacts.prepare(run)
        return await run.workflow.fn(run.ctx, *run.workflow.decode_args(args))
    except (Evicted, GeneratorExit, asyncio.CancelledError, Exception):
        raise
    except KeyboardInterrupt:  # a person's Ctrl-C is not the handler's doing
        raise
    except ContinueAsNew as again:
        return _continued(run, again)
    except BaseException as error:  # SystemExit and its like must end the run, not the process
        if (wrapped := _inside(error)) is not None:
            return _continued(run, wrapped)
        raise HandlerExit(f"{type(error).__name__}: {error}") from error


def _continued(run: Any, again: ContinueAsNew) -> End:
    return End(t.RunContinued, next_run=next_id(run.run_id), args=again.new_args)


def _inside(error: BaseException) -> ContinueAsNew | None:
    """A task group wraps what is raised in it: the wish to go on, when nothing else went wrong."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error if isinstance(error, ContinueAsNew) else None


def next_id(run_id: str) -> str:
    """Id of the run that continues this one: `order-42`, `order-42~r2`, `order-42~r3` …"""
    base, mark, count = run_id.rpartition("~r")
    if mark and count.isdecimal():
        return f"{base}~r{int(count) + 1}"
    return f"{run_id}~r2"


def follow(run: Any, main: Any) -> "End | Coroutine[Any, Any, End]":
    """How the run ends, now that its program has; or the program that follows it."""
    after: Aftermath | None = run.aftermath
    if after is not None:
        return after.end if main.cancelled() or main.exception() is None else outcome(run, main)
    end, options = outcome(run, main), run.workflow.options
    if (run.undos is None and options.always is None) or end.kind is t.RunContinued:
        return end
    run.aftermath = Aftermath(end)
    undo = bool(run.undos) and (
        run.compensate_request is not None
        or (end.kind is t.RunFailed and "failure" in options.compensate_on)
        or (end.kind is t.RunCancelled and "cancel" in options.compensate_on)
    )
    return aftermath(run, undo) if undo or options.always is not None else end


async def aftermath(run: Any, undo: bool) -> End:
    """Undo what the run has done, if it shall be undone, and run its `always`. Nothing cancels this."""
    after: Aftermath = run.aftermath
    while True:
        if undo:
            run.compensate_request = None
            failed = await compensation.undo_all(run, after.because)
            said: dict[str, Any] = {"because": after.because, "error": after.error}
            if failed:
                after.end = End(t.RunCompensationFailed, failed=failed, **said)
            else:
                after.end = End(t.RunCompensated, **said)
        if run.workflow.options.always is not None:
            await _always(run, run.workflow.options.always, after.end.status)
        undo = run.compensate_request is not None and bool(compensation.left(run))
        if not undo:
            return after.end


async def _always(run: Any, always: Callable[[Any, str], Any], status: str) -> None:
    """Run the workflow's `always`; what goes wrong in it is noted, and changes nothing."""
    data = codec.encode({"status": status})
    run.issue(MarkerCommand(t.CheckpointRecorded, ("name", "data"), name=ALWAYS, data=data))
    try:
        await always(run.ctx, status)
    except (Evicted, GeneratorExit, KeyboardInterrupt):
        raise
    except BaseException as error:
        run.ctx.log.error(
            "run %s: its `always` failed: %s", run.run_id, failure_of(error).message, exc_info=error
        )
        note = codec.encode({"type": type(error).__name__, "message": failure_of(error).message})
        run.issue(MarkerCommand(t.CheckpointRecorded, ("name",), name=ALWAYS_FAILED, data=note))


def close_up(run: Any, *, goes_on: bool = False) -> tuple[int, ...]:
    """Take back what is open; returns the numbers of the timers, waits and gates among it.

    Their rows end with the run; when it goes on, they are taken back one by one, too.
    """
    for command in run.issued:  # asked for in the very activation that ends the run: never was
        if not command.number and command.open_among(run) is not None:
            command.dropped = True
    for number in sorted(run.steps):
        run.issued.append(CancelCommand(run.steps[number]))
    for number in sorted(run.children):
        run.issued.append(CancelCommand(run.children[number]))
    left = {**run.timers, **run.waits, **run.gates}
    numbers = tuple(sorted(left))
    if goes_on:
        for number in numbers:
            run.issued.append(CancelCommand(left[number]))
            left[number].given_up(run)
    for registered in (run.steps, run.children, run.timers, run.waits, run.gates):
        registered.clear()
    return numbers


def outcome(run: Any, main: Any) -> End:
    """How the run ends, from how its main task ended."""
    if main.cancelled():
        asked = run.cancel_request or run.compensate_request
        if asked is not None:
            return End(t.RunCancelled, reason=asked.reason, kind=getattr(asked, "kind", "UserRequested"))
        return _failed(asyncio.CancelledError("the handler cancelled itself"))
    error = main.exception()
    if error is not None:
        return _failed(error)
    result = main.result()
    if isinstance(result, End):
        return result
    try:
        return End(t.RunCompleted, result=encode_result(run, result))
    except ValueRefused as refused:
        return _failed(refused)


def encode_result(run: Any, result: Any) -> Raw:
    """A handler's result as JSON that fits its annotation. Raises `ValueRefused`."""
    what = f"result of {run.workflow.name}"
    packed = codec.encode(result, what)
    run.workflow.decode_result(packed, what)
    return packed


def _failed(error: BaseException) -> End:
    return End(t.RunFailed, error=failure_of(error))
