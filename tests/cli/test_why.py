"""`refold why` says what a run waits for, whatever it is, and never fails at any point of any history."""

import asyncio
import os
import shlex
from datetime import timedelta
from pathlib import Path

import pytest

from refold import Context, Engine, Retry, step, workflow
from refold.cli.parser import build
from refold.events import types as t
from refold.events.hold import Holder
from refold.events.stream import Row
from refold.projections.why import ORDER, stand
from refold.projections.why_words import tell
from tests.cli.door import Door
from tests.cli.shell import Shell
from tests.engine.doubtful import in_doubt
from tests.engine.kit import seen, until, waiting
from tests.replay import golden

pytestmark = pytest.mark.anyio

PARSER = build()
SELF = os.getpid()
SOMEBODY = Holder("shop:7:ab", 7, "shop", "2025-06-15T15:00:00+00:00")


@pytest.mark.parametrize("path", sorted(golden.FOLDER.glob("*.jsonl")), ids=lambda path: path.stem)
def test_something_is_said_at_every_point_of_every_history(path: Path) -> None:
    _, history = golden.read(path)
    rows = [Row(history.run_id, n, tag, state, b"", n) for n, (tag, state) in enumerate(history.rows, 1)]
    commands: set[tuple[str, ...]] = set()
    for length in [*range(1, len(rows), 3), len(rows)]:
        standing = stand(rows[:length])
        assert standing.over == (standing.status not in ALIVE)
        assert standing.waits or standing.status != "waiting"
        assert {wait.type for wait in standing.waits} <= set(ORDER)
        for executor in (None, SOMEBODY):
            told = tell(standing, standing.last_at + timedelta(seconds=length), executor)
            assert len(told) >= 2
            assert all(said.text for said in told)
            commands |= {tuple(words) for said in told for words in said.commands}
    for words in commands:
        assert PARSER.parse_args(words[1:]).command == words[1]


ALIVE = ("pending", "running", "waiting", "paused", "compensating")


# ---- one run with everything ------------------------------------------------------------------------------


@step(retry=Retry(max_attempts=5, initial_interval=600, jitter=0))
async def flaky() -> None:
    raise ConnectionError("no answer")


@step
async def slow() -> None:
    await asyncio.Event().wait()


@workflow
async def child(ctx: Context) -> None:
    await ctx.wait_for_event("go")


@workflow(timeout=9_000)
async def everything(ctx: Context) -> None:
    await asyncio.gather(
        ctx.approval("Ship?", voters=["ana", "ben", "cem"], approvers=2, timeout=300, options=["air", "sea"]),
        ctx.wait_for_input(int, prompt="How many?", name="number"),
        ctx.wait_for_event("paid"),
        ctx.child(child),
        ctx.sleep(800),
        flaky(),
        slow(),
    )


async def test_each_thing_that_a_run_waits_for_is_named_with_what_would_move_it(door: Door) -> None:
    async with door.engine(everything, child, grace=0) as e:
        handle = await e.start(everything, id="r", by="user:eve")
        await seen(handle, t.StepAttemptFailed)
        await e.approve("r", "approval", by="ben")
        text = door("why", "r")
        lines = [line.strip() for line in text.splitlines()]
        for words in (
            "r is running: workflow everything version 1, started",
            'approval#1 asks "Ship?" and needs 1 more approval of ana or cem, since',
            "it counts as rejected, unless it is escalated",
            'number#1 asks "How many?" and needs an answer, since',
            "it waits for the event paid, since",
            ", which waits for the event go",
            "it waits for its child r~1 (child), since",
            "step flaky#1 failed (attempt 1 of 5: ConnectionError: no answer) and is tried again at",
            "step slow#1 is running (attempt 1), since",
            "a sleep or a deadline ends at",
            f"process {SELF} on ",
            "next, at",
            ": step flaky#1 is tried again",
        ):
            assert words in text
        assert text.count("a sleep or a deadline ends at") == 1  # the gate's deadline is told with the gate
        for command in (
            "refold approve r --gate 'approval#1' --select air --by ana",
            "refold answer r JSON --gate 'number#1'",
            "refold signal r paid --payload JSON",
            "refold why 'r~1'",
            "refold skip r 'flaky#1' --result JSON",
        ):
            assert f"{command} --store {door.path}" in lines
    said = door("why", "r")
    assert said.startswith("r has stopped in the middle")
    assert "step slow#1 was cut off in attempt 1, since" in said
    assert f"no process executes the store now; process {SELF} on " in said
    assert f"refold run FILE.py:everything --id r --store {door.path}" in said


# ---- one run for each thing -------------------------------------------------------------------------------


@workflow
async def sleeps(ctx: Context) -> None:
    await ctx.sleep(800)


@step(on_unknown="ask")
async def pay() -> str:
    paying.append(1)
    await asyncio.Event().wait()
    return "never"


paying: list[int] = []


@workflow
async def pays(ctx: Context) -> str:
    return await pay()


@workflow
async def patient(ctx: Context) -> None:
    try:
        await ctx.wait_for_event("go")
    finally:
        await ctx.wait_for_event("cleaned up")


async def test_a_sleep(door: Door) -> None:
    async with door.engine(sleeps) as e:
        await e.start(sleeps, id="r")
        await waiting(e, "r")
        said = door("why", "r")
    assert "it sleeps until" in said
    assert "(in 13 min" in said


async def test_a_step_in_doubt_and_the_three_ways_out(door: Door) -> None:
    async with door.engine(pays, grace=0) as e:
        await e.start(pays, id="r")
        await until(lambda: paying)
    async with door.engine(pays) as e:
        await in_doubt(e)
        said = door("why", "r")
        assert "step pay#1 is in doubt, since" in said
        for outcome in ("completed --result JSON", "failed --reason TEXT", "retry"):
            assert f"refold resolve r 'pay#1' {outcome} --store" in said
        await door.beside("resolve", "r", "pay#1", "completed", "--result", '"receipt"')
        assert await (await e.get("r")).result() == "receipt"


async def test_a_pause_and_what_is_held(door: Door) -> None:
    async with door.engine(patient) as e:
        handle = await e.start(patient, id="r")
        await waiting(e, "r")
        await e.pause("r", "stocktaking", by="user:ana")
        await door.beside("signal", "r", "go")
        await seen(handle, t.CauseHeld)
        said = door("why", "r")
    assert said.startswith("r is paused, since")
    assert "in its inbox" not in said  # it has been received, though it is held
    assert "paused by user:ana (stocktaking), since" in said
    assert "1 thing that came meanwhile is held" in said
    assert f"refold resume r --store {door.path}" in said


async def test_a_step_that_ended_while_its_run_was_paused(door: Door) -> None:
    ended = asyncio.Event()

    @step
    async def load() -> None:
        await ended.wait()

    @workflow
    async def loads(ctx: Context) -> None:
        await load()

    async with door.engine(loads) as e:
        handle = await e.start(loads, id="r")
        await seen(handle, t.StepStarted)
        await e.pause("r", by="user:ana")
        ended.set()
        await seen(handle, t.CauseHeld)
        assert "step load#1 has ended; that is held until the run is resumed" in door("why", "r")


async def test_a_request_to_stop_a_handler_that_cleans_up(door: Door) -> None:
    async with door.engine(patient) as e:
        handle = await e.start(patient, id="r")
        await waiting(e, "r")
        await e.cancel("r", "customer called", by="user:ana")
        await seen(handle, t.WaitOpened, 2)
        said = door("why", "r")
    assert "asked to stop by user:ana (customer called), since" in said
    assert "it waits for the event cleaned up" in said


async def test_a_run_without_code_and_what_waits_in_its_inbox(door: Door) -> None:
    async with door.engine(execute=False) as e:
        await e.start(patient, id="r", by="user:ana")
        assert door("why", "r").startswith("r has not begun: workflow patient version 1, started")
    async with door.engine(sleeps) as e:
        await until(lambda: "r" in e.worker.blocked)
        await e.signal("r", "go", by="user:ben")
        said = door("why", "r")
        assert "it cannot go on by itself: no worker, since" in said
        assert "workflow 'patient' version '1' is not registered" in said
        assert "1 message in its inbox, not received yet (event go by user:ben), since" in said
        assert f"refold terminate r --store {door.path}" in said


# ---- ends -------------------------------------------------------------------------------------------------


@step(retry=Retry(max_attempts=3, initial_interval=0.001))
async def refuse() -> None:
    raise ValueError("no")


@step
async def give_back(result: str) -> None:
    raise ConnectionError("nobody there")


@step(compensate=give_back)
async def take() -> str:
    return "taken"


@workflow(recursive=True)
async def fails(ctx: Context, how: str) -> None:
    if how == "step":
        await refuse()
    elif how == "handler":
        await plain()
        raise KeyError("price")
    elif how == "child":
        await ctx.child(fails, "step")
    elif how == "gate":
        await ctx.approval("Ship?")
    elif how == "undo":
        await take()
        raise KeyError("price")
    elif how == "as new":
        ctx.continue_as_new("step")
    else:
        await ctx.wait_for_event("go")


@step
async def plain() -> str:
    return "taken"


ENDS = {
    "step": [
        "has failed at",
        "because step refuse#1 failed 3 times, the last time with: ValueError: no",
        "refold retry r",
    ],
    "handler": [
        "because its handler raised KeyError",
        "after step plain#1 was completed",
        "refold retry r",
    ],
    "child": ["after its child r~1 ended at", "as failed: StepFailed", "refold why 'r~1'", "refold retry r"],
    "undo": [
        "was undone in part at",
        "it was undone because it had failed",
        "step take#1 is not undone: its undo failed: ConnectionError: nobody there",
        "refold retry r",
    ],
    "as new": ["went on as another run at", "it goes on as r", "refold why"],
}


def ended(e: Engine, run: str) -> bool:
    work = e.store.work(run)
    return work is not None and work.state == "done"


@pytest.mark.parametrize("how", ENDS)
async def test_why_it_ended(door: Door, how: str) -> None:
    async with door.engine(fails) as e:
        handle = await e.start(fails, how, id="r")
        await until(lambda: ended(e, "r"))
        assert handle.id == "r"
        said = door("why", "r")
    for words in ENDS[how]:
        assert words in said


async def test_who_ended_it(door: Door) -> None:
    async with door.engine(fails) as e:
        for run, how in (("c", ""), ("t", ""), ("g", "gate"), ("l", "")):
            await e.start(fails, how, id=run, timeout=0.05 if run == "l" else None)
            await waiting(e, run)
        await e.cancel("c", "customer called", by="user:ana")
        await e.terminate("t", "runaway", by="user:ben")
        await e.reject("g", by="user:cem", feedback="too dear")
        await until(lambda: all(ended(e, run) for run in "ctgl"))
    assert "because user:ana asked it to stop at" in door("why", "c")
    assert "customer called" in door("why", "c")
    assert "because user:ben terminated it: runaway" in door("why", "t")
    assert "after user:cem rejected approval#1 at" in (gate := door("why", "g"))
    assert "too dear" in gate
    assert "because the time for the run as a whole was up" in door("why", "l")
    for run in "ctgl":
        assert f"refold retry {run} --store {door.path}" in door("why", run)


async def test_json_has_the_same_as_data(door: Door) -> None:
    async with door.engine(fails) as e:
        await (await e.start(fails, "", id="r")).signal("x")
        await waiting(e, "r")
        found = door.json("why", "r")
    (wait,) = found["waits"]
    assert (wait["type"], wait["name"]) == ("event", "go")
    assert found["status"] == "waiting"
    assert found["executor"]["pid"] == SELF
    assert found["said"][0].startswith("r waits, since")
    (command,) = found["commands"]
    assert command == ["refold", "signal", "r", "go", "--payload", "JSON", "--store", door.path]
    assert shlex.join(command) in door("why", "r")


def test_a_run_or_a_store_that_is_not_there(door: Door) -> None:
    assert "no store at" in door("why", "r", code=3)


# ---- what only processes show -----------------------------------------------------------------------------


def test_it_knows_a_process_that_was_killed_from_one_that_executes(shell: Shell) -> None:
    shell.slow_down()
    process = shell.start("run", "app.py:checkout", "--id", "o1", "--input", '[{"total": "1"}]')
    shell.until(shell.shipping, process)
    alive = shell("why", "o1")
    assert f"process {process.pid} on " in alive
    assert "step ship#1 is running (attempt 1), since" in alive
    process.kill()
    process.wait()
    gone = shell("why", "o1")
    note = (shell.folder / "refold.db.lock").read_text()
    assert str(process.pid) in note  # control: it is still there
    assert gone.startswith("o1 has stopped in the middle")
    assert "step ship#1 had begun (attempt 1, since" in gone
    assert "no process executes the store now" in gone
    assert "refold run app.py:checkout --id o1\n" in gone  # as the file is at hand, with its name


EVIL = "\x1b[2J\x1b]0;owned\x07\u202e"


@workflow
async def evil(ctx: Context) -> None:
    try:
        await ctx.approval(EVIL, options=[EVIL])
    finally:
        await ctx.approval(EVIL, name="again")


async def test_what_is_stored_cannot_steer_the_terminal(door: Door) -> None:
    async with door.engine(evil) as e:
        await e.start(evil, id="r")
        await waiting(e, "r")
        said = door("why", "r")
        await e.cancel("r", EVIL)
        await until(lambda: "again" in door("why", "r"))
        said += door("why", "r") + door("why", "r", "--json")
        await e.reject("r", feedback=EVIL)
        await until(lambda: ended(e, "r"))
        said += door("why", "r")
    assert all(character.isprintable() or character == "\n" for character in said)
    assert said.count("\\x1b[2J") > 4  # control: it is in there
