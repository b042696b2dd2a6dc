"""The store on a PostgreSQL server: no lock in the append path, one round trip for most commits."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any
from zlib import crc32

import psycopg
from msgspec.structs import astuple
from psycopg import Connection, errors

from .admission import admit
from .errors import AppendRefused, StoreError
from .postgres_address import named_queries
from .postgres_batch import Batch, name_of, text_of, texts
from .postgres_connect import Patient, unhurried
from .postgres_leases import Leases
from .postgres_owning import Owning
from .postgres_reader import PostgresReader
from .postgres_server import SCHEMA_VERSION, Server
from .postgres_statement import Statement
from .store import Refusal, Unit
from .stream import INBOX, Row, Tail
from .work import Work

TRIES = 20
"""How often a commit is tried again that met another one: each time somebody else has got on."""
INBOX_LOCKS = 64
"""Correspondents of one run queue up at one of so many locks: one for each run may be too many."""
UNITS = 100
"""Units of a whole log that one statement stores …"""
BYTES = 32 * 1024 * 1024
"""… and their bytes, but for a single larger one: PostgreSQL takes less than 1 GiB."""
BACK = 1_000
"""How many commits may become visible before one with a lower number without being missed by `changed`."""
_TRUE = b"\1"
_MET_ANOTHER = (errors.UniqueViolation, errors.SerializationFailure, errors.DeadlockDetected)


class PostgresStore(PostgresReader, Owning):
    """A `Store` in one schema of a database (see `events/store.py` for what each method promises).

    Any number of processes may read it and append. Opening checks and, when needed, makes or updates the
    schema; it raises `SchemaMismatch`, `ConfigurationError` or a `StoreError`. `create=False` refuses to
    make a new one.
    """

    def __init__(self, url: str, *, create: bool = True, reading: bool = False) -> None:
        self.server = self._server = Server(url, create=create, reading=reading)
        """Public for what is kept beside the log."""
        self.url = self._server.address.url
        self.schema_version = SCHEMA_VERSION
        self._queries = named_queries(self._server.address.schema)
        self._append_all = Statement("append", self._queries["append"])
        self._append_rows = Statement("append_rows", self._queries["append_rows"])
        self.leases = Leases(self._server, self._queries, self._rows, lambda: self._executor()[0])
        """Which of the runs are this process's, when many execute this log."""
        self._own = 0
        """Commits of this object itself since `changed` was asked."""
        self._after = self._counted = 0
        self.stirred = 0
        """Grows with every append of this object, and whenever `changed` finds those of others."""
        try:
            self._after = max(self._rows("count_commits", after=0)[0][0] - BACK, 0)
            self.changed()
        except BaseException:
            self.close()
            raise

    # ---- writing

    def commit(self, units: Sequence[Unit]) -> list[Refusal | None]:
        """Store the units in one durable transaction; see `Store.commit`."""
        server = self._server
        with server.lock:
            try:
                batch = Batch.of(units)
                if batch is not None and self._quickly(server.writer(), batch):
                    return [None] * len(units)
                return self._carefully(server.writer(), units)
            except BaseException as error:
                server.drop_writer()
                if isinstance(error, psycopg.Error | UnicodeError):
                    raise server.typed(error, "write") from error
                raise

    def _quickly(self, connection: Patient, batch: "Batch") -> bool:
        """Everything in one statement, as it is in most commits; False: something stands in the way."""
        try:
            stored = self._append(connection, batch, prepare=self._server.address.prepare)
        except _MET_ANOTHER:
            return False
        if not stored:
            return False
        self._own += bool(batch.rows)
        self._acknowledge(batch)
        if self.leases.owner is None or batch.for_others:  # who executes nothing speaks to somebody who does
            self._hint(connection)
        return True

    def _append(self, connection: Patient, batch: Batch, *, prepare: bool = False) -> bool:
        """False: a stream is not where it is expected to be."""
        self.stirred += 1
        wanted = self._append_all if batch.works or batch.blobs else self._append_rows
        parameters = batch.parameters() | {"owner": self.leases.owner}
        found = wanted.execute(connection, parameters, prepare=prepare)
        return found.get_value(0, 0) == _TRUE

    def _hint(self, connection: Patient) -> None:
        """Tell listening workers that there is something; not in the transaction of what there is.

        A transaction with a NOTIFY has a lock of the whole server's while it commits: clients who start runs
        would wait for each other's disk. One that has nothing else does not wait for the disk.
        """
        try:
            connection.execute(self._queries["hint"], {"channel": self.leases.channel})
        except psycopg.Error:  # what it is about is stored, and found by whoever looks from time to time
            self._server.drop_writer()

    def _acknowledge(self, batch: Batch) -> None:
        """A server that we meet later must have this; what was stored before it is older there, too."""
        if batch.rows:
            last = batch.rows[-1]
            self._server.acknowledged = text_of(last.stream), last.version, last.hash

    def _carefully(self, connection: Patient, units: Sequence[Unit]) -> list[Refusal | None]:
        """Look where all streams are, then store what fits; again when somebody else was there in between."""
        met: Exception | None = None
        for _ in range(TRIES):
            try:
                with connection.transaction():
                    refusals, batch, mail, notify = self._admitted(connection, units)
                    self._store(connection, batch, mail)
                self._own += bool(batch.rows)
                self._acknowledge(batch)
                if notify:
                    self._hint(connection)
                return refusals
            except _MET_ANOTHER as error:
                met = error
        raise StoreError(f"cannot write {self.url}: others were faster each time; try again") from met

    def _admitted(
        self, connection: Connection[Any], units: Sequence[Unit]
    ) -> tuple[list[Refusal | None], Batch, dict[str, int], bool]:
        touched = {post.run_id for unit in units for post in unit.posts}
        touched.update(work.run_id for unit in units for work in unit.works)
        notify = self.leases.owner is None
        if any(unit.posts for unit in units):
            inboxes = {crc32(post.run_id.encode()) % INBOX_LOCKS for unit in units for post in unit.posts}
            first = self._server.address.key("inboxes") // 2
            keys = [first + number for number in sorted(inboxes)]
            connection.execute(self._queries["lock_inboxes"], {"keys": keys})
            owners = connection.execute(self._queries["lock_work"], {"runs": texts(sorted(touched))})
            notify = any(owner is None or owner != self.leases.owner for (owner,) in owners)
        tails = self._tails(connection, units)
        batch, mail, refusals = Batch(), dict[str, int](), list[Refusal | None]()
        ours = self._places(connection, [unit.begins for unit in units if unit.begins])
        for unit in units:
            posted: list[Row] = []
            if unit.begins and unit.begins not in ours:
                refusals.append(Refusal(unit.begins, unit.appends[0].expected, unit.appends[0].expected))
                continue
            refusal = admit(unit, tails, lambda stream: Tail(), posted)
            refusals.append(refusal)
            if refusal is None:
                batch.add(unit, posted)
                for append in unit.appends:
                    if append.stream.endswith(INBOX):
                        mail[append.stream.removesuffix(INBOX)] = append.expected + len(append.rows)
                mail.update({row.stream.removesuffix(INBOX): row.version for row in posted})
        return refusals, batch, mail, notify

    def _places(self, connection: Connection[Any], runs: list[str]) -> set[str]:
        """Those of the runs that wait for their places in queues and have been given them as ours."""
        if not runs:
            return set()
        found = connection.execute(self._queries["places"], {"runs": texts(runs), "owner": self.leases.owner})
        return {name_of(run) for (run,) in found}

    def _tails(self, connection: Connection[Any], units: Sequence[Unit]) -> dict[str, Tail]:
        names = {append.stream for unit in units for append in unit.appends}
        names.update(post.stream for unit in units for post in unit.posts)
        found = connection.execute(self._queries["tails"], {"streams": texts(sorted(names))})
        return {name_of(stream): Tail(version, last) for stream, version, last in found}

    def _store(self, connection: Patient, batch: Batch, mail: dict[str, int]) -> None:
        batch.heads.clear()  # checked already, against this transaction's own reading
        self._append(connection, batch)
        if mail:
            runs = sorted(mail)
            grown = {"runs": texts(runs), "versions": [mail[run] for run in runs]}
            connection.execute(self._queries["set_mail"], grown)

    def commit_all(self, units: Iterable[Unit]) -> None:
        """Store the units in one durable transaction, all of them or nothing; see `Store.commit_all`."""
        server, left = self._server, iter(units)
        with server.lock:
            try:
                connection, own = server.writer(), 0
                with unhurried(connection), connection.transaction():
                    # Who brings the units may pause: a file that comes through a network, for one.
                    connection.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
                    while some := _several(left):
                        refusals, batch, mail, _ = self._admitted(connection, some)
                        for refusal in refusals:
                            if refusal is not None:
                                raise AppendRefused(refusal.stream, refusal.expected, refusal.found)
                        self._store(connection, batch, mail)
                        own += bool(batch.rows)
                self._own += own  # not before: a refused one takes all of them back
                self._hint(connection)
            except BaseException as error:
                if not isinstance(error, StoreError):
                    server.drop_writer()
                if isinstance(error, psycopg.Error | UnicodeError):
                    raise server.typed(error, "write") from error
                raise

    # ---- reading

    def _rows(self, query: str, **parameters: Any) -> list[tuple[Any, ...]]:
        return self._read(lambda c: c.execute(self._queries[query], parameters, binary=True).fetchall())

    def _positioned(self, query: str, **parameters: Any) -> list[tuple[Any, ...]]:
        """Rows of a query, after every commit that is visible by now has its position."""

        def ask(connection: Patient) -> list[tuple[Any, ...]]:
            if not self._server.standby:  # positions are given where one can write
                with unhurried(connection, 6):
                    connection.execute(self._queries["give_positions"])
            return connection.execute(self._queries[query], parameters, binary=True).fetchall()

        return self._read(ask)

    def _read(self, ask: Callable[[Patient], list[tuple[Any, ...]]]) -> list[tuple[Any, ...]]:
        """What a connection answers; a second one is asked when the first turns out to have been cut."""
        server = self._server
        if server.in_doubt:
            server.settle_doubt(self._queries["barrier"])
        try:
            with server.reading() as connection:
                try:
                    return ask(connection)
                except psycopg.OperationalError:
                    if not connection.closed:
                        raise
            with server.reading(fresh=True) as connection:
                return ask(connection)
        except (psycopg.Error, UnicodeError) as error:
            raise server.typed(error, "read") from error

    # ---- the dispatch table

    def rebuild_work(self, rows: Sequence[tuple[Work, int]]) -> None:
        """Replace the whole `work` table."""
        server = self._server
        with server.lock:
            try:
                connection = server.writer()
                with unhurried(connection), connection.transaction(), connection.cursor() as cursor:
                    cursor.execute(self._queries["clear_work"])
                    packed = [(text_of(work.run_id), *astuple(work)[1:], mail) for work, mail in rows]
                    cursor.executemany(self._queries["insert_work"], packed)
            except psycopg.Error as error:
                server.drop_writer()
                raise server.typed(error, "write") from error

    def changed(self) -> bool:
        """Whether anybody else has committed events since the last call.

        Commits are counted from a number some way back, since one may become visible after its successors;
        one that is later still is found by whoever looks for work from time to time.
        """
        own, self._own = self._own, 0
        ((newest, counted),) = self._rows("count_commits", after=self._after)
        moved, self._counted = counted - self._counted, counted
        if newest - self._after > 2 * BACK:
            self._after = newest - BACK
            ((_, self._counted),) = self._rows("count_commits", after=self._after)
        self.stirred += moved != own
        return bool(moved != own)

    def close(self) -> None:
        """Release and close everything."""
        try:
            self.release()
        except StoreError:  # the server is gone; our row goes by itself
            pass
        finally:
            self._server.close()


def _several(units: Iterator[Unit]) -> list[Unit]:
    """The next few; none: there are no more."""
    some: list[Unit] = []
    size = 0
    for unit in units:
        some.append(unit)
        size += unit.size
        if len(some) == UNITS or size > BYTES:
            break
    return some
