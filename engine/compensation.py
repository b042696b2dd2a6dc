"""Undoing what a run has done: which calls can be undone, and working them off, the last one first.

What can be undone is kept in the order in which it was done. An undo is a step of kind `compensation`, so
retries, timeouts and crashes are those of any step; a call that is undone is never undone again.
"""

import asyncio
from typing import Any

from msgspec import Raw

from ..events import types as t
from ..events.errors import ConfigurationError, StepFailed
from .commands import MarkerCommand, StepCommand
from .loop import Future
from .step import Step, encode_call


class Undo:
    """Something that can be undone, once."""

    __slots__ = ("args", "count", "done", "key", "kwargs", "number", "step")

    def __init__(
        self, step: Step[Any, Any], args: Raw, kwargs: Raw, count: int, key: str, number: int = 0
    ) -> None:
        self.step, self.args, self.kwargs, self.count = step, args, kwargs, count
        self.key, self.number = key, number
        self.done = False


def push(
    run: Any, step: Step[Any, Any], args: Raw, kwargs: Raw, count: int, key: str, number: int, result: Raw
) -> None:
    """A step has completed that says how it is undone."""
    kwargs = step.undo.with_result(kwargs, count, result)
    _stack(run).append(Undo(step.undo, args, kwargs, count, key, number))


def register(run: Any, step: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """See `Context.compensate`."""
    run.check_open()
    if not isinstance(step, Step):
        raise ConfigurationError(f"ctx.compensate() expects a @step, got {step!r}")
    packed, named = encode_call(step.name, args, kwargs)
    key = f"{step.name}#{run.ordinal(step.name)}"
    said: dict[str, Any] = {"name": step.name, "args": packed, "kwargs": named}
    run.issue(MarkerCommand(t.CompensationRegistered, ("name", "args", "kwargs"), key=key, **said))
    _stack(run).append(Undo(step.as_undo(), packed, named, len(args), key))


def _stack(run: Any) -> list[Undo]:
    if run.undos is None:
        run.undos = []
    stack: list[Undo] = run.undos
    return stack


def left(run: Any) -> list[Undo]:
    """What is not undone yet, the last one done first."""
    return [undo for undo in reversed(run.undos or ()) if not undo.done]


async def undo_all(run: Any, because: str) -> tuple[str, ...]:
    """Undo everything, one after the other; returns the keys of what could not be undone."""
    todo = left(run)
    keys = tuple(undo.key for undo in todo)
    run.issue(MarkerCommand(t.CompensationStarted, ("because", "steps"), because=because, steps=keys))
    for undo in todo:
        await _undo(run, undo)
    return tuple(undo.key for undo in todo if not undo.done)


async def _undo(run: Any, undo: Undo) -> None:
    try:
        await _call(run, undo)
    except StepFailed as error:  # the others are undone all the same
        await undo.step.forgives(run, "", error)
        return
    undo.done = True
    run.issue(MarkerCommand(t.StepCompensated, ("step", "key"), step=undo.number, key=undo.key))


def _call(run: Any, undo: Undo) -> Future:
    if undo.step.options.run_on:
        return run.call_tagged(undo.step, undo.args, undo.kwargs, undo.count)  # type: ignore[no-any-return]
    future: Future = run.loop.create_future()
    task: Any = asyncio.current_task(run.loop)
    command = StepCommand(undo.step, undo.count, undo.args, undo.kwargs, future, task)
    command.undoes = undo.key
    future.command = command
    run.issue(command)
    return future
