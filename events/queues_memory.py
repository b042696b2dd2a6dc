"""What a store in memory says of the runs in its queues: it looks at all of them."""

from collections.abc import Callable, Iterable, Iterator, Sequence

from .queues import Crowd
from .work import Work


class MemoryQueued:
    """Implements `queues.Queued`."""

    def __init__(self, works: Callable[[], Iterable[Work]]) -> None:
        self._works = works

    def _pending(self) -> Iterator[Work]:
        return (work for work in self._works() if work.queue and work.state == "pending")

    def _placed(self) -> Iterator[Work]:
        return (work for work in self._works() if work.queue and work.state in ("running", "waiting"))

    def next_queue(self, after: str) -> str | None:
        return min((work.queue for work in self._pending() if work.queue > after), default=None)

    def next_priority(self, queue: str, after: int | None) -> int | None:
        found = [work.priority for work in self._pending() if work.queue == queue]
        return min((priority for priority in found if after is None or priority > after), default=None)

    def next_key(self, queue: str, priority: int, after: str | None) -> str | None:
        found = [
            work.queue_key for work in self._pending() if (work.queue, work.priority) == (queue, priority)
        ]
        return min((key for key in found if after is None or key > after), default=None)

    def oldest(
        self, queue: str, priority: int, key: str, now: float, limit: int, tags: Sequence[str]
    ) -> list[str]:
        line = (queue, priority, key)
        found = [
            (work.due_at, work.run_id)
            for work in self._pending()
            if (work.queue, work.priority, work.queue_key) == line and work.run_on in tags
            if work.due_at is not None and work.due_at <= now
        ]
        return [run_id for _, run_id in sorted(found)[:limit]]

    def placed(self, queue: str, limit: int) -> int:
        return min(limit, sum(work.queue == queue for work in self._placed()))

    def placed_of(self, queue: str, key: str, limit: int) -> int:
        return min(limit, sum((work.queue, work.queue_key) == (queue, key) for work in self._placed()))

    def begun(self, queue: str, after: float, limit: int) -> list[float]:
        found = [work.begun_at for work in self._works() if work.queue == queue and work.begun_at is not None]
        return sorted((at for at in found if at > after), reverse=True)[:limit]

    def crowds(self) -> list[Crowd]:
        crowds = []
        for queue in sorted({work.queue for work in self._works() if work.queue and work.state != "done"}):
            dues = [work.due_at for work in self._pending() if work.queue == queue]
            oldest = min((due for due in dues if due is not None), default=None)
            placed = sum(work.queue == queue for work in self._placed())
            crowds.append(Crowd(queue, len(dues), placed, oldest))
        return crowds

    def holders(self, queue: str, limit: int) -> list[str]:
        found = [(work.begun_at or 0.0, work.run_id) for work in self._placed() if work.queue == queue]
        return [run_id for _, run_id in sorted(found)[:limit]]
