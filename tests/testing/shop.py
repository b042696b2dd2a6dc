"""A little shop, as the workflows of users look that are tested with the kit."""

import asyncio
from typing import Any

from refold import Context, Retry, step, workflow
from refold.events import types as t

DAY_S = 86_400.0
CARDS: list[str] = []
"""What was really charged."""


@step(retry=Retry(max_attempts=3, initial_interval=60.0), timeout=30.0)
async def charge(card: str, cents: int) -> str:
    CARDS.append(card)
    return f"{card}:{cents}"


@step
def pack(item: str) -> str:
    return f"box of {item}"


@workflow
async def checkout(ctx: Context, card: str) -> list[Any]:
    """A charge, a day, a decision, a message."""
    receipt = await charge(card, 500)
    await ctx.sleep(DAY_S)
    decision = await ctx.approval("Ship it?", timeout=7 * DAY_S)
    address = await ctx.wait_for_event("address", timeout=DAY_S)
    boxes = await asyncio.gather(*(pack(item) for item in ("cup", "pot")))
    return [receipt, decision.by, address, boxes]


@workflow
async def paid(ctx: Context, card: str) -> str:
    """Only a charge."""
    return await charge(card, 500)


@workflow
async def slow(ctx: Context) -> str:
    """Only a day."""
    await ctx.sleep(DAY_S)
    return "slept"


def tags(handle: Any) -> list[str]:
    """Tags of a run's whole history."""
    return [event.TAG for event in handle.events() if isinstance(event, t.Event)]
