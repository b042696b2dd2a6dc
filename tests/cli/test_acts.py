"""Commands that say something to a run: what they do, what they tell, what they refuse."""

import asyncio
import json
import os
from pathlib import Path

import pytest

from refold import Context, RunFailed, step, workflow
from refold.events import types as t
from tests.cli.door import Door
from tests.engine.kit import of, seen, until, waiting

pytestmark = pytest.mark.anyio

ACTS = [
    ["signal", "r", "go"], ["approve", "r"], ["reject", "r"], ["answer", "r", "1"], ["cancel", "r"],
    ["pause", "r"], ["resume", "r"], ["resume", "--workflow", "w"], ["terminate", "r"], ["skip", "r", "s#1"],
    ["reset", "r", "s#1"], ["resolve", "r", "s#1", "retry"], ["retry", "r"], ["compensate", "r"],
    ["fork", "r"], ["why", "r"],
]  # fmt: skip

done: list[str] = []
broken = True


@step
async def weigh(parcel: str) -> int:
    done.append("weigh")
    return len(done)


@step
async def unload(parcel: str) -> None:
    done.append("unload")


@step(compensate=unload)
async def load(parcel: str) -> str:
    done.append("load")
    return "loaded"


@step
async def label(parcel: str) -> str:
    await asyncio.Event().wait()
    return "never by itself"


@step
async def charge(parcel: str) -> str:
    if broken:
        raise ConnectionError("card declined")
    return "receipt"


@workflow
async def ship(ctx: Context, parcel: str) -> list[object]:
    weight = await weigh(parcel)
    return [weight, await ctx.wait_for_event("courier")]


@workflow
async def labels(ctx: Context, parcel: str) -> list[object]:
    return [await weigh(parcel), await label(parcel)]


@workflow(compensate_on=())
async def pays(ctx: Context, parcel: str) -> str:
    await load(parcel)
    return await charge(parcel)


@workflow
async def asks(ctx: Context, parcel: str) -> list[object]:
    decision, answer = await asyncio.gather(
        ctx.approval("Ship?", options=["fast", "slow"], voters=["ana", "ben"], approvers=2, name="ship"),
        ctx.wait_for_input(int, prompt="How many?"),
    )
    return [*decision.selections, answer]


@workflow
async def twice(ctx: Context) -> None:
    await asyncio.gather(ctx.approval("This?"), ctx.approval("That?"))


@workflow
async def moves(ctx: Context, times: int) -> str:
    if times:
        ctx.continue_as_new(times - 1)
    return str(await ctx.wait_for_event("courier"))


@workflow
async def above(ctx: Context) -> str:
    return str(await ctx.child(moves, 1))


@workflow
async def family(ctx: Context) -> None:
    await ctx.child(asks, "p")


@pytest.fixture(autouse=True)
def fresh() -> None:
    global broken
    done.clear()
    broken = True


# ---- with a process that executes -----------------------------------------------------------------------


async def test_votes_and_answers_reach_a_run_and_say_what_is_still_missing(door: Door) -> None:
    async with door.engine(asks) as e:
        handle = await e.start(asks, "p", id="p1")
        await waiting(e, "p1")
        said = await door.beside("approve", "p1", "--by", "ana", "--select", "fast", "--feedback", "fine")
        assert "the approval of ana at ship#1 is stored for run p1" in said
        assert "ship#1 needs 1 more approval of ben" in said
        assert "'ana' has voted already" in await door.beside("approve", "p1", "--by", "ana", code=3)
        assert "does not fit" in await door.beside("answer", "p1", '"four"', "--by", "eve", code=3)
        await door.beside("answer", "p1", "4")
        await door.beside("approve", "p1", "--gate", "ship", "--by", "ben", "--select", "slow")
        assert await handle.result() == ["slow", 4]
        (first, *_) = of(handle, t.GateVoted)
        assert (first.by, first.selections, first.feedback) == ("ana", ("fast",), "fine")


async def test_a_rejection_closes_the_gate(door: Door) -> None:
    async with door.engine(asks) as e:
        handle = await e.start(asks, "p", id="p1")
        await waiting(e, "p1")
        await door.beside("reject", "p1", "--by", "ben", "--feedback", "too early")
        with pytest.raises(RunFailed, match="too early"):
            await handle.result()


async def test_a_vote_for_the_parent_is_told_of_the_child_that_waits_for_it(door: Door) -> None:
    async with door.engine(family) as e:
        await e.start(family, id="p1")
        await until(lambda: (found := e.store.work("p1~1")) is not None and found.state == "waiting")
        assert "refold approve p1~1" in await door.beside("approve", "p1", "--by", "ana", code=3)
        said = await door.beside("approve", "p1~1", "--by", "ana")
        assert "the approval of ana at ship#1 is stored for run p1~1" in said


async def test_of_two_open_gates_the_one_that_is_meant_must_be_named(door: Door) -> None:
    async with door.engine(twice) as e:
        handle = await e.start(twice, id="p1")
        await waiting(e, "p1")
        refused = await door.beside("approve", "p1", code=3)
        assert "approval#1" in refused
        assert "approval#2" in refused
        await door.beside("approve", "p1", "--gate", "approval#2")
        await seen(handle, t.GateVoted)
        assert [vote.gate for vote in of(handle, t.GateVoted)] == [2]


async def test_what_is_said_to_a_run_reaches_the_one_that_it_went_on_as(door: Door) -> None:
    async with door.engine(above, moves) as e:
        handle = await e.start(above, id="p1")
        await until(lambda: (work := e.store.work("p1~1~r2")) is not None and work.state == "waiting")
        said = door("why", "p1")
        assert "went on as another run" not in said
        assert "which waits for the event courier" in said
        assert "stored for run p1~1~r2" in await door.beside(
            "signal", "p1~1", "courier", "--payload", '"bike"'
        )
        assert await handle.result() == "bike"


async def test_pause_resume_and_terminate_tell_how_the_run_stands_now(door: Door) -> None:
    async with door.engine(ship) as e:
        handle = await e.start(ship, "p", id="p1")
        await waiting(e, "p1")
        said = await door.beside("pause", "p1", "--reason", "stocktaking", "--by", "ana")
        assert said.splitlines()[0].endswith("run p1 is held: nothing new begins until it is resumed")
        assert "now: p1 is paused" in said
        assert "is paused already" in await door.beside("pause", "p1", code=3)
        assert "is no longer paused" in await door.beside("resume", "p1")
        assert "not paused: there is nothing to resume" in await door.beside("resume", "p1", code=3)
        assert "now: p1 was terminated at" in await door.beside("terminate", "p1", "--reason", "enough")
        assert of(handle, t.RunPaused)[0].reason == "stocktaking"
        assert "nothing can be sent to it" in await door.beside("pause", "p1", code=3)


async def test_a_step_is_reset_and_another_one_skipped(door: Door) -> None:
    async with door.engine(labels) as e:
        handle = await e.start(labels, "p", id="p1")
        await seen(handle, t.StepStarted, 2)
        assert "has not ended (running)" in await door.beside("reset", "p1", "label#1", code=3)
        assert "no step 'x#1'; its steps: weigh#1" in await door.beside("reset", "p1", "x#1", code=3)
        assert "runs it again" in await door.beside("reset", "p1", "weigh#1", "--reason", "wrong scales")
        await seen(handle, t.StepStarted, 4)
        assert "open steps: label#2" in await door.beside("skip", "p1", "label#1", code=3)
        assert "not in doubt (running)" in await door.beside("resolve", "p1", "label#2", "retry", code=3)
        refused = await door.beside("skip", "p1", "label#2", "--result", "7", code=3)
        assert "label#2" in refused  # its own process refuses what is no text, and the command says so
        assert "Expected `str`, got `int`" in refused
        await door.beside("skip", "p1", "label#2", "--result", '"by hand"')
        assert await handle.result() == [2, "by hand"]


async def test_a_failed_run_is_retried_forked_and_undone(door: Door) -> None:
    global broken
    async with door.engine(pays) as e:
        handle = await e.start(pays, "p", id="p1")
        with pytest.raises(RunFailed):
            await handle.result()
        broken = False
        assert "run f1 is made, with the past of p1" in await door.beside("fork", "p1", "--id", "f1")
        assert await (await e.get("f1")).result() == "receipt"
        said = await door.beside("resume", "--workflow", "pays", "--reason", "card replaced", "--by", "ana")
        assert "run p1 is brought back from what failed" in said
        assert await handle.result() == "receipt"
        assert [(r.by, r.reason) for r in of(handle, t.RunRewound)] == [("ana", "card replaced")]
        assert "only runs that are failed" in await door.beside("retry", "p1", code=3)
        assert "is to undo what it did" in await door.beside("compensate", "p1")
        await seen(handle, t.RunCompensated)
    assert done == ["load", "unload"]


# ---- without any ------------------------------------------------------------------------------------------


async def store_with_runs(door: Door) -> None:
    async with door.engine(ship, asks) as e:
        for run in ("p1", "p2"):
            await e.start(ship, "p", id=run)
            await waiting(e, run)
        await e.start(asks, "p", id="a1")
        await waiting(e, "a1")


async def test_what_is_said_while_nobody_executes_waits_for_a_process(door: Door) -> None:
    await store_with_runs(door)
    said = await door.beside("pause", "p1")
    first, second, command = said.splitlines()
    assert first.endswith("the request to pause run p1 is stored")
    assert second == "  no process executes this store now: the run takes it when one does, started with"
    assert command.strip() == f"refold run FILE.py:ship --id p1 --store {door.path}"
    assert "is paused already" in await door.beside("pause", "p1", code=3)  # it will be
    await door.beside("resume", "p1")
    assert "nothing to resume" in await door.beside("resume", "p1", code=3)
    await door.beside("signal", "p2", "courier", "--payload", '"Bo"')
    async with door.engine(ship, asks) as e:
        assert await (await e.get("p2")).result() == [2, "Bo"]
        handle = await e.get("p1")
        await seen(handle, t.RunResumed)
        assert [event.by.partition(":")[0] for event in of(handle, t.RunPaused)] == ["user"]


async def test_neither_its_code_nor_a_process_is_needed_to_bring_a_run_back(door: Door) -> None:
    global broken
    async with door.engine(pays) as e:
        for run in ("p1", "p2"):
            with pytest.raises(RunFailed):
                await (await e.start(pays, "p", id=run)).result()
    said = await door.beside("retry", "p1", "--reason", "card replaced")
    assert "run p1 is brought back, from what it ended on" in said
    assert "no process executes this store now: it goes on when one does" in said
    assert "has not ended" in await door.beside("retry", "p1", code=3)
    assert "from the beginning" in await door.beside("retry", "p2", "--discard")
    await door.beside("fork", "p1", "--at", "1", "--id", "f1")
    assert done == ["load", "load"]
    broken = False
    async with door.engine(pays) as e:
        for run in ("p1", "p2", "f1"):
            assert await (await e.get(run)).result() == "receipt"
    assert done == ["load"] * 4  # p1 kept what it had, p2 and f1 began anew


async def test_json_says_whether_the_run_has_it_and_who_executes(door: Door) -> None:
    await store_with_runs(door)
    told = json.loads(await door.beside("pause", "p1", "--reason", "later", "--by", "ana", "--json"))
    assert told == {
        "run": "p1", "act": "pause", "reason": "later", "by": "ana", "stored": True, "status": "waiting",
        "taken": False, "executor": None,
    }  # fmt: skip
    async with door.engine(ship, asks):
        told = json.loads(await door.beside("approve", "a1", "--by", "ana", "--json"))
        assert (told["taken"], told["gate"], told["executor"]["pid"]) == (True, "ship#1", os.getpid())


MISTAKES = [
    (["approve", "x"], 3, "no run 'x' in this store"),
    (["terminate", "a1/inbox"], 3, "no run 'a1/inbox'"),
    (["approve", "p1"], 3, "no gate is open"),
    (["approve", "a1", "--gate", "legal"], 3, "has no gate 'legal'; open gates: ship#1, input#1"),
    (["approve", "a1", "--by", "eve"], 3, "'eve' may not vote; these may: ana, ben"),
    (["approve", "a1", "--by", "ana", "--select", "dear"], 3, "'dear' is not offered; offered: fast, slow"),
    (["reject", "a1", "--by", "ana", "--digest", "0"], 3, "what the voter was shown is not what"),
    (["answer", "a1", "four"], 2, "quotes of its own"),
    (["answer", "a1", '"four"'], 3, "the answer does not fit"),
    (["answer", "a1", "4", "--gate", "ship"], 3, "it asks for approve or reject, not answer"),
    (["skip", "p1", "weigh#1"], 3, "has no open step 'weigh#1'; open steps: none"),
    (["skip", "p1", "weigh#1", "--result", "{"], 2, "--result: not JSON"),
    (["resolve", "p1", "weigh#1", "retry"], 3, "open steps: none"),
    (["resume", "p1"], 3, "not paused: there is nothing to resume"),
    (["resume"], 2, "expected a run's id, or --workflow"),
    (["resume", "p1", "--workflow", "ship"], 2, "expected a run's id, or --workflow"),
    (["resume", "--workflow", "ship"], 3, "has 0 runs to resume (none)"),
    (["retry", "p1"], 3, "has not ended"),
    (["fork", "p1", "--id", "p2"], 2, "'p2' is taken"),
    (["fork", "p1", "--at", "9999"], 3, "9999"),
    (["signal", "p1", ""], 2, "event name"),
    (["pause", "p1", "--by", ""], 0, ""),
]


async def test_every_mistake_is_one_line_with_what_was_expected(door: Door) -> None:
    await store_with_runs(door)
    for args, code, words in MISTAKES:
        assert words in await door.beside(*args, code=code), args


@pytest.mark.parametrize("command", ACTS, ids=" ".join)
def test_no_command_makes_a_store(door: Door, command: list[str]) -> None:
    assert "no store at" in door(*command, code=3)
    assert not list(Path(door.path).parent.iterdir())
