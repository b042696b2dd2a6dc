"""Waiting for a shutdown to its end, whoever cancels the one who waits."""

import asyncio
from collections.abc import Coroutine
from typing import Any


async def to_its_end(closing: Coroutine[Any, Any, None]) -> None:
    """Wait for a shutdown even when the waiter is cancelled, once or (anyio) again and again; then say so.

    Left in the middle, it would leave the store held by a process that no longer executes it.
    """
    import anyio

    task = asyncio.ensure_future(closing)
    cancelled: asyncio.CancelledError | None = None
    with anyio.CancelScope(shield=True):
        while not task.done():
            try:
                await asyncio.shield(task)
            except asyncio.CancelledError as error:
                if task.cancelled():
                    raise
                cancelled = error
    task.result()
    if cancelled is not None:
        raise cancelled
