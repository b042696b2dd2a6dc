"""Gates and time: deadlines counted from the opening, escalation, votes that race, paused runs."""

import asyncio
import signal
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from refold import Context, RunEnded, RunFailed, workflow
from refold.engine.gates import Decision, OnTimeout, Stage
from refold.engine.worker import Worker
from refold.events import types as t
from refold.events.errors import GateRejected, GateTimedOut, VoteRefused
from tests.engine.children import child, lines_until
from tests.engine.kit import HandClock, Place, engine, of, seen, tags, waiting, work_agrees
from tests.engine.people import WAYS, asks_people, memory, voter

pytestmark = pytest.mark.anyio


@workflow
async def limited(ctx: Context, on_timeout: OnTimeout) -> str:
    try:
        decision = await ctx.approval("?", timeout=60, on_timeout=on_timeout)
    except GateRejected as rejected:
        return f"rejected by {rejected.by or 'nobody'}: {rejected.feedback}"
    except GateTimedOut as late:
        return f"late: {late}"
    return f"{decision.outcome}, approved: {decision.approved}, by {decision.by or 'nobody'}"


LATE = {
    "reject": "rejected by nobody: nobody decided in time",
    "fail": "late: gate approval#1: nobody decided in time",
    "approve": "approved, approved: True, by nobody",
    "continue": "timed_out, approved: False, by nobody",
}


@pytest.mark.parametrize("on_timeout", LATE)
async def test_a_gate_times_out_so_long_after_its_opening_whatever_restarts_there_were(
    on_timeout: OnTimeout, place: Place
) -> None:
    """A18."""
    clock = HandClock()
    for _ in range(3):
        async with engine(place, limited, clock=clock) as e:
            handle = await e.start(limited, on_timeout, id="r")
            await waiting(e, "r")
            assert "gate.closed" not in tags(handle)
        clock.move(19)
    async with engine(place, limited, clock=clock, memory_bytes=0) as e:
        handle = await e.get("r")
        clock.move(4)
        assert await handle.result() == LATE[on_timeout]
        (opened,), (closed,) = of(handle, t.GateOpened), of(handle, t.GateClosed)
        assert opened.due_at is not None
        assert (opened.due_at - opened.at).total_seconds() == 60
        assert closed.at >= opened.due_at
        assert (closed.outcome, closed.then) == ("timed_out", on_timeout)
        assert tags(handle).count("timer.fired") == 1
        assert work_agrees(e.store)
    async with engine(place, limited, clock=clock) as e:
        assert await (await e.get("r")).result() == LATE[on_timeout]


async def test_unhandled_a_timeout_is_the_runs_failure(place: Place) -> None:
    @workflow
    async def unhandled(ctx: Context) -> None:
        await ctx.approval("?", timeout=60, on_timeout="fail")

    clock = HandClock()
    async with engine(place, unhandled, clock=clock) as e:
        handle = await e.start(unhandled, id="r")
        await waiting(e, "r")
        clock.move(61)
        with pytest.raises(RunFailed, match="GateTimedOut: gate approval#1: nobody decided in time"):
            await handle.result()


@pytest.mark.parametrize("way", WAYS)
async def test_a_vote_in_time_takes_the_deadline_back(way: str, place: Place) -> None:
    clock = HandClock()
    async with engine(place, limited, clock=clock, **memory(way)) as e, voter(way, place, e) as door:
        handle = await e.start(limited, "fail", id="r")
        await waiting(e, "r")
        clock.move(59)
        await door.approve("r", by="ana")
        assert await handle.result() == "approved, approved: True, by ana"
        assert "timer.cancelled" in tags(handle)
        assert "gate.closed" not in tags(handle)


async def test_an_acknowledged_vote_never_loses_to_the_deadline_and_a_later_one_is_refused(
    place: Place,
) -> None:
    """The owner was away when the vote came and when the deadline passed."""
    clock = HandClock()
    async with engine(place, limited, clock=clock) as e:
        for run_id in ("early", "late"):
            await e.start(limited, "fail", id=run_id)
            await waiting(e, run_id)
    clock.move(59.9)
    async with engine(place, execute=False, clock=clock) as door:
        await door.approve("early", by="ana")
        clock.move(0.1)
        with pytest.raises(VoteRefused, match="its deadline has passed"):
            await door.approve("late", by="ana")
        with pytest.raises(VoteRefused, match="closed: approved"):
            await door.approve("early", "approval#1", by="ben")
    clock.move(100)
    async with engine(place, limited, clock=clock) as e:
        assert await (await e.get("early")).result() == "approved, approved: True, by ana"
        assert await (await e.get("late")).result() == LATE["fail"]


async def test_without_a_look_at_the_inbox_the_deadline_would_win(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of the test above."""
    clock = HandClock()
    async with engine(place, limited, clock=clock) as e:
        await e.start(limited, "fail", id="early")
        await waiting(e, "early")
    clock.move(59.9)
    async with engine(place, execute=False, clock=clock) as door:
        await door.approve("early", by="ana")
    clock.move(100)
    monkeypatch.setattr(Worker, "drain_inbox", lambda worker, live: False)
    async with engine(place, limited, clock=clock) as e:
        assert await (await e.get("early")).result() == LATE["fail"]


# ---- escalation


@workflow
async def escalates(ctx: Context) -> dict[str, Any]:
    decision: Decision = await ctx.approval(
        "?", voters=["ana", "ben"], approvers=2, timeout=60, on_timeout="continue",
        escalation=[
            Stage(timeout=30, voters=["lea"]),
            Stage(timeout=10, voters=["max", "zoe", "lea"], approvers=2),
        ],
    )  # fmt: skip
    return {"outcome": decision.outcome, "approvals": decision.approvals}


@pytest.mark.parametrize("way", WAYS)
async def test_each_stage_has_its_own_deadline_and_voters(way: str, place: Place) -> None:
    clock = HandClock()
    async with engine(place, escalates, clock=clock, **memory(way)) as e, voter(way, place, e) as door:
        handle = await e.start(escalates, id="r")
        await waiting(e, "r")
        with pytest.raises(VoteRefused, match="'lea' may not vote; these may: ana, ben"):
            await door.approve("r", by="lea")
        clock.move(60)
        (escalated,) = await seen(handle, t.GateEscalated)
        assert (escalated.stage, escalated.voters, escalated.approvers) == (1, ("lea",), 1)
        assert escalated.due_at is not None
        assert (escalated.due_at - escalated.at).total_seconds() == 30
        await waiting(e, "r")
        with pytest.raises(VoteRefused, match="'ana' may not vote; these may: lea"):
            await door.approve("r", by="ana")
        await door.approve("r", by="lea")
        assert await handle.result() == {"outcome": "approved", "approvals": ["lea"]}
        assert tags(handle).count("gate.opened") == 1


async def test_votes_of_earlier_stages_count_in_later_ones_across_restarts(place: Place) -> None:
    clock = HandClock()
    async with engine(place, escalates, clock=clock) as e:
        handle = await e.start(escalates, id="r")
        await waiting(e, "r")
        await handle.approve(by="ana")
        clock.move(60)
        await seen(handle, t.GateEscalated)
    clock.move(30)
    async with engine(place, escalates, clock=clock) as e:
        handle = await e.get("r")
        await seen(handle, t.GateEscalated, 2)
        await handle.approve(by="max")
        assert await handle.result() == {"outcome": "approved", "approvals": ["ana", "max"]}
        assert work_agrees(e.store)


async def test_after_the_last_stage_it_is_as_on_timeout_says(place: Place) -> None:
    clock = HandClock()
    async with engine(place, escalates, clock=clock) as e:
        await e.start(escalates, id="r")
        await waiting(e, "r")
    for count in (1, 2):
        clock.move(60)
        async with engine(place, escalates, clock=clock) as e:
            await seen(await e.get("r"), t.GateEscalated, count)
    clock.move(60)
    async with engine(place, escalates, clock=clock) as e:
        handle = await e.get("r")
        assert await handle.result() == {"outcome": "timed_out", "approvals": []}
        assert tags(handle).count("gate.closed") == 1


async def test_stages_that_cannot_work_are_refused(place: Place) -> None:
    @workflow
    async def asks_for(ctx: Context, what: str) -> Any:
        options: dict[str, dict[str, Any]] = {
            "a first stage without end": {"escalation": [Stage(timeout=1)]},
            "no time": {"timeout": 0},
            "no approver": {"approvers": 0},
            "more approvers than voters": {"approvers": 3, "voters": ["a", "b", "b"]},
            "more approvers than voters later": {
                "timeout": 1,
                "escalation": [Stage(voters=["a"], approvers=2)],
            },
            "a text for voters": {"voters": "ana"},
            "a text for options": {"options": "ana"},
            "another timeout": {"timeout": 1, "on_timeout": "explode"},
        }
        return await ctx.approval("?", **options[what])

    reasons = {
        "a first stage without end": "a stage without a timeout never escalates",
        "no time": "expected seconds, more than 0",
        "no approver": "approvers=0: expected an int, 1 or more",
        "more approvers than voters": "nobody could ever open this gate",
        "more approvers than voters later": "nobody could ever open this gate",
        "a text for voters": "expected a list of names",
        "a text for options": "expected a list of texts",
        "another timeout": "expected reject, approve, fail or continue",
    }
    async with engine(place, asks_for) as e:
        for what, reason in reasons.items():
            handle = await e.start(asks_for, what)
            with pytest.raises(RunFailed, match=f"ConfigurationError: .*{reason}"):
                await handle.result()
            assert "gate.opened" not in tags(handle)


# ---- paused runs


@workflow
async def needs_two(ctx: Context) -> list[str]:
    return (await ctx.approval("?", approvers=2, timeout=60, on_timeout="fail")).approvals


@pytest.mark.parametrize("way", WAYS)
async def test_votes_on_a_paused_run_are_judged_at_once_and_count_when_it_goes_on(
    way: str, place: Place
) -> None:
    clock = HandClock()
    async with engine(place, needs_two, clock=clock, **memory(way)) as e, voter(way, place, e) as door:
        handle = await e.start(needs_two, id="r")
        await waiting(e, "r")
        await door.pause("r")
        await seen(handle, t.RunPaused)
        await door.approve("r", by="ana")
        await seen(handle, t.CauseHeld)
        with pytest.raises(VoteRefused, match="'ana' has voted already"):
            await door.approve("r", by="ana")
        await door.approve("r", by="ben")
        with pytest.raises(VoteRefused, match="closed: approved"):
            await door.reject("r", "approval#1", by="cem")
        await seen(handle, t.CauseHeld, 2)
        assert "gate.voted" not in tags(handle)
        clock.move(100)
        await door.resume("r")
        assert await handle.result() == ["ana", "ben"]
        assert "gate.closed" not in tags(handle), "votes in time win although the run was paused"
        assert "inbox.skipped" not in tags(handle)
        assert work_agrees(e.store)


async def test_a_vote_on_a_paused_run_counts_from_when_it_was_sent(place: Place) -> None:
    """It was sent in time; that the owner copied it after the deadline does not make it late."""
    clock = HandClock()
    async with engine(place, needs_two, clock=clock) as e:
        handle = await e.start(needs_two, id="r")
        await waiting(e, "r")
        await handle.pause()
    clock.move(59)
    async with engine(place, execute=False, clock=clock) as door:
        await door.approve("r", by="ana")
        await door.approve("r", by="ben")
    clock.move(10)
    async with engine(place, needs_two, clock=clock) as e:
        handle = await e.get("r")
        await seen(handle, t.CauseHeld, 2)
    async with engine(place, needs_two, clock=clock) as e:
        handle = await e.get("r")
        with pytest.raises(VoteRefused):
            await handle.approve(by="cem")
        await handle.resume()
        assert await handle.result() == ["ana", "ben"]


# ---- several processes


async def test_two_processes_that_vote_at_once_for_one_person_have_one_vote(tmp_path: Path) -> None:
    url, gates = f"sqlite:///{tmp_path / 'runs.db'}", 15
    async with engine(url, asks_people) as e:
        for number in range(gates):
            await e.start(asks_people, 2, id=f"r{number}")
            await waiting(e, f"r{number}")
        with ExitStack() as stack:
            voters = [
                stack.enter_context(child("votes", url, "ana", gates, module="tests.engine.people"))
                for _ in "ab"
            ]
            said = [lines_until(process, "done") for process in voters]
        accepted = [line.split()[1] for lines in said for line in lines if line.startswith("accepted")]
        refused = [line for lines in said for line in lines if line.startswith("refused")]
        assert sorted(accepted) == sorted(f"r{number}" for number in range(gates)), "each gate once"
        assert len(refused) == gates
        assert all("'ana' has voted already" in line for line in refused)
        for number in range(gates):
            handle = await e.get(f"r{number}")
            await handle.approve(by="ben")
            assert await handle.result() == ["ana", "ben"]
            assert "inbox.skipped" not in tags(handle)


async def test_killed_while_it_waits_the_gate_stays_open_for_votes_and_the_next_owner(tmp_path: Path) -> None:
    """A14, with SIGKILL; the votes come while nobody executes."""
    url = f"sqlite:///{tmp_path / 'runs.db'}"
    with child("asks", url, module="tests.engine.people") as process:
        lines_until(process, "asking")
        async with engine(url, execute=False) as door:
            await door.approve("r", by="ana")
            process.kill()
            assert process.wait() == -signal.SIGKILL
            await door.approve("r", by="ben")
            with pytest.raises(VoteRefused, match="closed: approved"):
                await door.approve("r", "approval#1", by="cem")
    async with engine(url, asks_people) as e:
        handle = await e.get("r")
        assert await handle.result() == ["ana", "ben"]
        assert [vote.by for vote in of(handle, t.GateVoted)] == ["ana", "ben"]
        assert tags(handle).count("gate.opened") == 1
        assert work_agrees(e.store)
        assert e.verify().problems == ()
        with pytest.raises(RunEnded):
            await handle.approve(by="cem")


async def test_many_people_vote_at_once_and_nobody_is_lost(place: Place) -> None:
    people = [f"p{number}" for number in range(60)]
    for how in ("live", "evicted", "paused"):
        async with engine(place, asks_people, memory_bytes=0 if how == "evicted" else 1 << 26) as e:
            handle = await e.start(asks_people, len(people), id=how)
            await waiting(e, how)
            if how == "paused":
                await handle.pause()
            await asyncio.gather(*[handle.approve(by=person) for person in people])
            if how == "paused":
                await handle.resume()
            assert sorted(await handle.result()) == sorted(people)
