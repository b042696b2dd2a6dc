"""A machine room in one thread: virtual time, several processes, one store, and a choice of who goes next.

`SimLoop` is a host event loop that never sleeps. Every callback belongs to the process in whose context it
was made; within a process callbacks run in order, as asyncio promises, between processes `choose` decides.
A frozen process (SIGSTOP) runs nothing until it is thawed, a killed one never again; time goes on for both.
"""

import asyncio
import heapq
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import Any

import pytest

from refold.engine import (
    doubt as doubt_module,
    engine as engine_module,
    following as following_module,
    starting as starting_module,
    worker as worker_module,
)
from refold.events import log as log_module
from refold.events.errors import StoreError
from refold.events.memory import MemoryStore
from refold.events.queues import Crowded
from refold.events.store import Refusal, Unit
from refold.events.stream import INBOX, Row, Tail
from refold.events.work import ANY_WORKER, Work

EPOCH = 1_750_000_000.0
LONG = 600.0
"""Virtual seconds after which something hangs."""

PROCESS: ContextVar[str] = ContextVar("process", default="")


class Hangs(AssertionError):
    """Nothing can happen any more, or nothing ends."""


# Any: checkers do not know the queues of the base loop, which this one takes over.
_BaseLoop: Any = asyncio.BaseEventLoop


class SimLoop(_BaseLoop):  # type: ignore[misc]
    """Host loop with virtual time; `choices` decide between processes, then the first in order of name."""

    def __init__(self, choices: Sequence[int] = ()) -> None:
        super().__init__()
        self.now = 0.0
        self.frozen: set[str] = set()
        self.problems: list[str] = []
        self._choices = deque(choices)
        self._queues: dict[str, deque[asyncio.Handle]] = {}
        self._clock_resolution = 0.0
        self.set_exception_handler(self._problem)

    def _problem(self, loop: Any, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.problems.append(f"{context['message']}: {error!r}")

    def time(self) -> float:
        return self.now

    def _process_events(self, events: Any) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def run_in_executor(self, executor: Any, function: Callable[..., Any], *args: Any) -> Any:
        """A thread: does its work a moment later, frozen process or not, and answers later still."""
        answer = self.create_future()
        answering = copy_context()

        def work() -> None:
            result = function(*args)
            answering.run(self.call_later, 0.01, answer.set_result, result)

        context = copy_context()
        context.run(PROCESS.set, "")
        context.run(self.call_later, 0.01, work)
        return answer

    def _run_once(self) -> None:
        handle = self._next()
        if not handle._cancelled:
            handle._run()

    def _next(self) -> asyncio.Handle:
        while True:
            self._sort()
            able = [name for name in sorted(self._queues) if self._queues[name] and name not in self.frozen]
            if able:
                choice = self._choices.popleft() if len(able) > 1 and self._choices else 0
                return self._queues[able[choice % len(able)]].popleft()
            while self._scheduled and self._scheduled[0]._cancelled:
                heapq.heappop(self._scheduled)
            if not self._scheduled:
                raise Hangs(f"nothing can happen any more at {self.now}; frozen: {self.frozen}")
            self.now = max(self.now, self._scheduled[0]._when)
            if self.now > LONG:
                raise Hangs(f"still not done after {LONG} s")

    def _sort(self) -> None:
        """Hand what is ready or due to its process."""
        while self._scheduled and self._scheduled[0]._when <= self.now:
            timer = heapq.heappop(self._scheduled)
            timer._scheduled = False
            self._ready.append(timer)
        while self._ready:
            handle = self._ready.popleft()
            name = handle._context.get(PROCESS, "")
            self._queues.setdefault(name, deque()).append(handle)

    def spawn(self, name: str, coroutine: Any) -> "asyncio.Task[Any]":
        """Run a coroutine as (part of) a process."""
        context = copy_context()
        context.run(PROCESS.set, name)
        task: asyncio.Task[Any] = self.create_task(coroutine, context=context)
        return task


class SimClock:
    """The clock of one process: a little off."""

    def __init__(self, loop: SimLoop, skew: float) -> None:
        self._loop, self._skew = loop, skew

    def now(self) -> float:
        return EPOCH + self._loop.now + self._skew


class Door:
    """One process' way to the common store, with its own faults. Implements `Store`.

    `faults`, one for each commit and none when they are used up: `ok`; `failed` (nothing stored, raises);
    `lost answer` (stored, raises); `blind` (as `lost answer`, and reads fail for a moment, too); `overtaken`
    (somebody appended a note to the first stream just before, so that the commit is refused).
    """

    url = "memory://simulated"

    def __init__(self, store: MemoryStore, loop: SimLoop, process: str, faults: Sequence[str] = ()) -> None:
        self._store, self._loop, self.process = store, loop, process
        self._faults = deque(faults)
        self._mine = 0
        self._asked = 0
        self._blind_until = -1.0
        self.unaware = 0.0
        """For how long after it was last asked in vain `holding` still says yes: only the log fences then."""
        self._aware_at = -1.0
        self.dead = False
        """Nothing can be read or written any more."""
        self.intrude: Callable[[str], None] = lambda stream: None

    def commit(self, units: Sequence[Unit]) -> list[Refusal | None]:
        fault = self._faults.popleft() if self._faults else "ok"
        if fault == "failed" or self.dead:
            raise StoreError("simulated: not stored")
        if fault == "overtaken":
            self.intrude(_first_stream(units[0]))
        before = self._store.position()
        refusals = self._store.commit(units)
        self._mine += self._store.position() - before
        if fault in ("lost answer", "blind"):
            if fault == "blind":
                self._blind_until = self._loop.now + 0.06
            raise StoreError("simulated: the answer was lost")
        return refusals

    def read(self, stream: str, after: int = 0, limit: int | None = None) -> list[Row]:
        if self.dead or self._loop.now < self._blind_until:
            raise StoreError("simulated: cannot read")
        return self._store.read(stream, after, limit)

    def changed(self) -> bool:
        """Only what others have committed, as SQLite's `data_version`."""
        others = self._store.position() - self._mine
        before, self._asked = self._asked, others
        return others != before

    def hold(self, owner: str) -> None:
        """By force: whoever came last holds the store."""
        self._store._owner = self.process

    def holding(self) -> bool:
        if self._store._owner == self.process:
            self._aware_at = self._loop.now + self.unaware
        return self._loop.now <= self._aware_at

    def release(self) -> None:
        if self._store._owner == self.process:
            self._store._owner = None

    def close(self) -> None:
        self.release()

    # the rest is the store's

    def commit_all(self, units: Iterable[Unit]) -> None:
        self._store.commit_all(units)

    def tail(self, stream: str) -> Tail:
        return self._store.tail(stream)

    def scan(self, after: int = 0, limit: int = 1000) -> list[Row]:
        return self._store.scan(after, limit)

    def blob(self, digest: str) -> bytes:
        return self._store.blob(digest)

    def blobs(self, after: str = "", limit: int = 1000) -> list[str]:
        return self._store.blobs(after, limit)

    def position(self) -> int:
        return self._store.position()

    def work(self, run_id: str) -> Work | None:
        return self._store.work(run_id)

    def due(self, now: float, limit: int = 1000, tags: Sequence[str] = ANY_WORKER) -> list[str]:
        return self._store.due(now, limit, tags)

    def mail_elsewhere(self, limit: int = 1000, tags: Sequence[str] = ANY_WORKER) -> list[str]:
        return self._store.mail_elsewhere(limit, tags)

    def running(self, after: str = "", limit: int = 1000, tags: Sequence[str] = ANY_WORKER) -> list[str]:
        return self._store.running(after, limit, tags)

    def next_due(self, now: float, tags: Sequence[str] = ANY_WORKER) -> float | None:
        return self._store.next_due(now, tags)

    @property
    def queued(self) -> Crowded:
        return self._store.queued

    def streams(self, prefix: str) -> list[str]:
        return self._store.streams(prefix)

    def rebuild_work(self, rows: Sequence[tuple[Work, int]]) -> None:
        self._store.rebuild_work(rows)

    def all_work(self) -> list[tuple[Work, int]]:
        return self._store.all_work()


def _first_stream(unit: Unit) -> str:
    return unit.appends[0].stream if unit.appends else unit.posts[0].run_id + INBOX


class _NoWatchdog:
    """The real one is a thread with a clock of its own."""

    def __init__(self, limit_s: float, thread_id: int) -> None:
        pass

    def enter(self, run_id: str) -> None:
        pass

    def leave(self) -> None:
        pass

    def close(self) -> None:
        pass


@contextmanager
def simulated(choices: Sequence[int] = ()) -> Iterator[SimLoop]:
    """A loop, with everything that looks at real time or draws lots replaced."""
    loop = SimLoop(choices)
    seeds = iter(range(1, 1_000_000))
    owners = iter(range(1, 1_000))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_module, "perf_counter", lambda: 0.0)
        patch.setattr(worker_module, "monotonic", loop.time)
        patch.setattr(following_module, "monotonic", loop.time)
        patch.setattr(worker_module, "Watchdog", _NoWatchdog)
        patch.setattr(following_module, "POLL_S", 0.1)
        patch.setattr(doubt_module, "MAX_CRASHES", 1_000_000)  # owners that do not know of each other
        patch.setattr(starting_module, "new_seed", lambda clock: next(seeds))
        patch.setattr(engine_module, "new_owner", lambda: f"owner-{next(owners)}-{PROCESS.get()}")
        asyncio.set_event_loop(loop)
        try:
            yield loop
        finally:
            asyncio.set_event_loop(None)
            loop.close()
