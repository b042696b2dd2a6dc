"""Schedules: in which order bodies end, time passes, messages arrive and processes crash, chosen at will."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

from ..engine.bodies import Bodies, Body
from ..engine.handle import Handle
from ..engine.settings import Settings
from ..engine.workflow import Workflow
from ..events.clock import to_datetime
from ..events.errors import ConfigurationError
from ..events.registry import Unknown
from ..events.types import Event
from .answers import Reply
from .clock import VirtualClock
from .engine import TestEngine
from .mocks import Instead, Mock, TestBodies
from .passing import NothingHappens, stuck

R = TypeVar("R")
RUN = "run"
CRASHES = 1
LIMIT = 60
"""Choices of one schedule; after that the first that is possible is taken."""
TURNS = 2_000
"""Of one schedule at most: a run that has not ended by then, after some seconds, goes round in circles."""

Choose = Callable[[Sequence[str]], int]
"""Gets what could happen next, in words, and says which of it does."""
Message = str | tuple[str, Any]


class _Able(NamedTuple):
    """Something that could happen next."""

    what: str
    act: Callable[[], Awaitable[None]]


class _HeldBodies(TestBodies):
    """Bodies do their work at once, and end when the schedule says so."""

    def __init__(
        self, bodies: Bodies, clock: VirtualClock, mocks: dict[str, Mock], strict: bool, timeouts: bool
    ) -> None:
        super().__init__(bodies, clock, mocks, strict)
        self._timeouts = timeouts
        self.held: dict[str, asyncio.Future[None]] = {}

    def _begin(self, body: Body, instead: Instead | None) -> None:
        self._stand_in(body, self._held(body, instead or _really(body)), timeouts=self._timeouts)

    def _held(self, body: Body, work: Instead) -> Instead:
        async def do(args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
            name = f"{body.command.key} of {body.run_id}, attempt {body.attempt}"
            try:
                value = await work(args, kwargs)
            except Exception:
                await self._hold(name)
                raise
            await self._hold(name)
            return value

        return do

    async def _hold(self, name: str) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.held[name] = asyncio.get_running_loop().create_future()
        self._clock.sleepers.add(task)
        try:
            await self.held[name]
        finally:
            self._clock.sleepers.discard(task)
            del self.held[name]


def _really(body: Body) -> Instead:
    callee = body.callee

    async def work(args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
        if callee.is_async:
            return await callee.fn(*args, **kwargs)
        return await asyncio.to_thread(callee.fn, *args, **kwargs)

    return work


class _ScheduledEngine(TestEngine):
    """Nothing but the schedule makes anything happen."""

    def __init__(self, flow: Workflow[..., Any], timeouts: bool) -> None:
        self.replies: list[tuple[Any, ...]] = []
        self._timeouts = timeouts
        quiet = Settings(projections=False, determinism="off")
        super().__init__(workflows=[flow], skip=False, settings=quiet)

    def _make_bodies(self, bodies: Bodies) -> TestBodies:
        return _HeldBodies(bodies, self.time, self._mocks, self._strict, self._timeouts)

    def _reply_later(self, rule: Reply, asked: Any, number: int, run_id: str) -> None:
        self.replies.append((rule, asked, number, run_id))

    def _start_anew(self, ends: Any) -> None:
        self.replies.clear()  # what is still open is asked anew
        super()._start_anew(ends)


class Schedule:
    """One order of events, for one run of a workflow on an engine in memory and virtual time.

    Strategy `schedules()` makes them for Hypothesis; `Schedule(0, 2, 1)` plays one again.

    Args:
        choices: which of the things that could happen does, at each turn with more than one; the first when
            they are used up.
        signals: events that may arrive, each once, at any time: names, or names with payloads.
        crashes: how often the process may crash.
        timeouts: whether steps may take longer than their timeouts.
    """

    def __init__(
        self,
        *choices: int,
        signals: Iterable[Message] = (),
        crashes: int = CRASHES,
        timeouts: bool = False,
        choose: Choose | None = None,
    ) -> None:
        left = iter(choices)
        self._choose: Choose = choose or (lambda able: next(left, 0) % len(able))
        self._signals = [(said, None) if isinstance(said, str) else said for said in signals]
        self._crashes, self._timeouts = crashes, timeouts
        self.story: list[str] = []
        """What happened, in words."""
        self.choices: list[int] = []
        """What was chosen."""
        self.events: list[Event | Unknown] = []
        """The run's history."""
        self.note: Callable[[str], object] = lambda text: None
        """Hears, after each run, what `told` says."""

    def __repr__(self) -> str:
        """What plays it again."""
        choices = list(self.choices)
        while choices and not choices[-1]:
            choices.pop()
        said = [str(choice) for choice in choices]
        if self._signals:
            said.append(
                f"signals={[name if payload is None else (name, payload) for name, payload in self._signals]}"
            )
        said += [f"crashes={self._crashes}"] if self._crashes != CRASHES else []
        said += ["timeouts=True"] if self._timeouts else []
        return f"Schedule({', '.join(said)})"

    def run(
        self,
        workflow: Workflow[..., R],
        *args: Any,
        prepare: Callable[[TestEngine], object] | None = None,
    ) -> R:
        """Run the workflow by this schedule, on a loop of its own; its result.

        Args:
            prepare: gets the engine first: mocks, answers (they come when the schedule says so).

        Raises what `handle.result()` raises, and `NothingHappens` when nobody is left who could move the run,
        or it has not ended after 2,000 turns.
        """
        try:
            return asyncio.run(self._play(workflow, args, prepare))
        finally:
            self.note(self.told())

    def told(self) -> str:
        """The schedule as text, with what plays it again."""
        lines = [f"  {number}. {line}" for number, line in enumerate(self.story, 1)]
        return "\n".join([f"{self!r}:", *lines])

    async def _play(
        self, workflow: Workflow[..., R], args: Sequence[Any], prepare: Callable[[TestEngine], object] | None
    ) -> R:
        engine = _ScheduledEngine(workflow, self._timeouts)
        if prepare is not None:
            prepare(engine)
        signals = list(self._signals)
        async with engine:
            handle: Handle[R] = await engine.start(workflow, *args, id=RUN)
            try:
                for _ in range(TURNS):
                    await engine.settle()
                    if self._over(engine):
                        return await handle.result()
                    await self._turn(engine, signals)
                raise NothingHappens(
                    f"run {RUN} has not ended after {TURNS:,} turns, the last was: {self.story[-1]}"
                )
            finally:
                self.events = engine.events(RUN)

    def _over(self, engine: _ScheduledEngine) -> bool:
        work = engine.store.work(RUN)
        if (error := engine.worker.blocked.get(RUN)) is not None:
            raise error
        return work is not None and work.state == "done"

    async def _turn(self, engine: _ScheduledEngine, signals: list[tuple[str, Any]]) -> None:
        able = self._able(engine, signals)
        if not able:
            raise stuck(engine.projections.fold_run(RUN))
        place = 0
        if len(able) > 1 and len(self.choices) < LIMIT:
            place = self._choose([one.what for one in able])
            self.choices.append(place)
        self.story.append(able[place].what)
        await able[place].act()

    def _able(self, engine: _ScheduledEngine, signals: list[tuple[str, Any]]) -> list[_Able]:
        """What could happen next: first what would without any surprise."""
        bodies = engine.bodies
        assert isinstance(bodies, _HeldBodies)
        able = [
            _Able(f"{name} ends", _releasing(over)) for name, over in bodies.held.items() if not over.done()
        ]
        able += [
            _Able(f"an answer to {_asked(reply)} of {reply[3]}", _replying(engine, reply))
            for reply in engine.replies
        ]
        able += [_Able(f"event {said[0]!r} arrives", _signalling(engine, signals, said)) for said in signals]
        if (due := engine._passing.next_due()) is not None:
            able.append(_Able(f"it is {to_datetime(due).isoformat()}", _moving(engine, due)))
        if engine.crashes < self._crashes:
            able.append(_Able("a crash", engine.crash))
        return able


def _asked(reply: tuple[Any, ...]) -> str:
    return reply[1] if isinstance(reply[1], str) else str(reply[1].opened.name)


def _releasing(over: "asyncio.Future[None]") -> Callable[[], Awaitable[None]]:
    async def act() -> None:
        over.set_result(None)

    return act


def _replying(engine: _ScheduledEngine, reply: tuple[Any, ...]) -> Callable[[], Awaitable[None]]:
    async def act() -> None:
        engine.replies.remove(reply)
        await engine._reply(*reply)

    return act


def _moving(engine: _ScheduledEngine, due: float) -> Callable[[], Awaitable[None]]:
    async def act() -> None:
        engine._passing.move(due)

    return act


def _signalling(
    engine: _ScheduledEngine, signals: list[tuple[str, Any]], said: tuple[str, Any]
) -> Callable[[], Awaitable[None]]:
    async def act() -> None:
        signals.remove(said)
        await engine.signal(RUN, *said)

    return act


def schedules(*, signals: Iterable[Message] = (), crashes: int = CRASHES, timeouts: bool = False) -> Any:
    """A Hypothesis strategy of `Schedule`s: a failing one shrinks to the fewest surprises.

        @given(schedules(signals=["paid"], crashes=2))
        def test_in_any_order(schedule):
            assert schedule.run(checkout, order) == "parcel"

    Arguments as of `Schedule`. Raises `ConfigurationError` when Hypothesis is not installed.
    """
    try:
        from hypothesis import note, strategies as st
    except ImportError:
        raise ConfigurationError("schedules() needs Hypothesis: pip install hypothesis") from None
    said = tuple(signals)

    def make(data: Any) -> Schedule:
        def choose(able: Sequence[str]) -> int:
            what: str = data.draw(st.sampled_from(able), label="next")
            return able.index(what)

        made = Schedule(signals=said, crashes=crashes, timeouts=timeouts, choose=choose)
        made.note = note
        return made

    return st.builds(make, st.data())
