"""`@step(run_on="gpu")`: a call starts a run of that one step below this one, for a worker with the tag.

So its attempts, retries, timeouts and doubts, its leases and what follows a crash are those of any run, and a
run that waits for such a step is idle: it takes no memory, and no worker, while nobody has the tag.
"""

import asyncio
import functools
from collections.abc import Callable, Iterable
from typing import Any

from msgspec import Raw, structs

from ..events import codec, errors, types as t
from ..events.errors import ConfigurationError
from ..events.wait_events import STEP_RUN
from . import children, compensation, data
from .commands import StepCommand
from .context import Context
from .failures import step_error
from .loop import Future
from .step import Step
from .workflow import Workflow, WorkflowOptions, code_digest

_parts = codec.decoder(list[Raw])


class StepFailed(errors.StepFailed):
    """How such a run fails: with all that the call is to raise."""

    def __init__(self, error: errors.StepFailed) -> None:
        super().__init__(error.step, error.type, error.message, None, error.attempt)
        kinds = {errors.StepTimedOut: "timed_out", errors.StepInterrupted: "interrupted"}
        self.data = {
            "type": error.type, "message": error.message, "data": error.data, "attempt": error.attempt,
            "class": kinds.get(type(error), "error"),
        }  # fmt: skip


class StepFlow(Workflow[Any, Any]):
    """A workflow of one call of one step; its version is that of the workflow whose code makes the call."""

    def __init__(self, step: Step[Any, Any], version: str) -> None:
        here = structs.replace(step.options, run_on="", compensate=None, on_fail=None, optional=False)
        self.step: Step[Any, Any] = Step(step.fn, step.name, here)
        name = f"{STEP_RUN}{step.name}"
        super().__init__(self._handle, name, version, WorkflowOptions(run_on=step.options.run_on))

    async def _handle(self, ctx: Context, args: Raw, kwargs: Raw) -> Any:
        run: Any = ctx._run
        future: Future = run.loop.create_future()
        task: Any = asyncio.current_task(run.loop)
        count = len(_parts(args, "arguments"))
        command = StepCommand(self.step, count, args, kwargs, future, task)
        future.command = command
        run.issue(command)
        try:
            return await future
        except errors.StepFailed as error:
            raise StepFailed(error) from None

    @functools.cached_property
    def decode_result(self) -> Callable[[bytes | Raw, str], Any]:
        """JSON of a result to the step's return type."""
        return self.step.decode_result

    @functools.cached_property
    def runtime(self) -> dict[str, str]:
        """As of any workflow; the code is the body's."""
        return {**super().runtime, "code": code_digest(self.step.fn)}


class StepChild(children.ChildCommand):
    """A call of such a step: a child, whose end is the step's."""

    __slots__ = ("count", "key", "kwargs", "packed", "step")

    step: Step[Any, Any]
    packed: Raw
    kwargs: Raw
    count: int
    key: str
    iteration = 0

    def completed(self, run: Any, cause: t.ChildEnded) -> None:
        if run.workflow.options.keep_outputs:
            data.remember(run, self, cause.result)
        if self.step.undoable:
            # Without a number: it is not among the steps of this run.
            compensation.push(run, self.step, self.packed, self.kwargs, self.count, self.key, 0, cause.result)

    def failure(self, cause: t.ChildEnded) -> Exception:
        said = cause.error
        told: Any = None if said is None else codec.decoder(Any)(said.data, "error of a step")
        if said is not None and said.type == StepFailed.__name__ and isinstance(told, dict):
            failure = t.Failure(
                type=told["type"], message=told["message"], error_class=told["class"],
                data=codec.encode(told["data"]),
            )  # fmt: skip
            return step_error(self.key, failure, told["attempt"])
        message = f"its run {cause.run_id} was {cause.status}" + (f": {said.message}" if said else "")
        return errors.StepFailed(self.key, "StepNotRun", message)


def flow_of(step: Step[Any, Any], version: str) -> StepFlow:
    """The workflow of a step, as called by workflows of this version."""
    flow = step.flows.get(version)
    if flow is None:
        flow = step.flows[version] = StepFlow(step, version)
    return flow


def call(
    run: Any, step: Step[Any, Any], args: Raw, kwargs: Raw, count: int, site: str = "", *,
    fan_out: Any = None, item: int = 0,
) -> Future:  # fmt: skip
    """Issue a call; the future gets its result."""
    flow = flow_of(step, run.workflow.version)
    command = children.start(run, flow, (args, kwargs), site=site, fan_out=fan_out, item=item, make=StepChild)
    assert isinstance(command, StepChild)
    assert command.future is not None
    command.step, command.packed, command.kwargs, command.count = step, args, kwargs, count
    command.key = f"{step.name}#{run.ordinal(step.name)}"
    return command.future


def tags_of_steps(flows: Iterable[Workflow[Any, Any]]) -> list[str]:
    """Tags that the steps of these workflows ask for."""
    return [flow.options.run_on for flow in flows if isinstance(flow, StepFlow)]


def register_steps(flow: Workflow[Any, Any], steps: list[Step[Any, Any]], registry: dict[Any, Any]) -> None:
    """What an engine needs to execute the steps with tags that a workflow names."""
    for step in steps:
        if not step.options.run_on:
            continue
        own = flow_of(step, flow.version)
        known = registry.setdefault((own.name, own.version), own)
        if not isinstance(known, StepFlow) or known.step.fn is not step.fn:
            raise ConfigurationError(
                f"two steps with run_on are called {step.name!r} in workflows of version {flow.version!r}: "
                "give one of them another name"
            )
