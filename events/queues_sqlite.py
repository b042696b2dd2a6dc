"""What a SQLite store says of the runs in its queues."""

from collections.abc import Callable, Sequence
from typing import Any

from msgspec.json import encode

from .queues import Crowd


class SQLiteQueued:
    """Implements `queues.Queued` with one indexed look for each question."""

    def __init__(self, ask: Callable[..., list[Any]]) -> None:
        self._ask = ask

    def _first(self, query: str, *parameters: Any) -> Any:
        found = self._ask(query, parameters)
        return found[0][0] if found else None

    def next_queue(self, after: str) -> str | None:
        found: str | None = self._first("next_queue", after)
        return found

    def next_priority(self, queue: str, after: int | None) -> int | None:
        found: int | None = self._first("next_priority", queue, -(2**62) if after is None else after)
        return found

    def next_key(self, queue: str, priority: int, after: str | None) -> str | None:
        query = "first_key" if after is None else "next_key"
        found: str | None = self._first(query, queue, priority, after or "")
        return found

    def oldest(
        self, queue: str, priority: int, key: str, now: float, limit: int, tags: Sequence[str]
    ) -> list[str]:
        wanted = encode(tags).decode()
        return [run for (run,) in self._ask("oldest_in_queue", (queue, priority, key, now, wanted, limit))]

    def placed(self, queue: str, limit: int) -> int:
        return int(self._first("placed", queue, limit))

    def placed_of(self, queue: str, key: str, limit: int) -> int:
        return int(self._first("placed_of", queue, key, limit))

    def begun(self, queue: str, after: float, limit: int) -> list[float]:
        return [at for (at,) in self._ask("begun", (queue, after, limit))]

    def crowds(self) -> list[Crowd]:
        return [Crowd(*found) for found in self._ask("crowds", ())]

    def holders(self, queue: str, limit: int) -> list[str]:
        return [run for (run,) in self._ask("holders", (queue, limit))]
