"""The read models of a log with many workers: one keeps them up, another one goes on when it stops."""

from unittest import mock

import pytest

from refold import Context, Engine, step, workflow
from refold.engine.keeping_up import InThread
from refold.errors import SchemaMismatch
from tests.engine.kit import until

pytestmark = pytest.mark.anyio


@step
async def once(number: int) -> int:
    return number


@workflow
async def twice(ctx: Context) -> int:
    return await once(1) + await once(2)


def follower(engine: Engine) -> InThread:
    found = engine.projections.follower
    assert isinstance(found, InThread)
    return found


async def test_one_engine_keeps_up_and_another_goes_on_when_it_stops(postgres: str) -> None:
    def caught_up(engine: Engine, runs: int) -> bool:
        return engine.projections.lag().events == 0 and engine.runs.count() == {"completed": runs}

    with mock.patch("refold.engine.keeping_up.STAND_BY_S", 0.05):
        async with (
            Engine(postgres, workflows=[twice]) as first,
            Engine(postgres, workflows=[twice]) as second,
        ):
            await (await first.start(twice)).result()
            await until(lambda: caught_up(first, 1) and caught_up(second, 1))
            follower(first).close()
            await (await second.start(twice)).result()
            await until(lambda: caught_up(first, 2) and caught_up(second, 2))
            follower(second).close()
            assert second.projections.check() == []


async def test_wait_sees_what_was_written_before(postgres: str) -> None:
    async with Engine(postgres, workflows=[twice]) as worker:
        follower(worker).close()
        async with Engine(postgres, workflows=[twice], execute=False) as door:
            for runs in range(1, 4):
                await (await door.start(twice)).result()
                await door.projections.wait()
                assert door.runs.count() == {"completed": runs}


async def test_who_hears_of_nothing_asks_nobody(postgres: str) -> None:
    async with Engine(postgres, workflows=[twice]) as engine:
        await (await engine.start(twice)).result()
        await engine.projections.wait()
        following = follower(engine)
        await until(lambda: following._heard == following._stirred() and following._timer is not None)
        with mock.patch.object(following, "_look", return_value=0.0) as look:
            before = following._timer
            await until(lambda: following._timer not in (before, None))
            assert look.call_count == 0
            engine.store.stirred += 1  # type: ignore[attr-defined]
            await until(lambda: look.call_count)


async def test_an_older_process_executes_beside_newer_read_models(
    postgres: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with Engine(postgres, workflows=[twice]) as newer:
        await (await newer.start(twice)).result()
        await newer.projections.wait()
        views = newer.projections.views
        with views.writing():
            assert views.run("UPDATE projections SET version = 99 WHERE name = 'runs'")
    async with Engine(postgres, workflows=[twice]) as older:
        assert await (await older.start(twice)).result() == 3
        await until(lambda: "built by a newer one; upgrade this process" in caplog.text)
        with pytest.raises(SchemaMismatch):
            await older.projections.wait()
