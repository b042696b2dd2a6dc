"""The program of a run: its handler, what follows it, and how it ends."""

import asyncio
from collections.abc import Callable
from typing import Any

from msgspec import Raw

from ..events import codec, errors, types as t
from ..events.errors import ValueRefused
from .commands import CancelCommand, EndCommand
from .failures import failure_of
from .loop import Evicted


class ContinueAsNew(BaseException):
    """Unwinds a handler that goes on as a new run; control flow, not an error. Only `ctx` raises it."""

    def __init__(self, args: Raw) -> None:
        super().__init__("the run goes on as a new one")
        self.new_args = args


class HandlerExit(errors.HandlerError):
    """The handler raised `SystemExit` or another `BaseException`: the run fails, the process goes on."""


class End:
    """An end that the program decides by itself, in the place of a result or an error."""

    __slots__ = ("kind", "make")

    def __init__(self, kind: type[t.Event], **fields: Any) -> None:
        self.kind = kind
        self.make: Callable[[dict[str, Any]], t.Event] = lambda head: kind(**fields, **head)


async def program(run: Any, args: Raw) -> Any:
    """What the main task of a run does."""
    try:
        return await run.workflow.fn(run.ctx, *run.workflow.decode_args(args))
    except (Evicted, GeneratorExit, asyncio.CancelledError, Exception):
        raise
    except KeyboardInterrupt:  # a person's Ctrl-C is not the handler's doing
        raise
    except ContinueAsNew as again:
        return End(t.RunContinued, next_run=next_id(run.run_id), args=again.new_args)
    except BaseException as error:  # SystemExit and its like must end the run, not the process
        raise HandlerExit(f"{type(error).__name__}: {error}") from error


def next_id(run_id: str) -> str:
    """Id of the run that continues this one: `order-42`, `order-42~r2`, `order-42~r3` …"""
    base, mark, count = run_id.rpartition("~r")
    if mark and count.isdecimal():
        return f"{base}~r{int(count) + 1}"
    return f"{run_id}~r2"


def close_up(run: Any) -> tuple[int, ...]:
    """Take back what is open; returns the numbers of the timers, waits and gates among it."""
    for command in run.issued:  # asked for in the very activation that ends the run: never was
        if not command.number and command.numbered:
            command.dropped = True
    for number in sorted(run.steps):
        run.issued.append(CancelCommand(run.steps[number]))
    for number in sorted(run.children):
        run.issued.append(CancelCommand(run.children[number]))
    left = tuple(sorted((*run.timers, *run.waits, *run.gates)))
    for registered in (run.steps, run.children, run.timers, run.waits, run.gates):
        registered.clear()
    return left


def end_of(run: Any, main: Any, left: tuple[int, ...]) -> EndCommand:
    """The command that ends the run, from how its main task ended."""
    if main.cancelled():
        cancel = run.cancel_request
        if cancel is not None:
            return EndCommand(
                t.RunCancelled,
                lambda head: t.RunCancelled(reason=cancel.reason, kind=cancel.kind, open=left, **head),
            )
        return _failed(asyncio.CancelledError("the handler cancelled itself"), left)
    error = main.exception()
    if error is not None:
        return _failed(error, left)
    result = main.result()
    if isinstance(result, End):
        return decided(result, left)
    try:
        packed = encode_result(run, result)
    except ValueRefused as refused:
        return _failed(refused, left)
    return EndCommand(t.RunCompleted, lambda head: t.RunCompleted(result=packed, open=left, **head))


def encode_result(run: Any, result: Any) -> Raw:
    """A handler's result as JSON that fits its annotation. Raises `ValueRefused`."""
    what = f"result of {run.workflow.name}"
    packed = codec.encode(result, what)
    run.workflow.decode_result(packed, what)
    return packed


def decided(end: End, left: tuple[int, ...]) -> EndCommand:
    """The command of an end that the program decided."""
    return EndCommand(end.kind, lambda head: end.make({**head, "open": left}))


def _failed(error: BaseException, left: tuple[int, ...]) -> EndCommand:
    failure = failure_of(error)
    return EndCommand(t.RunFailed, lambda head: t.RunFailed(error=failure, open=left, **head))
