"""Keeping the read models up with the log: a batch of events and the position it leads to, in one commit."""

from collections.abc import Callable, Sequence
from operator import itemgetter
from time import monotonic, sleep
from typing import Protocol

from msgspec import Struct

from ..events.errors import ConfigurationError, SchemaMismatch, StoreBusy, StoreError
from ..events.stream import GENESIS, Row as Entry
from .batch import (
    KEEP_ROWS,
    Fetch,
    FetchKeys,
    Reader,
    Routes,
    fold_carefully,
    fold_fast,
    routes as make_routes,
)
from .projection import Key, Projection, Value
from .views import Changes, Parked, Standing, UnknownEvents, Views, schema_of, table_name

PATIENCE_S = 60.0
"""How long to wait for another process that holds the tables and does not get on."""
PAUSE_S = 0.01

Fold = Callable[[list[Entry], list[Reader], Routes], None]


class Log(Protocol):
    """What a runner asks of a store."""

    def scan(self, after: int = 0, limit: int = 1000) -> list[Entry]:
        """Rows with position > `after`, in the order of commit."""
        ...

    def position(self) -> int:
        """Position of the last row, 0 for an empty log."""
        ...


class Lag(Struct, frozen=True):
    """How far the read models are behind the log."""

    events: int
    """Positions between the slowest projection and the end of the log."""
    position: int
    """Of the slowest projection."""
    parked: int
    """Events that some projection could not fold."""
    unknown: int
    """Events of types that this code does not know."""


def check_names(projections: Sequence[Projection]) -> None:
    """Raises `ConfigurationError` when two share a name or a table, or one has the name of the file's own."""
    taken = dict.fromkeys(("projections", "parked_events", "unknown_events"), "a table of the file's own")
    for projection in projections:
        for name in {projection.name, projection.table.name}:
            if name in taken:
                raise ConfigurationError(
                    f"the projection {projection.name!r} cannot use the name {name!r}: it is {taken[name]}; "
                    "give yours, and its table, another one"
                )
        owner = f"that of the projection {projection.name!r}"
        taken |= dict.fromkeys((projection.name, projection.table.name), owner)


class Runner:
    """Folds the log into the tables of some projections, a batch at a time.

    Synchronous, for one thread. Several runners, of several processes too, may work on one file: each
    takes the write lock, reads the position that is there and goes on from it.
    """

    def __init__(
        self, log: Log, views: Views, projections: Sequence[Projection], *, slot: str = "live"
    ) -> None:
        """Raises `ConfigurationError` when two projections share a name or a table."""
        self.log, self.views, self.slot = log, views, slot
        self.projections = tuple(projections)
        check_names(self.projections)
        self._tables = [_Stored(p, slot, views) for p in self.projections]
        self._readers = {
            stored.name: Reader(stored.projection, self._fetcher(stored), self._key_fetcher(stored))
            for stored in self._tables
        }
        self._routes: dict[tuple[str, ...], Routes] = {}
        self._strangers = False
        """Whether the file has projections that this runner knows nothing of."""
        self._last: Routes | None = None
        """Of the last batch: what they have learnt of runs holds as long as no other batch comes between."""
        self._standings: dict[str, Standing] = {}
        """As this runner left them; its rows in memory are those of the file as long as it finds them so."""
        self._sure = True
        """Whether what a projection says of the rows that it creates is believed: that none is there."""
        self.alone = False
        """Whether nobody else had folded anything between the last two batches."""

    def _fetcher(self, stored: "_Stored") -> Fetch:
        def fetch(key: Key) -> tuple[Value, ...] | None:
            rows = self.views.query(stored.select, key)
            return rows[0] if rows else None

        return fetch

    def _key_fetcher(self, stored: "_Stored") -> FetchKeys:
        return lambda first: self.views.query(stored.select_keys, (first,))

    # ---- asking

    @property
    def position(self) -> int:
        """Position up to which all projections have folded the log."""
        found = self._find()
        return min((found[stored.name].position for stored in self._tables), default=self.log.position())

    def lag(self) -> Lag:
        """How far behind, and what was parked on the way."""
        position = self.position
        behind = max(self.log.position() - position, 0)
        unknown = max((unknown.events for unknown in self.unknown()), default=0)
        return Lag(behind, position, len(self.parked()), unknown)

    def parked(self) -> list[Parked]:
        """Events that could not be folded; they are folded again when their projection is rebuilt."""
        return self.views.parked()

    def unknown(self) -> list[UnknownEvents]:
        """Types of events that this code does not know."""
        return self.views.unknown()

    def _find(self) -> dict[str, Standing]:
        """Where each projection stands. Raises `SchemaMismatch` when a table is not this code's version."""
        all_found = self.views.standings(self.slot)
        self._strangers = len(all_found) > len(self._tables)
        found: dict[str, Standing] = {}
        for stored in self._tables:
            standing = all_found.get(stored.name) or Standing(stored.version, stored.schema, 0, GENESIS)
            if standing.version > stored.version:
                raise SchemaMismatch(
                    f"{self.views.place}: {stored.name} has version {standing.version}, this Refold knows "
                    f"version {stored.version}: it was built by a newer one; upgrade this process"
                )
            if standing.schema != stored.schema or standing.version < stored.version:
                raise SchemaMismatch(
                    f"{self.views.place}: {stored.name} has version {standing.version}, this Refold wants "
                    f"version {stored.version} of it, or other columns: rebuild it"
                )
            found[stored.name] = standing
        return found

    # ---- folding

    def catch_up(self, max_events: int = 500, *, until: int | None = None) -> int:
        """Fold up to `max_events` more events, none beyond position `until`; returns how many.

        One transaction: rows, positions and parked events are written together or not at all.
        0: nothing to do, or another process is at it. Raises a `StoreError`; `SchemaMismatch` when
        another version of this code has taken the tables over.
        """
        end = self.log.position() if until is None else until
        if self._standings and all(standing.position >= end for standing in self._standings.values()):
            return 0
        try:
            return self._batch(max_events, end, fold_fast)
        except StoreBusy:
            self._forget()
            self.alone = False
            return 0
        except StoreError:
            self._forget()
            raise
        except Exception:  # whatever a projection raised: find the event, park it
            self._forget()
            return self._batch(max_events, end, fold_carefully)

    def reach(self, position: int, max_events: int = 2_000) -> None:
        """Fold up to this position, or have whoever is at it do it. Raises a `StoreError`."""
        last, before = monotonic(), -1
        while (now := self.position) < position:
            if now > before:
                last, before = monotonic(), now
            elif monotonic() - last > PATIENCE_S:
                raise StoreBusy(f"{self.views.place}; another process is writing read models; try again")
            if not self.catch_up(max_events):
                sleep(PAUSE_S)

    def _forget(self) -> None:
        self._standings, self._last = {}, None
        for reader in self._readers.values():
            reader.forget_all()

    def _batch(
        self, max_events: int, end: int, fold: Callable[[list[Entry], list[Reader], Routes], None]
    ) -> int:
        with self.views.writing():
            found = self._find()
            if self._create_missing(found):
                found = self._find()
            self.alone = True
            for name, standing in found.items():
                if self._standings.get(name) != standing:  # another process has been here
                    self._readers[name].forget_all()
                    self._last = None
                    self.alone = self.alone and not standing.position
            after = min(standing.position for standing in found.values())
            behind = [stored for stored in self._tables if found[stored.name].position == after]
            stop = min((s.position for s in found.values() if s.position > after), default=end)
            entries = [e for e in self.log.scan(after, max_events) if e.position <= min(stop, end)]
            if not entries:
                self._standings = found
                return 0
            self.views.notice(entry.state for entry in entries)
            routes = self._routes_of(behind)
            fold(entries, [self._readers[stored.name] for stored in behind], routes)
            self._sure = fold is fold_fast
            for stored in behind:
                found[stored.name] = self._write(stored, entries[-1])
            self._advance([stored.name for stored in behind], after, entries[-1])
        self._standings, self._last = found, routes
        for stored in behind:
            self._readers[stored.name].forget_changes()
        return len(entries)

    def _create_missing(self, found: dict[str, Standing]) -> bool:
        """Whether a table had to be made: only one that stands at 0 may not be there yet."""
        if all(standing.position for standing in found.values()):
            return False
        known = self.views.standings(self.slot)
        missing = [stored for stored in self._tables if stored.name not in known]
        for stored in missing:
            self.views.create(stored.projection.table, stored.table, indexes=self.slot == "live")
            new = (stored.name, self.slot, stored.version, stored.schema, 0, GENESIS)
            self.views.run(ADD_STANDING, new)
        return bool(missing)

    def _routes_of(self, behind: list["_Stored"]) -> Routes:
        names = tuple(stored.name for stored in behind)
        if names not in self._routes:
            self._routes[names] = make_routes([self._readers[name] for name in names])
        found = self._routes[names]
        if found is not self._last or len(found.quiet) > KEEP_ROWS:
            found.quiet.clear()
        return found

    def _advance(self, names: list[str], after: int, last: Entry) -> None:
        """One statement for all: 14 of them took a third of the time of a batch of a dozen events."""
        values = (last.position, last.hash, self.slot, after)
        if self._strangers:
            marks = ", ".join("?" * len(names))
            self.views.run(f"{ADVANCE} AND name IN ({marks})", (*values, *names))
        else:
            self.views.run(ADVANCE, values)

    def _write(self, stored: "_Stored", last: Entry) -> Standing:
        reader, name, slot = self._readers[stored.name], stored.name, self.slot
        if reader.dirty:
            stored.write(changes_of(reader, sure=self._sure))
        run = self.views.run
        for parked in reader.parked:
            row = (parked.position, parked.stream, parked.version, parked.tag, parked.error)
            run(ADD_PARKED, (name, slot, *row))
        for tag, (events, position) in reader.unknown.items():
            run(ADD_UNKNOWN, (name, slot, tag, events, position))
        return Standing(stored.version, stored.schema, last.position, last.hash)


ADVANCE = "UPDATE projections SET position = ?, anchor = ? WHERE slot = ? AND position = ?"
ADD_STANDING = (
    "INSERT INTO projections (name, slot, version, schema, position, anchor) VALUES (?, ?, ?, ?, ?, ?)"
)
ADD_PARKED = (
    "INSERT INTO parked_events (projection, slot, position, stream, version, tag, error) "
    "VALUES (?, ?, ?, ?, ?, ?, ?)"
)
ADD_UNKNOWN = (
    "INSERT INTO unknown_events (projection, slot, tag, events, first_position) VALUES (?, ?, ?, ?, ?) "
    "ON CONFLICT (projection, slot, tag) DO UPDATE SET events = unknown_events.events + excluded.events"
)


class _Stored:
    """The SQL of one projection's table in one slot."""

    def __init__(self, projection: Projection, slot: str, views: Views) -> None:
        table = projection.table
        self.projection, self.name, self.version = projection, projection.name, projection.version
        self.schema = schema_of(table)
        self.table = table_name(projection, slot)
        columns, where = ", ".join(table.names), " AND ".join(f"{name} = ?" for name in table.key)
        self.select = f"SELECT {columns} FROM {self.table} WHERE {where}"
        keys = ", ".join(table.key)
        self.select_keys = f"SELECT {keys} FROM {self.table} WHERE {table.key[0]} = ? ORDER BY {keys}"
        self.write = views.writer_of(table, self.table)


def changes_of(reader: Reader, *, sure: bool = True) -> Changes:
    """What has changed, without the rare columns where these say nothing."""
    known = reader.stored.intersection(reader.dirty) if sure else reader.dirty
    changes = Changes([], [], [], list(known))
    rows, short, gone, _ = changes
    table = reader.projection.table
    places = [n for n, name in enumerate(table.names) if name in table.rare]
    if len(places) > 1:
        rare = itemgetter(*places)
        usual = itemgetter(*(n for n, name in enumerate(table.names) if name not in table.rare))
        defaults = rare([column.default for column in table.columns])
        for key, values in reader.changes():
            if values is None:
                gone.append(key)
            elif rare(values) == defaults:
                short.append(usual(values))
            else:
                rows.append(values)
    else:
        for key, values in reader.changes():
            if values is None:
                gone.append(key)
            else:
                rows.append(values)
    return changes
