"""Appends that come to nothing, and logs that are damaged."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import pytest

from refold import Context, current_step, step, workflow
from refold.engine.live import Kept
from refold.engine.recovery import Recovery
from refold.errors import RefoldError
from refold.events import types as t
from refold.events.clock import new_event_id
from refold.events.log import Log
from refold.events.memory import MemoryStore
from refold.events.open import open_store
from refold.events.registry import decode_event
from refold.events.store import Append, Store, Unit
from refold.events.stream import Tail, chain, check_chain
from refold.testing.samples import sample_append, sample_work
from tests.engine.kit import engine, until
from tests.errors.cases import meets
from tests.errors.storing import changed, filled, waits


async def appended(store: Store, **options: Any) -> None:
    """Append through the log of an engine, and hear what became of it."""
    found: list[Any] = []
    Log(store).append(Unit((sample_append(store, "run"),)), found.append, **options)
    await until(lambda: found)
    raise found[0]


class Odd(MemoryStore):
    """A store of somebody's own."""

    raises: BaseException = ValueError("no such table")

    def commit(self, units: Any) -> Any:
        raise self.raises


@meets("StoreError", "the store raised …: …; expected StoreError for what it cannot: mend it")
async def a_store_that_raises_what_it_should_not(folder: Path) -> None:
    await appended(Odd(), retry=False)


@meets("StoreError", "the log was closed before this was stored; do it again")
async def a_log_that_closes(folder: Path) -> None:
    log = Log(MemoryStore())
    found: list[Any] = []
    log.append(Unit((sample_append(log.store, "run"),)), found.append)
    with mock.patch.object(Log, "flush", side_effect=ZeroDivisionError), pytest.raises(ZeroDivisionError):
        await log.close()
    raise found[0]


@meets("StoreError", "the commit was interrupted; look whether it was stored before you do it again")
async def a_commit_that_is_interrupted(folder: Path) -> None:
    store = Odd()
    store.raises = KeyboardInterrupt()
    log = Log(store)
    found: list[Any] = []
    log.append(Unit((sample_append(store, "run"),)), found.append, retry=False)
    assert log._timer is not None
    log._timer.cancel()
    with pytest.raises(KeyboardInterrupt):
        log._pump()
    await until(lambda: found)
    raise found[0]


@meets(
    "AppendRefused",
    "append to … refused: expected version …, found …; somebody …",
)
async def somebody_was_faster(folder: Path) -> None:
    store = MemoryStore()
    stale = sample_append(store, "run")
    store.commit([Unit((sample_append(store, "run"),))])
    log = Log(store)
    found: list[Any] = []
    log.append(Unit((stale,)), found.append)
    await until(lambda: found)
    raise found[0]


# ---- what is in it


@meets("StoreCorrupt", "stream …: version … is missing, found …; restore a backup")
def an_event_was_taken_out(folder: Path) -> None:
    store = MemoryStore()
    store.commit([Unit((sample_append(store, "run", 3),))])
    rows = store.read("run")
    check_chain([rows[0], rows[2]])


@meets(
    "StoreCorrupt",
    "stream … version … (…, position …) does not match its hash …",
)
def an_event_was_changed(folder: Path) -> None:
    path = changed(filled(folder), "UPDATE stored_events SET state = x'7b7d' WHERE originator_version = 2")
    store = open_store(path)
    try:
        check_chain(store.read("run"))
    finally:
        store.close()


@meets("StoreCorrupt", "event … at … does not fit its type: …; restore a backup")
def an_event_of_the_wrong_shape(folder: Path) -> None:
    decode_event("run.started", b"{}", "stream 'r' version 1")


@meets(
    "UnknownEvent",
    "unknown event type … at …: it was written by a newer Refold …",
)
def an_event_of_a_newer_refold(folder: Path) -> None:
    decode_event("run.teleported", b"{}", "stream 'r' version 1")


@meets("StoreCorrupt", "stream … does not begin with run.started; restore a backup")
async def a_run_without_its_beginning(folder: Path) -> None:
    store = MemoryStore()
    rows, _ = chain("r", Tail(), [t.RunPaused(id=new_event_id(), at=datetime.now(UTC))])
    store.commit([Unit((Append("r", 0, rows),), (sample_work("r"),))])
    async with engine(store, waits) as e:
        await (await e.get("r")).result()


@meets("StoreCorrupt", "run … is … by the table `work`, its stream has no end; restore a backup")
async def a_run_without_its_end(folder: Path) -> None:
    path = folder / "log.db"
    async with engine(f"sqlite:///{path}", waits, execute=False) as outside:
        run = await outside.start(waits, id="r")
        changed(path, "UPDATE work SET state = 'done', status = 'completed'")
        await run.result()


@step
async def keeps(content: bytes) -> Any:
    return current_step().artifact("content", data=content)


@workflow
async def filing(ctx: Context) -> Any:
    return await keeps(b"x")


async def kept(spoil: Callable[[dict[str, bytes]], None]) -> None:
    store = MemoryStore()
    async with engine(store, filing) as e:
        made = await e.run(filing)
        spoil(store._blobs)
        store.blob(made["sha256"])


@meets("StoreCorrupt", "…: the content … of a large value is missing; restore a backup")
async def a_content_that_is_gone(folder: Path) -> None:
    await kept(lambda blobs: blobs.clear())


@meets("StoreCorrupt", "…: the content … of a large value has the digest …: it was …")
async def a_content_that_was_changed(folder: Path) -> None:
    await kept(lambda blobs: blobs.update({digest: b"y" for digest in blobs}))


# ---- the engine's side


@meets("StoreError", "the engine was closed before this was stored; do it again")
async def an_engine_that_closes(folder: Path) -> None:
    told: list[Any] = []
    kept: Any = SimpleNamespace(told=told.append)
    async with engine("memory://") as e:
        e.worker.recovery.lost["r"] = SimpleNamespace(kept=[kept], leave=lambda: None)  # type: ignore[assignment]
    raise told[0]


@meets(
    "LeaseLost",
    "append to … refused: expected version …, found …; somebody …",
)
async def a_run_that_another_owner_has(folder: Path) -> None:
    lost: list[RefoldError] = []
    keeper = SimpleNamespace(taken_over=lambda run_id, error: lost.append(error))
    live = SimpleNamespace(run_id="r", refusal=None, kept=[], leave=lambda: None)
    Recovery(keeper)._lease_lost(live)  # type: ignore[arg-type]
    raise lost[0]


@meets("VoteRefused", "run …: the gate was decided meanwhile")
async def a_vote_that_is_fed_again_too_late(folder: Path) -> None:
    told: list[Any] = []
    vote = t.GateVoted(
        gate=1, vote="approve", decides="approved", by="ana", id=new_event_id(), at=datetime.now(UTC)
    )
    live: Any = SimpleNamespace(run_id="r", run=SimpleNamespace(gates={}), head=lambda *about: {})
    Recovery(None)._feed(live, [Kept(vote, told.append)])
    raise told[0]
