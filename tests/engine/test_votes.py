"""Votes: which gate they mean, and those that cannot count, which are refused and leave no trace."""

import asyncio

import pytest

from refold import Context, RunEnded, RunFailed, RunNotFound, step, workflow
from refold.engine.gates import Decision
from refold.engine.inbox import post
from refold.events import types as t
from refold.events.clock import new_event_id, to_datetime
from refold.events.errors import VoteRefused
from tests.engine.kit import HandClock, Place, engine, of, seen, tags, until, waiting
from tests.engine.people import WAYS, memory, voter

pytestmark = pytest.mark.anyio


@workflow
async def several(ctx: Context) -> list[str]:
    async def ask(name: str) -> str:
        decision: Decision = await ctx.approval("?", name=name)
        return f"{name} {decision.by}"

    return list(await asyncio.gather(ask("legal"), ask("money"), ask("money")))


@pytest.mark.parametrize("way", WAYS)
async def test_gates_are_named_numbered_and_have_a_token(way: str, place: Place) -> None:
    async with engine(place, several, **memory(way)) as e, voter(way, place, e) as door:
        handle = await e.start(several, id="r")
        await waiting(e, "r")
        opened = of(handle, t.GateOpened)
        assert [gate.name for gate in opened] == ["legal#1", "money#1", "money#2"]
        with pytest.raises(
            VoteRefused, match=r"several gates are open, say which: legal#1, money#1, money#2"
        ):
            await door.approve("r", by="ana")
        with pytest.raises(VoteRefused, match=r"no gate 'money'; open gates: legal#1, money#1, money#2"):
            await door.approve("r", "money", by="ana")
        await door.approve("r", "legal", by="ana")
        await door.approve("r", opened[2].token, by="ben")
        with pytest.raises(VoteRefused, match="closed"):
            await door.approve("r", "legal#1", by="ben")
        await door.approve("r", opened[1].gate, by="cem")
        assert await handle.result() == ["legal ana", "money cem", "money ben"]


@pytest.mark.parametrize("way", WAYS)
async def test_votes_that_cannot_count_are_refused_with_the_reason_and_leave_no_trace(
    way: str, place: Place
) -> None:
    @workflow
    async def strict(ctx: Context) -> str:
        decision = await ctx.approval("?", options=["a"], voters=["ana", "ben"], approvers=2, name="strict")
        await ctx.wait_for_event("end")
        return decision.feedback

    async with engine(place, strict, **memory(way)) as e, voter(way, place, e) as door:
        handle = await e.start(strict, id="r")
        await waiting(e, "r")
        digest = of(handle, t.GateOpened)[0].digest
        before = e.store.position()
        for vote, reason in (
            (door.approve("r", by="eve"), "'eve' may not vote; these may: ana, ben"),
            (door.reject("r", by="eve"), "'eve' may not vote"),
            (door.approve("r", by="ana", selections=["b"]), "'b' is not offered; offered: a"),
            (
                door.approve("r", by="ana", digest="0" * 64),
                "what the voter was shown is not what the gate asks",
            ),
            (door.answer("r", 1, by="ana"), "it asks for approve or reject, not answer"),
            (door.approve("r", "lax", by="ana"), "no gate 'lax'; open gates: strict#1"),
            (door.approve("r", 99, by="ana"), "no gate 99"),
        ):
            with pytest.raises(VoteRefused, match=reason):
                await vote
        assert e.store.position() == before
        await door.approve("r", by="ana", digest=digest)
        await door.approve("r", by="ben", digest=digest, feedback="yes")
        await seen(handle, t.WaitOpened)
        await waiting(e, "r")
        before = e.store.position()
        for vote, reason in (
            (door.approve("r", by="ana"), "no gate is open"),
            (door.approve("r", "strict#1", by="cem"), "closed: approved"),
            (door.reject("r", "strict#1", by="ana"), "closed: approved"),
        ):
            with pytest.raises(VoteRefused, match=reason):
                await vote
        assert e.store.position() == before
        await door.signal("r", "end")
        assert await handle.result() == "yes"
        with pytest.raises(RunEnded):
            await door.approve("r", by="ana")
        with pytest.raises(RunNotFound):
            await door.approve("nobody", by="ana")
        assert e.verify().problems == ()


async def test_a_gate_that_the_handler_gave_up_admits_no_vote(place: Place) -> None:
    @workflow
    async def impatient(ctx: Context) -> str:
        gate = asyncio.ensure_future(ctx.approval("?"))
        await ctx.wait_for_event("enough")
        gate.cancel()
        await ctx.wait_for_event("end")
        return "ended"

    async with engine(place, impatient) as e:
        handle = await e.start(impatient, id="r")
        await handle.signal("enough")
        await seen(handle, t.GateClosed)
        assert of(handle, t.GateClosed)[0].outcome == "cancelled"
        with pytest.raises(VoteRefused, match="closed: cancelled"):
            await handle.approve("approval#1", by="ana")
        await handle.signal("end")
        assert await handle.result() == "ended"


async def test_the_end_of_a_run_names_the_gates_that_were_open(place: Place) -> None:
    clock = HandClock()
    async with engine(place, several, clock=clock) as e:
        handle = await e.start(several, id="r")
        await waiting(e, "r")
        gates = [gate.gate for gate in of(handle, t.GateOpened)]
        await handle.cancel("enough")
        await until(lambda: tags(handle)[-1] == "run.cancelled")
        closed = [event.gate for event in of(handle, t.GateClosed)]
        end = of(handle, t.RunCancelled)[0]
        assert sorted([*closed, *end.open]) == gates
        with pytest.raises(RunEnded):
            await handle.approve("legal", by="ana")


async def test_a_vote_that_nobody_checked_is_refused_by_the_owner_and_noted(place: Place) -> None:
    """Two senders at once cannot both be told yes; should it happen all the same, the gate stays right."""

    @workflow
    async def two(ctx: Context) -> list[str]:
        return (await ctx.approval("?", voters=["ana", "ben"], approvers=2)).approvals

    def vote(by: str) -> t.VoteSent:
        return t.VoteSent(gate=1, vote="approve", id=new_event_id(), at=to_datetime(1.8e9), by=by)

    async with engine(place, two) as e:
        handle = await e.start(two, id="r")
        await waiting(e, "r")
    async with engine(place, execute=False) as door:
        for by in ("ana", "ana", "eve", "ben", "ben"):
            post(door.store, "r", vote(by))
    async with engine(place, two) as e:
        handle = await e.get("r")
        assert await handle.result() == ["ana", "ben"]
        assert [v.by for v in of(handle, t.GateVoted)] == ["ana", "ben"]
        reasons = [skipped.reason for skipped in of(handle, t.InboxSkipped)]
        assert reasons == [
            "vote refused: 'ana' has voted already",
            "vote refused: 'eve' may not vote; these may: ana, ben",
        ]


async def test_a_decision_is_not_asked_for_again_when_the_run_is_retried(place: Place) -> None:
    broken = [True]

    @step
    async def pay() -> str:
        if broken[0]:
            raise ValueError("no money")
        return "paid"

    @workflow
    async def pays(ctx: Context) -> str:
        decision = await ctx.approval("?", approvers=2)
        return f"{await pay()}, said {decision.approvals}"

    async with engine(place, pays) as e:
        handle = await e.start(pays, id="r")
        await waiting(e, "r")
        await handle.approve(by="ana")
        await handle.approve(by="ben")
        with pytest.raises(RunFailed):
            await handle.result()
        broken[0] = False
        await handle.retry()
        assert await handle.result() == "paid, said ['ana', 'ben']"
        assert tags(handle).count("gate.opened") == 1
        await e.start(pays, id="s")
        await waiting(e, "s")
        await e.approve("s", by="ana")
        await e.terminate("s")
        await (again := await e.get("s")).retry()
        await waiting(e, "s")
        with pytest.raises(VoteRefused, match="'ana' has voted already"):
            await e.approve("s", "approval", by="ana")
        await e.approve("s", by="ben")
        assert await again.result() == "paid, said ['ana', 'ben']"
