"""`ctx`: what a handler may ask for beside plain asyncio, anyio and steps."""

import asyncio
import logging
import random
import uuid
from collections.abc import Callable
from datetime import datetime
from typing import Any, Protocol, runtime_checkable

from ..events import codec
from ..events.clock import to_datetime
from ..events.errors import ForbiddenInHandler, WaitTimeout
from .names import check_name
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
        """The attributes given to `start`; a copy."""
        return dict(self._run.started.attributes)

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
        try:
            async with asyncio.timeout(timeout):
                payload = await self._run.wait_signal(check_name(name, "event name"))
        except TimeoutError:
            raise WaitTimeout(f"run {self.run_id}: no event {name!r} within {timeout} s") from None
        return codec.decoder(type)(payload, f"payload of event {name!r}")


class _RunLogger(logging.LoggerAdapter[logging.Logger]):
    """Adds the run's id to records; drops them while the run replays."""

    def __init__(self, logger: logging.Logger, run: Any) -> None:
        super().__init__(logger, {"refold_run": run.run_id, "refold_trace": run.started.trace})
        self._run = run

    def isEnabledFor(self, level: int) -> bool:
        return not self._run.replaying and super().isEnabledFor(level)
