"""Runs that are stopped in the middle of a step which may not be repeated."""

from typing import Any

from refold import Engine, Handle
from refold.events import types as t

from .kit import Place, engine, seen, until, waiting


async def cut_off(place: Place, flow: Any, calls: list[int]) -> None:
    """Start run `r` and stop the engine in the middle of its step, which notes itself in `calls`."""
    async with engine(place, flow, grace=0) as e:
        await e.start(flow, id="r")
        await until(lambda: calls)


async def in_doubt(e: Engine) -> Handle[Any]:
    """Run `r`, once it waits for somebody to say what its step did."""
    handle = await e.get("r")
    await seen(handle, t.StepInDoubt)
    await waiting(e, "r")
    return handle
