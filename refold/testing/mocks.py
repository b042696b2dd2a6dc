"""Steps that a test stands in for: what they return, raise or do, how long they take, and who called them."""

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from msgspec import Raw

from ..engine.bodies import Bodies, Body, current_step
from ..engine.callee import Callee
from ..engine.doubt import Probe
from ..engine.names import is_number
from ..engine.step import LONGEST_S, Step
from ..events.errors import ConfigurationError, NonRetryable
from .clock import VirtualClock

NOTHING: Any = object()
Instead = Callable[[Sequence[Any], dict[str, Any]], Awaitable[Any]]
"""What stands in for a body: gets its arguments, decoded."""


class MockError(NonRetryable, AssertionError):
    """A step was called that has no mock (`strict=True`), or whose mock has nothing left to give."""


class Call(NamedTuple):
    """One attempt of a mocked step."""

    args: tuple[Any, ...]
    """As the body would get them: decoded by its annotations."""
    kwargs: dict[str, Any]
    run_id: str
    key: str
    """`charge#1`"""
    attempt: int
    idempotency_key: str


class Mock:
    """What stands in for the body of a step. Made by `TestEngine.mock`."""

    def __init__(self, name: str, answer: Callable[..., Any], takes: float, hangs: bool) -> None:
        self.name, self.takes, self.hangs = name, takes, hangs
        self.calls: list[Call] = []
        """Every attempt so far, in order."""
        self._answer = answer

    def __repr__(self) -> str:
        return f"<mock of {self.name}, called {len(self.calls)} times>"

    async def body(self, clock: VirtualClock, args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        """One attempt."""
        info = current_step()
        call = Call(tuple(args), kwargs, info.run_id, info.key, info.attempt, info.idempotency_key)
        self.calls.append(call)
        if self.hangs:
            await clock.sleep(FOR_EVER_S)
        if self.takes:
            await clock.sleep(self.takes)
        found = self._answer(*args, **kwargs)
        return await found if inspect.isawaitable(found) else found


FOR_EVER_S = 1e9


def make_mock(
    step: Step[Any, Any] | str, *, returns: Any, raises: BaseException | type[BaseException] | None,
    side_effect: Callable[..., Any] | None, sequence: Iterable[Any] | None, takes: float, hangs: bool,
) -> Mock:  # fmt: skip
    """A mock by what was said of it. Raises `ConfigurationError` when that contradicts itself."""
    name = name_of(step)
    given = [
        what
        for what, said in (
            ("returns", returns is not NOTHING), ("raises", raises is not None),
            ("side_effect", side_effect is not None), ("sequence", sequence is not None), ("hangs", hangs),
        )
        if said
    ]  # fmt: skip
    if len(given) > 1:
        raise ConfigurationError(f"mock({name}): expected one of {' and '.join(given)}, not both")
    if not (is_number(takes) and 0 <= takes < LONGEST_S):
        raise ConfigurationError(f"mock({name}, takes={takes}): expected virtual seconds, 0 or more")
    if side_effect is not None:
        return Mock(name, side_effect, takes, hangs)
    if sequence is not None:
        return Mock(name, _one_by_one(name, list(sequence)), takes, hangs)
    if raises is not None:
        return Mock(name, lambda *args, **kwargs: _give(raises), takes, hangs)
    value = None if returns is NOTHING else returns
    return Mock(name, lambda *args, **kwargs: value, takes, hangs)


def name_of(step: Step[Any, Any] | str) -> str:
    """What the log calls a step. Raises `ConfigurationError` for what is none."""
    if isinstance(step, str) and step:
        return step
    if isinstance(step, Step):
        return step.name
    raise ConfigurationError(f"mock({step!r}): expected a @step, or the name of one")


def _give(value: Any) -> Any:
    if isinstance(value, BaseException) or (isinstance(value, type) and issubclass(value, BaseException)):
        raise value
    return value


def _one_by_one(name: str, values: list[Any]) -> Callable[..., Any]:
    left: Iterator[Any] = iter(values)

    def answer(*args: Any, **kwargs: Any) -> Any:
        value = next(left, NOTHING)
        if value is NOTHING:
            raise MockError(f"the mock of step {name} has {len(values)} answers, and was asked once more")
        return _give(value)

    return answer


class _StandIn(Callee):
    """A callee that hands the decoded arguments to something else."""

    def __init__(self, real: Callee, body: Instead) -> None:
        async def call(*args: Any, **kwargs: Any) -> Any:
            return await body(args, kwargs)

        super().__init__(call, real.name)
        self._real = real

    def decode_call(self, args: Raw, kwargs: Raw, count: int) -> tuple[Sequence[Any], dict[str, Any]]:
        return self._real.decode_call(args, kwargs, count)


class TestBodies(Bodies):
    """Starts bodies, or what stands in for them, and knows which of them wait for virtual time only."""

    __test__ = False

    def __init__(self, bodies: Bodies, clock: VirtualClock, mocks: dict[str, Mock], strict: bool) -> None:
        self.__dict__.update(vars(bodies))
        self._clock, self._mocks, self._strict = clock, mocks, strict
        self._running: set[asyncio.Task[None]] = set()
        self.on_start: Callable[[Body], None] = lambda body: None
        """Hears of every attempt that begins."""

    def start(self, body: Body) -> None:
        """Begin a body; that of a mocked step counts its timeout in virtual seconds."""
        if isinstance(body, Probe):
            super().start(body)
        else:
            self.on_start(body)
            self._begin(body, self.instead_of(body))
        task = body.task
        if task is not None and task not in self._running:
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    def instead_of(self, body: Body) -> Instead | None:
        """What stands in for it; None: nothing does."""
        name = body.command.step.name
        mock = self._mocks.get(name)
        if mock is not None:
            return lambda args, kwargs: mock.body(self._clock, args, kwargs)
        return _no_mock(name) if self._strict else None

    def _begin(self, body: Body, instead: Instead | None) -> None:
        if instead is None:
            super().start(body)
        else:
            self._stand_in(body, instead)

    def _stand_in(self, body: Body, instead: Instead, *, timeouts: bool = True) -> None:
        body.callee = _StandIn(body.callee, instead)
        limit, body.limit = body.limit, None
        super().start(body)
        body.limit = limit
        if limit is not None and timeouts:
            body.timer = self._clock.call_later(limit, body.time_out)

    @property
    def busy(self) -> list[asyncio.Task[None]]:
        """Bodies that do something, or wait for something else than virtual time."""
        return [task for task in self._running if task not in self._clock.sleepers]


def _no_mock(name: str) -> Instead:
    async def refuse(args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        raise MockError(f"step {name} has no mock, and the engine is strict: engine.mock({name}, returns=…)")

    return refuse
