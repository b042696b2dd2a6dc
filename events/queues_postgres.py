"""What a PostgreSQL store says of the runs in its queues; who may begin is decided there (`claim_queued`)."""

from collections.abc import Callable
from typing import Any

from .postgres_batch import name_of
from .queues import Crowd


class PostgresQueued:
    """Implements `queues.Crowded`."""

    def __init__(self, ask: Callable[..., list[tuple[Any, ...]]]) -> None:
        self._ask = ask

    def crowds(self) -> list[Crowd]:
        return [Crowd(*found) for found in self._ask("crowds")]

    def holders(self, queue: str, limit: int) -> list[str]:
        return [name_of(run) for (run,) in self._ask("holders", queue=queue, limit=limit)]
