"""Who waits in this process for runs to end."""

import asyncio

from ..events import types as t
from ..events.blobs import bring_back
from ..events.errors import RefoldError, StoreCorrupt
from ..events.store import Store, read_rows
from ..events.types import Event

PAGE = 500
TAGS = frozenset(kind.TAG for kind in t.ENDS)


class Ends:
    """Futures of the ends of runs."""

    def __init__(self) -> None:
        self._waiters: dict[str, list[asyncio.Future[Event]]] = {}

    def awaited(self) -> set[str]:
        """Ids of runs that somebody waits for."""
        return set(self._waiters)

    def wait_for(self, run_id: str) -> "asyncio.Future[Event]":
        """A future of the run's end."""
        waiter: asyncio.Future[Event] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(run_id, []).append(waiter)
        return waiter

    def tell(self, run_id: str, end: Event) -> None:
        """The run has ended, here or elsewhere."""
        for waiter in self._waiters.pop(run_id, ()):
            if not waiter.done():
                waiter.set_result(end)

    def fail(self, run_id: str, error: RefoldError) -> None:
        """Its end will not be known here."""
        for waiter in self._waiters.pop(run_id, ()):
            if not waiter.done():
                waiter.set_exception(error)

    def fail_all(self, error: RefoldError) -> None:
        """No end will be known here."""
        for run_id in list(self._waiters):
            self.fail(run_id, error)


def stored_end(store: Store, run_id: str) -> Event:
    """The last end of a run that is over. Raises `StoreCorrupt`, `StoreError`."""
    before = store.tail(run_id).version
    while before > 0:  # facts may follow the end: what bodies that unwound have spent
        first = max(0, before - PAGE)
        for row in reversed(read_rows(store, run_id, first, before - first)):
            if row.tag in TAGS:
                return bring_back(row.event(), store.blob)
        before = first
    raise StoreCorrupt(f"run {run_id!r} is done by the table `work`, its stream has no end; restore a backup")
