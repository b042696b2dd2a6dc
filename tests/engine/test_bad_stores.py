"""Stores that fail under a running engine: typed errors, nothing acknowledged is lost, no shutdown hangs."""

import asyncio
import logging
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from refold import Context, RefoldError, current_step, step, workflow
from refold.events import types as t
from refold.events.errors import SchemaMismatch, StoreCorrupt, StoreFull
from refold.events.sqlite import SQLiteStore
from refold.events.sqlite_file import File
from tests.engine.children import ROOT
from tests.engine.kit import Place, engine, of, seen, until, waiting

pytestmark = pytest.mark.anyio

PLENTY = 1_000_000


class TightFile(File):
    """SQLite's own limit of pages, which the test sets."""

    pages = PLENTY

    def writer(self) -> sqlite3.Connection:
        connection = super().writer()
        connection.execute(f"PRAGMA max_page_count = {TightFile.pages}")
        return connection


class TightStore(SQLiteStore):
    file_class = TightFile


@pytest.fixture
def tight(tmp_path: Path) -> Any:
    TightFile.pages = PLENTY
    yield lambda: TightStore(tmp_path / "runs.db")
    TightFile.pages = PLENTY


effects: list[str] = []


@step
async def writes(number: int) -> str:
    info = current_step()
    effects.append(info.idempotency_key)
    return f"{number}" * 2_000


@workflow
async def fills(ctx: Context, steps: int) -> int:
    total = 0
    for number in range(steps):
        total += len(await writes(number))
    return total + len(await ctx.wait_for_event("go"))


async def test_when_the_disk_is_full_runs_stand_still_and_go_on_when_there_is_room(
    tight: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """F12: and no effect begins whose intent could not be stored."""
    caplog.set_level(logging.CRITICAL)
    effects.clear()
    store = tight()
    async with engine(store, fills) as e:
        handle = await e.start(fills, 200, id="r")
        await seen(handle, t.StepCompleted, 5)
        TightFile.pages = 1  # not less than it has already
        await until(lambda: e.worker.log.failure is not None)
        assert isinstance(e.worker.log.failure, StoreFull)
        stored = len(of(handle, t.StepStarted))
        await asyncio.sleep(0.05)
        assert len(effects) == stored, "no effect without its stored intent"
        with pytest.raises(StoreFull, match="free some space"):
            await e.start(fills, 1, id="another")
        signal = asyncio.create_task(handle.signal("go", "!"))
        await asyncio.sleep(0.05)
        acknowledged = signal.done()
        assert acknowledged is bool(of(handle, t.SignalReceived))
        TightFile.pages = PLENTY
        await signal
        assert await handle.result() > 2_000
        assert len(effects) == 200, "nothing ran twice"
        assert e.store.read("another") == []
        again = await e.start(fills, 0, id="another")
        await again.signal("go", "")
        assert await again.result() == 0
        assert e.verify().problems == ()
    store.close()


async def test_control_bodies_that_need_not_wait_for_their_intent_begin_on_a_full_disk(
    tight: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """F12: the same with pure steps, which may."""
    caplog.set_level(logging.CRITICAL)
    begun: list[int] = []

    @step(pure=True)
    async def thinks(number: int) -> str:
        begun.append(number)
        return "x" * 5_000

    @workflow
    async def ponders(ctx: Context) -> None:
        await ctx.wait_for_event("go")
        for number in range(100):
            await thinks(number)

    store = tight()
    async with engine(store, ponders) as e:
        handle = await e.start(ponders)
        await waiting(e, handle.id)
        TightFile.pages = 1
        signal = asyncio.create_task(handle.signal("go"))
        await until(lambda: len(begun) > len(of(handle, t.StepStarted)) + 10)
        TightFile.pages = PLENTY
        await signal
        await handle.result()
    store.close()


async def test_shutting_down_while_the_disk_is_full_neither_hangs_nor_loses_what_was_acknowledged(
    tight: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    effects.clear()
    store = tight()
    async with engine(store, fills, grace=0.1) as e:
        handles = [await e.start(fills, 40, id=f"r{n}") for n in range(5)]
        await seen(handles[0], t.StepCompleted, 3)
        await handles[0].signal("go", "acknowledged")
        TightFile.pages = 1
        await until(lambda: e.worker.log.failure is not None)
        completed = {handle.id: len(of(handle, t.StepCompleted)) for handle in handles}
    store.close()
    TightFile.pages = PLENTY
    store = tight()
    async with engine(store, fills) as e:
        for number in range(5):
            handle = await e.get(f"r{number}")
            if number:
                await handle.signal("go", "late")
            assert await handle.result() > 80_000
            assert len(of(handle, t.StepCompleted)) == 40 >= completed[handle.id]
        assert [bytes(s.payload) for s in of(await e.get("r0"), t.SignalReceived)] == [b'"acknowledged"']
        assert e.verify().problems == ()
    store.close()
    assert len(set(effects)) == 200
    assert len(effects) <= 205, "at most the attempts in flight ran again"


async def test_a_start_refused_by_a_full_disk_can_be_repeated_with_the_same_id(tight: Any) -> None:
    @step(pure=True)
    async def thinks(n: int) -> str:
        return "x" * 20_000

    @workflow
    async def pure_first(ctx: Context) -> int:
        return sum([len(await thinks(n)) for n in range(20)])

    store = tight()
    async with engine(store, pure_first, fills) as e:
        await e.start(fills, 0, id="first")
        TightFile.pages = 1
        refused = 0
        for _ in range(200):  # the pages it has may still take some
            try:
                await e.start(pure_first, id="r", attributes={"x": "y" * 20_000})
            except StoreFull:
                refused += 1
                break
            break
        assert refused
        TightFile.pages = PLENTY
        handle = await e.start(pure_first, id="r")
        assert await handle.result(timeout=30) == 400_000
    store.close()


async def test_a_file_damaged_under_a_running_engine_is_reported_and_does_not_hang_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    path = tmp_path / "runs.db"
    async with engine(f"sqlite:///{path}", fills, grace=0.1) as e:
        for number in range(30):
            await e.start(fills, 3, id=f"r{number}")
        for number in range(30):
            await waiting(e, f"r{number}")
        with sqlite3.connect(path) as checkpoint:
            checkpoint.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        checkpoint.close()
        size = path.stat().st_size
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(os.urandom(size - 4096))
        outcomes = await asyncio.gather(
            *[_send(e, f"r{number}") for number in range(30)], return_exceptions=True
        )
        assert any(isinstance(outcome, StoreCorrupt) for outcome in outcomes)
        assert all(isinstance(outcome, RefoldError | TimeoutError) for outcome in outcomes if outcome)


async def _send(e: Any, run_id: str) -> None:
    async with asyncio.timeout(2):
        await e.signal(run_id, "go", "!")
        await (await e.get(run_id)).result()


async def test_a_store_of_a_newer_refold_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    async with engine(str(path), fills) as e:
        await e.start(fills, 0, id="r")
    with sqlite3.connect(path) as newer:
        newer.execute("UPDATE meta SET value = '999' WHERE key = 'schema_version'")
    newer.close()
    before = path.read_bytes()
    for execute in (True, False):
        with pytest.raises(SchemaMismatch, match=r"schema version 999.*upgrade this process"):
            async with engine(str(path), fills, execute=execute):
                raise AssertionError("it cannot be read")
    assert path.read_bytes() == before


@pytest.mark.parametrize("what", ["a folder", "no folder", "another file", "a URL of something else"])
async def test_a_place_that_is_no_store_is_refused_with_the_remedy(what: str, tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("Dear Sir or Madam, " * 100)
    places: dict[str, tuple[Place, str]] = {
        "a folder": (str(tmp_path), "is a folder; give the path of a file in it"),
        "no folder": (str(tmp_path / "no" / "runs.db"), "does its folder exist"),
        "another file": (str(tmp_path / "letter.txt"), "not a Refold store"),
        "a URL of something else": ("redis://localhost/1", "no store is called 'redis'"),
    }
    place, says = places[what]
    with pytest.raises(RefoldError, match=says):
        async with engine(place, fills):
            raise AssertionError("there is no store")


READ_ONLY = """
import asyncio, os, sys
import refold.events.sqlite  # now, because the other user may not read it from the disk
from refold import Engine, StoreError
if os.geteuid() == 0:
    os.seteuid(65534)
async def main():
    for execute in (True, False):
        try:
            async with Engine(sys.argv[1], execute=execute) as engine:
                print("opened", len(engine.events("r")))
                await engine.signal("r", "go")
        except StoreError as error:
            print(type(error).__name__, error)
asyncio.run(main())
"""


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that everybody can reach: those of pytest are private."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)
        Path(folder).chmod(0o755)


def read_only(folder: Path) -> "subprocess.CompletedProcess[str]":
    """The program above, run by somebody who may read the store in this folder and no more."""
    for path in folder.iterdir():
        path.chmod(0o444)
    folder.chmod(0o555)
    return subprocess.run(
        [sys.executable, "-c", READ_ONLY, str(folder / "runs.db")],
        capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, timeout=60,
    )  # fmt: skip


async def test_a_read_only_store_can_be_looked_at_but_not_executed_or_written(shared: Path) -> None:
    async with engine(str(shared / "runs.db"), fills) as e:
        await e.start(fills, 0, id="r")
        await waiting(e, "r")
    done = read_only(shared)
    executes, opened, signals = done.stdout.splitlines() or [done.stderr, "", ""]
    assert executes.startswith("StoreReadOnly")
    assert "write permission" in executes or "not writable" in executes
    assert opened == "opened 3"
    assert signals.startswith("StoreReadOnly"), done.stdout
