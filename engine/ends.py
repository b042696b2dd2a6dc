"""Who waits in this process for runs to end."""

import asyncio

from ..events.errors import RefoldError
from ..events.types import Event


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
