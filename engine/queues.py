"""Queues: how many runs of one name may be under way at once, of one key, or begin in a period."""

from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from typing import Any

from msgspec import Struct

from ..events import types as t
from ..events.clock import Clock, new_event_id, to_datetime
from ..events.errors import AppendRefused, ConfigurationError, StoreBusy
from ..events.queues import limits_of
from ..events.registry import decode_event
from ..events.store import Append, Store, Unit
from ..events.stream import QUEUES, chain
from .names import check_name, is_number
from .step import LONGEST_S

TRIES = 100
"""How often limits are stored anew when others set those of the same queue meanwhile."""
LARGEST = 1_000_000
SHOWN = 10
"""Holders of places that are named."""


class Queue(Struct, frozen=True):
    """A queue and its limits; what is None has no limit.

    Raises `ConfigurationError` when one of them makes no sense.
    """

    name: str
    concurrency: int | None = None
    """How many of its runs may have begun and not ended, those that wait for something included."""
    per_key: int | None = None
    """The same for the runs of one `queue_key`."""
    rate: tuple[int, float] | None = None
    """How many may begin within so many seconds: `(10, 60.0)`."""

    def __post_init__(self) -> None:
        check_name(self.name, "queue")
        _check_count(self.name, "concurrency", self.concurrency, 0)
        _check_count(self.name, "per_key", self.per_key, 1)
        if self.rate is not None:
            _check_rate(self.name, self.rate)


class QueueState(Struct, frozen=True):
    """A queue as it is now."""

    queue: Queue | None
    """Its limits; None: runs name it, and nobody has declared it, so none of them begins."""
    name: str
    pending: int
    """Runs that wait for a place …"""
    running: int
    """… and that have one: begun and not ended."""
    oldest: datetime | None
    """When the first of those that wait could have begun."""
    holders: tuple[str, ...] = ()
    """Runs that have a place, those that began first first; not more than ten."""


def _check_count(name: str, what: str, value: Any, least: int) -> None:
    if value is not None and not (type(value) is int and least <= value <= LARGEST):
        raise ConfigurationError(
            f"queue {name!r}: {what}={value!r:.80}: expected a whole number, {least} to {LARGEST}, or None"
        )


def _check_rate(name: str, rate: Any) -> None:
    fits = isinstance(rate, tuple | list) and len(rate) == 2
    if not fits or type(rate[0]) is not int or not 1 <= rate[0] <= LARGEST or not is_number(rate[1]):
        fits = False
    if not fits or not 0 < rate[1] < LONGEST_S:
        raise ConfigurationError(
            f"queue {name!r}: rate={rate!r:.80}: expected (how many may begin, within how many seconds)"
        )


def _said(queue: Queue) -> dict[str, Any]:
    rate, period = queue.rate or (None, 0.0)
    return {
        "concurrency": queue.concurrency, "per_key": queue.per_key, "rate": rate, "period_s": float(period),
    }  # fmt: skip


def _same(event: t.QueueConfigured | None, queue: Queue) -> bool:
    return event is not None and all(getattr(event, field) == value for field, value in _said(queue).items())


def queue_of(name: str, event: t.QueueConfigured) -> Queue:
    """The queue that an event has configured."""
    rate = None if event.rate is None else (event.rate, event.period_s)
    return Queue(name, event.concurrency, event.per_key, rate)


class Queues:
    """`engine.queues`: limits of queues, set while everything runs; and how full they are."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    @property
    def _store(self) -> Store:
        store: Store = self._engine.store
        return store

    async def set(
        self, name: str, *, concurrency: int | None = None, per_key: int | None = None,
        rate: tuple[int, float] | None = None, by: str = "user",
    ) -> Queue:  # fmt: skip
        """Declare a queue, or give it other limits; durable when this returns, and seen by every worker.

        Limits that are not given are none. Runs that have begun keep their places when there are fewer.

        Args:
            concurrency: how many of its runs may have begun and not ended; 0 holds the queue.
            per_key: the same for the runs of one `queue_key`.
            rate: `(how many, seconds)`: how many may begin in that time.
            by: who says so.

        Raises `ConfigurationError`, `StoreError`.
        """
        queue = Queue(name, concurrency, per_key, rate)
        check_name(by, "by")
        for _ in range(TRIES):
            if _same(limits_of(self._store, name), queue):
                break
            with suppress(AppendRefused):  # somebody else has just set them: look again
                await self._engine._append(_unit(self._store, self._engine.clock, queue, by))
                break
        else:
            raise _crowded(queue)
        if self._engine._worker is not None:
            self._engine._worker.following.look_soon()
        return queue

    def get(self, name: str) -> QueueState:
        """How the queue stands. Raises `ConfigurationError` when nobody has declared or named it."""
        for state in self.list():
            if state.name == name:
                return state
        raise undeclared(check_name(name, "queue"), "it has no runs either")

    def list(self) -> list[QueueState]:
        """All queues that were declared, or that runs name, by name."""
        return states(self._store)


def states(store: Any) -> list[QueueState]:
    """All queues of a store: those that were declared, and those that runs name."""
    declared = [stream.removeprefix(QUEUES) for stream in store.streams(QUEUES)]
    crowds = {crowd.queue: crowd for crowd in store.queued.crowds()}
    found = []
    for name in sorted({*declared, *crowds}):
        limits, crowd = limits_of(store, name), crowds.get(name)
        queue = None if limits is None else queue_of(name, limits)
        oldest = None if crowd is None or crowd.oldest is None else to_datetime(crowd.oldest)
        pending, placed = (crowd.pending, crowd.placed) if crowd is not None else (0, 0)
        holders = tuple(store.queued.holders(name, SHOWN)) if placed else ()
        found.append(QueueState(queue, name, pending, placed, oldest, holders))
    return found


def declare(store: Store, clock: Clock, queues: Iterable[Queue]) -> None:
    """What a program's code says of its queues, stored when it says something else than the last time.

    So limits that a person has set since then stay as they are until the code is changed.
    """
    for queue in queues:
        for _ in range(TRIES):
            rows = store.read(QUEUES + queue.name)
            said = [decode_event(row.tag, row.state, row) for row in reversed(rows)]
            last = next((e for e in said if isinstance(e, t.QueueConfigured) and e.declared), None)
            if _same(last, queue):
                break
            (refusal,) = store.commit([_unit(store, clock, queue, "code", declared=True)])
            if refusal is None:
                break
        else:
            raise _crowded(queue)


def _unit(store: Store, clock: Clock, queue: Queue, by: str, *, declared: bool = False) -> Unit:
    stream = QUEUES + queue.name
    tail, at = store.tail(stream), to_datetime(clock.now())
    event = t.QueueConfigured(**_said(queue), declared=declared, id=new_event_id(), at=at, by=by)
    rows, _ = chain(stream, tail, [event])
    return Unit((Append(stream, tail.version, rows, tail.hash),))


def _crowded(queue: Queue) -> StoreBusy:
    return StoreBusy(f"queue {queue.name!r}: others set its limits all the time; try again")


def check_queues(queues: Any) -> tuple[Queue, ...]:
    """What `Engine(queues=[…])` is given. Raises `ConfigurationError`."""
    several = isinstance(queues, Iterable) and not isinstance(queues, str)
    found: tuple[Any, ...] = tuple(queues) if several else (queues,)
    for queue in found:
        if not isinstance(queue, Queue):
            raise ConfigurationError(f"queues=[…] expects Queue(…), got {queue!r:.80}")
    names = [queue.name for queue in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigurationError(f"queues=[…] declares {', '.join(map(repr, twice))} twice: leave one")
    return found


def check_declared(store: Store, name: str) -> None:
    """Raises `ConfigurationError` when nobody has declared the queue: its runs would never begin."""
    if not store.tail(QUEUES + name).version:
        raise undeclared(name, "a run in it would never begin")


def undeclared(name: str, but: str) -> ConfigurationError:
    return ConfigurationError(
        f"nobody has declared queue {name!r}, and {but}: engine.queues.set({name!r}, …), "
        f"Engine(queues=[Queue({name!r}, …)]) or `refold queues set {name}` does"
    )
