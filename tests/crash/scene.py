"""Where a crash test takes place: a folder with the store, what bodies did, and what was acknowledged.

A process of such a test passes *moments* at which it may be told to die: before, inside and after every
append, at the beginning and the end of every body. The files are written with O_APPEND, so what a killed
process had said stays said.
"""

import json
import os
import signal
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from refold.events.open import open_store

RUN = "run"
"""Id of the run under test."""


class Scene:
    """The folder of one case, seen from one process."""

    def __init__(self, folder: Path, kill_at: int = 0, postgres: str = "") -> None:
        self.folder = folder
        self.postgres = postgres
        """URL of the store, when it is not the file."""
        self.store_path = folder / "log.db"
        self.kill_at = kill_at
        """Number of the moment at which this process dies; 0: it lives."""
        self.moments = 0
        self.at_moment: Callable[[str], None] = lambda label: None
        """Called at every moment, before it may be the last."""

    # ---- moments

    def moment(self, label: str) -> None:
        """One more moment; perhaps the last."""
        self.moments += 1
        self.at_moment(label)
        if self.moments == self.kill_at:
            self.say("deaths", label)
            os.kill(os.getpid(), signal.SIGKILL)

    # ---- what outlives the process

    def say(self, file: str, *what: Any) -> None:
        """Append a JSON line to a file."""
        line = json.dumps([os.getpid(), *what]).encode() + b"\n"
        fd = os.open(self.folder / file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        os.write(fd, line)
        os.close(fd)

    def heard(self, file: str) -> list[list[Any]]:
        """The lines of a file, without the process ids."""
        path = self.folder / file
        return [json.loads(line)[1:] for line in path.read_text().splitlines()] if path.exists() else []

    # ---- what is durable, asked with a connection of its own

    def ask(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        """Rows of a query on the log as any other process sees it."""
        connection = sqlite3.connect(self.store_path, isolation_level=None)
        try:
            return connection.execute(query, parameters).fetchall()
        finally:
            connection.close()

    def has_log(self) -> bool:
        """Whether an earlier process has been here."""
        return self.store_path.exists() or (bool(self.postgres) and bool(self.heard("deaths")))

    def count(self, run_id: str, key: str, tag: str, attempt: int = 0) -> int:
        """How many events of this tag about the step with this key (and this attempt) are durable."""
        if self.postgres:
            return _count_on_a_server(self.postgres, run_id, key, tag, attempt)
        return int(self.ask(_COUNT, run_id, key, tag, attempt)[0][0])


_COUNT = """
    SELECT COUNT(*) FROM stored_events AS call JOIN stored_events AS fact USING (originator_id)
    WHERE originator_id = ? AND call.topic = 'step.scheduled'
    AND json_extract(CAST(call.state AS TEXT), '$.key') = ? AND fact.topic = ?
    AND json_extract(CAST(fact.state AS TEXT), '$.step') = json_extract(CAST(call.state AS TEXT), '$.step')
    AND ? IN (0, IFNULL(json_extract(CAST(fact.state AS TEXT), '$.attempt'), 1))
"""


def _count_on_a_server(url: str, run_id: str, key: str, tag: str, attempt: int) -> int:
    store = open_store(url)
    try:
        events: list[Any] = [row.event() for row in store.read(run_id)]
    finally:
        store.close()
    steps = {event.step for event in events if event.TAG == "step.scheduled" and event.key == key}
    facts = [event for event in events if tag == event.TAG and event.step in steps]
    return sum(attempt in (0, getattr(event, "attempt", 1)) for event in facts)


_here: Scene | None = None


def here() -> Scene:
    """The scene of this process."""
    assert _here is not None, "this process has no scene"
    return _here


def enter(scene: Scene) -> None:
    """Make it the scene of this process."""
    global _here
    _here = scene
