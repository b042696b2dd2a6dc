"""Logs that are exported and imported, and files that are not what was exported."""

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

from msgspec import structs

from refold.events import transfer, types as t
from refold.events.memory import MemoryStore
from refold.events.sqlite import SQLiteStore
from refold.events.store import Unit
from refold.events.transfer import export_log, import_log
from refold.events.verify import Verified
from refold.testing.samples import sample_append, sample_work
from tests.errors.cases import meets
from tests.events import transfers

Spoil = Callable[[list[str]], list[str]]


def exported() -> list[str]:
    store = MemoryStore()
    store.commit([Unit((sample_append(store, "run", 3),), (sample_work("run"),))])
    return list(export_log(store))


def imported(spoil: Spoil) -> None:
    import_log(MemoryStore(), [line.encode() for line in spoil(exported())], name="log.jsonl")


SPOILT: dict[tuple[str, str], Spoil] = {
    ("SchemaMismatch", "…, line 1: expected the header of …"): lambda lines: lines[1:],
    ("SchemaMismatch", "… has version … of the format, …"): lambda lines: [
        lines[0].replace('"version":1', '"version":2'),
        *lines[1:],
    ],
    ("StoreCorrupt", "…, line …: …; nothing of it can be trusted, …"): lambda lines: lines[:-1],
}
for (_kind, _message), _spoil in SPOILT.items():
    meets(_kind, _message)(lambda folder, spoil=_spoil: imported(spoil))


@meets("StartConflict", "… cannot be imported into …")
def another_history_of_a_run(folder: Path) -> None:
    store = MemoryStore()
    transfers.put(store, "a", transfers.started("other"))
    import_log(store, transfers.exported(transfers.sample()))


@meets("StartConflict", "run … holds the lock …, which run … holds here; …")
def a_run_that_holds_what_another_one_holds_here(folder: Path) -> None:
    there, here = MemoryStore(), MemoryStore()
    transfers.put(there, "a", structs.replace(transfers.started(), lock="k"))
    transfers.put(here, "lock/k", t.LockTaken(id="l", at=transfers.AT, run_id="b"))
    import_log(here, transfers.exported(there))


@meets("StoreCorrupt", "… is damaged, found after the import was stored: …")
def a_store_that_does_not_keep_what_it_is_given(folder: Path) -> None:
    with mock.patch.object(transfer, "verify", return_value=Verified(3, 1, ("version 2 is missing",))):
        imported(lambda lines: lines)


def damaged(folder: Path, sql: str) -> Any:
    store = SQLiteStore(folder / "log.db")
    store.commit([Unit((sample_append(store, "run", 3),), (sample_work("run"),))])
    with sqlite3.connect(folder / "log.db") as connection:
        connection.execute(sql)
    connection.close()
    try:
        return list(export_log(store))
    finally:
        store.close()


@meets("StoreCorrupt", "…: … events were to be exported, …")
def the_last_event_is_gone(folder: Path) -> None:
    damaged(folder, "DELETE FROM stored_events WHERE originator_version = 3")


@meets("StoreCorrupt", "stream … version …: a column is not of its type")
def a_number_in_the_place_of_an_event(folder: Path) -> None:
    damaged(folder, "UPDATE stored_events SET state = 3 WHERE originator_version = 2")
