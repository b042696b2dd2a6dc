"""`refold locks` and `refold run --lock`: who holds which concurrency key."""

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path

from refold import Context, Engine, workflow
from refold.triggers import Trigger
from tests.cli.door import Door


@workflow
async def waits(ctx: Context) -> None:
    await ctx.wait_for_event("go")


async def fill(path: Path) -> None:
    async with Engine(path, workflows=[waits]) as engine:
        await engine.start(waits, id="one", lock="/srv/data", trigger=Trigger.webhook("/orders"))
        await engine.start(waits, id="two", lock="b")
        late = datetime.now(UTC) + timedelta(days=30)
        await engine.start(waits, id="later", lock="c", start_at=late, trigger=Trigger.schedule("n", late))
        await engine.terminate("two")
        await engine.projections.wait()
        held = engine.locks.list()
        assert [(lock.key, lock.holder, lock.workflow) for lock in held] == [
            ("/srv/data", "one", "waits"),
            ("c", "later", "waits"),
        ]


def test_the_command_line_tells_who_holds_what_and_when_a_run_begins(door: Door) -> None:
    """D05."""
    asyncio.run(fill(Path(door.path)))
    told = door("locks")
    assert "/srv/data" in told
    assert "one" in told
    assert "two" not in told
    (only,) = door.json("locks", "/srv/data")["locks"]
    assert (only["key"], only["holder"]) == ("/srv/data", "one")
    assert "nobody holds the lock b" in door("locks", "b")
    assert "begins at" in door("runs", "--blocked", "timer")
    assert "waits for event go; lock /srv/data" in door("runs", "--lock", "/srv/data")
    assert [run["run_id"] for run in door.json("runs", "--trigger", "webhook")["runs"]] == ["one"]
    assert [run["run_id"] for run in door.json("runs", "--lock", "b")["runs"]] == ["two"]
    shown = door("show", "one")
    assert "by webhook /orders" in shown
    assert "lock     /srv/data" in shown
    assert "by schedule n of 2" in door("show", "later")
    assert "it is not to begin before" in door("why", "later")
