"""Running the body of one attempt on the host: timeout, cancellation, and what a body may ask for."""

import asyncio
import contextvars
import os
from collections.abc import Awaitable, Callable, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from msgspec import Raw

from ..events import codec, types as t
from ..events.blobs import Contents
from ..events.clock import Alarm, step_trace_id
from ..events.errors import ConfigurationError, NonRetryable, ValueRefused
from . import artifacts
from .callee import Callee
from .commands import StepCommand
from .failures import failure_of
from .names import check_text
from .threads import Job, Threads

ABANDON_S = 1.0
"""How long a timed-out body may take to unwind before the run goes on without it."""
YOUNG_S = 0.05
"""Age at which a body gets a host timer for its timeout."""


class Owner(Protocol):
    """The live run that a body belongs to; another one after a rebuild."""

    def body_ended(self, body: "Body", outcome: "Outcome") -> None:
        """The attempt is over."""

    @property
    def files(self) -> str:
        """Folder under which the run has its own; empty: none."""
        ...

    @property
    def workflow(self) -> str:
        """Name of the run's workflow."""
        ...

    @property
    def trace(self) -> str:
        """The run's W3C trace id."""
        ...

    def record(
        self, body: "Body", kind: type[t.Event], fields: dict[str, Any], contents: Contents = ()
    ) -> None:
        """Append a fact about the attempt, and store what it names; from any thread."""


class StepInfo:
    """The attempt that the current body is: `run_id`, `key` of the step (`charge#1`), `attempt` from 1."""

    __slots__ = ("_body", "attempt", "key", "run_id")

    def __init__(self, body: "Body") -> None:
        self._body = body
        self.run_id, self.key, self.attempt = body.run_id, body.command.key, body.attempt

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt of this step, in every process: give it to the service you call."""
        return f"{self.run_id}/{self.key}"

    @property
    def name(self) -> str:
        """The step's name, `charge`."""
        return self._body.command.step.name

    @property
    def workflow(self) -> str:
        """Name of the run's workflow."""
        return self._body.owner.workflow

    @property
    def trace_id(self) -> str:
        """UUIDv5 of run and step key."""
        return step_trace_id(self.run_id, self.key)

    @property
    def run_trace_id(self) -> str:
        """The run's W3C trace id: what `start(trace_id=…)` was given, or one made then."""
        return self._body.owner.trace

    @property
    def artifacts_dir(self) -> Path:
        """The run's folder for files. Raises `ConfigurationError` when it has none (`Settings.files`)."""
        path = artifacts.folder(self._body.owner.files, artifacts.ARTIFACTS, self.run_id)
        path.mkdir(parents=True, exist_ok=True)
        return path

    def artifact(
        self,
        name: str,
        *,
        path: str | os.PathLike[str] | None = None,
        data: bytes | None = None,
        media_type: str = "",
    ) -> artifacts.Artifact:
        """Record a file that this attempt has made, or keep some bytes; the step may return what it gets.

        Args:
            path: of a file that stays where it is; a relative one is in `artifacts_dir`, if the run has one.
                It is read once, for its digest: a large one in an `async def` with `asyncio.to_thread`.
            data: up to 64 MiB, kept in the store by digest.
            media_type: for people and programs that show it, `text/csv` …

        Raises `ConfigurationError`, `ValueRefused`, and `OSError` for a file that cannot be read.
        """
        base = self.artifacts_dir if path is not None and self._body.owner.files else None
        made, fields, contents = artifacts.measured(base, name, path, data, media_type)
        self._body.owner.record(self._body, t.ArtifactRecorded, fields, contents)
        return made

    def debug(self, message: Any) -> None:
        """Keep any JSON value with this attempt for people to look at; never loaded on replay."""
        self.record(t.DebugRecorded, {"message": codec.encode(message, "debug message")})

    def record(self, kind: type[t.Event], fields: dict[str, Any]) -> None:
        """Append a fact about this attempt."""
        self._body.owner.record(self._body, kind, fields)


Call = Callable[[], Awaitable[Any]]
StepWrapper = Callable[[StepInfo, Call], Awaitable[Any]]
"""`async def wrapper(info, call)`: runs around every body, and gives on what `await call()` gives."""

_current: contextvars.ContextVar["Body"] = contextvars.ContextVar("refold_step")


def body_here() -> "Body | None":
    """The attempt whose body is running; None outside of one."""
    return _current.get(None)


def current_step() -> StepInfo:
    """The attempt whose body is running. Raises `ConfigurationError` outside a step's body."""
    try:
        return StepInfo(_current.get())
    except LookupError:
        raise ConfigurationError(
            "current_step() and record_cost() work in the body of a step that a run called"
        ) from None


def record_cost(
    usd: Decimal | str | int = 0,
    *,
    model: str = "",
    input_tokens: int = 0,
    output_tokens: int = 0,
    cache_tokens: int = 0,
    turns: int = 0,
    detail: dict[str, Any] | None = None,
) -> None:
    """Record what this attempt has spent; call it as often as there is something to record.

    It is an event of its own, so a failure or a crash right after does not lose it, and totals
    count every attempt once.

    Args:
        usd: US dollars, exact: `Decimal`, `int` or text such as `"0.0042"`, never a float.
        model: what was paid for, e.g. the name of a model.
        input_tokens, output_tokens, cache_tokens, turns: counts.
        detail: any JSON object.

    Raises:
        ConfigurationError: outside a step, or `usd` is a float, negative or not a number, or a count is.
        ValueRefused: `detail` is no JSON object.
    """
    info = current_step()
    counts = {"input_tokens": input_tokens, "output_tokens": output_tokens, "cache_tokens": cache_tokens}
    counts["turns"] = turns
    for what, count in counts.items():
        if type(count) is not int or count < 0:
            raise ConfigurationError(f"record_cost({what}={count!r}): expected an int, 0 or more")
    plain = codec.decoder(dict[str, Any])(codec.encode(detail or {}, "detail"), "detail")
    fields = {"usd": _amount(usd), "model": check_text(model, "model"), "detail": plain}
    info.record(t.CostRecorded, {**fields, **counts})


def _amount(usd: Decimal | str | int) -> Decimal:
    if isinstance(usd, float):
        raise ConfigurationError(f"record_cost({usd!r}): money is Decimal, int or text, never a float")
    try:
        amount = Decimal(usd)
    except (InvalidOperation, TypeError, ValueError):
        raise ConfigurationError(f"record_cost({usd!r}): not an amount of money") from None
    if not amount.is_finite() or amount < 0:
        raise ConfigurationError(f"record_cost({usd!r}): expected a finite amount, 0 or more")
    return amount


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
        self.job: Job | None = None
        self.timed_out = self.stopping = self.done = self.entered = False
        self.told = False
        """It was us who cancelled."""

    def cancel(self) -> None:
        """Tell the body to stop: nobody waits for it any more. It may still complete: evidence."""
        self.told = True
        if self.job is not None and self.threads is not None:
            self.threads.give_up(self.job)
        if self.task is not None:
            self.task.cancel()

    @property
    def begun(self) -> bool:
        """Whether any of the body's own code has run."""
        return self.entered if self.callee.is_async else self.job is not None and self.job.began

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

    async def run(self, threads: Threads, around: StepWrapper | None = None) -> None:
        """The body, from the recorded arguments to the owner's ear."""
        _current.set(self)
        self.entered = True
        callee = self.callee
        try:
            args, kwargs = callee.decode_call(self.command.args, self.command.kwargs, self.command.count)
            if around is not None and self.is_attempt:
                value = await around(StepInfo(self), lambda: self._call(threads, args, kwargs))
            elif callee.is_async:  # not through `_call`: a coroutine less for each step
                value = await callee.fn(*args, **kwargs)
            else:
                value = await self._in_thread(threads, lambda: callee.fn(*args, **kwargs))
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
        if isinstance(error, ValueRefused):
            return Outcome("failed", failure=failure_of(error, "value_refused"))
        final = isinstance(error, (NonRetryable, *self.command.step.options.retry.non_retryable))
        failure = failure_of(error, "non_retryable" if final else "error")
        return Outcome("failed", failure=failure, retryable=not final)


def timed_out(message: str) -> t.Failure:
    """What a step fails with that has taken too long."""
    return t.Failure(type="StepTimedOut", message=message, error_class="timed_out")


class Bodies:
    """Starts the bodies of one worker: their tasks, threads, context and timeouts."""

    def __init__(self, step_threads: int) -> None:
        self.threads = Threads(step_threads)
        self.around: StepWrapper | None = None
        """What runs around every body, if anything does."""
        self._context = contextvars.copy_context()  # whoever happens to commit must not leak into a body
        self._loop = asyncio.get_running_loop()
        self._young: list[tuple[Body, float]] = []

    def start(self, body: Body) -> None:
        """Begin a body. Its timeout counts from here."""
        body.task = self._loop.create_task(body.run(self.threads, self.around), context=self._context.copy())
        body.task.add_done_callback(body.finished)
        timeout = body.limit
        if timeout is None:
            return
        if timeout <= YOUNG_S:
            body.timer = self._loop.call_later(timeout, body.time_out)
            return
        if not self._young:
            self._loop.call_later(YOUNG_S, self._grown)
        self._young.append((body, self._loop.time() + timeout))

    def _grown(self) -> None:
        """Set host timers for those that are still running: most bodies never need one (5 µs each)."""
        young, self._young = self._young, []
        for body, deadline in young:
            if not body.done:
                body.timer = self._loop.call_at(deadline, body.time_out)
