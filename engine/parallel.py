"""`ctx.parallel`: several branches of a handler at the same time, of which none is left behind.

Nothing of it is in the log but what the branches ask for: which of them fail, and when the others are
cancelled, follows from the order of their ends.
"""

import asyncio
import inspect
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any, TypeVar

from msgspec import Struct

from ..events.errors import ConfigurationError
from .data import skip
from .step import Step

T = TypeVar("T")


class Results(list[T]):
    """Results in the order of what was asked for; None in the place of what failed or was skipped."""

    __slots__ = ("failures", "skipped")

    def __init__(self, results: Iterable[T] = (), skipped: Iterable[int] = ()) -> None:
        super().__init__(results)
        self.failures: dict[int, Exception] = {}
        """Errors by place."""
        self.skipped: tuple[int, ...] = tuple(skipped)
        """Places that a condition left out."""


class Branch(Struct, frozen=True):
    """A branch of `ctx.parallel` with a condition or a name."""

    fn: Any
    """An async callable without arguments, or an awaitable."""
    when: bool = True
    """False: it is skipped, and recorded as such."""
    name: str = ""
    """What people see; default: the function's name."""

    @property
    def title(self) -> str:
        """Its name, or that of its step or function, before it begins."""
        inside = getattr(self.fn, "cr_frame", None)  # a step's coroutine knows its step
        known = inside.f_locals.get("self") if inside is not None else self.fn
        own = known.name if isinstance(known, Step) else getattr(self.fn, "__name__", "branch")
        return self.name or str(own)


class Pending(list[Any]):
    """What was given as branches. Coroutines that never began are closed with it, wherever it is dropped."""

    def __init__(self, branches: Iterable[Any]) -> None:
        super().__init__()
        for branch in branches:  # not list(): what a generator gave before it raised must be closed, too
            self.append(branch)

    def __del__(self) -> None:
        for branch in self:
            coroutine = branch.fn if isinstance(branch, Branch) else branch
            if inspect.iscoroutine(coroutine) and inspect.getcoroutinestate(coroutine) == "CORO_CREATED":
                coroutine.close()


class Crew:
    """Tasks that work for one call; whoever waits for them leaves none behind."""

    __slots__ = ("_ended", "_left", "_loop", "_tasks", "_waiter", "stopping")

    def __init__(self, loop: Any, ended: Callable[[int, Any], None]) -> None:
        self._loop, self._ended = loop, ended
        self._tasks: list[Any] = []
        self._left = 0
        self._waiter: Any = None
        self.stopping = False
        """They are being cancelled."""

    def add(self, place: int, work: Any) -> None:
        """Begin a coroutine, or follow a future; `ended(place, task)` hears of its end."""
        task = self._loop.create_task(work) if inspect.iscoroutine(work) else work
        self._tasks.append(task)
        self._left += 1
        task.add_done_callback(partial(self._done, place))

    def _done(self, place: int, task: Any) -> None:
        self._left -= 1
        self._ended(place, task)
        if not self._left and self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def stop(self) -> None:
        """Cancel those that still work, once: what they do in `finally` is theirs to finish."""
        if not self.stopping:
            self.stopping = True
            for task in self._tasks:
                task.cancel()

    async def join(self) -> None:
        """Wait for the end of all. When the waiter is cancelled so are they, and it waits for their ends."""
        cancelled: asyncio.CancelledError | None = None
        try:
            while self._left:
                self._waiter = self._loop.create_future()
                try:
                    await self._waiter
                except asyncio.CancelledError as error:
                    cancelled = error
                    self.stop()
            if cancelled is not None:
                raise cancelled
        finally:
            self._waiter = None
            self._tasks.clear()
            self._ended = _nobody
            del cancelled  # cycles, which only the collector would find


def _nobody(_place: int, _task: Any) -> None:
    """Hears of the end of a task whose call has ended itself."""


class _Group:
    """One call of `parallel`."""

    def __init__(self, run: Any, plain: list[Branch], fail_fast: bool, wanted: int | None) -> None:
        self.branches, self.fail_fast, self.wanted = plain, fail_fast, wanted
        skipped = (place for place, branch in enumerate(plain) if not branch.when)
        self.results: Results[Any] = Results([None] * len(plain), skipped)
        self.fatal: BaseException | None = None
        """What must end the handler, not only a branch."""
        self.crew = Crew(run.loop, self._ended)

    def begin(self) -> None:
        """Start the branches, unless it is certain already that too few of them can succeed."""
        if self.fail_fast and not self.can_succeed:
            return
        for place, branch in enumerate(self.branches):
            if branch.when:
                self.crew.add(place, _work(branch.fn))

    def _ended(self, place: int, task: Any) -> None:
        if not task.cancelled():
            error: BaseException | None = task.exception()
        elif self.crew.stopping:
            return
        else:
            error = RuntimeError(f"{self._shown(place)} was cancelled, and not by it")
        if error is None:
            self.results[place] = task.result()
        elif isinstance(error, Exception):
            self.results.failures[place] = error
            if self.fail_fast and not self.can_succeed:
                self.crew.stop()
        else:
            self.fatal = self.fatal or error
            self.crew.stop()

    @property
    def can_succeed(self) -> bool:
        """Whether what is wanted may still come about, and at the end of all branches: whether it has."""
        failures, skipped = len(self.results.failures), len(self.results.skipped)
        if self.wanted is None:
            return not failures
        return len(self.results) - failures - skipped >= self.wanted

    def verdict(self) -> BaseException | None:
        """What to raise; None: it has succeeded."""
        if self.fatal is not None or self.can_succeed:
            return self.fatal
        failures, count = self.results.failures, ""
        if self.wanted is not None:
            done = len(self.results) - len(failures) - len(self.results.skipped)
            count = f"at most {done} of {len(self.results)} could succeed, min_success={self.wanted}"
        if not failures:
            skipped = f"{len(self.results.skipped)} are skipped by their conditions"
            return ConfigurationError(f"ctx.parallel: {count}: {skipped}; lower min_success")
        # dicts keep their order: the first is the one that failed first
        place = next(iter(failures)) if self.fail_fast else min(failures)
        error = failures.pop(place)
        others = tuple(failures[other] for other in sorted(failures))
        _annotate(error, self._shown(place), count, others)
        return error

    def _shown(self, place: int) -> str:
        name = self.branches[place].name
        return f"branch {place}{f' ({name})' if name else ''} of ctx.parallel"


def _annotate(error: Exception, what: str, count: str, others: tuple[Exception, ...]) -> None:
    """Let one error tell of the others."""
    error.add_note(f"{what}; {count}" if count else what)
    if others:
        told = "; ".join(f"{type(other).__name__}: {other}"[:200] for other in others[:5])
        error.add_note(f"{len(others)} more failed (`.others`): {told}")
    error.others = others  # type: ignore[attr-defined]


def _work(branch: Any) -> Any:
    """What a branch stands for: a coroutine or a future."""
    if inspect.iscoroutine(branch) or asyncio.isfuture(branch):
        return branch
    return _awaiting(branch) if inspect.isawaitable(branch) else _calling(branch)


async def _awaiting(branch: Any) -> Any:
    return await branch


async def _calling(branch: Callable[[], Any]) -> Any:
    return await branch()


def _check(branches: Iterable[Any], wanted: int | None) -> list[Branch]:
    plain = [branch if isinstance(branch, Branch) else Branch(branch) for branch in branches]
    for place, branch in enumerate(plain):
        if not (inspect.isawaitable(branch.fn) or callable(branch.fn)):
            raise ConfigurationError(
                f"ctx.parallel: branch {place} is {branch.fn!r}, expected a coroutine (`step(…)`), an async "
                "function without arguments, or a Branch"
            )
    if wanted is not None and not 0 <= wanted <= len(plain):
        raise ConfigurationError(
            f"ctx.parallel(min_success={wanted!r}): expected 0 to {len(plain)}, the number of branches"
        )
    return plain


def parallel(
    run: Any, branches: Iterable[Any], *, fail_fast: bool, min_success: int | None
) -> Coroutine[Any, Any, Results[Any]]:
    """See `Context.parallel`. Not a coroutine function: what is given is owned from the call on."""
    if not isinstance(branches, Iterable):
        raise ConfigurationError(f"ctx.parallel({branches!r:.80}): expected a list of branches")
    return _parallel(run, Pending(branches), fail_fast, min_success)


async def _parallel(run: Any, branches: Pending, fail_fast: bool, wanted: int | None) -> Results[Any]:
    run.check_open()
    group = _Group(run, _check(branches, wanted), fail_fast, wanted)
    error: BaseException | None = None
    try:
        for place in group.results.skipped:
            skip(run, group.branches[place].title, "its condition is false")
        group.begin()
        await group.crew.join()
        if (error := group.verdict()) is not None:
            raise error
        return group.results
    finally:
        del group, error  # cycles through tracebacks, which only the collector would find
