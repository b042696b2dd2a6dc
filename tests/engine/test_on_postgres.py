"""Runs whose log is on a PostgreSQL server: the whole path, with a worker that is killed."""

import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from refold import Context, Engine, step, workflow
from refold.errors import StoreBusy
from refold.events.open import open_store
from refold.events.postgres import PostgresStore
from refold.events.transfer import export_log, import_log
from tests.engine.kit import waiting

pytestmark = pytest.mark.anyio

PROGRAM = """
import os, signal, sys
import anyio
from refold import Context, Engine, step, workflow

url, effects = sys.argv[1:]

@step
async def effect(number: int) -> int:
    with open(effects, "a") as file:
        file.write(f"{number}\\n")
    if number == 2 and not os.path.exists(effects + ".killed"):
        open(effects + ".killed", "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return number

@workflow
async def numbers(ctx: Context) -> list[int]:
    found = [await effect(number) for number in range(5)]
    await ctx.sleep(0.05)
    return found

async def main() -> None:
    async with Engine(url, workflows=[numbers]) as engine:
        handle = await engine.start(numbers, id="run")
        print(await handle.result(), handle.status()["status"])

anyio.run(main)
"""


def test_a_killed_worker_leaves_nothing_undone_and_nothing_is_done_twice(
    postgres: str, tmp_path: Path
) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, str(program), postgres, str(tmp_path / "effects")]
    assert subprocess.run(command, check=False, timeout=60).returncode == -9
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout == "[0, 1, 2, 3, 4] completed\n"
    # The one that was in flight ran again; those that were durable did not.
    assert (tmp_path / "effects").read_text().split() == ["0", "1", "2", "2", "3", "4"]


@step
async def double(number: int) -> int:
    return 2 * number


@workflow
async def asks(ctx: Context) -> int:
    decision = await ctx.approval("go on?")
    word = await ctx.wait_for_event("word")
    return await double(len(decision.by) + len(word))


@workflow
async def parent(ctx: Context) -> list[int]:
    return [await ctx.child(asks), *await ctx.map(double, [1, 2, 3])]


async def test_another_process_votes_and_sends_while_one_executes(postgres: str) -> None:
    async with Engine(postgres, workflows=[parent, asks]) as engine:
        handle = await engine.start(parent, id="run")
        await waiting(engine, "run")
        (child,) = [run for run in engine.store.running() if run != "run"] or [
            work.run_id for work, _ in engine.store.all_work() if work.run_id != "run"
        ]
        await waiting(engine, child)
        async with Engine(postgres, execute=False) as outside:
            await outside.signal(child, "word", "long")
            await outside.approve(child, by="ana")
        assert await handle.result(timeout=30) == [14, 2, 4, 6]
        await engine.projections.wait()
        assert engine.runs.count() == {"completed": 2}
        assert not engine.verify().problems
        assert not engine.projections.check()


async def test_who_needs_the_whole_log_for_himself_waits_for_the_executors(postgres: str) -> None:
    other = PostgresStore(postgres)
    async with Engine(postgres, workflows=[asks]):
        with pytest.raises(StoreBusy, match=r"is held by .*pid"):
            other.hold("maintenance")
    other.hold("maintenance")
    with pytest.raises(StoreBusy, match=r"is held by maintenance"):
        await Engine(postgres, workflows=[asks]).__aenter__()
    other.release()
    async with Engine(postgres, workflows=[asks]), Engine(postgres, workflows=[asks]):
        assert other.holder() is not None
    assert other.holder() is None
    other.close()


async def test_open_runs_move_from_a_file_to_a_server(postgres: str, tmp_path: Path) -> None:
    async with Engine(tmp_path / "log.db", workflows=[asks]) as engine:
        await engine.start(asks, id="run")
        await waiting(engine, "run")
    source, target = open_store(tmp_path / "log.db"), open_store(postgres)
    import_log(target, export_log(source))
    assert [row[:5] for row in target.read("run")] == [row[:5] for row in source.read("run")]
    source.close()
    target.close()
    async with Engine(postgres, workflows=[asks]) as engine:
        handle = await engine.get("run")
        await handle.approve(by="ana")
        await handle.signal("word", "long")
        assert await handle.result(timeout=30) == 14


async def test_an_engine_outlives_a_server_that_cuts_all_connections(
    postgres: str, postgres_server: str
) -> None:
    async with Engine(postgres, workflows=[asks]) as engine:
        handle = await engine.start(asks, id="run")
        await waiting(engine, "run")
        with psycopg.connect(postgres_server, autocommit=True) as other:
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'refold' AND pid <> pg_backend_pid()"
            )
        await handle.approve(by="ana")
        await handle.signal("word", "long")
        assert await handle.result(timeout=30) == 14
