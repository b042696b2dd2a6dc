"""Where a suspended handler stands: for each task the frames down to its await, with lines and locals.

Walks the frames itself because `Task.get_stack()` gives only the outermost one of a suspended task.
Locals are the live objects: show them at once, or copy what you need.
"""

import asyncio
import gc
import os
import reprlib
import sys
from collections.abc import Iterable, Iterator
from inspect import CO_OPTIMIZED
from itertools import islice
from types import AsyncGeneratorType, CoroutineType, FrameType, GeneratorType
from typing import Any

from msgspec import Struct

_HIDDEN: tuple[str, ...] = (os.path.dirname(os.path.abspath(__file__)) + os.sep,)
# They hide what they wait for; the collector still sees it.
_OPAQUE = ("async_generator_asend", "async_generator_athrow", "anext_awaitable", "coroutine_wrapper")
_SHOWN = 5


class Frame(Struct, frozen=True, kw_only=True):
    """One suspended function: `columns` are those of the await in `line`, from and to, 0 when unknown."""

    function: str
    file: str
    line: int
    columns: tuple[int, int]
    locals: dict[str, Any]


class Snapshot(Struct, frozen=True, kw_only=True):
    """One task: `state` is `new`, `ready`, `suspended` or `done`, `waiting_on` says for what, in words.

    `frames` go from the outermost to the one that awaits; those of the engine are left out.
    """

    path: str
    name: str
    state: str
    waiting_on: str
    frames: tuple[Frame, ...]


def call_site(frame: FrameType | None) -> str:
    """`file.py:41` of a frame, or of the first one above it outside the engine; empty when there is none."""
    while frame is not None and not _is_shown(frame):
        frame = frame.f_back
    if frame is None:
        return ""
    path = frame.f_code.co_filename.replace("\\", "/").rsplit("/", 1)[-1]
    return f"{path}:{frame.f_lineno}"


def snapshots(loop: Any) -> list[Snapshot]:
    """The state of all tasks of a handler loop, in the order of their creation."""
    return [snapshot(task) for task in loop.tasks]


def snapshot(task: Any) -> Snapshot:
    """The state of one task."""
    coro = task.get_coro()
    stack = list(_stack(coro))
    waiter = task._fut_waiter if not task.done() else None
    if task.done():
        state = "done"
    elif not (getattr(coro, "cr_suspended", True) or getattr(coro, "cr_running", False)):
        state = "new"
    else:
        state = "ready" if waiter is None else "suspended"
    waiting_on = _describe(waiter, stack) if state == "suspended" else ""
    shown = tuple(_frame(frame) for frame in stack if _is_shown(frame))
    return Snapshot(path=task.path, name=task.get_name(), state=state, waiting_on=waiting_on, frames=shown)


def frames(awaitable: Any) -> list[Frame]:
    """The suspended frames of a coroutine or generator, outermost first, without those of the engine."""
    return [_frame(frame) for frame in _stack(awaitable) if _is_shown(frame)]


def format_stacks(tasks: Iterable[Snapshot], locals: bool = True) -> str:
    """One task after the other, a line for each frame, and its local variables below it."""
    short = reprlib.Repr()
    short.maxstring = short.maxother = 60
    lines = []
    for task in tasks:
        what = f"waits for {task.waiting_on}" if task.waiting_on else f"is {task.state}"
        lines.append(f"task {task.path} {what}")
        for frame in task.frames:
            lines.append(f"  {frame.file}:{frame.line}:{frame.columns[0] + 1} in {frame.function}")
            if locals:
                lines += [f"      {name} = {short.repr(value)}" for name, value in frame.locals.items()]
    return "\n".join(lines)


def _stack(awaitable: Any) -> Iterator[FrameType]:
    while awaitable is not None:
        frame, awaitable = _step(awaitable)
        if frame is not None:
            yield frame


def _step(awaitable: Any) -> tuple[FrameType | None, Any]:
    """Its own frame, if it has one, and what it waits for in turn."""
    if isinstance(awaitable, CoroutineType):
        return awaitable.cr_frame, awaitable.cr_await
    if isinstance(awaitable, GeneratorType):
        return awaitable.gi_frame, awaitable.gi_yieldfrom
    if isinstance(awaitable, AsyncGeneratorType):
        return awaitable.ag_frame, awaitable.ag_await
    if type(awaitable).__name__ in _OPAQUE:
        for inner in gc.get_referents(awaitable):
            walkable = isinstance(inner, (CoroutineType, GeneratorType, AsyncGeneratorType))
            if walkable or type(inner).__name__ in _OPAQUE:
                return None, inner
    return None, None


def _is_shown(frame: FrameType) -> bool:
    return not frame.f_code.co_filename.startswith(_HIDDEN)


def _frame(frame: FrameType) -> Frame:
    variables = frame.f_locals
    taken = dict(variables)
    if sys.version_info < (3, 13) and frame.f_code.co_flags & CO_OPTIMIZED:
        variables.clear()  # a copy that the frame would keep, and with it what a `del` is meant to free
    position = next(islice(frame.f_code.co_positions(), max(0, frame.f_lasti // 2), None), (None,) * 4)
    return Frame(
        function=frame.f_code.co_qualname,
        file=frame.f_code.co_filename,
        line=frame.f_lineno,
        columns=(position[2] or 0, position[3] or 0),
        locals=taken,
    )


def _describe(waiter: Any, stack: list[FrameType]) -> str:
    command = getattr(waiter, "command", None)
    if command is not None:
        return str(command)
    children = getattr(waiter, "_children", None)
    if isinstance(children, list):
        pending = [child for child in children if not child.done()]
        parts = [_describe(child, []) for child in pending[:_SHOWN]]
        more = len(pending) - _SHOWN
        return f"gather({', '.join(parts)}{f', … {more} more' if more > 0 else ''})"
    if isinstance(waiter, asyncio.Task):
        return f"task {getattr(waiter, 'path', waiter.get_name())}"
    if stack:
        inner = stack[-1]
        timer = inner.f_locals.get("h") if inner.f_code is asyncio.sleep.__code__ else None
        command = getattr(timer, "command", None)
        return str(command) if command is not None else inner.f_code.co_qualname
    return "a future"
