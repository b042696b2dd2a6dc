"""However a run is asked for, one process never has two handlers of it."""

import asyncio
from pathlib import Path

from refold import Context, Engine, step, workflow

ran: list[int] = []


@step
async def effect(number: int) -> int:
    ran.append(number)
    await asyncio.sleep(0)
    return number


@workflow
async def two_effects(ctx: Context, number: int) -> int:
    await effect(number)
    await ctx.wait_for_event("go")
    return await effect(number + 1)


async def finish(engine: Engine, run_id: str) -> None:
    await engine.signal(run_id, "go")
    assert await (await engine.get(run_id)).result(10) == 2
    assert ran == [1, 2]
    tags = [row.tag for row in engine.store.read(run_id)]
    assert "step.interrupted" not in tags
    assert tags.count("run.claimed") == 1


def test_starts_of_one_id_at_once_run_every_step_once(tmp_path: Path) -> None:
    async def check() -> None:
        async with Engine(tmp_path / "x.db", workflows=[two_effects]) as engine:
            handles = await asyncio.gather(*[engine.start(two_effects, 1, id="x") for _ in range(3)])
            assert [handle.id for handle in handles] == ["x", "x", "x"]
            await finish(engine, "x")

    ran.clear()
    asyncio.run(check())


def test_a_run_that_falls_due_again_while_it_is_loaded_is_loaded_once(tmp_path: Path) -> None:
    async def check() -> None:
        async with Engine(tmp_path / "x.db", workflows=[two_effects], execute=False) as engine:
            await engine.start(two_effects, 1, id="x")
        async with Engine(tmp_path / "x.db", workflows=[two_effects]) as engine:
            for _ in range(20):
                engine.worker.look()
                await asyncio.sleep(0)
            await finish(engine, "x")

    ran.clear()
    asyncio.run(check())
