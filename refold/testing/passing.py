"""How time passes in a `TestEngine`: it jumps when all is calm, and runs along while bodies run."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

from ..engine.names import is_number
from ..engine.step import LONGEST_S
from ..events.errors import ConfigurationError, RefoldError, StoreError

TURNS = 4
"""Turns of the host loop in which nothing has happened: then everything is calm."""
GRACE_S = 0.02
"""Real seconds that a body may take without any virtual time passing."""
SLICE_S = 0.001
MANY_TURNS = 20


class NothingHappens(RefoldError, AssertionError):
    """Somebody waits for a run, and nothing is left that could happen: no deadline, no body, no answer."""


def stuck(row: dict[str, Any]) -> NothingHappens:
    """What to say of a run that waits for somebody."""
    waits = ", ".join(
        f"{key} {value!r}" for key, value in (row["blocked_on"] or {}).items() if value not in (None, "", [])
    )
    return NothingHappens(
        f"run {row['run_id']} is {row['status']} ({waits or 'waits for nothing'}), and no deadline, body or "
        "answer is left that could move it: answer it (`engine.approve_when_asked()`, "
        "`engine.signal_when_waited_for(…)`, `handle.signal(…)` from another task), or look at it with "
        "`handle.status()` instead of waiting"
    )


class Passing:
    """The passing of time in one engine."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self._waiting = 0
        self._wanted = asyncio.Event()
        self._moving = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._acts: set[asyncio.Task[None]] = set()
        self._busy_since = 0.0

    def start(self) -> None:
        """Begin to let time pass whenever somebody waits."""
        self._task = asyncio.get_running_loop().create_task(self._pass_safely(), name="refold-test-time")

    async def close(self) -> None:
        """Stop."""
        tasks = [task for task in (self._task, *self._acts) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @contextmanager
    def somebody_waits(self) -> Iterator[None]:
        """Time may pass while this is open."""
        self._waiting += 1
        self._wanted.set()
        try:
            yield
        finally:
            self._waiting -= 1
            if not self._waiting:
                self._wanted.clear()

    def begin(self, act: Callable[..., Awaitable[None]], *args: Any) -> None:
        """Have something done that nobody awaits; time stands still until it is."""

        async def run() -> None:
            worker = self._engine.worker
            try:
                await act(*args)
            except Exception as error:
                if not worker.closing:  # a crash came in between: the new process is asked anew
                    self._fail(error)

        task = asyncio.get_running_loop().create_task(run())
        self._acts.add(task)
        task.add_done_callback(self._acts.discard)

    def _fail(self, error: Exception) -> None:
        """Whoever waits for a run hears of it: a test must not hang because of an answer that is refused."""
        worker = self._engine.worker
        if not worker.closing:
            worker.ends.fail_all(error)

    # ---- calm

    async def calm(self) -> list["asyncio.Task[None]"]:
        """Wait until nothing can happen without time; bodies that are busy for long are returned."""
        turns = busy_turns = 0
        position = -1
        while turns < TURNS:
            engine = self._engine
            await engine.alive()
            if len(engine.worker.log):
                await self._flush(engine)
            if self._under_way(engine.worker) or engine.reply_to_new():
                turns = 0
                continue
            busy = engine.bodies.busy
            if not busy:
                turns, busy_turns = turns + 1, 0
                continue
            turns, busy_turns = 0, busy_turns + 1
            if (now := engine.store.position()) != position:
                position, self._busy_since, busy_turns = now, monotonic(), 1
            if busy_turns > MANY_TURNS:
                await asyncio.wait(busy, timeout=SLICE_S, return_when=asyncio.FIRST_COMPLETED)
                if monotonic() - self._busy_since > GRACE_S:
                    return list(busy)
        return []

    async def _flush(self, engine: Any) -> None:
        """What may linger for company need not."""
        try:
            await engine.worker.log.flush()
        except StoreError:
            if engine._alive.is_set():
                raise

    def _under_way(self, worker: Any) -> bool:
        recovery = worker.recovery
        return bool(
            self._acts
            or len(worker.log)
            or worker.log._busy
            or worker._mailed
            or worker.schedules.coming
            or recovery._loading
            or (recovery._queue and worker.has_room)
            or recovery.lost
        )

    # ---- moving

    def next_due(self) -> float | None:
        """When something falls due; None: never."""
        clock = self._engine.time
        claims = self._engine.worker.claims
        times = (clock.next_alarm(), claims.next_due(clock.now()), claims.again_at)
        found = min((time for time in times if time is not None), default=None)
        return None if found == float("inf") else found

    def move(self, to: float) -> None:
        """Show this time; what is due by then happens."""
        self._engine.time.move_to(to)
        self._engine.worker.look()

    async def advance(self, seconds: float) -> None:
        """Let so much time pass."""
        if not (is_number(seconds) and 0 <= seconds < LONGEST_S):
            raise ConfigurationError(f"advance({seconds!r:.80}): expected virtual seconds, 0 or more")
        target = self._engine.time.now() + seconds
        async with self._moving:
            await self.calm()
            while (due := self.next_due()) is not None and due <= target:
                self.move(due)
                await self.calm()
            self.move(target)
            await self.calm()

    async def _pass_safely(self) -> None:
        while True:
            await self._wanted.wait()
            try:
                async with self._moving:
                    await self._pass()
            except Exception as error:
                if self._engine._alive.is_set():
                    self._fail(error)
                    await asyncio.sleep(SLICE_S)

    async def _pass(self) -> None:
        """A little time, if nothing happens without."""
        busy = await self.calm()
        engine = self._engine
        if not self._waiting:
            return
        if not engine._skip:
            await asyncio.sleep(SLICE_S)
        elif busy:
            await self._run_along(busy)
        elif (due := self.next_due()) is not None:
            self.move(due)
        else:
            await self._hope()

    async def _run_along(self, busy: list["asyncio.Task[None]"]) -> None:
        """Real bodies take real time: the clock goes with it, so that what is due meanwhile comes first."""
        clock, due = self._engine.time, self.next_due()
        until = SLICE_S * 5 if due is None else min(max(due - clock.now(), 0.0), SLICE_S * 5)
        await asyncio.wait(busy, timeout=until, return_when=asyncio.FIRST_COMPLETED)
        now = monotonic()
        self.move(clock.now() + now - self._busy_since)
        self._busy_since = now

    async def _hope(self) -> None:
        """Nothing will happen by itself: perhaps the test does something yet, in another task."""
        engine = self._engine
        deadline, position = monotonic() + engine._patience, engine.store.position()
        while self._waiting and engine.store.position() == position and self.next_due() is None:
            if monotonic() > deadline:
                for run_id in engine.worker.ends.awaited():
                    engine.worker.ends.fail(run_id, stuck(engine.projections.fold_run(run_id)))
                return
            await asyncio.sleep(SLICE_S)
