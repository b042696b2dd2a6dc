"""D13. Queues: limits, priorities, keys in turn, tags; on every store, and between workers on PostgreSQL."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from refold import ConfigurationError, Context, Engine, RunCancelled, Settings, workflow
from refold.events import types as t
from refold.events.postgres_batch import Batch
from refold.events.store import Store
from refold.events.stream import QUEUES
from refold.queues import Queue
from refold.testing import TestEngine
from tests.engine.kit import PLACES, Place, engine, of, until, work_agrees

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["sqlite", "postgres"])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """An empty log on every kind of store."""
    if request.param == "postgres":
        yield request.getfixturevalue("postgres")
    else:
        yield PLACES[request.param](tmp_path)


@workflow
async def holds(ctx: Context) -> str:
    await ctx.wait_for_event("go")
    return ctx.run_id


@workflow
async def passes(ctx: Context, fails: bool = False) -> str:
    if fails:
        raise ValueError("as asked")
    return ctx.run_id


@workflow
async def parent(ctx: Context) -> list[str]:
    return list(await asyncio.gather(*[ctx.child(passes, queue="q", queue_key="k") for _ in range(3)]))


@workflow(run_on="gpu")
async def trains(ctx: Context) -> str:
    return ctx.run_id


def begun(e: Engine) -> list[str]:
    """Runs that have begun, in the order in which they did."""
    claims = [row for row in e.store.scan() if row.tag == t.RunClaimed.TAG]
    return list(dict.fromkeys(row.stream for row in claims))


def most_at_once(store: Store, runs: Callable[[str], bool] = lambda run: True) -> int:
    """How many of these runs had begun and not ended at any moment, by the order of the log."""
    ends = {kind.TAG for kind in t.ENDS}
    inside, most = set[str](), 0
    for row in store.scan(limit=1_000_000):
        if row.tag == t.RunClaimed.TAG and runs(row.stream):
            inside.add(row.stream)
        elif row.tag in ends:
            inside.discard(row.stream)
        most = max(most, len(inside))
    return most


async def settled(e: Engine, runs: list[str]) -> None:
    """Wait until exactly these runs have begun, and nothing is under way."""
    await until(lambda: begun(e) == runs)
    await until(lambda: not e.worker.busy and not e.worker.recovery.queued)
    e.worker.look()
    await until(lambda: not e.worker.recovery.queued)
    assert begun(e) == runs


# ---- limits ---------------------------------------------------------------------------------------------


async def test_no_more_runs_than_the_limit_have_begun_and_not_ended(anywhere: Place) -> None:
    async with engine(anywhere, holds, passes) as e:
        await e.queues.set("q", concurrency=2)
        runs = [await e.start(holds, id=f"r{number}", queue="q") for number in range(4)]
        await settled(e, ["r0", "r1"])
        await e.run(passes, id="elsewhere")
        state = e.queues.get("q")
        assert (state.pending, state.running) == (2, 2)
        assert state.queue == Queue("q", concurrency=2)
        await runs[1].signal("go")
        await settled(e, ["r0", "r1", "elsewhere", "r2"])
        for run in (runs[0], *runs[2:]):
            await run.signal("go")
        assert [await run.result() for run in runs] == ["r0", "r1", "r2", "r3"]
        assert most_at_once(e.store, lambda run: run.startswith("r")) == 2
        assert work_agrees(e.store)


async def test_keys_take_turns_and_what_is_full_holds_up_nobody_else(anywhere: Place) -> None:
    async with engine(anywhere, holds) as e:
        await e.queues.set("q", concurrency=3, per_key=2)
        await e.queues.set("other", concurrency=1)
        await e.queues.set("q", concurrency=0, per_key=2)  # held, until all are there
        for number in range(4):
            await e.start(holds, id=f"many-{number}", queue="q", queue_key="many")
        await e.start(holds, id="one", queue="q", queue_key="one")
        await e.start(holds, id="urgent", queue="q", queue_key="many", priority=-1)
        await settled(e, [])
        await e.start(holds, id="beside", queue="other")
        await settled(e, ["beside"])
        await e.queues.set("q", concurrency=3, per_key=2)
        # The urgent one first; then the turn is the other key's, though four of this one came before.
        await settled(e, ["beside", "urgent", "one", "many-0"])
        await e.queues.set("q", concurrency=9, per_key=2)
        await settled(e, ["beside", "urgent", "one", "many-0"])
        await e.queues.set("q", concurrency=9)
        await until(lambda: len(begun(e)) == 7)


async def test_at_most_so_many_begin_in_a_period() -> None:
    async with TestEngine(workflows=[passes], queues=[Queue("q", rate=(2, 60.0))]) as e:
        runs = [await e.start(passes, id=f"r{number}", queue="q") for number in range(5)]
        for run in runs:
            await run.result()
        times = [of(run, t.RunClaimed)[0].at.timestamp() for run in runs]
        assert [round(at - times[0], 1) for at in times] == [0, 0, 60, 60, 120]


async def test_limits_change_while_runs_wait_and_none_loses_its_place(anywhere: Place) -> None:
    async with engine(anywhere, holds) as e:
        await e.queues.set("q", concurrency=2, by="ana")
        runs = [await e.start(holds, id=f"r{number}", queue="q") for number in range(4)]
        await settled(e, ["r0", "r1"])
        await e.queues.set("q", concurrency=1)
        await runs[0].signal("go")
        await runs[0].result()
        await settled(e, ["r0", "r1"])
        await runs[1].signal("go")
        await settled(e, ["r0", "r1", "r2"])
        await e.queues.set("q")
        await settled(e, ["r0", "r1", "r2", "r3"])
        await e.queues.set("q")  # says nothing new
        said = [row.event() for row in e.store.read(QUEUES + "q")]
        assert [event.concurrency for event in said if isinstance(event, t.QueueConfigured)] == [2, 1, None]
        assert said[0].by == "ana"


async def test_a_run_that_is_brought_back_waits_for_a_place_again(anywhere: Place) -> None:
    async with engine(anywhere, holds, passes) as e:
        await e.queues.set("q", concurrency=1)
        failed = await e.start(passes, True, id="failed", queue="q")
        holder = await e.start(holds, id="holder", queue="q")
        await settled(e, ["failed", "holder"])
        await failed.retry()
        await until(lambda: not e.worker.recovery.queued)
        assert e.store.work("failed").state == "pending"  # type: ignore[union-attr]
        await holder.signal("go")
        await until(lambda: len(of(failed, t.RunFailed)) == 2)
        await failed.retry()  # there is a place: nobody has to end for it
        await until(lambda: len(of(failed, t.RunFailed)) == 3)
        again = await e.fork("holder")
        await e.signal(again, "go")
        assert await (await e.get(again)).result(timeout=60) == again
        assert most_at_once(e.store) == 1


async def test_one_that_waits_is_paused_cancelled_and_spoken_to(anywhere: Place) -> None:
    async with engine(anywhere, holds) as e:
        await e.queues.set("q", concurrency=1)
        first, paused, cancelled, told = [
            await e.start(holds, id=name, queue="q") for name in ("first", "paused", "cancelled", "told")
        ]
        await settled(e, ["first"])
        await paused.pause("later")
        await cancelled.cancel("not any more")
        await told.signal("go")
        with pytest.raises(RunCancelled, match="not any more"):
            await cancelled.result()
        await until(lambda: of(paused, t.RunPaused))
        await first.signal("go")
        assert await told.result() == "told"
        await settled(e, ["first", "told"])
        await paused.resume()
        await settled(e, ["first", "told", "paused"])


# ---- declaring ------------------------------------------------------------------------------------------


async def test_a_queue_that_nobody_has_declared_is_refused_and_waited_for_by_children(
    anywhere: Place,
) -> None:
    async with engine(anywhere, parent, passes) as e:
        with pytest.raises(ConfigurationError, match=r"nobody has declared queue 'q'.*refold queues set q"):
            await e.start(parent, queue="q")
        run = await e.start(parent, id="p")
        await until(lambda: e.store.work("p~3"))
        await settled(e, ["p"])
        assert e.queues.get("q").queue is None
        await e.queues.set("q", per_key=1)
        assert await run.result() == ["p~1", "p~2", "p~3"]
        assert most_at_once(e.store, lambda run: "~" in run) == 1


async def test_code_that_declares_a_queue_leaves_what_a_person_has_set_since(anywhere: Place) -> None:
    def opened(limit: int) -> Engine:
        return Engine(anywhere, queues=[Queue("q", concurrency=limit)], settings=Settings(projections=False))

    async with opened(4) as e:
        assert e.queues.get("q").queue == Queue("q", concurrency=4)
        await e.queues.set("q", concurrency=9)
    async with opened(4) as e:
        assert e.queues.get("q").queue == Queue("q", concurrency=9)
    async with opened(5) as e:
        assert e.queues.get("q").queue == Queue("q", concurrency=5)
        assert len(e.store.read(QUEUES + "q")) == 3


@pytest.mark.parametrize(
    "limits", [{"concurrency": -1}, {"per_key": 0}, {"rate": 5}, {"rate": (0, 1.0)}, {"rate": (1, 0)}]
)
def test_limits_that_make_no_sense_are_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="queue 'q'"):
        Queue("q", **limits)


# ---- tags -----------------------------------------------------------------------------------------------


async def test_a_run_is_executed_by_a_worker_with_its_tag_and_waits_for_one(anywhere: Place) -> None:
    def opened(*tags: str, only: bool = False) -> Engine:
        quiet = Settings(projections=False)
        return Engine(anywhere, workflows=[trains, passes], tags=tags, only_tagged=only, settings=quiet)

    async with opened() as e:
        for name in ("wanted", "cancelled"):
            await e.start(trains, id=name)
        await e.start(passes, id="tpu", run_on="tpu")
        await (await e.get("cancelled")).cancel()
        await until(lambda: (work := e.store.work("cancelled")) and work.state == "done")
        await e.run(passes, id="any")
        await settled(e, ["any"])
    async with opened("gpu", only=True) as e:
        assert await (await e.get("wanted")).result() == "wanted"
        await e.start(passes, id="left")
        await settled(e, ["any", "wanted"])
    async with opened("tpu") as e:
        assert await (await e.get("tpu")).result() == "tpu"
        assert await (await e.get("left")).result() == "left"


def test_an_engine_that_would_execute_nothing_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="would execute nothing"):
        Engine("memory://", only_tagged=True)
    with pytest.raises(ConfigurationError, match="expected a list"):
        Engine("memory://", tags="gpu")


# ---- a place that has gone to another worker ------------------------------------------------------------


async def frozen_before_it_begins(url: str) -> int:
    """A worker freezes between the claim of a run and the append that begins it, while another one lives.

    How many runs of a queue for one were under way at once.
    """
    settings = Settings(projections=False, lease_ttl=1.0, lease_refresh=0.3)
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(Engine(url, workflows=[holds], settings=settings))
        await first.queues.set("q", concurrency=1)
        stuck: list[Callable[[], Any]] = []
        recovery, leases = first.worker.recovery, first.store.leases  # type: ignore[attr-defined]
        resume, beat = recovery._resume, leases.beat
        recovery._resume = lambda *all: stuck.append(lambda: resume(*all))  # type: ignore[method-assign]
        leases.beat = lambda ttl: True
        await first.start(holds, id="a", queue="q")
        await until(lambda: stuck)
        first.worker.following.close()  # as if it were stopped
        second = await stack.enter_async_context(Engine(url, workflows=[holds], settings=settings))
        await second.start(holds, id="b", queue="q", priority=-1)
        await until(lambda: (work := second.store.work("b")) and work.state == "waiting", 60)
        recovery._resume, leases.beat = resume, beat  # type: ignore[method-assign]
        stuck[0]()  # it wakes
        await first.worker.log.flush()
        await (await second.get("b")).signal("go")
        await until(lambda: (work := second.store.work("a")) and work.state == "waiting", 60)
        assert not first.worker.live or first.store.work("a").begun_at  # type: ignore[union-attr]
        return most_at_once(second.store)


async def test_a_worker_that_was_frozen_does_not_begin_a_run_whose_place_has_gone(postgres: str) -> None:
    assert await frozen_before_it_begins(postgres) == 1


async def test_without_that_condition_there_would_be_one_too_many(
    postgres: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters = Batch.parameters
    monkeypatch.setattr(Batch, "parameters", lambda batch: parameters(batch) | {"begins": []})
    assert await frozen_before_it_begins(postgres) == 2
