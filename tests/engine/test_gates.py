"""Approval gates: people decide, from any process, while nothing waits for them but a row in the store."""

import asyncio
from typing import Any

import pytest

from refold import Context, RunFailed, step, workflow
from refold.events import types as t
from refold.events.errors import GateRejected, VoteRefused
from tests.engine.kit import Place, engine, of, seen, tags, until, waiting, work_agrees
from tests.engine.people import WAYS, memory, voter

pytestmark = pytest.mark.anyio


def by(handle: Any) -> list[tuple[str, str, str]]:
    return [(vote.by, vote.vote, vote.decides) for vote in of(handle, t.GateVoted)]


@step
async def publish(page: str, where: str) -> str:
    return f"{page} on {where}"


@workflow
async def asks(ctx: Context, page: str) -> dict[str, Any]:
    decision = await ctx.approval(f"publish {page}?", options=["web", "print"], shown={"page": page})
    where = ",".join(decision.selections)
    return {
        "by": decision.by, "at": decision.at.isoformat(), "feedback": decision.feedback,
        "selections": decision.selections, "digest": decision.digest, "approvals": decision.approvals,
        "approved": decision.approved, "done": await publish(page, where),
    }  # fmt: skip


@workflow
async def two_of(ctx: Context, needed: int) -> list[str]:
    return (await ctx.approval("both?", approvers=needed)).approvals


# ---- waiting


async def test_a_run_at_a_gate_holds_no_task_and_goes_on_in_another_process(place: Place) -> None:
    """A14."""
    async with engine(place, asks, memory_bytes=0) as e:
        before = len(asyncio.all_tasks())
        await e.start(asks, "p1", id="r")
        await until(lambda: "r" not in e.worker.live)
        assert len(asyncio.all_tasks()) == before
    async with engine(place, asks) as e:
        handle = await e.get("r")
        await handle.approve(by="ana", selections=["web"], feedback="fine")
        result = await handle.result()
        (opened,), (vote,) = of(handle, t.GateOpened), of(handle, t.GateVoted)
        assert (vote.by, vote.vote, vote.decides, vote.at.isoformat()) == (
            "ana",
            "approve",
            "approved",
            result["at"],
        )
        assert result == {
            "by": "ana", "at": vote.at.isoformat(), "feedback": "fine", "selections": ["web"],
            "digest": opened.digest, "approvals": ["ana"], "approved": True, "done": "p1 on web",
        }  # fmt: skip
        assert work_agrees(e.store)
        assert e.verify().problems == ()


async def test_looked_at_again_without_a_decision_it_stays_waiting(place: Place) -> None:
    """A14."""
    for _ in range(3):
        async with engine(place, asks) as e:
            handle = await e.start(asks, "p1", id="r")
            await waiting(e, "r")
            assert tags(handle).count("gate.opened") == 1
            assert e.store.work("r").status == ""  # type: ignore[union-attr]
    async with engine(place, asks) as e:
        handle = await e.get("r")
        await handle.approve(by="ana")
        await handle.result()


@pytest.mark.parametrize("way", WAYS)
async def test_options_selections_and_feedback_are_kept_apart(way: str, place: Place) -> None:
    """A17."""
    async with engine(place, asks, **memory(way)) as e, voter(way, place, e) as door:
        handle = await e.start(asks, "p1", id="r")
        await waiting(e, "r")
        assert of(handle, t.GateOpened)[0].options == ("web", "print")
        with pytest.raises(VoteRefused, match=r"'radio' is not offered; offered: web, print"):
            await door.approve("r", by="ana", selections=["web", "radio"])
        await door.approve("r", by="ana", selections=["print", "web"], feedback="ok")
        result = await handle.result()
        assert (result["selections"], result["feedback"]) == (["print", "web"], "ok")
        assert result["done"] == "p1 on print,web"


async def test_options_may_be_computed_and_those_of_the_opening_count(place: Place) -> None:
    """A17."""
    offered = ["a", "b"]

    @step
    async def offers() -> list[str]:
        return list(offered)

    @workflow
    async def chooses(ctx: Context) -> list[str]:
        return (await ctx.approval("which?", options=await offers())).selections

    async with engine(place, chooses) as e:
        await waiting(e, (await e.start(chooses, id="r")).id)
    offered[:] = ["c"]
    async with engine(place, chooses) as e:
        with pytest.raises(VoteRefused, match="'c' is not offered; offered: a, b"):
            await e.approve("r", by="ana", selections=["c"])
        await e.approve("r", by="ana", selections=["b"])
        assert await (await e.get("r")).result() == ["b"]


# ---- rejecting


@workflow
async def branches(ctx: Context) -> str:
    try:
        await ctx.approval("go?")
    except GateRejected as rejected:
        return f"{rejected.gate} by {rejected.by}: {rejected.feedback}"
    return "went"


@workflow
async def unhandled(ctx: Context) -> None:
    await ctx.approval("go?")


@pytest.mark.parametrize("way", WAYS)
async def test_a_rejection_is_the_handlers_to_handle(way: str, place: Place) -> None:
    """A15."""
    async with engine(place, branches, **memory(way)) as e, voter(way, place, e) as door:
        handle = await e.start(branches, id="r")
        await waiting(e, "r")
        await door.reject("r", by="ben", feedback="too early")
        assert await handle.result() == "approval#1 by ben: too early"
        assert by(handle) == [("ben", "reject", "rejected")]


async def test_a_rejection_that_nobody_handles_fails_the_run_with_its_text(place: Place) -> None:
    """A15."""
    async with engine(place, unhandled) as e:
        handle = await e.start(unhandled, id="r")
        await waiting(e, "r")
        await handle.reject(by="ben", feedback="too early")
        with pytest.raises(RunFailed, match=r"GateRejected: gate approval#1 was rejected by ben: too early"):
            await handle.result()
    async with engine(place, unhandled) as e:  # and it stays so
        with pytest.raises(RunFailed, match="too early"):
            await (await e.get("r")).result()


# ---- several people


@pytest.mark.parametrize("way", WAYS)
async def test_each_of_several_approvers_has_one_vote(way: str, place: Place) -> None:
    """A19."""
    async with engine(place, two_of, **memory(way)) as e, voter(way, place, e) as door:
        handle = await e.start(two_of, 2, id="r")
        await waiting(e, "r")
        await door.approve("r", by="ana")
        with pytest.raises(VoteRefused, match="'ana' has voted already"):
            await door.approve("r", by="ana")
        with pytest.raises(VoteRefused, match="'ana' has voted already"):
            await door.reject("r", by="ana")
        await seen(handle, t.GateVoted)
        await waiting(e, "r")
        await door.approve("r", by="ben")
        assert await handle.result() == ["ana", "ben"]
        assert by(handle) == [("ana", "approve", ""), ("ben", "approve", "approved")]


async def test_one_rejection_vetoes(place: Place) -> None:
    """A19."""
    async with engine(place, two_of) as e:
        handle = await e.start(two_of, 3, id="r")
        await waiting(e, "r")
        await handle.approve(by="ana")
        await handle.reject(by="ben", feedback="no")
        with pytest.raises(RunFailed, match="rejected by ben: no"):
            await handle.result()


async def test_the_requirement_of_the_opening_counts_whatever_the_code_asks_for_now(place: Place) -> None:
    """A19."""

    @workflow(name="two_of")
    async def laxer(ctx: Context, needed: int) -> list[str]:
        return (await ctx.approval("both?", approvers=1, voters=["zoe"])).approvals

    async with engine(place, two_of) as e:
        await waiting(e, (await e.start(two_of, 2, id="r")).id)
    async with engine(place, laxer) as e:
        handle = await e.get("r")
        await handle.approve(by="ana")
        await seen(handle, t.GateVoted)
        assert by(handle) == [("ana", "approve", "")]
        await handle.approve(by="ben")
        assert await handle.result() == ["ana", "ben"]


@pytest.mark.parametrize("way", WAYS)
async def test_whoever_asked_for_the_run_may_be_kept_from_approving_it(way: str, place: Place) -> None:
    @workflow
    async def four_eyes(ctx: Context) -> str:
        return (await ctx.approval("pay?", self_approval=False)).by

    @workflow
    async def above(ctx: Context) -> Any:
        return await ctx.child(four_eyes)

    async with engine(place, four_eyes, above, **memory(way)) as e, voter(way, place, e) as door:
        handle = await e.start(above, id="r", by="ana")
        await until(lambda: e.store.work("r~1") is not None)
        await waiting(e, "r~1")
        with pytest.raises(VoteRefused, match="'ana' asked for it and may not decide it"):
            await door.approve("r~1", by="ana")
        await door.approve("r~1", by="ben")
        assert await handle.result() == "ben"


async def test_a_gate_that_nobody_could_open_is_refused_where_it_is_asked_for(place: Place) -> None:
    @workflow
    async def alone(ctx: Context) -> str:
        return (await ctx.approval("pay?", voters=["ana"], self_approval=False)).by

    async with engine(place, alone) as e:
        handle = await e.start(alone, id="r", by="ana")
        with pytest.raises(RunFailed, match="nobody could ever open this gate"):
            await handle.result()
        assert await (await e.start(alone, id="s", by="ben")).engine.approve("s", by="ana") is None
        assert await (await e.get("s")).result() == "ana"


# ---- below


@workflow
async def lowest(ctx: Context) -> str:
    return (await ctx.approval("go?")).by


@workflow
async def middle(ctx: Context) -> str:
    return f"middle {await ctx.child(lowest)}"


@workflow
async def root(ctx: Context) -> str:
    return f"root {await ctx.child(middle)}"


@pytest.mark.parametrize("way", WAYS)
async def test_a_gate_in_a_grandchild_suspends_all_above_and_one_approval_lets_the_root_finish(
    way: str, place: Place
) -> None:
    """A09."""
    runs = ("r", "r~1", "r~1~1")
    for _ in range(2):
        async with engine(place, root, **memory(way)) as e:
            await e.start(root, id="r")
            await until(lambda: e.store.work("r~1~1") is not None)
            for run_id in runs:
                await waiting(e, run_id)
            if way == "evicted":
                await until(lambda: not e.worker.live)
    async with engine(place, root, **memory(way)) as e, voter(way, place, e) as door:
        handle = await e.get("r")
        with pytest.raises(VoteRefused, match="no gate is open"):
            await door.approve("r", by="ana")
        await door.approve("r~1~1", by="ana")
        assert await handle.result() == "root middle ana"
        counts = [tags(await e.get(run_id)).count("gate.opened") for run_id in runs]
        assert counts == [0, 0, 1]
        assert [e.store.work(run_id).status for run_id in runs] == ["completed"] * 3  # type: ignore[union-attr]
        assert work_agrees(e.store)
