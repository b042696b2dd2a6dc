"""`TestEngine`: an engine in memory whose time passes when nothing else can happen."""

import asyncio
import os
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import datetime
from threading import get_ident
from types import TracebackType
from typing import Any, Self, TypeVar

from msgspec import structs

from ..engine.bodies import Bodies, StepWrapper
from ..engine.ends import Ends
from ..engine.handle import Handle
from ..engine.lookup import Runs
from ..engine.queues import Queue
from ..engine.schedule_plan import Schedule
from ..engine.settings import Settings
from ..engine.step import Step
from ..engine.tagged import tags_of_steps
from ..engine.worker import Worker
from ..engine.workflow import Workflow
from ..events.clock import new_owner, new_run_id, to_datetime
from ..events.errors import ConfigurationError, StoreError
from ..events.memory import MemoryStore
from ..events.open import open_store
from ..events.store import Store
from ..events.stream import is_run
from ..events.types import Event
from ..projections.projection import Projection
from .answering import Answering
from .answers import Replies
from .clock import START, VirtualClock
from .door import Door
from .mocks import NOTHING, Mock, TestBodies, make_mock
from .passing import Passing

R = TypeVar("R")

PATIENCE_S = 1.0


class TestEngine(Answering):
    """An `Engine` for tests: in memory, in virtual time, with mocks for steps and answers for gates.

        async with TestEngine(workflows=[checkout]) as engine:
            charge_mock = engine.mock(charge, returns="receipt")
            engine.approve_when_asked(by="ana")
            assert await engine.run(checkout, order) == "parcel"

    While somebody waits for a run (`handle.result()`, `engine.run`), and no run can go on without it, the
    clock jumps to the next deadline: a day of sleep takes a millisecond. `advance` moves it by hand.

    Args:
        store: of another engine, or a file; default: a new one in memory.
        workflows: as for `Engine`.
        settings: as for `Engine`; default: without read models that follow, they are folded when asked for.
        start: what the clock shows first; never earlier than the last event of the store.
        seed: of the jitter of retries, and of the randomness of runs.
        skip: False: time passes only by `advance`.
        strict: a step without a mock fails with `MockError` instead of running its body.
        patience: real seconds after which waiting for what cannot happen fails with `NothingHappens`.
        projections, step_wrappers, schedules, tags, queues: as for `Engine`.
    """

    __test__ = False

    def __init__(
        self,
        store: str | os.PathLike[str] | Store | None = None,
        *,
        workflows: Iterable[Workflow[Any, Any]] = (),
        settings: Settings | None = None,
        start: datetime = START,
        seed: int = 0,
        skip: bool = True,
        strict: bool = False,
        patience: float = PATIENCE_S,
        projections: Iterable[Projection] = (),
        step_wrappers: Iterable[StepWrapper] = (),
        schedules: Iterable[Schedule] = (),
        tags: Iterable[str] = (),
        queues: Iterable[Queue] = (),
    ) -> None:
        self._place: str | os.PathLike[str] | Store = MemoryStore() if store is None else store
        self.time = VirtualClock(start, seed=seed)
        """The clock."""
        super().__init__(
            self._place, workflows=workflows, settings=settings or Settings(projections=False),
            clock=self.time, projections=projections, step_wrappers=step_wrappers, schedules=schedules,
            tags=tags, queues=queues,
        )  # fmt: skip
        # The worker of a test has what its steps ask for; tags of whole runs are for `tags` to say.
        self.tags = tuple(dict.fromkeys((*self.tags, *tags_of_steps(self.workflows.values()))))
        self._skip, self._strict, self._patience = skip, strict, patience
        self._mocks: dict[str, Mock] = {}
        self._replies = Replies()
        self._passing = Passing(self)
        self._dying: tuple[int, int] = (0, 0)
        self._alive = asyncio.Event()
        self._reviving: asyncio.Task[None] | None = None
        self.crashes = 0
        """How often it has crashed so far."""
        self.on_start: Callable[..., None] = lambda body: None

    # ---- life

    async def __aenter__(self) -> Self:
        self._given = self._new_door()
        await super().__aenter__()
        self._put_in_place(self.worker)
        self._load_all()
        self._alive.set()
        self._passing.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Shut down; a body that only waits for virtual time is not waited for."""
        await self._passing.close()
        if isinstance(self._store, Door):
            self._store.die_before = self._store.die_after = 0
        if self._reviving is not None:
            self._reviving.cancel()
            await asyncio.gather(self._reviving, return_exceptions=True)
        worker = self._worker
        if worker is not None and isinstance(worker.bodies, TestBodies) and not worker.bodies.busy:
            self.settings = structs.replace(self.settings, grace=0.0)
        await super().close()

    def _let_go(self) -> None:
        door = self._store
        super()._let_go()
        if isinstance(door, Door) and isinstance(self._place, str | os.PathLike):
            door.close()

    def _new_door(self) -> Door:
        inner = self._open_place()
        if getattr(inner, "leases", None) is not None:
            inner.close()
            raise ConfigurationError(
                f"TestEngine(store={inner.url!r:.200}): expected a file, or memory, which one process "
                "executes; on a server use Engine, with a clock of your own"
            )
        door = Door(inner)
        door.on_death, (door.die_before, door.die_after) = self._died, self._dying
        rows = door.scan(max(door.position() - 1, 0), 1)
        if rows:  # log time never goes back
            self.time.move_to(rows[-1].event().at.timestamp())
        return door

    def _open_place(self) -> Store:
        place = self._place
        return open_store(place) if isinstance(place, str | os.PathLike) else place

    def _put_in_place(self, worker: Worker) -> None:
        self.bodies = self._make_bodies(worker.bodies)
        self.bodies.on_start = self.on_start
        worker.bodies = self.bodies

    def _make_bodies(self, bodies: Bodies) -> TestBodies:
        return TestBodies(bodies, self.time, self._mocks, self._strict)

    def _load_all(self) -> None:
        """Waiting runs, too: what they wait for may have an answer here."""
        for work, _ in self.store.all_work():
            if work.state != "done" and is_run(work.run_id):
                self.worker.recovery.enqueue(work.run_id)

    # ---- crashes

    def crash_after(self, events: int) -> None:
        """Crash right after so many more events are durable, and go on as a new process would.

        Nothing of the old one's memory is left but your modules'; bodies in flight are cancelled, which a
        real crash would not even do. Handles, mocks and answers go on.
        """
        self._die_at(0, events)

    def crash_before(self, events: int) -> None:
        """The same right before the event of that number is stored."""
        self._die_at(events, 0)

    def _die_at(self, before: int, after: int) -> None:
        if before + after < 1:
            raise ConfigurationError(
                "crash_after(…) and crash_before(…) expect a number of events, 1 or more"
            )
        door = self.door
        door.die_before = door.events + before if before else 0
        door.die_after = door.events + after if after else 0

    @property
    def door(self) -> Door:
        """The store as the process of this engine sees it."""
        assert isinstance(self.store, Door)
        return self.store

    async def crash(self) -> None:
        """Crash now; when this returns, a new process has taken the store over."""
        if self._store is None:
            raise ConfigurationError("the engine is not open: use `async with TestEngine(…) as engine:`")
        self.door.kill()
        await self.alive()

    async def alive(self) -> None:
        """Wait until the new process stands, if the old one has just crashed."""
        await asyncio.sleep(0)
        while not self._alive.is_set():  # it may have crashed again before this task had its turn
            await self._alive.wait()

    def _died(self) -> None:
        worker = self.worker
        worker.closing = True
        worker.log.failure = StoreError(
            "the test crashed this process"
        )  # nobody needs to read of it in a log
        worker.log._closed = True  # who waits for an append is told at once, and nothing is tried again
        if get_ident() == worker.thread_id:
            self._revive_soon()
        else:  # slow commits are made in a thread
            worker._loop.call_soon_threadsafe(self._revive_soon)
        self._alive.clear()

    def _revive_soon(self) -> None:
        worker = self.worker
        if worker.recovery._task is not None:
            worker.recovery._task.cancel()
        worker.following.close()
        self._reviving = worker._loop.create_task(self._revive(), name="refold-test-crash")

    async def _revive(self) -> None:
        """Abandon what is in memory, and start as a new process would."""
        old = self.worker
        ends, old.ends = old.ends, Ends()
        tasks = old._bodies()
        for live in [*old.live.values(), *old.recovery.lost.values()]:
            live.leave()
        old.live.clear()
        old.recovery.lost.clear()
        await old.recovery.close()
        with suppress(StoreError):
            await old.log.close()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)
        old._watchdog.close()
        old.bodies.close()
        if self._views is not None:
            self._views.close()
            self._views = None
        self._start_anew(ends)

    def _start_anew(self, ends: Ends) -> None:
        door = self.door
        if isinstance(self._place, str | os.PathLike):
            door.close()
        else:
            door.inner.release()
        self.crashes += 1
        self._dying = (0, 0)
        self._given = self._store = store = self._new_door()
        owner = new_owner()
        store.hold(owner)
        claims = self._claims(store, owner)
        self._worker = worker = Worker(store, self.workflows, self.clock, owner, self.settings, claims)
        worker.bodies.around = self._around
        self._put_in_place(worker)
        worker.ends = ends
        worker.start()
        self._load_all()
        self._replies.forget()
        self._alive.set()

    # ---- time

    @property
    def now(self) -> datetime:
        """What the clock shows."""
        return to_datetime(self.time.now())

    async def advance(self, seconds: float) -> None:
        """Let so much time pass: everything that falls due on the way happens, in order."""
        await self._passing.advance(seconds)

    async def settle(self) -> None:
        """Let everything happen that needs no time; bodies that take longer than 20 ms are not waited for."""
        await self._passing.calm()

    async def sleep(self, seconds: float) -> None:
        """Wait in virtual time: in the body of a step, in a mock, or in the test."""
        with self._passing.somebody_waits():
            await self.time.sleep(seconds)

    async def run(self, workflow: Workflow[..., R], *args: Any, **options: Any) -> R:
        """`start` and wait for the result; asks again when a crash comes before the start is acknowledged."""
        options.setdefault("id", new_run_id())
        door = self.door
        try:
            handle: Handle[R] = await self.start(workflow, *args, **options)
        except StoreError:
            if not door.dead:
                raise
            await self.alive()
            handle = await self.start(workflow, *args, **options)
        return await handle.result()

    async def end_of(self, run_id: str) -> Event:
        """Wait for a run's end and return the event; time passes meanwhile."""
        with self._passing.somebody_waits():
            if not self._alive.is_set():
                await self.alive()
            return await super().end_of(run_id)

    @property
    def runs(self) -> Runs:
        """As `Engine.runs`, and up to date."""
        self.projections.catch_up()
        return super().runs

    # ---- standing in for steps

    def mock(
        self,
        step: Step[Any, Any] | str,
        *,
        returns: Any = NOTHING,
        raises: BaseException | type[BaseException] | None = None,
        side_effect: Callable[..., Any] | None = None,
        sequence: Iterable[Any] | None = None,
        takes: float = 0.0,
        hangs: bool = False,
    ) -> Mock:
        """Stand in for a step from now on: its body does not run. Returns the record of its calls.

        Args:
            step: a `@step`, or its name in the log; for `ctx.operation` its kind.
            returns: what every attempt returns; default None. It is encoded and decoded like the body's.
            raises: what every attempt raises.
            side_effect: a function, `async` or not, called with the step's arguments.
            sequence: one for each attempt: a value, or an exception to raise; then `MockError`.
            takes: virtual seconds each attempt takes; the step's timeout counts in them.
            hangs: an attempt never ends: its timeout, or a cancellation, does.

        Raises `ConfigurationError` when more than one answer is given.
        """
        made = make_mock(
            step, returns=returns, raises=raises, side_effect=side_effect, sequence=sequence, takes=takes,
            hangs=hangs,
        )  # fmt: skip
        self._mocks[made.name] = made
        return made
