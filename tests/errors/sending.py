"""Runs that are not found, have ended or take no more; gates that do not admit a vote."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any
from unittest import mock

from refold import Context, Engine, Handle, Retry, step, workflow
from refold.engine import acts, locks, talking
from refold.events.memory import MemoryStore
from refold.triggers import Trigger
from tests.engine.kit import HandClock, engine, until, waiting
from tests.errors.cases import meets

Ask = Callable[[Engine, Handle[Any]], Awaitable[object]]


@step
async def pay(amount: int) -> str:
    return "receipt"


@step(retry=Retry(max_attempts=2, initial_interval=1000.0))
async def declined(amount: int) -> int:
    raise ValueError("card declined")


@workflow
async def waits(ctx: Context) -> None:
    await pay(1)
    await ctx.wait_for_event("never")


@workflow
async def tries(ctx: Context) -> None:
    await declined(1)


@workflow
async def one(ctx: Context, n: int = 1) -> int:
    return n


@workflow
async def asks(ctx: Context) -> Any:
    return await ctx.approval("Ship?", voters=["ana", "bo"], options=["blue"], shown={"price": 3})


@workflow
async def asks_two(ctx: Context) -> Any:
    return await ctx.approval("Ship?", approvers=2)


@workflow
async def asks_others(ctx: Context) -> Any:
    return await ctx.approval("Ship?", self_approval=False)


@workflow
async def asks_twice(ctx: Context) -> Any:
    return await asyncio.gather(ctx.approval("One?"), ctx.approval("Two?"))


@workflow
async def asks_in_time(ctx: Context) -> Any:
    return await ctx.approval("Ship?", timeout=60, on_timeout="continue")


@workflow
async def asks_for_a_number(ctx: Context) -> int:
    number: int = await ctx.wait_for_input(int, name="size")
    return number


FLOWS = (waits, tries, one, asks, asks_two, asks_others, asks_twice, asks_in_time, asks_for_a_number)


async def asked(flow: Any, *what: Ask) -> None:
    """Ask this of a run of the workflow that waits; all but the last is done before."""
    async with engine("memory://", *FLOWS) as e:
        run = await e.start(flow, id="r", by="eve")
        await waiting(e, "r")
        for ask in what:
            await ask(e, run)


OF_A_RUN: dict[tuple[str, str], tuple[Any, ...]] = {
    ("RunNotFound", "no run … in this store; `refold runs` lists them"): (waits, lambda e, run: e.get("q")),
    ("RunNotFound", "a run is found by its id, which is text, not by …"): (
        waits,
        lambda e, run: e.pause(run),
    ),
    ("RunEnded", "run … is …: nothing can be sent to it any more; …"): (
        waits,
        lambda e, run: run.cancel(),
        lambda e, run: until(lambda: e.store.work("r").state == "done"),
        lambda e, run: run.signal("paid"),
    ),
    ("StartConflict", "run … exists: …"): (waits, lambda e, run: e.start(one, 2, id="r")),
    ("StartConflict", "start key … belongs to …"): (
        waits,
        lambda e, run: e.start(one, 1, key="k"),
        lambda e, run: e.start(one, 2, key="k"),
    ),
    ("Locked", "lock … is held by run … since …"): (
        waits,
        lambda e, run: e.start(one, 1, lock="k"),
        lambda e, run: e.start(waits, id="s", lock="k"),
        lambda e, run: e.start(one, 1, lock="k"),
    ),
    ("ConfigurationError", "start(start_at=…): expected a datetime with a time zone, …"): (
        waits,
        lambda e, run: e.start(one, 1, start_at=datetime(2030, 1, 1)),
    ),
    ("ConfigurationError", "start(delay=…): expected seconds from now, …"): (
        waits,
        lambda e, run: e.start(one, 1, delay=-1),
    ),
    ("ConfigurationError", "trigger of a schedule: …"): (
        waits,
        lambda e, run: e.start(one, 1, trigger=Trigger.schedule("nightly", datetime(2026, 1, 1))),
    ),
    ("ConfigurationError", "start() expects a @workflow, got …"): (waits, lambda e, run: e.start("waits")),
    ("ConfigurationError", "start(…, …): …; the handler takes …"): (waits, lambda e, run: e.start(one, 1, 2)),
    ("ConfigurationError", "start(timeout=…): expected seconds, …"): (
        waits,
        lambda e, run: e.start(one, 1, timeout=0),
    ),
    ("ConfigurationError", "run id …: expected no '/', …"): (waits, lambda e, run: e.start(one, id="a/b")),
    ("ConfigurationError", "run id …: ids that end so …"): (waits, lambda e, run: e.start(one, id="a~1")),
    ("ConfigurationError", "run id … is taken: …"): (waits, lambda e, run: e.fork("r", id="r")),
    ("ConfigurationError", "set_attributes(…): expected …"): (
        waits,
        lambda e, run: e.set_attributes("r", ["vip"]),
    ),
    ("ConfigurationError", "… is no act; expected one of …"): (
        waits,
        lambda e, run: e._act("r", "tickle", "eve"),
    ),
    ("ActRefused", "run … is paused already: …"): (
        waits,
        lambda e, run: e.pause("r"),
        lambda e, run: e.pause("r"),
    ),
    ("ActRefused", "run … has no open step …"): (waits, lambda e, run: e.skip_step("r", "pay#7")),
    ("ActRefused", "run …: step … is not in doubt …"): (
        tries,
        lambda e, run: e.resolve_step("r", "declined#1", "completed", 3),
    ),
    ("ActRefused", "result for step … does not fit …"): (
        tries,
        lambda e, run: e.skip_step("r", "declined#1", "x"),
    ),
    ("ActRefused", "run … has no step …; its last steps: …"): (
        waits,
        lambda e, run: e.reset_step("r", "pay#7"),
    ),
    ("ActRefused", "run …: step … has not ended; …"): (tries, lambda e, run: e.reset_step("r", "declined#1")),
    ("ActRefused", "run … is paused: resume it, then …"): (
        waits,
        lambda e, run: e.pause("r"),
        lambda e, run: e.reset_step("r", "pay#1"),
    ),
    ("VoteRefused", "run …: no gate is open"): (waits, lambda e, run: e.approve("r")),
    ("VoteRefused", "run …: several gates are open, say which: …"): (
        asks_twice,
        lambda e, run: e.approve("r"),
    ),
    ("VoteRefused", "run … has no gate …; open gates: …"): (
        asks,
        lambda e, run: e.approve("r", "approval#7"),
    ),
    ("VoteRefused", "run … gate …: it is closed: …"): (
        asks_twice,
        lambda e, run: e.approve("r", "approval#1"),
        lambda e, run: e.approve("r", "approval#1"),
    ),
    ("VoteRefused", "run … gate …: it asks for …, not …"): (asks, lambda e, run: e.answer("r", 3, by="ana")),
    ("VoteRefused", "run … gate …: … may not vote; these may: …"): (
        asks,
        lambda e, run: e.approve("r", by="cy"),
    ),
    ("VoteRefused", "run … gate …: … asked for it and may not …"): (
        asks_others,
        lambda e, run: e.approve("r", by="eve"),
    ),
    ("VoteRefused", "run … gate …: … has voted already"): (
        asks_two,
        lambda e, run: e.approve("r", by="ana"),
        lambda e, run: e.approve("r", by="ana"),
    ),
    ("VoteRefused", "run … gate …: … is not offered; offered: …"): (
        asks,
        lambda e, run: e.approve("r", by="ana", selections=["red"]),
    ),
    ("VoteRefused", "run … gate …: what the voter was shown …"): (
        asks,
        lambda e, run: e.approve("r", by="ana", digest="0" * 64),
    ),
    ("VoteRefused", "run … gate …: the answer does not fit at …"): (
        asks_for_a_number,
        lambda e, run: e.answer("r", "large"),
    ),
}
for (_kind, _message), _asked in OF_A_RUN.items():
    meets(_kind, _message)(lambda folder, of=_asked: asked(*of))


@meets("ActRefused", "run … is not paused: there is nothing to resume")
async def resume_what_runs(folder: Path) -> None:
    async with engine("memory://", waits) as e:
        await e.start(waits, id="r")
        await waiting(e, "r")
        live = e.worker.live["r"]
        acts.act(live, acts.request_of("resume", live.head()))


@meets("ActRefused", "run …: … is no act; expected one of …")
async def an_act_of_a_newer_refold(folder: Path) -> None:
    async with engine("memory://", waits) as e:
        await e.start(waits, id="r")
        await waiting(e, "r")
        live = e.worker.live["r"]
        request = acts.request_of("pause", live.head())
        with mock.patch.object(acts, "_ACTS", {}, create=True), mock.patch.object(acts, "VERBS", ()):
            acts.act(live, request)


@meets("ActRefused", "resolve(…): expected 'completed', …")
async def an_outcome_that_is_none(folder: Path) -> None:
    @step(execution="at_most_once")
    async def wire() -> None:
        await asyncio.get_running_loop().create_future()

    @workflow
    async def transfers(ctx: Context) -> None:
        await wire()

    store = MemoryStore()
    async with engine(store, transfers, grace=0) as e:
        run = await e.start(transfers, id="r")
        await until(lambda: any(event.TAG == "step.started" for event in run.events()))  # type: ignore[union-attr]
    async with engine(store, transfers) as e:
        run = await e.get("r")
        await until(lambda: any(event.TAG == "step.in_doubt" for event in run.events()))  # type: ignore[union-attr]
        await e.resolve_step("r", "wire#1", "perhaps")


@meets("VoteRefused", "run … gate …: its deadline has passed (…)")
async def a_vote_after_the_deadline(folder: Path) -> None:
    store, clock = MemoryStore(), HandClock()
    async with engine(store, asks_in_time, clock=clock) as e:
        await e.start(asks_in_time, id="r")
        await waiting(e, "r")
    clock.move(3600)
    async with engine(store, execute=False, clock=clock) as outside:
        await outside.approve("r")


@meets("VoteRefused", "run …: others write to its inbox all the time; try again")
async def an_inbox_that_never_rests(folder: Path) -> None:
    with mock.patch.object(talking, "TRIES", 0):
        await asked(asks, lambda e, run: e.approve("r", by="ana"))


@meets("InboxFull", "run … has … messages that it has not received yet, …")
async def more_than_anybody_takes(folder: Path) -> None:
    store = MemoryStore()
    async with engine(store, waits, execute=False, max_inbox=2) as outside:
        run = await outside.start(waits, id="r")
        for _ in range(3):
            await run.signal("paid")


@meets("ConfigurationError", "export: expected one of …, found …")
async def an_unknown_format(folder: Path) -> None:
    async with engine("memory://", waits) as e:
        list(e.export(format="pdf"))


@meets("StoreBusy", "lock …: others ask for it all the time; …")
async def others_ask_for_the_same_lock(folder: Path) -> None:
    async with engine("memory://", *FLOWS) as e:
        with mock.patch.object(locks, "TRIES", 0):
            await e.start(one, 1, lock="k")
