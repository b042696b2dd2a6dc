"""`@workflow`: a handler, with the name and version that runs are pinned to."""

import functools
import hashlib
import inspect
import platform
from collections.abc import Callable, Coroutine, Iterable, Sequence
from types import CodeType
from typing import Any, Concatenate, Generic, Literal, ParamSpec, TypeVar, overload

from msgspec import Raw, Struct

from ..events import codec
from ..events.errors import ConfigurationError
from .context import Context
from .names import check_name, is_number
from .step import LONGEST_S

P = ParamSpec("P")
R = TypeVar("R")


class WorkflowOptions(Struct, frozen=True, kw_only=True):
    """What a workflow asks for beside its handler."""

    timeout: float | None = None
    """Seconds a run may take, counted from its start, restarts included; None: no limit."""
    compensate_on: tuple[Literal["failure", "cancel"], ...] = ("failure", "cancel")
    """When a run undoes by itself what it did; empty: only by hand."""
    always: Callable[[Context, str], Coroutine[Any, Any, None]] | None = None
    """`async def always(ctx, status)`: runs after success, failure and cancel; cannot change the outcome."""
    recursive: bool = False
    """A run of it may have runs of it below itself."""
    keep_outputs: bool = False
    """Keep what the steps returned, for `ctx.prior_outputs`."""
    run_on: str = ""
    """Tag that a worker must have to execute its runs; empty: any worker."""

    def __post_init__(self) -> None:
        if self.timeout is not None and not (is_number(self.timeout) and 0 < self.timeout < LONGEST_S):
            raise ConfigurationError(f"timeout={self.timeout!r}: expected seconds, more than 0, or None")
        if not (self.always is None or inspect.iscoroutinefunction(self.always)):
            raise ConfigurationError(f"always={self.always!r}: expected `async def always(ctx, status)`")
        if self.run_on:
            check_name(self.run_on, "run_on")
        if not set(self.compensate_on) <= {"failure", "cancel"}:
            raise ConfigurationError(
                f"compensate_on={self.compensate_on!r}: expected 'failure', 'cancel', both, or none of them"
            )


class Workflow(Generic[P, R]):
    """A handler under a name and a version. Calling it calls the function: useful in plain unit tests."""

    def __init__(
        self,
        fn: Callable[..., Coroutine[Any, Any, Any]],
        name: str,
        version: str,
        options: "WorkflowOptions | None" = None,
    ) -> None:
        functools.update_wrapper(self, fn)
        self.fn, self.name, self.version = fn, name, version
        self.options = options or WorkflowOptions()
        self._counts: set[int] = set()

    @property
    def recursive(self) -> bool:
        """Whether a run of it may have runs of it below itself."""
        return self.options.recursive

    @property
    def functions(self) -> tuple[Callable[..., Any], ...]:
        """The handler and its `always`: what must replay."""
        always = self.options.always
        return (self.fn,) if always is None else (self.fn, always)

    def __repr__(self) -> str:
        return f"<workflow {self.name} version {self.version}>"

    def __call__(self, ctx: Context, *args: P.args, **kwargs: P.kwargs) -> Coroutine[Any, Any, R]:
        result: Coroutine[Any, Any, R] = self.fn(ctx, *args, **kwargs)
        return result

    @functools.cached_property
    def _signature(self) -> inspect.Signature:
        return inspect.signature(self.fn)

    @functools.cached_property
    def _hints(self) -> dict[str, Any]:
        return codec.hints(self.fn)

    @functools.cached_property
    def decode_result(self) -> Callable[[bytes | Raw, str], Any]:
        """JSON of a result to the handler's return type."""
        return codec.decoder(self._hints.get("return", Any))

    @functools.cached_property
    def _decoders(self) -> tuple[list[Callable[[bytes | Raw, str], Any]], Callable[[bytes | Raw, str], Any]]:
        plain, star = [], codec.decoder(Any)
        for p in list(self._signature.parameters.values())[1:]:
            decode = codec.decoder(self._hints.get(p.name, Any))
            if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD):
                plain.append(decode)
            elif p.kind is p.VAR_POSITIONAL:
                star = decode
        return plain, star

    def encode_args(self, args: tuple[Any, ...]) -> Raw:
        """Arguments as JSON, checked against the signature and the annotations before anything is written.

        Raises `ConfigurationError` for a wrong number of arguments, `ValueRefused` for a wrong value.
        """
        try:
            if len(args) not in self._counts:
                self._signature.bind(None, *args)
                self._counts.add(len(args))  # binding costs 20 µs, and depends on their number alone
        except TypeError as error:
            raise ConfigurationError(
                f"start({self.name}, …): {error}; the handler takes {self._signature}"
            ) from None
        packed = codec.encode(args, f"arguments of {self.name}")
        self.decode_args(packed)
        return packed

    def decode_args(self, packed: Raw) -> list[Any]:
        """Recorded arguments by annotation. Raises `ValueRefused`."""
        plain, star = self._decoders
        raws: list[Raw] = _decode_list(packed, f"arguments of {self.name}")
        return [
            (plain[i] if i < len(plain) else star)(raw, f"argument {i + 1} of {self.name}")
            for i, raw in enumerate(raws)
        ]

    @functools.cached_property
    def runtime(self) -> dict[str, str]:
        """What a divergence report compares: versions, and a digest of the handler's bytecode."""
        return {
            "python": platform.python_version(),
            "anyio": _version("anyio"),
            "refold": _version("refold"),
            "code": code_digest(*self.functions),
        }


_decode_list = codec.decoder(list[Raw])


@functools.cache
def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "?"


def code_digest(*functions: Callable[..., Any]) -> str:
    """16 hex digits over bytecode, names and constants; nested functions included, line numbers not."""
    digest = hashlib.sha256()

    def add(code: CodeType) -> None:
        digest.update(code.co_code)
        digest.update(repr((code.co_names, code.co_varnames)).encode())
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                add(constant)
            elif isinstance(constant, frozenset):
                digest.update(repr(sorted(map(repr, constant))).encode())
            else:
                digest.update(repr(constant).encode())

    for function in functions:
        code = getattr(inspect.unwrap(function), "__code__", None)
        if code is not None:
            add(code)
    return digest.hexdigest()[:16]


@overload
def workflow(fn: Callable[Concatenate[Context, P], Coroutine[Any, Any, R]], /) -> Workflow[P, R]: ...
@overload
def workflow(
    *,
    name: str | None = None,
    version: str = "1",
    timeout: float | None = None,
    compensate_on: Sequence[Literal["failure", "cancel"]] = ("failure", "cancel"),
    always: Callable[[Context, str], Coroutine[Any, Any, None]] | None = None,
    recursive: bool = False,
    keep_outputs: bool = False,
    run_on: str | None = None,
) -> Callable[[Callable[Concatenate[Context, P], Coroutine[Any, Any, R]]], Workflow[P, R]]: ...
def workflow(
    fn: Callable[..., Coroutine[Any, Any, Any]] | None = None,
    /,
    *,
    name: str | None = None,
    version: str = "1",
    timeout: float | None = None,
    compensate_on: Sequence[Literal["failure", "cancel"]] = ("failure", "cancel"),
    always: Callable[[Context, str], Coroutine[Any, Any, None]] | None = None,
    recursive: bool = False,
    keep_outputs: bool = False,
    run_on: str | None = None,
) -> Any:
    """Make an `async def handler(ctx, …)` a workflow.

    Args:
        name: what the log calls it; default: the function's name.
        version: runs stay on the version they were started with.
        timeout: seconds a run may take, counted from its start, restarts included; then it is cancelled.
        compensate_on: when a run undoes by itself what it did: on `failure`, on `cancel`, both, or neither.
        always: `async def always(ctx, status)` runs after the handler, however it ended, and after undoing;
            not after `terminate` or `continue_as_new`. It cannot change the outcome.
        recursive: a run of it may have runs of it below itself.
        keep_outputs: keep what the steps returned, for `ctx.prior_outputs`.
        run_on: tag that a worker must have to execute its runs, unless a start names another one.

    Raises:
        ConfigurationError: not an `async def` with `ctx` as its first parameter, or a bad option.
    """
    options = WorkflowOptions(
        timeout=timeout, compensate_on=_words(compensate_on), always=always, recursive=recursive,
        keep_outputs=keep_outputs, run_on=run_on or "",
    )  # fmt: skip

    def decorate(function: Callable[..., Coroutine[Any, Any, Any]]) -> Workflow[Any, Any]:
        if not inspect.iscoroutinefunction(function):
            raise ConfigurationError(f"@workflow expects an `async def` function, got {function!r}")
        if not _takes_context(function):
            what = f"{getattr(function, '__qualname__', function)}{inspect.signature(function)}"
            raise ConfigurationError(f"@workflow {what}: the first parameter must be `ctx`")
        called = check_name(name or getattr(function, "__name__", ""), "workflow name")
        return Workflow(function, called, check_name(str(version), "workflow version"), options)

    return decorate if fn is None else decorate(fn)


def _words(given: Any) -> Any:
    """Words as a tuple; one word by itself is that one, and what is no collection is refused as it is."""
    return (given,) if isinstance(given, str) or not isinstance(given, Iterable) else tuple(given)


def _takes_context(function: Callable[..., Any]) -> bool:
    """Whether the first parameter may be the context: it is there, of no method, and of no other type."""
    first = next(iter(inspect.signature(function).parameters.values()), None)
    if first is None or first.name == "self":
        return False
    plain = (int, str, float, bool, bytes, dict, list, tuple)
    return first.annotation not in plain and first.annotation not in [kind.__name__ for kind in plain]
