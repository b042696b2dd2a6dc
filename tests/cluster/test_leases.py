"""Leases: who has a run, how it changes hands, and what becomes of one who does not know it yet."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

from refold import Context, Engine, Handle, Settings, current_step, step, workflow
from refold.events import types as t
from refold.events.postgres import PostgresStore
from refold.events.verify import verify
from tests.cluster import cheats
from tests.cluster.flows import rests
from tests.cluster.kit import Office
from tests.engine.kit import of, until as soon_enough

pytestmark = pytest.mark.anyio

SETTINGS = Settings(projections=False, determinism="off", grace=0.0)
soon = partial(soon_enough, within_s=90.0)


def expire(postgres: str, owner: str) -> None:
    """As if the worker had not been heard of for longer than its lease."""
    server, _, schema = postgres.rpartition("&schema=")
    with psycopg.connect(server, autocommit=True) as other:
        other.execute(
            f"UPDATE {schema}.workers SET until = clock_timestamp() WHERE owner = '{owner}'".encode()
        )


# ---- D01


def test_thirty_seconds_and_ten_unless_others_are_set() -> None:
    """D01."""
    assert (Settings().lease_ttl, Settings().lease_refresh) == (30.0, 10.0)
    assert Settings(lease_ttl=3.0, lease_refresh=1.0).lease_ttl == 3.0


async def test_a_lease_is_kept_by_signs_of_life_and_ends_without_them(postgres: str) -> None:
    """D01. Its generation grows with each owner, and not while one keeps it."""
    gate, began = asyncio.Event(), list[int]()

    @step
    async def waits() -> None:
        began.append(current_step().attempt)
        await gate.wait()

    @workflow
    async def flow(ctx: Context) -> None:
        await waits()

    async with Engine(postgres, workflows=[flow], settings=SETTINGS) as first:
        await first.start(flow, id="run")
        other = PostgresStore(postgres)
        other.leases.join("other", 60.0)
        await soon(lambda: began == [1])
        for _ in range(3):
            assert first.store.leases.beat(60.0)  # type: ignore[attr-defined]
            assert not other.leases.take("run")
        assert [claim.generation for claim in claims(first)] == [1]
        expire(postgres, first.worker.owner)
        assert other.leases.take("run")
        other.leases.leave()
        async with Engine(postgres, workflows=[flow], settings=SETTINGS) as second:
            await soon(lambda: began == [1, 2])
            assert [claim.generation for claim in claims(second)] == [1, 2]
            gate.set()
            await (await second.get("run")).result(timeout=60)
        other.close()


def claims(engine: Engine) -> list[t.RunClaimed]:
    return [event for event in engine.events("run") if isinstance(event, t.RunClaimed)]


# ---- D02


class Zombie:
    """A run whose first owner is taken for dead in the middle of a step, and wakes when others are on."""

    def __init__(self, postgres: str) -> None:
        self.postgres = postgres
        self.began: list[int] = []
        self.gates = {1: asyncio.Event(), 2: asyncio.Event()}

        @step
        async def slow() -> str:
            attempt = current_step().attempt
            self.began.append(attempt)
            await self.gates[attempt].wait()
            return f"attempt {attempt}"

        @workflow
        async def flow(ctx: Context) -> str:
            found = await slow()
            await ctx.wait_for_event("go")
            return found

        self.flow = flow

    async def wake(self, store: PostgresStore) -> list[Any]:
        """The run's history when both have told what came of the step; `store` is the zombie's."""
        async with Engine(store, workflows=[self.flow], settings=SETTINGS) as zombie:
            await zombie.start(self.flow, id="run")
            await soon(lambda: self.began == [1])
            expire(self.postgres, zombie.worker.owner)
            async with Engine(self.postgres, workflows=[self.flow], settings=SETTINGS) as heir:
                await soon(lambda: self.began == [1, 2])
                self.gates[2].set()
                handle = await heir.get("run")
                await soon(lambda: of(handle, t.StepCompleted))
                self.gates[1].set()
                await soon(lambda: len(of(handle, t.StepCompleted, t.StepLate)) == 2)
                return handle.events()


async def test_a_zombies_write_is_refused_and_kept_as_evidence(
    postgres: str, caplog: pytest.LogCaptureFixture
) -> None:
    """D02."""
    store = PostgresStore(postgres)
    events = await Zombie(postgres).wake(store)
    done = [event for event in events if isinstance(event, t.StepCompleted)]
    late = [event for event in events if isinstance(event, t.StepLate)]
    assert [(bytes(event.result), event.attempt) for event in done] == [(b'"attempt 2"', 2)]
    assert [(bytes(event.result), event.attempt) for event in late] == [(b'"attempt 1"', 1)]
    assert [event.generation for event in events if isinstance(event, t.RunClaimed)] == [1, 2]
    assert "run was taken over by another owner; its bodies here are cancelled" in caplog.text
    assert not verify(store).problems
    store.close()


async def test_control_without_the_fence_a_zombies_write_counts(postgres: str) -> None:
    store = cheats.Unfenced(postgres)
    events = await Zombie(postgres).wake(store)
    assert sum(isinstance(event, t.StepCompleted) for event in events) == 2
    store.close()


# ---- D03, D04


async def test_what_a_dead_worker_elsewhere_had_is_taken_when_its_lease_is_over(
    postgres: str, tmp_path: Path
) -> None:
    """D03. Nobody here can tell that its process is gone: only its lease says so. That is no retry."""
    server, _, schema = postgres.rpartition("&schema=")
    with Office(tmp_path / "office", postgres) as office, psycopg.connect(server, autocommit=True) as root:
        async with Engine(postgres, execute=False) as client:
            await client.start(rests, id="run")
            worker = office.hire("worker")
            await soon(lambda: office.scene.heard("effects"))
            root.execute(f"UPDATE {schema}.workers SET place = 'elsewhere', pid = 1".encode())
            office.kill(worker)
            ((until,),) = root.execute(f"SELECT until FROM {schema}.workers".encode()).fetchall()
            office.hire("worker")
            handle = await client.get("run")
            assert await handle.result(timeout=90) == 2
            first, second = of(handle, t.RunClaimed)
            assert (first.generation, second.generation) == (1, 2)
            assert second.at >= until
            assert [event.reason for event in of(handle, t.StepInterrupted)] == ["crash"]
            assert not of(handle, t.StepAttemptFailed)


@asynccontextmanager
async def fifty_resume(
    postgres: str, folder: Path, cheat: str = ""
) -> AsyncIterator[tuple[Handle[Any], Office]]:
    """A paused run, and four processes that execute and ask fifty times for it to go on."""
    async with Engine(postgres, execute=False) as client:
        handle = await client.start(rests, id="run")
        await handle.pause()
        with Office(folder / "office", postgres) as office:
            for number in range(4):
                office.hire("resumes", 12 + number % 2, cheat=cheat)
            yield handle, office


async def test_of_fifty_who_resume_a_run_in_four_processes_one_executes(
    postgres: str, tmp_path: Path
) -> None:
    """D04."""
    async with fifty_resume(postgres, tmp_path) as (handle, office):
        await handle.result(timeout=90)
        await soon(lambda: len(office.scene.heard("ready")) == 4)
        assert len(office.scene.heard("asked")) == 50
        assert len(of(handle, t.RunResumed)) == 1
        assert len(of(handle, t.RunClaimed)) == 1
        assert len(office.scene.heard("effects")) == 1


async def test_control_who_ignores_leases_takes_the_run_from_the_others(
    postgres: str, tmp_path: Path
) -> None:
    async with fifty_resume(postgres, tmp_path, cheat="ignores_leases") as (handle, office):
        await soon(lambda: len(office.scene.heard("effects")) > 1)
        assert len(of(handle, t.RunClaimed)) > 1
        assert len(of(handle, t.RunResumed)) == 1  # the log fences all the same
