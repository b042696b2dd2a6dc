"""Many executors of one log on PostgreSQL: who lives, and which runs are whose. The log fences."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
from msgspec.structs import asdict
from psycopg import Connection

from .errors import StoreBusy, StoreError
from .hold import this_process
from .postgres_batch import name_of, text_of, texts
from .postgres_server import Server
from .work import ANY_WORKER

_log = logging.getLogger("refold.postgres")


class Seen(NamedTuple):
    """What a look has found."""

    runs: list[str]
    """Ours, that want attention."""
    elsewhere: list[str]
    """With mail, though they wait for a place in a queue, or for a worker with another tag."""
    next_at: float | None
    """When something falls due, or the rate of a queue lets another run begin."""


class Leases:
    """Each worker has a row that says until when it lives, by the database's clock; each run, whose it is.

    So it costs one update for a worker to keep all its runs, however many.
    """

    def __init__(
        self,
        server: Server,
        queries: dict[str, bytes],
        ask: Callable[..., list[tuple[Any, ...]]],
        holder: Callable[[], str],
    ) -> None:
        self._server, self._queries, self._ask, self._holder = server, queries, ask, holder
        self.owner: str | None = None
        """Of the runs that this process starts; None: it executes nothing."""
        self.tags: list[str] = list(ANY_WORKER)
        """Of what it executes: runs that want one of these."""
        self._listener: Connection[Any] | None = None
        self.channel = f"refold_{server.address.schema}"

    def _write(self, query: str, **parameters: Any) -> list[tuple[Any, ...]]:
        with self._server.writing() as connection:
            cursor = connection.execute(self._queries[query], parameters)
            return cursor.fetchall() if cursor.description else []

    def join(self, owner: str, ttl: float) -> None:
        """Live for `ttl` seconds. Raises `StoreError`."""
        key = self._server.address.key("executor")
        if not self._write("join", ttl=ttl, key=key, place=_place(), **asdict(this_process(owner))):
            raise StoreBusy(
                f"{self._server.address.url} is held by {self._holder()}; nothing executes "
                "meanwhile: try again"
            )
        self.owner = owner

    def beat(self, ttl: float) -> bool:
        """Live on; False: we had been given up, and others may have taken our runs."""
        if self._write("beat", owner=self.owner, ttl=ttl):
            return True
        assert self.owner is not None
        self.join(self.owner, ttl)
        return False

    def bury(self) -> int:
        """Forget workers at this very place whose process is gone: nobody needs to wait for their leases."""
        place = _place()
        if not place:
            return 0
        found = self._ask("neighbours", place=place, owner=self.owner)
        gone = [owner for owner, pid in found if not _lives(pid)]
        if gone:
            self._write("bury", owners=gone)
        return len(gone)

    def look(self, now: float, limit: int, skip: list[str], room: int) -> Seen:
        """What there is to do; of the runs that are nobody's, at most `room` become ours.

        Of those that wait in queues, too, as many as there are places for.
        """
        asked: dict[str, Any] = {"now": now, "owner": self.owner, "skip": texts(skip), "tags": self.tags}
        found = self._write("look", limit=limit, room=room, **asked)
        runs = [run for kind, run, _ in found if kind == "mine"]
        times = [at for kind, _, at in found if kind == "next" and at is not None]
        if room > len(runs) and any(kind == "queued" for kind, _, _ in found):
            given = self._write("claim_queued", limit=room - len(runs), **asked)
            runs += [run for run, _ in given if run is not None]
            times += [at for _, at in given if at is not None]
        elsewhere = [name_of(run) for kind, run, _ in found if kind == "elsewhere"]
        return Seen([name_of(run) for run in dict.fromkeys(runs)], elsewhere, min(times, default=None))

    def mailed(self, runs: list[str]) -> list[str]:
        """Those that have messages, and no living worker but perhaps us."""
        found = self._ask("mailed", runs=texts(runs), owner=self.owner)
        return [name_of(run) for (run,) in found]

    def running(self, after: str, limit: int, skip: list[str], room: int) -> list[str]:
        """See `Store.running`: as in `look`."""
        asked: dict[str, Any] = {"after": text_of(after), "owner": self.owner, "tags": self.tags}
        found = self._write("running_mine", limit=limit, room=room, skip=texts(skip), **asked)
        return [name_of(run) for (run,) in found]

    def take(self, run_id: str) -> bool:
        """Make a run ours, if it is nobody's."""
        return bool(self._write("take", run=text_of(run_id), owner=self.owner, tags=self.tags))

    def let_go(self, runs: list[str]) -> None:
        """They are nobody's from now on."""
        self._write("let_go", runs=texts(runs), owner=self.owner)

    def ended(self, runs: list[str]) -> list[str]:
        """Those that are done."""
        if not runs:  # most of the time nobody waits for a run that is elsewhere
            return []
        return [name_of(run) for (run,) in self._ask("ended", runs=texts(runs))]

    def workers(self) -> list[tuple[Any, ...]]:
        """Owner, host, pid, since, whether it lives, and how many runs it has, of each worker."""
        return self._ask("workers")

    def leave(self) -> None:
        """Give up all runs, and the row. Idempotent."""
        owner, self.owner = self.owner, None
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        if owner is not None:
            self._write("leave", owner=owner)

    # ---- hints

    def listen(self) -> int:
        """A file descriptor that is readable when somebody has something for us; -1: there is none."""
        if not self._server.direct:
            return -1  # a pooler hands notifications to whomever has the connection by then
        try:
            self._listener = listener = self._server.connect_directly()
            listener.execute(f'LISTEN "{self.channel}"'.encode())
            return listener.fileno()
        except (psycopg.Error, StoreError) as error:
            _log.info("nobody can tell us of news, so we ask more often: %s", error)
            return -1

    def heard(self) -> bool:
        """Take the notifications; False: the connection is gone."""
        listener = self._listener
        if listener is None:
            return False
        try:
            for _ in listener.notifies(timeout=0):
                pass
        except (psycopg.Error, StoreError):
            listener.close()
            self._listener = None
            return False
        return True


def _place() -> str:
    """This start of this machine, and this space of process ids; empty where that cannot be told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
