"""Children: a handler starts runs of their own, and waits for them or not."""

import asyncio
from typing import Any

from msgspec import Raw

from ..events import types as t
from ..events.errors import ChildFailed, ConfigurationError, NonDeterminismError, ValueRefused
from ..events.types import Event
from ..events.wait_events import STEP_RUN
from .commands import Command, clip, same_raw
from .loop import Future
from .placement import AT_ONCE, Placement
from .workflow import Workflow


class ChildCommand(Command):
    """A run to start; `future` is None when nobody waits for it."""

    __slots__ = ("args", "fan_out", "future", "item", "place", "run_id", "site", "task_path", "workflow")

    def __init__(self, workflow: Workflow[Any, Any], run_id: str, args: Raw, future: Future | None) -> None:
        super().__init__()
        self.workflow, self.run_id, self.args, self.future = workflow, run_id, args, future
        self.fan_out: Command | None = None
        self.place = AT_ONCE
        self.item = 0
        self.task_path = self.site = ""

    @property
    def kept_number(self) -> int:  # type: ignore[override]
        return self.fan_out.number + 1 + self.item if self.fan_out is not None else 0

    def open_among(self, run: Any) -> dict[int, Any] | None:
        return None if self.future is None else run.children

    def bound(self, run: Any, event: Event | None) -> None:
        if isinstance(event, t.ChildStarted):
            self.run_id = event.run_id
        if self.future is not None and not self.future.cancelled():
            run.children[self.number] = self

    def matches(self, event: Event) -> bool:
        if not isinstance(event, t.ChildStarted):
            return False
        named = (_ordinal(event.run_id), event.workflow, event.detached)
        if named != (_ordinal(self.run_id), self.workflow.name, self.future is None):
            return False
        return same_raw(event.args, self.args)

    def event(self, head: dict[str, Any]) -> t.ChildStarted:
        return t.ChildStarted(
            child=self.number, run_id=self.run_id, workflow=self.workflow.name, version=self.workflow.version,
            args=self.args, detached=self.future is None, item=self.item, task=self.task_path,
            fan_out=self.fan_out.number if self.fan_out is not None else 0, site=self.site,
            run_on=self.place.of(self.workflow.options.run_on).run_on, **head,
        )  # fmt: skip

    def taken_back(self, head: dict[str, Any]) -> Event:
        return t.ChildCancelled(child=self.number, run_id=self.run_id, **head)

    def completed(self, run: Any, cause: t.ChildEnded) -> None:
        """Somebody waits for its result: what else follows from that."""

    def failure(self, cause: t.ChildEnded) -> Exception:
        """What its end raises where it is waited for."""
        error = cause.error
        kind, message = (error.type, error.message) if error is not None else (cause.status, "")
        return ChildFailed(cause.run_id, cause.status, kind, message)

    def describe(self) -> str:
        return f"child {self.workflow.name!r} as {self.run_id!r} with arguments {clip(self.args)}"


def start(
    run: Any, workflow: Workflow[Any, Any], args: tuple[Any, ...], *, wait: bool = True, site: str = "",
    fan_out: Command | None = None, item: int = 0, place: Placement = AT_ONCE,
    make: "type[ChildCommand] | None" = None,
) -> ChildCommand:  # fmt: skip
    """Issue a child. Raises `ConfigurationError` when it may not be started, `ValueRefused` for arguments."""
    run.check_open()
    if not isinstance(workflow, Workflow):
        raise ConfigurationError(f"ctx.child() expects a @workflow, got {workflow!r}")
    check_descent(run.started, run.workflow.name, workflow)
    packed = workflow.encode_args(args)
    run.child_count += 1
    future = run.loop.create_future() if wait else None
    run_id = f"{run.run_id}~{run.child_count}"
    if future is None and run.started.forked_from:  # the handler gets the id at once, and may use it
        run_id = getattr(run.recorded(t.ChildStarted, detached=True), "run_id", run_id)
    command = (make or ChildCommand)(workflow, run_id, packed, future)
    command.site, command.place = site, place
    command.task_path = getattr(asyncio.current_task(run.loop), "path", "")
    if fan_out is not None:
        command.fan_out, command.item = fan_out, item
    if future is not None:
        future.command = command
    run.issued.append(command)
    return command


def _ordinal(run_id: str) -> str:
    """Which of its parent's children: a fork shares those of the run it was made from."""
    return run_id.rpartition("~")[2]


def check_descent(started: t.RunStarted, name: str, workflow: Workflow[Any, Any]) -> None:
    """Raises `ConfigurationError` for a child too deep, or of a workflow that is above it already."""
    if workflow.name.startswith(STEP_RUN):  # a step has nothing below it
        return
    chain = [*(ancestor.workflow for ancestor in started.ancestors), name, workflow.name]
    if len(chain) - 1 > started.max_depth:
        raise ConfigurationError(
            f"children may go {started.max_depth} deep (Settings.max_depth), this would be "
            f"{len(chain) - 1}: {' -> '.join(chain)}"
        )
    if workflow.name in chain[:-1] and not workflow.recursive:
        raise ConfigurationError(
            f"{' -> '.join(chain)}: {workflow.name} would run inside itself; "
            "declare it @workflow(recursive=True) if that is meant"
        )


def ended(run: Any, cause: t.ChildEnded) -> None:
    """The child has come to its end."""
    command: ChildCommand | None = run.children.pop(cause.child, None)
    if command is None or command.future is None or command.future.done():
        return
    command.future.command = None
    if cause.status == "completed":
        result = _result(run, command, cause.result)
        command.completed(run, cause)
        command.future.set_result(result)
    else:
        command.future.set_exception(command.failure(cause))


def _result(run: Any, command: ChildCommand, result: Raw) -> Any:
    try:
        return command.workflow.decode_result(result, f"result of child {command.run_id}")
    except ValueRefused as error:
        raise NonDeterminismError(
            f"run {run.run_id}: {error}. The return type of {command.workflow.name} changed since the child "
            "ran: put it back, or accept the old form too",
            key=f"child {command.run_id}", expected="a result that fits the return type", found=str(error),
        ) from None  # fmt: skip
