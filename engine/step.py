"""`@step`: a function whose calls from a handler are recorded."""

import functools
import inspect
import sys
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Generic, Literal, ParamSpec, TypeVar, overload

from msgspec import Raw, Struct

from ..events import codec
from ..events.errors import ConfigurationError, ValueRefused
from .inspect import call_site
from .loop import running
from .names import check_name

P = ParamSpec("P")
R = TypeVar("R")

DEFAULT_TIMEOUT_S = 300.0
LONGEST_S = 1e9
"""30 years: what is longer has no date, and infinity has no JSON form."""
NO_KWARGS = Raw(b"{}")


class Retry(Struct, frozen=True, kw_only=True):
    """When and how often a failed attempt is repeated. Without one, a step has a single attempt.

    The pause before attempt n+1 is `initial_interval * backoff**(n-1)` seconds, at most
    `max_interval`, changed by up to ± `jitter` (a fraction). Interrupted attempts do not count.
    """

    max_attempts: int = 3
    initial_interval: float = 1.0
    backoff: float = 2.0
    max_interval: float = 60.0
    jitter: float = 0.1
    non_retryable: tuple[type[BaseException], ...] = ()
    """Errors that fail the step at once, like `NonRetryable`."""

    def __post_init__(self) -> None:
        pauses = 0 <= self.initial_interval < LONGEST_S and 0 <= self.max_interval < LONGEST_S
        if not (self.max_attempts >= 1 and pauses and self.backoff >= 1 and 0 <= self.jitter < 1):
            raise ConfigurationError(
                f"{self}: expected max_attempts >= 1, backoff >= 1, 0 <= jitter < 1, "
                f"intervals of 0 to {LONGEST_S:.0e} seconds"
            )

    def pause(self, failures: int, chance: float) -> float:
        """Seconds to wait after that many failures; `chance` is uniform in [0, 1)."""
        try:
            plain = self.initial_interval * self.backoff ** (failures - 1)
        except OverflowError:
            plain = self.max_interval
        return min(plain, self.max_interval) * (1 + self.jitter * (2 * chance - 1))


ONCE = Retry(max_attempts=1)


class StepOptions(Struct, frozen=True, kw_only=True):
    """What a step promises and asks for."""

    retry: Retry = ONCE
    timeout: float | None = DEFAULT_TIMEOUT_S
    """Seconds one attempt may take; None: no limit."""
    execution: Literal["at_least_once", "at_most_once"] = "at_least_once"
    on_unknown: Literal["retry", "fail", "ask"] | None = None
    """After a crash in mid-attempt: run it again, fail with `StepInterrupted`, or have a person say what it
    did. Default: by `execution` (`retry`, or `ask` for `at_most_once`)."""
    pure: bool = False
    """No effect outside: running it again is harmless, so it may start before its intent is durable."""
    total_timeout: float | None = None
    """Seconds all attempts may take together, counted from the first start, restarts included."""
    compensate: Any = None
    """The step that undoes it: a `Step`, or its name in the module of this one."""
    optional: bool = False
    """When it fails for good, the call returns None and the run goes on."""
    on_fail: Any = None
    """A step called with `failed_step`, `failure_reason` and `retry_count` when it fails for good."""
    probe: Callable[..., Any] | None = None
    """Called with the step's arguments after a crash in mid-attempt: did it happen?"""

    @property
    def undo_name(self) -> str:
        """Name of the step that undoes it; empty: none."""
        return str(getattr(self.compensate, "name", self.compensate or ""))

    @property
    def unknown(self) -> str:
        """What to do about an attempt with unknown outcome."""
        return self.on_unknown or ("retry" if self.execution == "at_least_once" else "ask")

    def __post_init__(self) -> None:
        if self.execution not in ("at_least_once", "at_most_once"):
            raise ConfigurationError(
                f"execution={self.execution!r}: expected 'at_least_once' or 'at_most_once'"
            )
        if self.on_unknown not in (None, "retry", "fail", "ask"):
            raise ConfigurationError(f"on_unknown={self.on_unknown!r}: expected 'retry', 'fail' or 'ask'")
        for name, limit in (("timeout", self.timeout), ("total_timeout", self.total_timeout)):
            if limit is not None and not 0 < limit < LONGEST_S:
                raise ConfigurationError(
                    f"{name}={limit!r}: expected 0 to {LONGEST_S:.0e} seconds, or None for no limit"
                )
        if self.execution == "at_most_once" and (self.pure or self.retry.max_attempts > 1):
            raise ConfigurationError("execution='at_most_once' allows neither retry nor pure=True")

    @property
    def repeats_unknown(self) -> bool:
        """Whether an attempt with unknown outcome is run again."""
        return self.unknown == "retry"


class Step(Generic[P, R]):
    """A recorded function: in a handler a call is a step of the run, elsewhere it just runs the body."""

    def __init__(
        self, fn: Callable[..., Any], name: str, options: StepOptions, *, kind: str = "step"
    ) -> None:
        functools.update_wrapper(self, fn)
        self.fn = fn
        self.name, self.kind, self.options = name, kind, options
        self._arguments = f"arguments of step {name}"
        self._decoders: dict[int, Callable[[bytes | Raw, str], Any]] = {}
        self.is_async = inspect.iscoroutinefunction(fn) or inspect.iscoroutinefunction(
            getattr(fn, "__call__", None)  # noqa: B004 - asks what kind it is, not whether
        )

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
        result: R = await run.call_step(self, args, kwargs, site)
        return result

    async def _run_here(self, *args: Any, **kwargs: Any) -> R:
        value = self.fn(*args, **kwargs)
        result: R = await value if inspect.isawaitable(value) else value
        return result

    # ---- values, by annotation; resolved at the first use, when all names exist

    @functools.cached_property
    def _hints(self) -> dict[str, Any]:
        return codec.hints(self.fn)

    @functools.cached_property
    def decode_result(self) -> Callable[[bytes | Raw, str], Any]:
        """JSON of a result to the annotated return type."""
        return codec.decoder(self._hints.get("return", Any))

    @functools.cached_property
    def _parameters(self) -> tuple[list[Any], Any, dict[str, Any], Any]:
        positional: list[Any] = []
        star: Any = Any
        named: dict[str, Any] = {}
        double_star: Any = Any
        try:
            parameters = inspect.signature(self.fn).parameters.values()
        except (ValueError, TypeError):
            return positional, star, named, double_star
        for p in parameters:
            hint = self._hints.get(p.name, Any)
            if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD):
                positional.append(hint)
            if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY):
                named[p.name] = hint
            elif p.kind is p.VAR_POSITIONAL:
                star = hint
            elif p.kind is p.VAR_KEYWORD:
                double_star = hint
        return positional, star, named, double_star

    def parameter_types(self, count: int) -> Any:
        """The annotations of the first `count` positional arguments, as one tuple type."""
        positional, star, _, _ = self._parameters
        kinds = [positional[i] if i < len(positional) else star for i in range(count)]
        return tuple[tuple(map(codec.decodable, kinds))] if kinds else list[Any]  # type: ignore[misc]

    def decode_call(self, args: Raw, kwargs: Raw, count: int) -> tuple[Sequence[Any], dict[str, Any]]:
        """Recorded arguments (`count` positional ones), each by its parameter's annotation.

        Raises `ValueRefused`.
        """
        decode = self._decoders.get(count)
        if decode is None:
            decode = self._decoders[count] = codec.decoder(self.parameter_types(count))
        plain: Sequence[Any] = decode(args, self._arguments)
        return plain, {} if kwargs == NO_KWARGS else self._decode_kwargs(kwargs)

    def _decode_kwargs(self, kwargs: Raw) -> dict[str, Any]:
        _, _, named, double_star = self._parameters
        raws: dict[str, Raw] = _decode_dict(kwargs, self._arguments)
        return {
            key: codec.decoder(named.get(key, double_star))(raw, f"argument {key!r} of step {self.name}")
            for key, raw in raws.items()
        }


_decode_dict = codec.decoder(dict[str, Raw])


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
    execution: Literal["at_least_once", "at_most_once"] = "at_least_once",
    on_unknown: Literal["retry", "fail"] | None = None,
    pure: bool = False,
) -> "_Decorator": ...
def step(
    fn: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    retry: Retry | None = None,
    timeout: float | None = DEFAULT_TIMEOUT_S,
    execution: Literal["at_least_once", "at_most_once"] = "at_least_once",
    on_unknown: Literal["retry", "fail"] | None = None,
    pure: bool = False,
) -> Any:
    """Make a function a step. `async def` runs on the host loop, `def` in a worker thread.

    Args:
        name: what the log calls it; default: the function's name. Renaming it breaks runs in flight.
        retry: a `Retry`; default: one attempt.
        timeout: seconds one attempt may take (a `def` body cannot be stopped, it is abandoned).
        execution: `at_most_once` never repeats an attempt whose outcome is unknown.
        on_unknown: after a crash in mid-attempt, `retry` or `fail`.
        pure: no effect outside; such steps share commits and cost a fraction of one each.

    Raises:
        ConfigurationError: options that contradict each other, or a class or generator to decorate.
    """
    options = StepOptions(
        retry=retry or ONCE, timeout=timeout, execution=execution, on_unknown=on_unknown, pure=pure
    )

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


def make_step(
    function: Callable[..., Any], name: str | None, options: StepOptions, *, kind: str = "step"
) -> Step[Any, Any]:
    """A `Step` of a function, checked."""
    if inspect.isclass(function) or not callable(function):
        raise ConfigurationError(f"@step expects a function, got {function!r}")
    if inspect.isasyncgenfunction(function) or inspect.isgeneratorfunction(function):
        raise ConfigurationError(f"@step {function!r} is a generator; return a list instead")
    name = check_name(name or getattr(function, "__name__", "") or type(function).__name__, "step name")
    if "#" in name:
        raise ConfigurationError(
            f"step name {name!r}: expected no '#', it separates name and ordinal in keys"
        )
    return Step(function, name, options, kind=kind)


def encode_call(name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Raw, Raw]:
    """Arguments of a call as JSON. Raises `ValueRefused` with the path."""
    try:
        packed = codec.encode(args)
        return packed, codec.encode(kwargs) if kwargs else NO_KWARGS
    except ValueRefused as error:
        raise ValueRefused(f"arguments of step {name}: {error}", error.path) from None
