"""Running the body of one attempt on the host: timeout, cancellation, and what a body may ask for."""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal, NamedTuple, Protocol

from msgspec import Raw, structs

from ..events import codec, types as t
from ..events.clock import Alarm
from ..events.errors import NonRetryable, ValueRefused
from .callee import Callee
from .commands import StepCommand
from .elsewhere import Elsewhere, ProcessDied, TaskLost, died
from .failures import failure_of
from .processes import Job as ProcessJob
from .remote import RemoteFailure
from .step_info import (
    CURRENT,
    Owner as InfoOwner,
    StepInfo as StepInfo,
    body_here as body_here,
    current_step as current_step,
    record_cost as record_cost,
)
from .threads import Job, Threads

ABANDON_S = 1.0
"""How long a timed-out body may take to unwind before the run goes on without it."""
YOUNG_S = 0.05
"""Age at which a body gets a host timer for its timeout."""


class Owner(InfoOwner, Protocol):
    """The live run that a body belongs to; another one after a rebuild."""

    def body_ended(self, body: "Body", outcome: "Outcome") -> None:
        """The attempt is over."""


Call = Callable[[], Awaitable[Any]]
StepWrapper = Callable[[StepInfo, Call], Awaitable[Any]]
"""`async def wrapper(info, call)`: runs around every body, and gives on what `await call()` gives."""


class Outcome(NamedTuple):
    """How an attempt ended."""

    kind: Literal["completed", "failed", "cancelled", "interrupted"]
    result: Raw = Raw(b"null")
    value: Any = None
    """The result as the handler gets it: encoded and decoded."""
    failure: t.Failure | None = None
    retryable: bool = False


class Body:
    """One attempt in flight. Its owner hears of the end on the loop, unless the body is stopped; twice only
    when the body did not heed its timeout: first of the timeout, later of what it came to.
    """

    __slots__ = (
        "attempt", "callee", "command", "done", "entered", "job", "limit", "loop", "owner", "run_id",
        "started_id", "stopping", "task", "threads", "timed_out", "timer", "told",
    )  # fmt: skip

    is_attempt = True
    """Whether this is an attempt at the step, and no question about one."""

    def __init__(
        self, owner: Owner, run_id: str, command: StepCommand, attempt: int, started_id: str
    ) -> None:
        self.owner, self.command, self.attempt, self.started_id = owner, command, attempt, started_id
        self.run_id = run_id
        self.callee: Callee = command.step
        self.limit = command.step.options.timeout
        """Seconds it may take; None: no limit."""
        self.loop = asyncio.get_running_loop()
        self.task: asyncio.Task[None] | None = None
        self.timer: Alarm | None = None
        self.threads: Threads | None = None
        self.job: Job | ProcessJob | None = None
        self.timed_out = self.stopping = self.done = self.entered = False
        self.told = False
        """It was us who cancelled."""

    def cancel(self) -> None:
        """Tell the body to stop: nobody waits for it any more. It may still complete: evidence."""
        self.told = True
        if isinstance(self.job, Job) and self.threads is not None:
            self.threads.give_up(self.job)
        if self.task is not None:
            self.task.cancel()

    @property
    def begun(self) -> bool:
        """Whether any of the body's own code has run, or may have."""
        if self.job is not None:
            return self.job.began
        return self.entered and (self.callee.is_async or self.callee.place != "")

    @property
    def key(self) -> str:
        """Of its step, `charge#1`."""
        return self.command.key

    @property
    def step_name(self) -> str:
        """Of its step, `charge`."""
        return self.command.step.name

    def begins(self) -> None:
        """It begins somewhere else: from here on counts its timeout."""
        self.entered = True
        whole = self.command.step.options.total_timeout  # it counts from the start: see `Bodies.start`
        if self.limit is not None and whole is None and not (self.done or self.told):
            self.timer = self.loop.call_later(self.limit, self.time_out)

    def stop(self) -> None:
        """Cancel, and do not report: the run has left this process."""
        self.stopping = True
        self.cancel()

    def time_out(self) -> None:
        """The attempt has taken too long."""
        self.timed_out = True
        self.cancel()
        self.timer = self.loop.call_later(ABANDON_S, self._abandon)

    def _abandon(self) -> None:
        """The body swallows its cancellation: go on without it, keep what it comes to as evidence."""
        if not self.stopping:
            self.owner.body_ended(self, self._timeout_outcome())

    def finished(self, task: asyncio.Task[None]) -> None:
        """The task is done; report it if `run` did not, because it was cancelled before its first step."""
        if self.done:
            return
        self.done = True
        if self.timer is not None:
            self.timer.cancel()
        if not self.stopping:
            kind: Literal["cancelled", "interrupted"] = "cancelled" if self.told else "interrupted"
            self.owner.body_ended(self, self._timeout_outcome() if self.timed_out else Outcome(kind))

    async def run(self, bodies: "Bodies") -> None:
        """The body, from the recorded arguments to the owner's ear."""
        CURRENT.set(self)
        callee = self.callee
        self.entered = not callee.place
        try:
            if callee.place:
                value = await self._elsewhere(bodies)
            else:
                value = await self._here(bodies.threads, bodies.around)
            outcome = self._completed(value)
        except asyncio.CancelledError as error:
            outcome = self._cancelled(error)
        except KeyboardInterrupt:  # a person's Ctrl-C ends the program; what the body did is unknown
            raise
        except BaseException as error:  # SystemExit and its like fail the step, not the process
            outcome = self._failed(error)
        self.done = True
        if self.timer is not None:
            self.timer.cancel()
        if not self.stopping:
            self.owner.body_ended(self, outcome)

    async def _here(self, threads: Threads, around: StepWrapper | None) -> Any:
        callee = self.callee
        args, kwargs = callee.decode_call(self.command.args, self.command.kwargs, self.command.count)
        if around is not None and self.is_attempt:
            return await around(StepInfo(self), lambda: self._call(threads, args, kwargs))
        if callee.is_async:
            return await callee.fn(*args, **kwargs)
        return await self._in_thread(threads, lambda: callee.fn(*args, **kwargs))

    async def _elsewhere(self, bodies: "Bodies") -> Any:
        """What the body comes to somewhere else: encoded, or decoded for those who have asked to see it."""
        if bodies.around is None:
            return await bodies.elsewhere.run(self)

        async def call() -> Any:
            result = await bodies.elsewhere.run(self)
            return self.callee.decode_result(result, f"result of step {self.key}")

        return await bodies.around(StepInfo(self), call)

    async def _call(self, threads: Threads, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        fn = self.callee.fn
        if self.callee.is_async:
            return await fn(*args, **kwargs)
        return await self._in_thread(threads, lambda: fn(*args, **kwargs))

    async def _in_thread(self, threads: Threads, call: Callable[[], Any]) -> Any:
        self.threads, self.job = threads, threads.run(call, self._came_late)
        try:
            return await self.job.future
        except asyncio.CancelledError:
            threads.give_up(self.job)
            raise

    def _came_late(self, value: Any, error: BaseException | None) -> None:
        """A thread that could not be stopped has come to an end after all."""
        if self.stopping:
            return
        try:
            outcome = self._completed(value) if error is None else self._failed(error)
        except ValueRefused as refused:
            outcome = self._failed(refused)
        self.owner.body_ended(self, outcome)

    def _completed(self, value: Any) -> Outcome:
        what = f"result of step {self.command.key}"
        result = codec.encode(value, what)
        return Outcome("completed", result, self.command.step.decode_result(result, what))

    def _cancelled(self, error: BaseException) -> Outcome:
        if self.timed_out:
            return self._timeout_outcome()
        if self.told:
            return Outcome("cancelled")
        task = asyncio.current_task()
        if task is not None and task.cancelling():  # by somebody else: the host loop is being torn down, say
            return Outcome("interrupted")
        return Outcome("failed", failure=failure_of(error), retryable=True)

    def _timeout_outcome(self) -> Outcome:
        options = self.command.step.options
        if self.limit == options.timeout:
            failure = timed_out(f"attempt {self.attempt} took longer than {self.limit} s")
            return Outcome("failed", failure=failure, retryable=True)
        return Outcome(
            "failed", failure=timed_out(f"its attempts took longer than {options.total_timeout} s")
        )

    def _failed(self, error: BaseException) -> Outcome:
        options = self.command.step.options
        if isinstance(error, TaskLost) or (isinstance(error, ProcessDied) and not options.repeats_unknown):
            return Outcome("interrupted", failure=failure_of(error))
        if isinstance(error, ProcessDied):
            return Outcome("failed", failure=died(error), retryable=True)
        if isinstance(error, ValueRefused):
            return Outcome("failed", failure=failure_of(error, "value_refused"))
        finals: tuple[type[BaseException], ...] = (NonRetryable, *options.retry.non_retryable)
        if isinstance(error, RemoteFailure):
            return _failed_there(error, error.is_one_of(finals))
        final = isinstance(error, finals)
        failure = failure_of(error, "non_retryable" if final else "error")
        return Outcome("failed", failure=failure, retryable=not final)


def _failed_there(error: RemoteFailure, final: bool) -> Outcome:
    failure = error.failure
    if failure.error_class == "value_refused":
        return Outcome("failed", failure=failure)
    if final:
        failure = structs.replace(failure, error_class="non_retryable")
    return Outcome("failed", failure=failure, retryable=not final)


def timed_out(message: str) -> t.Failure:
    """What a step fails with that has taken too long."""
    return t.Failure(type="StepTimedOut", message=message, error_class="timed_out")


class Bodies:
    """Starts the bodies of one worker: their tasks, threads, processes, context and timeouts."""

    def __init__(self, step_threads: int, step_processes: int = 1) -> None:
        self.threads = Threads(step_threads)
        self.elsewhere = Elsewhere(step_processes)
        self.around: StepWrapper | None = None
        """What runs around every body, if anything does."""
        self._context = contextvars.copy_context()  # whoever happens to commit must not leak into a body
        self._loop = asyncio.get_running_loop()
        self._young: list[tuple[Body, float]] = []

    def start(self, body: Body) -> None:
        """Begin a body. Its timeout counts from here."""
        body.task = self._loop.create_task(body.run(self), context=self._context.copy())
        body.task.add_done_callback(body.finished)
        timeout = body.limit
        if timeout is None or (body.callee.place and body.command.step.options.total_timeout is None):
            return  # none, or it counts from when there is room for the body: see `begins`
        if timeout <= YOUNG_S:
            body.timer = self._loop.call_later(timeout, body.time_out)
            return
        if not self._young:
            self._loop.call_later(YOUNG_S, self._grown)
        self._young.append((body, self._loop.time() + timeout))

    def close(self) -> None:
        """Begin nothing more: threads end, processes are ended."""
        self.threads.close()
        self.elsewhere.close()

    def _grown(self) -> None:
        """Set host timers for those that are still running: most bodies never need one (5 µs each)."""
        young, self._young = self._young, []
        for body, deadline in young:
            if not body.done:
                body.timer = self._loop.call_at(deadline, body.time_out)
