"""`refold queues`, `--queue` and `--tag`: limits, how full queues are, and what a run waits for."""

import asyncio
from pathlib import Path

from refold import Context, Engine, workflow
from tests.cli.door import Door
from tests.engine.kit import until


@workflow
async def waits(ctx: Context) -> None:
    await ctx.wait_for_event("go")


async def fill(path: Path) -> None:
    async with Engine(path, workflows=[waits]) as engine:
        for name in ("one", "two"):
            await engine.start(waits, id=name, queue="emails", queue_key="ana")
        await engine.start(waits, id="far", run_on="gpu")
        await until(lambda: engine.queues.get("emails").running == 1)
        await engine.projections.wait()


def test_the_command_line_sets_limits_and_tells_who_waits_for_what(door: Door) -> None:
    """D13."""
    assert "concurrency 1, rate 5 in 60 s" in door(
        "queues", "set", "emails", "--concurrency", "1", "--rate", "5/60", "--by", "ana"
    )
    asyncio.run(fill(Path(door.path)))
    assert "places: one" in door("queues", "list", "emails")
    (state,) = door.json("queues")["queues"]
    assert (state["waiting"], state["running"], state["concurrency"], state["rate"]) == (1, 1, 1, [5, 60.0])
    assert state["holders"] == ["one"]
    assert "waits for a place in queue emails (ana)" in door("runs", "--blocked", "queue")
    assert "waits for a worker with tag gpu" in door("show", "far")
    assert "it waits for a place in queue emails" in door("why", "two")
    told = door("why", "far")
    assert "only a worker with tag gpu executes it" in told
    assert "--tag gpu" in told
    assert door.json("queues", "set", "emails") == {
        "queue": "emails", "concurrency": None, "per_key": None, "rate": None,
    }  # fmt: skip
