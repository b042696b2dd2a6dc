"""Which of the runs that wait in queues may begin: limits, priorities, keys in turn.

Whoever executes a store alone asks this; on PostgreSQL, where many do, the function `claim_queued` of
`sql/postgres_1.sql` decides the same way inside the database. `tests/events/test_queues.py` holds both
against a model of a few lines.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from . import types as t
from .registry import decode_event
from .stream import QUEUES, Tail

UNLIMITED = 1_000_000_000
TICK_S = 0.000_001
"""The log has times to the microsecond."""


class Crowd(NamedTuple):
    """The runs of one queue that have not ended."""

    queue: str
    pending: int
    """That wait for a place …"""
    placed: int
    """… and that have one."""
    oldest: float | None
    """When the first of those that wait fell due."""


class Held(NamedTuple):
    """A place that was given to a run which has not begun yet."""

    queue: str
    key: str


class Crowded(Protocol):
    """What any store says of its queues."""

    def crowds(self) -> list[Crowd]:
        """All queues with runs that have not ended, by name."""
        ...

    def holders(self, queue: str, limit: int) -> list[str]:
        """Runs that have a place in it, those that began first first."""
        ...


class Queued(Crowded, Protocol):
    """What a store that one process executes says of them, too; each answer is one look into an index."""

    def next_queue(self, after: str) -> str | None:
        """The first queue greater than `after` in which anything is pending."""
        ...

    def next_priority(self, queue: str, after: int | None) -> int | None:
        """The first priority in it greater than `after` (None: the very first)."""
        ...

    def next_key(self, queue: str, priority: int, after: str | None) -> str | None:
        """The first key in it greater than `after` (None: the very first)."""
        ...

    def oldest(
        self, queue: str, priority: int, key: str, now: float, limit: int, tags: Sequence[str]
    ) -> list[str]:
        """Pending runs of the key whose time has come and whose tag is one of these, earliest first."""
        ...

    def placed(self, queue: str, limit: int) -> int:
        """How many of its runs have begun and not ended, counted up to `limit`."""
        ...

    def placed_of(self, queue: str, key: str, limit: int) -> int:
        """The same for one key."""
        ...

    def begun(self, queue: str, after: float, limit: int) -> list[float]:
        """When its last runs began, the last one first: those that began after `after`."""
        ...


class Log(Protocol):
    """What is needed of the log itself."""

    def tail(self, stream: str) -> Tail: ...
    def read(self, stream: str, after: int = 0, limit: int | None = None) -> list[Any]: ...


class Places(NamedTuple):
    """Who may begin."""

    runs: dict[str, Held]
    again_at: float | None
    """When a rate lets the next one begin; None: nothing waits for that."""


def limits_of(log: Log, queue: str) -> t.QueueConfigured | None:
    """The queue's limits as they are now; None: nobody has declared it."""
    version = log.tail(QUEUES + queue).version
    if not version:
        return None
    (row,) = log.read(QUEUES + queue, version - 1, 1)
    event = decode_event(row.tag, row.state, row)
    assert isinstance(event, t.QueueConfigured)
    return event


class Turns:
    """Gives places to runs, key after key; remembers whose turn was last."""

    def __init__(self, log: Log, queued: Queued) -> None:
        self._log, self._queued = log, queued
        self._last: dict[str, str] = {}

    def next(
        self, now: float, room: int, held: Mapping[str, Held], skip: Collection[str], tags: Sequence[str]
    ) -> Places:
        """At most `room` runs that may begin, none of those that are `held` already or to be skipped."""
        found: dict[str, Held] = {}
        again: list[float] = []
        queue: str | None = ""
        while room > len(found) and (queue := self._queued.next_queue(queue or "")) is not None:
            free, at = self._free(queue, now, [place for place in held.values() if place.queue == queue])
            if at is not None:
                again.append(at)
            free = min(free, room - len(found))
            if free > 0:
                found |= self._of(queue, now, free, held, {*skip, *held}, tags)
        return Places(found, min(again, default=None))

    def _free(self, queue: str, now: float, held: list[Held]) -> tuple[int, float | None]:
        """How many places the queue has, and when the rate gives the next one if it is what is short."""
        limits = limits_of(self._log, queue)
        if limits is None:
            return 0, None
        free = UNLIMITED
        if limits.concurrency is not None:
            free = limits.concurrency - len(held) - self._queued.placed(queue, limits.concurrency)
        if limits.rate is None or free <= 0:
            return free, None
        begun = self._queued.begun(queue, now - limits.period_s, limits.rate)
        left = limits.rate - len(begun) - len(held)
        full = len(begun) == limits.rate
        return min(free, left), begun[-1] + limits.period_s + TICK_S if full else None

    def _of(
        self, queue: str, now: float, free: int, held: Mapping[str, Held], skip: set[str], tags: Sequence[str]
    ) -> dict[str, Held]:
        limits = limits_of(self._log, queue)
        per_key = limits.per_key if limits is not None else None
        taken = Counter(place.key for place in held.values() if place.queue == queue)
        found: dict[str, Held] = {}
        priority: int | None = None
        while free > len(found) and (priority := self._queued.next_priority(queue, priority)) is not None:
            lines: list[tuple[str, list[str]]] = []
            for key in self._keys(queue, priority):
                wanted = free - len(found)
                if per_key is not None:
                    used = taken[key] + self._queued.placed_of(queue, key, per_key)
                    wanted = min(wanted, per_key - used)
                if wanted > 0:
                    runs = self._queued.oldest(queue, priority, key, now, wanted + len(skip), tags)
                    line = [run for run in runs if run not in skip][:wanted]
                    if line:
                        lines.append((key, line))
                if len(lines) == free - len(found):
                    break  # each of these keys gets one
            for key, run in _in_turn(lines)[: free - len(found)]:
                found[run] = Held(queue, key)
                taken[key] += 1
                self._last[queue] = key
        return found

    def _keys(self, queue: str, priority: int) -> "_Keys":
        return _Keys(self._queued, queue, priority, self._last.get(queue))


class _Keys:
    """Keys in the order of their turns: those behind the last one served, then the others."""

    def __init__(self, queued: Queued, queue: str, priority: int, last: str | None) -> None:
        self._queued, self._queue, self._priority, self._last = queued, queue, priority, last

    def __iter__(self) -> Iterator[str]:
        last = key = self._last
        while (key := self._queued.next_key(self._queue, self._priority, key)) is not None:
            yield key
        if last is None:
            return
        while (key := self._queued.next_key(self._queue, self._priority, key)) is not None and key <= last:
            yield key


def _in_turn(lines: list[tuple[str, list[str]]]) -> list[tuple[str, str]]:
    """The first of each line, then the second of each …"""
    longest = max((len(line) for _, line in lines), default=0)
    return [(key, line[place]) for place in range(longest) for key, line in lines if place < len(line)]
