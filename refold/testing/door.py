"""A store that can die: what one process sees of a store, until it is killed at a chosen event."""

from collections.abc import Callable, Iterable, Sequence

from ..events.errors import StoreError
from ..events.queues import Crowded
from ..events.store import Refusal, Store, Unit
from ..events.stream import Row, Tail
from ..events.work import ANY_WORKER, Work


class Door:
    """One process' way to a store. Dead, it reads and writes nothing. Implements `Store`."""

    def __init__(self, store: Store) -> None:
        self.inner = store
        self.url = store.url
        self.dead = False
        self.events = 0
        """Stored through here so far."""
        self.commits: list[int] = []
        """`events` after each commit that stored something."""
        self.die_before = self.die_after = 0
        """Number of the event before, or after, which this process dies; 0: it lives."""
        self.on_death: Callable[[], None] = lambda: None

    def kill(self) -> StoreError:
        """From now on nothing works; returns the error that says so."""
        if not self.dead:
            self.dead = True
            self.on_death()
        return StoreError("simulated crash: this process is dead")

    def _alive(self) -> Store:
        if self.dead:
            raise StoreError("simulated crash: this process is dead")
        return self.inner

    def commit(self, units: Sequence[Unit]) -> list[Refusal | None]:
        store = self._alive()
        if self.die_before and self.events + sum(map(_size, units)) >= self.die_before:
            raise self.kill()
        refusals = store.commit(units)
        stored = sum(_size(unit) for unit, refusal in zip(units, refusals, strict=True) if refusal is None)
        if stored:
            self.events += stored
            self.commits.append(self.events)
        if self.die_after and self.events >= self.die_after:
            raise self.kill()
        return refusals

    def commit_all(self, units: Iterable[Unit]) -> None:
        self._alive().commit_all(units)

    def read(self, stream: str, after: int = 0, limit: int | None = None) -> list[Row]:
        return self._alive().read(stream, after, limit)

    def tail(self, stream: str) -> Tail:
        return self._alive().tail(stream)

    def scan(self, after: int = 0, limit: int = 1000) -> list[Row]:
        return self._alive().scan(after, limit)

    def position(self) -> int:
        return self._alive().position()

    def blob(self, digest: str) -> bytes:
        return self._alive().blob(digest)

    def blobs(self, after: str = "", limit: int = 1000) -> list[str]:
        return self._alive().blobs(after, limit)

    def work(self, run_id: str) -> Work | None:
        return self._alive().work(run_id)

    def due(self, now: float, limit: int = 1000, tags: Sequence[str] = ANY_WORKER) -> list[str]:
        return self._alive().due(now, limit, tags)

    def mail_elsewhere(self, limit: int = 1000, tags: Sequence[str] = ANY_WORKER) -> list[str]:
        return self._alive().mail_elsewhere(limit, tags)

    def running(self, after: str = "", limit: int = 1000, tags: Sequence[str] = ANY_WORKER) -> list[str]:
        return self._alive().running(after, limit, tags)

    def next_due(self, now: float, tags: Sequence[str] = ANY_WORKER) -> float | None:
        return self._alive().next_due(now, tags)

    @property
    def queued(self) -> Crowded:
        return self._alive().queued

    def streams(self, prefix: str) -> list[str]:
        return self._alive().streams(prefix)

    def changed(self) -> bool:
        return self._alive().changed()

    def rebuild_work(self, rows: Sequence[tuple[Work, int]]) -> None:
        self._alive().rebuild_work(rows)

    def all_work(self) -> list[tuple[Work, int]]:
        return self._alive().all_work()

    def hold(self, owner: str) -> None:
        self._alive().hold(owner)

    def holding(self) -> bool:
        return self._alive().holding()

    def release(self) -> None:
        if not self.dead:
            self.inner.release()

    def close(self) -> None:
        self.inner.close()


def _size(unit: Unit) -> int:
    return sum(len(append.rows) for append in unit.appends) + len(unit.posts)
