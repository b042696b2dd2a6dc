"""`@step`: a function whose calls from a handler are recorded."""

import contextlib
import functools
import inspect
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, Literal, ParamSpec, TypeVar, overload

from msgspec import Raw, structs

from ..events import codec
from ..events.errors import ConfigurationError, StepFailed, ValueRefused
from .callee import NO_KWARGS as NO_KWARGS, Callee
from .importable import check_importable
from .inspect import call_site
from .loop import running
from .names import check_name
from .step_options import (
    DEFAULT_TIMEOUT_S as DEFAULT_TIMEOUT_S,
    LONGEST_S as LONGEST_S,
    ONCE as ONCE,
    Retry as Retry,
    StepOptions as StepOptions,
)

P = ParamSpec("P")
R = TypeVar("R")


class Step(Callee, Generic[P, R]):
    """A recorded function: in a handler a call is a step of the run, elsewhere it just runs the body."""

    def __init__(
        self, fn: Callable[..., Any], name: str, options: StepOptions, *, kind: str = "step"
    ) -> None:
        functools.update_wrapper(self, fn)
        super().__init__(fn, name)
        self.kind, self.options, self.place = kind, options, options.run_in
        self.undoable = options.compensate is not None
        """Whether it says how it is undone."""
        self.refers = self.undoable or options.on_fail is not None
        """Whether it names other steps."""
        self.flows: dict[str, Any] = {}
        """With `run_on`: what workflows of each version start when they call it."""

    def __repr__(self) -> str:
        return f"<step {self.name}>"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        loop = running()
        if loop is None:
            return self._run_here(*args, **kwargs)
        run: Any = loop.owner
        # Here and not when the coroutine runs: as a task of its own it is called by asyncio.
        site = "" if run.matching else call_site(sys._getframe(1))
        return self._record(run, site, args, kwargs)

    async def _record(self, run: Any, site: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> R:
        try:
            result: R = await run.call_step(self, args, kwargs, site)
        except StepFailed as error:
            if await self.forgives(run, site, error):
                return None  # type: ignore[return-value]
            raise
        return result

    async def forgives(self, run: Any, site: str, error: StepFailed) -> bool:
        """It has failed: call the step that is to hear of it; whether the run goes on without it."""
        handler = self.failure_handler
        if handler is not None:
            said = {
                "failed_step": error.step,
                "failure_reason": f"{error.type}: {error.message}",
                "retry_count": error.attempt - 1,
            }
            with contextlib.suppress(StepFailed):  # it changes nothing about the failure
                await run.call_step(handler, (), said, site)
        return self.options.optional

    async def _run_here(self, *args: Any, **kwargs: Any) -> R:
        value = self.fn(*args, **kwargs)
        result: R = await value if inspect.isawaitable(value) else value
        return result

    # ---- other steps it names; resolved at the first use, when all of them exist

    @functools.cached_property
    def undo(self) -> "Step[Any, Any]":
        """The step that undoes it. Raises `ConfigurationError` when there is none of that name."""
        return self._named("compensate", self.options.compensate).as_undo()

    @functools.cached_property
    def failure_handler(self) -> "Step[Any, Any] | None":
        """The step that is told of a failure. Raises `ConfigurationError` when there is none of that name."""
        handler = self.options.on_fail
        return None if handler is None else self._named("on_fail", handler)

    @functools.cached_property
    def probe(self) -> Callee | None:
        """What finds out whether a cut-off attempt had its effect."""
        probe = self.options.probe
        return None if probe is None else Callee(probe, self.name)

    def look_up(self) -> None:
        """Find the steps it names: what cannot be undone must not be done first.

        Raises `ConfigurationError`.
        """
        if self.undoable:
            self.undo  # noqa: B018 - a cached property
        self.failure_handler  # noqa: B018 - the same

    def _named(self, option: str, other: Any) -> "Step[Any, Any]":
        if isinstance(other, Step):
            return other
        module = sys.modules.get(getattr(self.fn, "__module__", None) or "")
        steps = [value for value in vars(module).values() if isinstance(value, Step)] if module else []
        for step in steps:
            if step.name == other:
                return step
        names = ", ".join(sorted({step.name for step in steps})) or "no step at all"
        where = getattr(module, "__name__", "its module")
        raise ConfigurationError(
            f"step {self.name}: {option}={other!r}: {where} has {names}; give it the step"
        )

    def as_undo(self) -> "Step[Any, Any]":
        """This step as the undo of another one: it has no undo of its own, and its failure counts."""
        options = structs.replace(self.options, compensate=None, optional=False)
        return Step(self.fn, self.name, options, kind="compensation")


@overload
def step(fn: Callable[P, Awaitable[R]], /) -> Step[P, R]: ...
@overload
def step(fn: Callable[P, R], /) -> Step[P, R]: ...
@overload
def step(
    *,
    name: str | None = None,
    retry: Retry | None = None,
    timeout: float | None = DEFAULT_TIMEOUT_S,
    total_timeout: float | None = None,
    execution: Literal["at_least_once", "at_most_once"] = "at_least_once",
    on_unknown: Literal["retry", "fail", "ask"] | None = None,
    probe: Callable[..., Any] | None = None,
    pure: bool = False,
    compensate: "Step[..., Any] | str | None" = None,
    optional: Literal[False] = False,
    on_fail: "Step[..., Any] | str | None" = None,
    run_in: str = "",
    run_on: str = "",
) -> "_Decorator": ...
@overload
def step(
    *,
    optional: Literal[True],
    name: str | None = None,
    retry: Retry | None = None,
    timeout: float | None = DEFAULT_TIMEOUT_S,
    total_timeout: float | None = None,
    execution: Literal["at_least_once", "at_most_once"] = "at_least_once",
    on_unknown: Literal["retry", "fail", "ask"] | None = None,
    probe: Callable[..., Any] | None = None,
    pure: bool = False,
    compensate: "Step[..., Any] | str | None" = None,
    on_fail: "Step[..., Any] | str | None" = None,
    run_in: str = "",
    run_on: str = "",
) -> "_OptionalDecorator": ...
def step(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    retry: Retry | None = None,
    timeout: float | None = DEFAULT_TIMEOUT_S,
    total_timeout: float | None = None,
    execution: Literal["at_least_once", "at_most_once"] = "at_least_once",
    on_unknown: Literal["retry", "fail", "ask"] | None = None,
    probe: Callable[..., Any] | None = None,
    pure: bool = False,
    compensate: "Step[..., Any] | str | None" = None,
    optional: bool = False,
    on_fail: "Step[..., Any] | str | None" = None,
    run_in: str = "",
    run_on: str = "",
) -> Any:
    """Make a function a step. `async def` runs on the host loop, `def` in a worker thread.

    Args:
        name: what the log calls it; default: the function's name. Renaming it breaks runs in flight.
        retry: a `Retry`; default: one attempt.
        timeout: seconds one attempt may take (a `def` body cannot be stopped, it is abandoned).
        total_timeout: seconds all attempts may take together, from the first start, restarts included.
        execution: `at_most_once` never repeats an attempt whose outcome is unknown.
        on_unknown: after a crash in mid-attempt: `retry`, `fail`, or `ask` a person (`resolve_step`);
            default: `retry`, with `at_most_once` or a probe `ask`.
        probe: called with the step's arguments after a crash in mid-attempt, before `on_unknown`; returns
            `Happened(result)`, `NotHappened()`, or None when it cannot know either.
        pure: no effect outside; such steps share commits and cost a fraction of one each.
        compensate: the step that undoes it, or its name in the same module; called with the same arguments,
            and with `result=` if it takes that.
        optional: when it fails for good, the call returns None and the run goes on.
        on_fail: a step called with `failed_step`, `failure_reason` and `retry_count` when it fails for good.
        run_in: `process`: the body runs in another process of this machine, and is killed when its time is
            over; or the name of one of `Engine(executors={…})`. It must be a function that a module has.
        run_on: tag that a worker must have to run it (`Engine(tags=[…])`); a call is a run of its own there.

    Raises:
        ConfigurationError: options that contradict each other, or a class or generator to decorate.
    """
    options = StepOptions(
        retry=retry or ONCE, timeout=timeout, execution=execution, on_unknown=on_unknown, pure=pure,
        total_timeout=total_timeout, probe=probe, compensate=compensate, optional=optional, on_fail=on_fail,
        run_in=run_in, run_on=run_on,
    )  # fmt: skip

    def decorate(function: Callable[..., Any]) -> Step[Any, Any]:
        return make_step(function, name, options)

    return decorate if fn is None else decorate(fn)


class _Decorator:
    """Type of `step(…)` with options, for type checkers only."""

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> Step[P, R]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Step[P, R]: ...
    def __call__(self, fn: Callable[..., Any], /) -> Step[Any, Any]:
        raise NotImplementedError


class _OptionalDecorator:
    """The same with `optional=True`: the call may return None."""

    @overload
    def __call__(self, fn: Callable[P, Coroutine[Any, Any, R]], /) -> Step[P, R | None]: ...
    @overload
    def __call__(self, fn: Callable[P, R], /) -> Step[P, R | None]: ...
    def __call__(self, fn: Callable[..., Any], /) -> Step[Any, Any]:
        raise NotImplementedError


def make_step(
    function: Callable[..., Any], name: str | None, options: StepOptions, *, kind: str = "step"
) -> Step[Any, Any]:
    """A `Step` of a function, checked."""
    if inspect.isclass(function) or not callable(function):
        raise ConfigurationError(f"@step expects a function, got {function!r}")
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        raise ConfigurationError(f"@step {function!r} is a generator; return a list instead")
    if _is_method(function):
        raise ConfigurationError(
            f"@step {function.__qualname__} is a method, and no object is recorded: decorate a function, "
            "and pass it what it needs"
        )
    name = check_name(name or getattr(function, "__name__", "") or type(function).__name__, "step name")
    if "#" in name:
        raise ConfigurationError(
            f"step name {name!r}: expected no '#', it separates name and ordinal in keys"
        )
    if options.run_in:
        check_importable(function, options.run_in)
    return Step(function, name, options, kind=kind)


def _is_method(function: Any) -> bool:
    """Whether it wants a `self` that nobody would give it."""
    code = getattr(function, "__code__", None)
    return (
        inspect.isfunction(function)
        and code is not None
        and code.co_varnames[: code.co_argcount][:1] == ("self",)
    )


def encode_call(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Raw, Raw]:
    """Arguments of a call as JSON. Raises `ValueRefused` with the path."""
    try:
        packed = codec.encode(args)
        return packed, codec.encode(kwargs) if kwargs else NO_KWARGS
    except ValueRefused as error:
        raise ValueRefused(f"arguments of step {name}: {error}", error.path) from None
