"""Which runs of a store are this worker's to execute: all of them, or those that it has a lease on."""

import asyncio
from collections.abc import Callable, Collection, Sequence
from time import monotonic
from typing import Any, Protocol

from ..events.queues import Held, Turns
from ..events.store import Store
from ..events.work import ANY_WORKER

PAGE = 500
"""Runs with mail that others must see to, for a look."""
LISTENING_S, ASKING_S = 1.0, 0.1
"""How often to ask whether anybody has written, with hints and without."""


class Claims(Protocol):
    """What a worker asks before it touches a run."""

    def join(self) -> None:
        """Become an executor of the store. Raises `StoreBusy` when there is no room for one more."""
        ...

    def holding(self) -> bool:
        """Whether this process still executes the store."""
        ...

    def due(self, now: float, limit: int, skip: Collection[str], room: int) -> list[str]:
        """Runs of ours that want attention, and at most `room` that nobody else has, now ours."""
        ...

    def asked(self, blocked: Collection[str]) -> list[str]:
        """Those of the runs which nobody may be able to execute that have mail, and that `due` left out; and
        those with mail that wait for a place in a queue, or for a worker with another tag."""
        ...

    def may_begin(self, run_id: str, queue: str, tag: str) -> bool:
        """Whether a run that has not begun may do so here: it has its place, and we the tag."""
        ...

    @property
    def again_at(self) -> float:
        """When the rate of a queue lets the next run begin, by what `due` has found."""
        ...

    def next_due(self, now: float) -> float | None:
        """When any run is due next."""
        ...

    def running(self, after: str, limit: int, skip: Collection[str], room: int) -> list[str]:
        """Runs in the middle of something, in order: ours, and those whose owner is gone, now ours."""
        ...

    def take(self, run_id: str) -> bool:
        """Make a run ours; False: another living worker has it."""
        ...

    def let_go(self, run_id: str) -> None:
        """Anybody may have it, once it wants attention again."""
        ...

    shared: bool
    """Whether other processes execute runs of the store, too."""

    def ended(self, runs: Collection[str]) -> list[str]:
        """Those of the runs that have ended, wherever."""
        ...

    def tick(self) -> bool:
        """Keep what is ours; False: others may have taken our runs meanwhile. Raises `StoreError`."""
        ...

    @property
    def changed(self) -> bool:
        """Whether anybody else may have written since the last call."""
        ...

    @property
    def sweep_s(self) -> float:
        """How often to look for runs whose owner is gone, though nobody has written."""
        ...

    def listen(self, heard: Callable[[], Any]) -> None:
        """Call this when somebody says that there is something for us."""
        ...

    def close(self) -> None:
        """Say that we no longer look."""
        ...


class Alone:
    """The store has one executor at a time, and it is this process."""

    shared = False
    sweep_s = float("inf")

    def __init__(self, store: Store, owner: str, tags: Sequence[str] = ANY_WORKER) -> None:
        self._store, self._owner, self._tags = store, owner, list(tags)
        queued: Any = store.queued  # of a store that one executes
        self._turns = Turns(store, queued)
        self._given: dict[str, Held] = {}
        """Places in queues of runs that have not begun yet."""
        self.again_at = float("inf")

    def join(self) -> None:
        self._store.hold(self._owner)

    def holding(self) -> bool:
        return self._store.holding()

    def due(self, now: float, limit: int, skip: Collection[str], room: int) -> list[str]:
        found = self._store.due(now, limit + len(skip), self._tags)
        return found + self._queued(now, min(limit, room), skip)

    def _queued(self, now: float, room: int, skip: Collection[str]) -> list[str]:
        for run_id in list(self._given):
            work = self._store.work(run_id)
            if work is None or work.state != "pending" or work.due_at is None or run_id in skip:
                del self._given[run_id]  # it has begun, has ended or is held: its row says so
        places = self._turns.next(now, room, self._given, skip, self._tags)
        self._given |= places.runs
        self.again_at = places.again_at or float("inf")
        return list(self._given)

    def asked(self, blocked: Collection[str]) -> list[str]:
        return [
            run_id for run_id in self._store.mail_elsewhere(PAGE, self._tags) if run_id not in self._given
        ]

    def may_begin(self, run_id: str, queue: str, tag: str) -> bool:
        return (not queue or run_id in self._given) and tag in self._tags

    def next_due(self, now: float) -> float | None:
        return self._store.next_due(now, self._tags)

    def running(self, after: str, limit: int, skip: Collection[str], room: int) -> list[str]:
        return self._store.running(after, limit, self._tags)

    def take(self, run_id: str) -> bool:
        return True

    def let_go(self, run_id: str) -> None:
        self._given.pop(run_id, None)

    def ended(self, runs: Collection[str]) -> list[str]:
        rows = ((run_id, self._store.work(run_id)) for run_id in runs)
        return [run_id for run_id, work in rows if work is not None and work.state == "done"]

    def tick(self) -> bool:
        return True

    @property
    def changed(self) -> bool:
        return self._store.changed()

    def listen(self, heard: Callable[[], Any]) -> None:
        pass

    def close(self) -> None:
        pass


class Shared:
    """Many workers execute one store; each run belongs to one of them while it is busy there.

    A worker keeps all its runs by saying every `refresh` seconds that it lives; when it has not for `ttl`
    seconds (by the database's clock), others may take them. That is for speed only: whoever goes on with a
    run that another one has taken is refused by the log.
    """

    again_at = float("inf")  # `next_due` knows

    shared = True

    def __init__(
        self, store: Any, owner: str, ttl: float, refresh: float, tags: Sequence[str] = ANY_WORKER
    ) -> None:
        self._store, self._leases = store, store.leases
        self._owner, self._ttl, self._refresh, self._tags = owner, ttl, refresh, list(tags)
        self._leases.tags = self._tags
        self.sweep_s = min(ttl / 6, 5.0)
        self._freed: set[str] = set()
        self._taken: set[str] = set()
        """Runs that were ours a moment ago: no need to ask again before they are loaded."""
        self._heard: Callable[[], Any] | None = None
        self._seen: Any = None
        """What the last look has found."""
        self._next_beat = self._next_look = 0.0
        self._fd = -1

    def join(self) -> None:
        self._leases.join(self._owner, self._ttl)
        self._next_beat = monotonic() + self._refresh

    def holding(self) -> bool:
        return True

    def due(self, now: float, limit: int, skip: Collection[str], room: int) -> list[str]:
        self._free()
        self._seen = self._leases.look(now, limit, list(skip), room)
        self._taken = set(self._seen.runs)
        found: list[str] = self._seen.runs
        return found

    def asked(self, blocked: Collection[str]) -> list[str]:
        found: list[str] = self._leases.mailed(list(blocked)) if blocked else []
        found += self._seen.elsewhere
        return found

    def may_begin(self, run_id: str, queue: str, tag: str) -> bool:
        return tag in self._tags  # without a place it could not have been taken

    def next_due(self, now: float) -> float | None:
        found: float | None = self._seen.next_at
        return found

    def running(self, after: str, limit: int, skip: Collection[str], room: int) -> list[str]:
        self._free()
        if not after:
            self._leases.bury()
        found: list[str] = self._leases.running(after, limit, list(skip), room)
        self._taken.update(found)
        return found

    def take(self, run_id: str) -> bool:
        self._freed.discard(run_id)
        if run_id in self._taken and monotonic() < self._next_beat + self._refresh:  # the lease holds
            self._taken.discard(run_id)
            return True
        taken = bool(self._leases.take(run_id))
        if not taken:
            self._freed.add(run_id)  # what we started for workers with another tag
        return taken

    def let_go(self, run_id: str) -> None:
        self._taken.discard(run_id)
        self._freed.add(run_id)

    def ended(self, runs: Collection[str]) -> list[str]:
        found: list[str] = self._leases.ended(list(runs))
        return found

    def tick(self) -> bool:
        self._free()
        if monotonic() < self._next_beat:
            return True
        kept: bool = self._leases.beat(self._ttl)
        self._next_beat = monotonic() + self._refresh
        if not kept:
            self._taken.clear()
        if self._fd < 0 and self._heard is not None:
            self.listen(self._heard)  # the connection was lost
        return kept

    def _free(self) -> None:
        if self._freed:
            freed, self._freed = self._freed, set()
            self._leases.let_go(sorted(freed))

    @property
    def changed(self) -> bool:
        if monotonic() < self._next_look:
            return False
        self._next_look = monotonic() + (LISTENING_S if self._fd >= 0 else ASKING_S)
        return bool(self._store.changed())

    def listen(self, heard: Callable[[], Any]) -> None:
        self._fd, self._heard = self._leases.listen(), heard
        if self._fd < 0:
            return

        def readable() -> None:
            if not self._leases.heard():  # the connection is gone: ask more often instead
                self._hang_up()
            heard()

        asyncio.get_running_loop().add_reader(self._fd, readable)

    def close(self) -> None:
        self._heard = None
        self._hang_up()

    def _hang_up(self) -> None:
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            self._fd = -1


def claims_of(
    store: Store, owner: str, ttl: float, refresh: float, tags: Sequence[str] = ANY_WORKER
) -> Claims:
    """How the runs of this store are divided: a store with `leases` is shared."""
    if getattr(store, "leases", None) is None:
        return Alone(store, owner, tags)
    return Shared(store, owner, ttl, refresh, tags)
