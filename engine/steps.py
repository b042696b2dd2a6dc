"""Calls of steps, from the handler's side: asking for one, and getting what it came to."""

import asyncio
from typing import Any

from msgspec import Raw

from ..events import types as t
from ..events.errors import NonDeterminismError, ValueRefused
from . import compensation, data, tagged
from .commands import Command, StepCommand
from .failures import step_error
from .loop import Future
from .step import Step, encode_call

KNOWN = 64
"""How many steps `StepScheduled.after` lists at most."""

_MISSING: Any = object()


def call(
    run: Any, step: Step[Any, Any], args: tuple[Any, ...], kwargs: dict[str, Any], site: str,
    *, fan_out: Command | None = None, item: int = 0,
) -> Future:  # fmt: skip
    """Issue a call of a step; the future gets its result. `fan_out` and `item`: it is an item of that map."""
    run.check_open()
    if step.refers:
        step.look_up()
    packed, named = encode_call(step.name, args, kwargs)
    if step.options.run_on:
        return tagged.call(run, step, packed, named, len(args), site, fan_out=fan_out, item=item)
    future: Future = run.loop.create_future()
    command = StepCommand(step, len(args), packed, named, future, asyncio.current_task(run.loop))  # type: ignore[arg-type]
    command.site = site
    if fan_out is not None:
        command.fan_out, command.item = fan_out, item
    future.command = command
    run.issued.append(command)
    return future


def completed(run: Any, cause: t.StepCompleted | t.StepSkipped, value: Any = _MISSING) -> None:
    """The step has its result; `value` is that, decoded, when it is at hand."""
    command = _settled(run, cause)
    if command is None:
        return
    if value is _MISSING:
        value = _decode(run, command, cause.result)
    if run.workflow.options.keep_outputs:
        data.remember(run, command, cause.result)
    if command.step.undoable and type(cause) is t.StepCompleted:  # who skips a step has seen to it
        compensation.push(
            run, command.step, command.args, command.kwargs, command.count, command.key, command.number,
            cause.result,
        )  # fmt: skip
    command.future.set_result(value)


def failed(run: Any, cause: t.StepFailed) -> None:
    """The step has failed for good."""
    command = _settled(run, cause)
    if command is not None:
        command.future.set_exception(step_error(command.key, cause.error, cause.attempt))


def _settled(run: Any, cause: t.StepCompleted | t.StepSkipped | t.StepFailed) -> StepCommand | None:
    """The command, if somebody waits for it; its task now knows the step's result."""
    command: StepCommand | None = run.steps.pop(cause.step, None)
    if command is None or command.future.done():
        return None
    command.future.command = None  # a cycle, which only the collector would find
    if command.task is not None:
        known, after = command.task.known, command.after
        known = () if known is after else tuple(n for n in known if n not in after)
        command.task.known = (*known, cause.step)[-KNOWN:]
    return command


def _decode(run: Any, command: StepCommand, result: Raw) -> Any:
    try:
        return command.step.decode_result(result, f"result of {command.key}")
    except ValueRefused as error:
        raise NonDeterminismError(
            f"run {run.run_id} step {command.key}: {error}. The step's return type changed since the "
            "run began: put it back, or accept the old form too",
            key=command.key, expected="a result that fits the return type", found=str(error),
        ) from None  # fmt: skip
