"""`refold schedules`: how they stand, and what people do to them."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from refold import Context, workflow
from refold.events.open import open_store
from refold.events.schedule_events import ScheduleSkipped, Standing
from refold.events.store import Append, Unit
from refold.events.stream import SCHEDULES, chain
from tests.cli.door import Door
from tests.engine.kit import until

pytestmark = pytest.mark.anyio

A_DAY = 86_400.0


@workflow
async def report(ctx: Context, about: str) -> str:
    return about


async def test_a_schedule_is_listed_shown_and_told_what_to_do(door: Door) -> None:
    async with door.engine(report) as engine:
        assert door("schedules").startswith("no schedules in ")
        await engine.schedules.create("nightly", report, "sales", cron="30 2 * * *", timezone="Europe/Madrid")
        assert "nightly" in await door.beside("schedules")
        assert "is paused" in await door.beside("schedules", "pause", "nightly", "--note", "stocktaking")
        said = await door.beside("schedules", "trigger", "nightly", "--by", "user:ana", "--json")
        run_id = json.loads(said)["run"]
        await until(lambda: (work := engine.store.work(run_id)) is not None and work.state == "done")
        shown = await door.beside("schedules", "show", "nightly")
        for words in (
            "paused  stocktaking",
            'cron 30 2 * * * (Europe/Madrid): report("sales")',
            run_id,
            "1 run",
        ):
            assert words in shown
        assert len((await door.beside("schedules", "next", "nightly", "--count", "3")).splitlines()) == 3
        assert "fires again" in await door.beside("schedules", "resume", "nightly")
        said = await door.beside("schedules", "backfill", "nightly", "--from", "3d")
        assert "asked for the runs of 3 times" in said
        await until(lambda: engine.schedules.get("nightly").fired == 4)
        assert "is deleted" in await door.beside("schedules", "delete", "nightly", "--note", "no need")
        assert "deleted" in await door.beside("schedules", "list", "--all")
    assert door.json("schedules") == {"schedules": []}
    assert "no schedule 'nightly'" in door("schedules", "next", "nightly", code=3)
    shown = door.json("schedules", "show", "nightly", "--count", "1")
    assert (shown["status"], shown["fired"], shown["next"]) == ("deleted", 4, [])
    assert [fact["event"] for fact in shown["recent"][:2]] == ["schedule.deleted", "schedule.fired"]


async def test_who_lists_learns_that_nobody_fires_and_what_is_late(door: Door) -> None:
    async with door.engine(report, execute=False) as engine:
        await engine.schedules.create("x", report, "x", every=A_DAY)
        await engine.schedules.trigger("x")
    assert "nobody executes the store now" in door("schedules")
    assert "nobody executes the store now" in await door.beside("schedules", "trigger", "x")
    _say(door, [ScheduleSkipped(first=_AT, last=_AT, count=3, reason="late", **_about())])
    assert "late: no worker with report has fired it" in door("schedules")
    assert "skipped 3: too late when somebody could" in door("schedules", "show", "x")


def test_what_is_asked_for_wrongly_is_said_in_one_sentence(door: Door) -> None:
    open_store(door.path).close()
    assert "list takes no name" in door("schedules", "list", "x", code=2)
    assert "pause which schedule?" in door("schedules", "pause", code=2)
    assert "backfill from when?" in door("schedules", "backfill", "x", code=2)
    for action in ("show", "next", "pause", "resume", "trigger", "delete"):
        assert "no schedule 'nope'" in door("schedules", action, "nope", code=3)
    assert "no schedule" in door("schedules", "show", "\x1b[2J", code=3)


async def test_stored_text_is_harmless_on_a_terminal(door: Door) -> None:
    async with door.engine(report) as engine:
        await engine.schedules.create("x", report, "\x1b[2J", every=A_DAY)
        await engine.schedules.pause("x", "\x1b[2J")
    for command in (["schedules"], ["schedules", "show", "x"], ["schedules", "show", "x", "--json"]):
        assert "\x1b" not in door(*command)


_AT = datetime(2026, 1, 1, tzinfo=UTC)


def _about() -> dict[str, Any]:
    return {"id": "1", "at": _AT, "standing": Standing(defined=1, next_at=_AT)}


def _say(door: Door, events: list[Any]) -> None:
    store = open_store(door.path)
    try:
        tail = store.tail(SCHEDULES + "x")
        rows, _ = chain(SCHEDULES + "x", tail, events)
        assert store.commit([Unit((Append(SCHEDULES + "x", tail.version, rows),))]) == [None]
    finally:
        store.close()
