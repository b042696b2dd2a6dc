"""Workflows that book things, and undo it: shared by the tests of compensation."""

from typing import Any

from refold import Context, Engine, Handle, step, workflow
from refold.events import types as t
from tests.engine.kit import of, until

done: list[str] = []
"""What was done and undone, in order."""
broken: set[str] = set()
"""What cannot be undone now."""


@step
async def unbook(what: str, price: int = 0, *, result: str) -> None:
    done.append(f"un{what}:{result}")
    if what in broken:
        raise RuntimeError(f"{what} cannot be undone")


@step(compensate=unbook)
async def book(what: str, price: int = 0) -> str:
    done.append(what)
    if what == "nothing":
        raise RuntimeError("sold out")
    return f"{what} booked"


@step
async def note(text: str) -> None:
    done.append(text)


@workflow
async def books(ctx: Context, *what: str) -> str:
    for one in what:
        await book(one, price=1)
    return "all booked"


@workflow(name="by_hand", compensate_on=())
async def by_hand(ctx: Context, *what: str) -> str:
    for one in what:
        await book(one)
    return "all booked"


@workflow
async def books_and_waits(ctx: Context, *what: str) -> Any:
    for one in what:
        await book(one)
    return await ctx.wait_for_event("go")


FLOWS = (books, by_hand, books_and_waits)


async def end(e: Engine, handle: Handle[Any], count: int = 1) -> Any:
    """The run's `count`-th end, and that its whole history replays."""
    await until(lambda: len(of(handle, *t.ENDS)) >= count)
    work = e.store.work(handle.id)
    assert work is not None
    assert (work.state, work.status) == ("done", of(handle, *t.ENDS)[-1].TAG.removeprefix("run."))
    return of(handle, *t.ENDS)[-1]


def undone(handle: Handle[Any]) -> list[str]:
    return [event.key for event in of(handle, t.StepCompensated)]
