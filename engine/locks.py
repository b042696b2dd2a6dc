"""Concurrency keys: at any moment at most one run that has not ended holds a key (`start(…, lock=…)`)."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

from ..events import locks, types as t
from ..events.errors import AppendRefused, Locked, StoreBusy
from ..events.locks import Lock
from ..events.store import Post, Store, Unit
from ..events.stream import LOCKS
from ..projections import queries
from .names import check_name

TRIES = 1_000
"""How often a key is looked at anew when others write to its stream meanwhile: each time one of them has."""


Held = list[Lock]


async def hold(
    store: Store, append: Callable[[Unit], Awaitable[None]], run_id: str, started: t.RunStarted,
    cause: t.Event, begin: Callable[[tuple[Post, ...]], Awaitable[None]], *, named: str | None = None,
) -> None:  # fmt: skip
    """Call `begin` with the message that gives the run its key, to store both in one unit.

    Args:
        append: stores a unit: that of a refusal.
        cause: what `begin` stores: the key is taken at its time and by its author.
        begin: raises `AppendRefused` when what it stores was refused.
        named: how a refusal names the run; default: by its id.

    Raises `Locked` when another run holds the key, which its stream then says, too; what `begin` raises.
    """
    for _ in range(TRIES):
        lock = locks.look_at(store, started.lock)
        free = lock.holder in ("", run_id)
        try:
            if free:
                await begin((locks.taken(lock, run_id, started, cause),))
                return
            who = run_id if named is None else named
            await append(Unit(posts=(locks.refused(lock, who, started.workflow, cause.at, cause.by),)))
        except AppendRefused as refusal:
            if refusal.stream != LOCKS + started.lock:
                raise
            continue
        raise locked(lock)
    raise StoreBusy(f"lock {started.lock!r}: others ask for it all the time; try again")


def locked(lock: Lock) -> Locked:
    """Why a key cannot be had."""
    since = f"{lock.since:%Y-%m-%d %H:%M:%S} UTC" if isinstance(lock.since, datetime) else "?"
    return Locked(lock.key, lock.holder, since)


class Locks:
    """`engine.locks`: who holds which concurrency key, read from the log itself."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def holder(self, key: str) -> str | None:
        """The run that holds a key; None: it is free. Raises `ConfigurationError` for what is no key."""
        return self.get(key).holder or None

    def list(self) -> Held:
        """The keys that are held, by key; which to look at the read models say, who has them the log."""
        keys = dict.fromkeys(key for key, _ in queries.locked_runs(self._engine.projections.views))
        return [lock for key in keys if (lock := locks.look_at(self._engine.store, key)).holder]

    def get(self, key: str) -> Lock:
        """How a key stands: `Lock(key, holder, since, workflow)`. Raises `ConfigurationError`."""
        return locks.look_at(self._engine.store, check_name(key, "lock"))
