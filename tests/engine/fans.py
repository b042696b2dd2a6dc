"""What the tests of `ctx.map` and `ctx.parallel` share: targets, and what became of them by the log alone."""

import asyncio
from typing import Any

from refold import Context, Handle, step, workflow
from refold.events import types as t
from tests.engine.kit import of, until


@step
async def double(number: int) -> int:
    if number < 0:
        raise ValueError(f"{number} is negative")
    return number * 2


@workflow
async def doubled(ctx: Context, number: int) -> int:
    return await double(number)


def opened(handle: Handle[Any]) -> t.FanOutOpened:
    (found,) = of(handle, t.FanOutOpened)
    return found


def fates(events: list[Any], of_map: t.FanOutOpened) -> dict[str, list[int]]:
    """Places of the items by what has become of them, from the log alone."""
    fate = dict.fromkeys(range(of_map.count), "never begun") | dict.fromkeys(of_map.skipped, "skipped")
    for event in events:
        number = getattr(event, "step", getattr(event, "child", 0)) - of_map.fan_out - 1
        if not 0 <= number < of_map.count:
            continue
        if isinstance(event, t.StepScheduled | t.ChildStarted):
            assert event.fan_out == of_map.fan_out
            assert event.item == number
            assert fate[number] == "never begun", f"item {number} began twice"
            fate[number] = "running"
        elif isinstance(event, t.StepCompleted | t.StepFailed | t.StepCancelled | t.ChildEnded):
            assert fate[number] == "running", f"item {number} ended twice"
            fate[number] = getattr(event, "status", event.TAG.rpartition(".")[2])
    places: dict[str, list[int]] = {}
    for place, what in fate.items():
        places.setdefault(what, []).append(place)
    return places


class Desk:
    """Steps that end when, and as, the test says."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.undone: list[str] = []
        self.answers: dict[str, asyncio.Future[str]] = {}

        @step
        async def work(name: str) -> str:
            self.begun.append(name)
            return await self.answers.setdefault(name, asyncio.get_running_loop().create_future())

        @step
        async def undo(name: str) -> None:
            self.undone.append(name)

        self.work, self.undo = work, undo

    async def end(self, name: str, *, fails: bool = False) -> None:
        await until(lambda: name in self.begun)
        if fails:
            self.answers[name].set_exception(ValueError(name))
        else:
            self.answers[name].set_result(name.upper())


def ends(handle: Any) -> dict[str, str]:
    """How each step came to its end, by its name's argument."""
    names = {e.step: bytes(e.args).decode().strip('[]"') for e in of(handle, t.StepScheduled)}
    found = dict.fromkeys(names.values(), "open")
    events: list[Any] = of(handle, t.StepCompleted, t.StepFailed, t.StepCancelled)
    for event in events:
        found[names[event.step]] = event.TAG.removeprefix("step.")
    return found
