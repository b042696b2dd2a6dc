"""Runners as processes of their own: `python -m tests.projections.programs NAME LOG …`.

They talk to the test over pipes: nobody waits by sleeping.
"""

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from refold.events.sqlite import SQLiteStore
from refold.projections.core import CORE
from refold.projections.runner import Runner
from refold.projections.views import Standing
from refold.projections.views_sqlite import SqliteViews


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class DiesInWrite(Runner):
    """Killed when it has written some tables of a batch, and has not committed."""

    writes_left = 0

    def _write(self, stored: Any, last: Any) -> Standing:
        standing = super()._write(stored, last)
        self.writes_left -= 1
        if not self.writes_left:
            die()
        return standing


class DiesBetweenTwoCommits(DiesInWrite):
    """Control: the position is committed before the rows."""

    def _write(self, stored: Any, last: Any) -> Standing:
        self.writes_left -= 1
        if not self.writes_left:
            after = self._standings[stored.name].position
            self._advance([stored.name], after, last)
            self.views.run("COMMIT")
            die()
        self.writes_left += 1
        return super()._write(stored, last)


def catch_up(log: str, batch: str) -> None:
    """Catch up beside whoever else does; say how many events it was that this process folded."""
    store, views = SQLiteStore(log), SqliteViews.of(log)
    print("ready", flush=True)
    sys.stdin.readline()
    runner, folded = Runner(store, views, CORE), 0
    while runner.lag().events:
        folded += runner.catch_up(int(batch))
    print(folded, flush=True)


def die_in_write(log: str, kind: str, writes: str) -> None:
    """Catch up in small batches and be killed inside a transaction."""
    runner = {"one": DiesInWrite, "two": DiesBetweenTwoCommits}[kind](
        SQLiteStore(log), SqliteViews.of(log), CORE
    )
    runner.writes_left = int(writes)
    while runner.catch_up(5):
        pass


def report(log: str) -> None:
    """Catch up in small batches, and say so after each."""
    runner = Runner(SQLiteStore(log), SqliteViews.of(log), CORE)
    while runner.catch_up(3):
        print(runner.position, flush=True)


if __name__ == "__main__":
    programs: dict[str, Callable[..., None]] = {
        "catch_up": catch_up,
        "die_in_write": die_in_write,
        "report": report,
    }
    programs[sys.argv[1]](*sys.argv[2:])
