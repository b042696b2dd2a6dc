"""Which runs of a store are this worker's to execute: all of them, or those that it has a lease on."""

import asyncio
from collections.abc import Callable, Collection
from time import monotonic
from typing import Any, Protocol

from ..events.store import Store

LISTEN_AGAIN_S = 1.0
"""How often to try to hear others again, after the connection was lost."""


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
        """Those of the runs which nobody may be able to execute that have mail, and that `due` left out."""
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

    sweep_s = float("inf")

    def __init__(self, store: Store, owner: str) -> None:
        self._store, self._owner = store, owner

    def join(self) -> None:
        self._store.hold(self._owner)

    def holding(self) -> bool:
        return self._store.holding()

    def due(self, now: float, limit: int, skip: Collection[str], room: int) -> list[str]:
        return self._store.due(now, limit + len(skip))

    def asked(self, blocked: Collection[str]) -> list[str]:
        return []

    def running(self, after: str, limit: int, skip: Collection[str], room: int) -> list[str]:
        return self._store.running(after, limit)

    def take(self, run_id: str) -> bool:
        return True

    def let_go(self, run_id: str) -> None:
        pass

    def ended(self, runs: Collection[str]) -> list[str]:
        return []

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

    def __init__(self, store: Any, owner: str, ttl: float, refresh: float) -> None:
        self._store, self._leases = store, store.leases
        self._owner, self._ttl, self._refresh = owner, ttl, refresh
        self.sweep_s = min(ttl / 6, 5.0)
        self._freed: set[str] = set()
        self._next_beat = self._next_look = self._next_call = 0.0
        self._heard: Callable[[], Any] | None = None
        self._fd = -1

    def join(self) -> None:
        self._leases.join(self._owner, self._ttl)
        self._next_beat = monotonic() + self._refresh

    def holding(self) -> bool:
        return True

    def due(self, now: float, limit: int, skip: Collection[str], room: int) -> list[str]:
        self._free()
        found: list[str] = self._leases.due(now, limit, list(skip), room)
        return found

    def asked(self, blocked: Collection[str]) -> list[str]:
        found: list[str] = self._leases.mailed(list(blocked)) if blocked else []
        return found

    def running(self, after: str, limit: int, skip: Collection[str], room: int) -> list[str]:
        self._free()
        if not after:
            self._leases.bury()
        found: list[str] = self._leases.running(after, limit, list(skip), room)
        return found

    def take(self, run_id: str) -> bool:
        self._freed.discard(run_id)
        return bool(self._leases.take(run_id))

    def let_go(self, run_id: str) -> None:
        self._freed.add(run_id)

    def ended(self, runs: Collection[str]) -> list[str]:
        found: list[str] = self._leases.ended(list(runs))
        return found

    def tick(self) -> bool:
        self._free()
        if self._fd < 0 and self._heard is not None and monotonic() >= self._next_call:
            self.listen(self._heard)
        if monotonic() < self._next_beat:
            return True
        kept: bool = self._leases.beat(self._ttl)
        self._next_beat = monotonic() + self._refresh
        return kept

    def _free(self) -> None:
        if self._freed:
            freed, self._freed = self._freed, set()
            self._leases.let_go(sorted(freed))

    @property
    def changed(self) -> bool:
        if monotonic() < self._next_look:
            return False
        self._next_look = monotonic() + (0.5 if self._fd >= 0 else 0.1)
        return bool(self._store.changed())

    def listen(self, heard: Callable[[], Any]) -> None:
        self._heard, self._next_call = heard, monotonic() + LISTEN_AGAIN_S
        self._fd = self._leases.listen()
        if self._fd < 0:
            return

        def readable() -> None:
            self._next_look = 0.0
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


def claims_of(store: Store, owner: str, ttl: float, refresh: float) -> Claims:
    """How the runs of this store are divided: a store with `leases` is shared."""
    return (
        Alone(store, owner) if getattr(store, "leases", None) is None else Shared(store, owner, ttl, refresh)
    )
