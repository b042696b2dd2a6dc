"""Waiting through a time in which the store is away: a server is started again, or another takes over."""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic
from typing import TypeVar

from ..events.errors import StoreError

PATIENCE_S = 60.0
"""How long a store may be away before those who wait for a run's end are told."""
AGAIN_S = 0.2

T = TypeVar("T")


async def through_outages(ask: Callable[[], Awaitable[T]]) -> T:
    """What `ask` gives; asked again while the store is away, for a time."""
    away_since: float | None = None
    while True:
        asked = monotonic()
        try:
            return await ask()
        except StoreError as error:
            if away_since is None or monotonic() - asked > PATIENCE_S:  # it has worked meanwhile
                away_since = monotonic()
            if not error.passing or monotonic() - away_since > PATIENCE_S:
                raise
        await asyncio.sleep(AGAIN_S)
