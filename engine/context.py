"""`ctx`: what a handler may ask for beside plain asyncio, anyio and steps."""

import asyncio
import logging
import random
import sys
import uuid
from collections.abc import Callable, Coroutine, Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NoReturn, Protocol, runtime_checkable

from ..events import codec
from ..events.clock import to_datetime
from ..events.errors import ForbiddenInHandler, WaitTimeout
from . import artifacts, compensation, data, gates, parallel
from .ending import ContinueAsNew
from .gates import Decision, OnTimeout, Stage
from .inspect import call_site
from .names import check_name, check_seconds
from .parallel import Results
from .placement import child_placement
from .step import DEFAULT_TIMEOUT_S, ONCE, Retry, Step, StepOptions, make_step

_logger = logging.getLogger("refold.run")


@runtime_checkable
class Operation(Protocol):
    """A kind of step of your own: recorded as `custom:<kind>` with `input`, run once for good."""

    kind: str
    input: Any

    async def run(self) -> Any:
        """The effect."""
        ...


class Context:
    """One run, as its handler sees it. Everything here replays exactly."""

    __slots__ = ("_log", "_random", "_run")

    def __init__(self, run: Any) -> None:
        self._run = run
        self._random: random.Random | None = None
        self._log: logging.LoggerAdapter[logging.Logger] | None = None

    @property
    def run_id(self) -> str:
        """The run's id."""
        return str(self._run.run_id)

    @property
    def workflow(self) -> str:
        """Name of the workflow."""
        return str(self._run.workflow.name)

    @property
    def attributes(self) -> dict[str, Any]:
        """The run's searchable labels as they are now; a copy. `set_attributes` changes them."""
        return data.attributes(self._run)

    def set_attributes(self, **changes: Any) -> None:
        """Change the run's searchable labels; None takes one away. JSON values."""
        data.set_attributes(self._run, changes)

    @property
    def artifacts_dir(self) -> Path:
        """The run's folder for files. Raises `ConfigurationError` when it has none (`Settings.files`)."""
        return artifacts.folder(self._run.started.files, artifacts.ARTIFACTS, self.run_id)

    @property
    def logs_dir(self) -> Path:
        """The run's folder for logs of whatever its steps start. Raises as `artifacts_dir`."""
        return artifacts.folder(self._run.started.files, artifacts.LOGS, self.run_id)

    def now(self) -> datetime:
        """Log time: when the event was recorded that the handler is working on (UTC, µs)."""
        return to_datetime(self._run.loop.now)

    @property
    def random(self) -> random.Random:
        """A generator seeded from the run's start: the same numbers on every replay."""
        if not self._run.loop.active:
            raise ForbiddenInHandler(
                f"run {self.run_id}: ctx.random was used outside its handler, no replay would repeat that; "
                "draw the numbers in the handler and pass them to the step"
            )
        if self._random is None:
            self._random = random.Random(self._run.started.seed)
        return self._random

    def uuid4(self) -> uuid.UUID:
        """A random UUID, the same on every replay."""
        return uuid.UUID(int=self.random.getrandbits(128), version=4)

    @property
    def log(self) -> "logging.LoggerAdapter[logging.Logger]":
        """A logger with run and trace id (`record.refold_run`, `refold_trace`), silent while replaying."""
        if self._log is None:
            self._log = _RunLogger(_logger, self._run)
        return self._log

    async def sleep(self, seconds: float) -> None:
        """Sleep durably; the same as `asyncio.sleep` or `anyio.sleep` in a handler."""
        check_seconds(seconds, "ctx.sleep(seconds")
        await asyncio.sleep(seconds)

    async def call(
        self,
        fn: Callable[..., Any],
        /,
        *args: Any,
        name: str | None = None,
        retry: Retry | None = None,
        timeout: float | None = DEFAULT_TIMEOUT_S,
        pure: bool = False,
    ) -> Any:
        """Record a call of any callable (`async` or not) as a step; options as for `@step`.

        Raises `StepFailed` when it has failed for good.
        """
        if isinstance(fn, Step):
            return await fn(*args)
        options = StepOptions(retry=retry or ONCE, timeout=timeout, pure=pure)
        return await make_step(fn, name, options, kind="call")(*args)

    async def operation(self, operation: Operation, *, retry: Retry | None = None) -> Any:
        """Record an operation as a step of kind `custom:<kind>`, with its `input` as the argument."""

        async def run(_input: Any) -> Any:
            return await operation.run()

        kind = f"custom:{operation.kind}"
        return await make_step(run, operation.kind, StepOptions(retry=retry or ONCE), kind=kind)(
            operation.input
        )

    async def wait_for_event(self, name: str, *, timeout: float | None = None, type: Any = Any) -> Any:
        """Wait for an event sent with `signal(run, name, payload)`, also if it came before; in order.

        Args:
            name: events of one name are taken in the order in which they reached the run.
            timeout: seconds, counted from this call, restarts included; None: for ever.
            type: what the payload must decode to.

        Raises:
            WaitTimeout: nothing came in time.
            ValueRefused: the payload does not fit `type`; the event is consumed.
        """
        if timeout is not None:
            check_seconds(timeout, "ctx.wait_for_event(timeout")
        try:
            async with asyncio.timeout(timeout):
                payload = await self._run.wait_signal(check_name(name, "event name"))
        except TimeoutError:
            raise WaitTimeout(f"run {self.run_id}: no event {name!r} within {timeout} s") from None
        return codec.decoder(type)(payload, f"payload of event {name!r}")

    # ---- people

    async def approval(
        self,
        prompt: str,
        *,
        options: Sequence[str] = (),
        approvers: int = 1,
        voters: Sequence[str] = (),
        timeout: float | None = None,
        on_timeout: OnTimeout = "reject",
        shown: Any = None,
        self_approval: bool = True,
        escalation: Sequence[Stage] = (),
        name: str = "approval",
    ) -> Decision:
        """Wait until people decide (`engine.approve`, `engine.reject`); no thread or task waits with it.

        Args:
            prompt: the question.
            options: what may be selected when approving.
            approvers: approvals needed, each by another person; one rejection vetoes.
            voters: who may vote; default: anybody.
            timeout: seconds, counted from this call, restarts included; None: for ever.
            on_timeout: `reject`, `approve`, `fail` (raises `GateTimedOut`) or `continue`.
            shown: any JSON value put before those who decide; their decision is bound to its digest.
            self_approval: False: whoever started the run may not vote.
            escalation: who may decide next, and until when, when nobody has in time.
            name: what the gate is called, `name#1`, `name#2` …

        Raises:
            GateRejected: somebody rejected, or nobody decided in time and `on_timeout` is `reject`.
            GateTimedOut: nobody decided in time and `on_timeout` is `fail`.
        """
        return await gates.approval(
            self._run, prompt, options=options, approvers=approvers, voters=voters, timeout=timeout,
            on_timeout=on_timeout, shown=shown, self_approval=self_approval, escalation=escalation, name=name,
        )  # fmt: skip

    async def wait_for_input(
        self,
        wanted: Any = Any,
        *,
        prompt: str = "",
        timeout: float | None = None,
        voters: Sequence[str] = (),
        shown: Any = None,
        name: str = "input",
    ) -> Any:
        """Wait for an answer (`engine.answer`); one that does not fit is refused, and the wait stays open.

        Args:
            wanted: a type (what msgspec decodes) or a JSON Schema as a dict.
            prompt, timeout, voters, shown, name: as for `approval`.

        Raises `GateTimedOut`, `ConfigurationError` for what is neither a type nor a JSON Schema.
        """
        return await gates.wait_for_input(
            self._run, wanted, prompt=prompt, timeout=timeout, voters=voters, shown=shown, name=name
        )

    # ---- several things at once

    def parallel(
        self, branches: Iterable[Any], *, fail_fast: bool = True, min_success: int | None = None
    ) -> Coroutine[Any, Any, Results[Any]]:
        """Run branches at the same time; `await` it for their results, in the order of the branches.

        Args:
            branches: coroutines (`charge(5)`), async functions without arguments, or `Branch`es, which may
                have a condition; one that is skipped counts as no success.
            fail_fast: at the first failure the others are cancelled, and it is raised. False: all come to
                an end, then the first error in the order of the branches is raised, with `.others`.
            min_success: so many successes are enough; failures are then in `.failures` of the results.
        """
        return parallel.parallel(self._run, branches, fail_fast=fail_fast, min_success=min_success)

    async def map(
        self,
        target: Any,
        items: Iterable[Any],
        *,
        limit: int | None = 8,
        on_error: Literal["fail", "continue"] = "fail",
        when: Callable[[Any], Any] | None = None,
    ) -> Results[Any]:
        """Put each item through a step, or a workflow, and return the results in the order of the items.

        Args:
            target: a step, a workflow (each item becomes a child) or any function, called with the item.
            items: read once; a replay goes on with those that were recorded then.
            limit: how many may be under way at once; None: all.
            on_error: `fail`: the first failure cancels the rest and is raised; `continue`: the results
                have the `failures` by place.
            when: called with each item; those for which it is false are `skipped`.

        Raises `ConfigurationError` and `ValueRefused` for what cannot work, before anything is recorded.
        """
        site = "" if self._run.matching else call_site(sys._getframe(1))
        results: Results[Any] = await self._run.fan_out(
            target, items, limit=limit, on_error=on_error, when=when, site=site
        )
        return results

    # ---- other runs

    async def child(
        self, workflow: Any, /, *args: Any, wait: bool = True, queue: str | None = None, priority: int = 0,
        queue_key: str | None = None, run_on: str | None = None,
    ) -> Any:  # fmt: skip
        """Start a run of another workflow below this one, and wait for its result.

        It is cancelled with this run. `wait=False`: go on at once with its id; it outlives this run. `queue`,
        `priority`, `queue_key` and `run_on` say where it waits for its turn, and who executes it: as for
        `Engine.start`, but in a queue that nobody has declared it waits until somebody does.

        Raises `ChildFailed` when it does not complete, `ConfigurationError` when it is too deep or would run
        inside itself, `ValueRefused` for its arguments.
        """
        site = "" if self._run.matching else call_site(sys._getframe(1))
        place = child_placement(queue, priority, queue_key, run_on)
        command = self._run.start_child(workflow, args, wait=wait, site=site, place=place)
        if command.future is None:
            return command.run_id
        return await command.future

    def continue_as_new(self, *args: Any) -> NoReturn:
        """End this run here and go on as a new one, with these arguments and a history that starts afresh.

        Signals not yet consumed go along; `result()` of this run waits for the last one's.
        """
        self._run.check_open()
        raise ContinueAsNew(self._run.workflow.encode_args(args))

    def compensate(self, step: Any, /, *args: Any, **kwargs: Any) -> None:
        """From now on, undoing this run calls that step, with these arguments; see `@step(compensate=…)`.

        Undos run in the reverse order of what they undo: of the completion of a step, and of this call.
        """
        compensation.register(self._run, step, args, kwargs)

    # ---- data

    def set(self, key: str, value: Any) -> None:
        """Set a value of the run's shared context, for other tasks of the handler and for people.

        The last write wins; when two concurrent branches write one key that is recorded as a conflict. Names
        such as `run_id` or `input` are reserved: nothing is set, and the attempt is recorded.
        """
        data.set_value(self._run, key, value)

    def get(self, key: str, default: Any = None, *, type: Any = Any) -> Any:
        """A value of the shared context, decoded to `type`."""
        return data.get_value(self._run, key, default, type)

    @property
    def prior_outputs(self) -> "tuple[data.ContextEntry, ...]":
        """What the steps have returned so far, in the order in which they completed.

        For a workflow declared with `@workflow(keep_outputs=True)`; else raises `ConfigurationError`.
        """
        return tuple(data.outputs(self._run, "prior_outputs"))

    @property
    def prior_context(self) -> "data.ContextEntry | None":
        """The last of `prior_outputs`, or None."""
        kept = data.outputs(self._run, "prior_context")
        return kept[-1] if kept else None

    @property
    def prior_output(self) -> Any:
        """What the step that completed last has returned, or None."""
        kept = data.outputs(self._run, "prior_output")
        return kept[-1].output if kept else None

    def checkpoint(self, name: str, value: Any = None) -> None:
        """Record a named place in the history, with any JSON value; nothing else happens."""
        data.checkpoint(self._run, name, value)

    def condition(self, name: str, result: Any, /, *, skips: Iterable[Any] = (), **operands: Any) -> bool:
        """Decide something once for good: a replay gets the recorded result, whatever it computes now.

            if ctx.condition("large", order.usd > 100, skips=[review], usd=order.usd):
                await review(order)

        `skips`: steps, or names, that are not called when it is false; they get rows that say why.
        """
        return data.condition(self._run, name, result, skips, operands)

    # ---- changing code

    def patched(self, name: str) -> bool:
        """Whether this run is on the new side of a change in the handler: True for new runs, recorded.

            if ctx.patched("check stock first"):
                await check_stock(order)

        A run that was past this place before the change stays on the old side.
        """
        return data.patched(self._run, name)

    def deprecate_patch(self, name: str) -> None:
        """In the place of `patched(name)` once the old side is gone from the code; later it may go, too."""
        data.deprecate_patch(self._run, name)


class _RunLogger(logging.LoggerAdapter[logging.Logger]):
    """Adds the run's id to records; drops them while the run replays."""

    def __init__(self, logger: logging.Logger, run: Any) -> None:
        super().__init__(logger, {"refold_run": run.run_id, "refold_trace": run.started.trace})
        self._run = run

    def isEnabledFor(self, level: int) -> bool:
        return not self._run.matching and super().isEnabledFor(level)
