"""Folding a batch of events in memory: which rows it touches, and what they become.

Two ways with one outcome. The fast one gives every row to `fold` as it is. When anything raises, the
runner folds the batch again from its start the careful way, with a copy of every row kept: so the event
that cannot be folded is found, parked for that projection, and its rows stay as they were.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import msgspec

from ..events.errors import StoreCorrupt, StoreError, UnknownEvent
from ..events.registry import TYPES, decode_event, encode_event
from ..events.stream import INBOX, NO_RUNS, Row as Entry, is_run
from .projection import Finds, Key, Projection, Table, Value
from .views import Parked

KEEP_ROWS = 20_000
"""Rows a reader keeps in memory between batches, so that a run which goes on is not loaded again."""

Fetch = Callable[[Key], Sequence[Any] | None]
FetchKeys = Callable[[Value], Sequence[Key]]
Decode = Callable[[bytes], Any]

_ABSENT = object()


class Reader:
    """One projection, and its rows as far as they are in memory."""

    __slots__ = (
        "dirty",
        "fetch",
        "fetch_keys",
        "fold",
        "notes",
        "parked",
        "projection",
        "rows",
        "runs_only",
        "stored",
        "unknown",
    )

    def __init__(self, projection: Projection, fetch: Fetch, fetch_keys: FetchKeys) -> None:
        self.projection = projection
        self.fetch = fetch
        """The stored values of a key, or None."""
        self.fetch_keys = fetch_keys
        """The stored keys that begin with a value."""
        self.fold = projection.fold
        self.notes: dict[str, Any] = {}
        self.runs_only = projection.scope == "runs"
        self.rows: dict[Key, Any] = {}
        self.dirty: dict[Key, None] = {}
        """Keys whose rows may have changed since `forget_changes`."""
        self.stored: set[Key] = set()
        """Keys of rows in memory that the table has, or had."""
        self.parked: list[Parked] = []
        self.unknown: dict[str, list[int]] = {}
        """Tag to number and first position of the events that this code does not know."""

    def row(self, key: Key) -> Any:
        """The row of a key, loaded when it is not in memory; None when there is none."""
        row = self.rows.get(key, _ABSENT)
        if row is _ABSENT:
            stored = self.fetch(key)
            row = self.rows[key] = None if stored is None else self.projection.table.load(stored)
            if stored is not None:
                self.stored.add(key)
        return row

    def keys(self, first: Value) -> list[Key]:
        """The keys of all rows that begin with this value, in order."""
        found = dict.fromkeys(self.fetch_keys(first))
        for key in self.dirty:
            if key[0] == first:
                if self.rows[key] is None:
                    found.pop(key, None)
                else:
                    found[key] = None
        return sorted(found)

    def changes(self) -> Iterator[tuple[Key, tuple[Value, ...] | None]]:
        """Values to store by key; None: the row is gone. Raises ValueError for a row under a wrong key."""
        table = self.projection.table
        dump, width = table.dump, len(table.key)
        for key in self.dirty:
            row = self.rows[key]
            values = None if row is None else dump(row)
            if values is not None and values[:width] != key:
                raise ValueError(f"{table.name}: fold returned the row {values[:width]} for the key {key}")
            yield key, values

    def forget_changes(self) -> None:
        """After they were stored."""
        self.stored.update(self.dirty)
        self.dirty.clear()
        self.parked.clear()
        self.unknown.clear()
        if len(self.rows) > KEEP_ROWS or len(self.notes) > KEEP_ROWS:
            self.rows.clear()
            self.notes.clear()
            self.stored.clear()

    def forget_all(self) -> None:
        """After somebody else may have changed the table, or a fold has broken off."""
        self.rows.clear()
        self.notes.clear()
        self.forget_changes()
        self.stored.clear()

    def park(self, entry: Entry, error: Exception) -> None:
        text = f"{type(error).__name__}: {error}"
        name = self.projection.name
        self.parked.append(Parked(name, entry.position, entry.stream, entry.version, entry.tag, text))

    def count_unknown(self, entry: Entry) -> None:
        count = self.unknown.setdefault(entry.tag, [0, entry.position])
        count[0] += 1


class Route(NamedTuple):
    """What becomes of the events of one tag in one projection."""

    reader: Reader
    runs_only: bool
    creates: bool
    """Its rows cannot be there yet."""
    keys: Callable[[Entry, Any], Sequence[Key]] | None
    """None: the row of the event's stream."""
    fold: Callable[[list[Any], Entry, Any], Sequence[Any]]
    rows: dict[Key, Any]
    dirty: dict[Key, None]


Ways = Sequence[tuple[Decode, Sequence[Route], Sequence[Route]]]
"""How to decode an event, once, and for whom: in a run that is quiet, and in any other."""


class Routes(NamedTuple):
    """The ways of all events."""

    by_tag: Mapping[str, Ways]
    first: frozenset[str]
    """Tags after which a run is not quiet any more."""
    quiet: set[str]
    """Runs that have none of the rows which only begin with one of these tags."""


def routes(readers: Iterable[Reader]) -> Routes:
    """Readers that decode a tag to the same type share one decoding."""
    by_tag: dict[str, dict[type, list[Route]]] = {tag: {} for tag in TYPES}
    first: set[str] = set()
    for reader in readers:
        first |= _first(reader)
        for tag, kind in reader.projection.events.items():
            by_tag.setdefault(tag, {}).setdefault(kind, []).append(_route(reader, tag))
    ways: dict[str, Ways] = {
        tag: [
            (_decoder(kind), [r for r in group if not _first(r.reader)], group)
            for kind, group in kinds.items()
        ]
        for tag, kinds in by_tag.items()
    }
    return Routes(ways, frozenset(first), set())


@cache
def _decoder(kind: type) -> Decode:
    """Made once for all runners, and for every `handle.status()`: 50 of them take a millisecond."""
    return msgspec.json.Decoder(kind).decode


def _first(reader: Reader) -> frozenset[str]:
    first: frozenset[str] = getattr(reader.projection, "first", frozenset())
    return first


def _route(reader: Reader, tag: str) -> Route:
    projection = reader.projection
    finds: Finds = getattr(projection, "finds", {})
    keys: Any = partial(finds[tag], reader) if tag in finds else projection.keys
    if getattr(projection, "per_run", False):
        keys = None
    creates = tag in projection.creates
    return Route(reader, reader.runs_only, creates, keys, reader.fold, reader.rows, reader.dirty)


def fold_fast(entries: Iterable[Entry], readers: Sequence[Reader], routes: Routes) -> None:
    """Fold the entries into the rows of the readers; whatever a projection raises gets out."""
    by_tag, first, quiet = routes
    for entry in entries:
        tag, stream = entry.tag, entry.stream
        ways = by_tag.get(tag)
        if ways is None:
            lifted = _lifted(entry)
            if lifted is None:
                _count_unknown(entry, readers)
                continue
            entry, tag, ways = lifted, lifted.tag, by_tag[lifted.tag]
        if entry.version == 1:
            quiet.add(stream)
        elif tag in first:
            quiet.discard(stream)
        outside = stream.endswith(INBOX) or stream.startswith(NO_RUNS)
        for decode, few, all_ in ways:
            group = few if stream in quiet else all_
            if not group:
                continue
            event = decode(entry.state)
            for reader, runs_only, creates, find, fold, rows, dirty in group:
                if outside and runs_only:
                    continue
                if find is None:
                    key: Key = (stream,)
                else:
                    keys = find(entry, event)
                    if len(keys) != 1:
                        if keys:
                            _fold_many(reader, keys, entry, event, creates)
                        continue
                    key = keys[0]
                row = None if creates else rows.get(key, _ABSENT)
                (rows[key],) = fold([reader.row(key) if row is _ABSENT else row], entry, event)
                dirty[key] = None


def _fold_many(reader: Reader, keys: Sequence[Key], entry: Entry, event: Any, creates: bool) -> None:
    before = [None if creates else reader.row(key) for key in keys]
    now = reader.fold(before.copy(), entry, event)
    rows, dirty = reader.rows, reader.dirty
    for key, was, row in zip(keys, before, now, strict=True):
        if row is not None or was is not None or creates:
            rows[key] = row
            dirty[key] = None


def fold_carefully(entries: Iterable[Entry], readers: Sequence[Reader], routes: Routes) -> None:
    """The same, at a third of the speed: what cannot be folded is parked, and its rows stay as they were."""
    by_tag = routes.by_tag
    routes.quiet.clear()
    for entry in entries:
        try:
            lifted = entry if entry.tag in by_tag else _lifted(entry)
        except ValueError as error:
            for reader in readers:
                reader.park(entry, error)
            continue
        if lifted is None:
            _count_unknown(entry, readers)
            continue
        outside = _outside_runs(entry.stream)
        for decode, _, group in by_tag[lifted.tag]:
            concerned = [route for route in group if not (outside and route.runs_only)]
            try:
                event = decode(lifted.state)
            except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
                for route in concerned:
                    route.reader.park(entry, error)
                continue
            for route in concerned:
                _fold_one_carefully(route, lifted, event)


def _fold_one_carefully(route: Route, entry: Entry, event: Any) -> None:
    reader, creates = route.reader, route.creates
    table = reader.projection.table
    before: dict[Key, tuple[Value, ...] | None] = {}
    try:
        keys = ((entry.stream,),) if route.keys is None else route.keys(entry, event)
        if not keys:
            return
        for key in keys:
            row = reader.row(key)
            before[key] = None if row is None else table.dump(row)
        now = reader.fold([None if creates else reader.row(key) for key in keys], entry, event)
        for key, row in zip(keys, now, strict=True):
            if row is not None:
                check_values(table, key, table.dump(row))
            reader.rows[key] = row
    except (StoreError, MemoryError):
        raise  # of this machine, not of this event
    except Exception as error:  # a projection may raise anything; it is reported, and the others go on
        for key, values in before.items():
            reader.rows[key] = None if values is None else table.load(values)
        reader.notes.clear()
        reader.park(entry, error)
    else:
        reader.dirty.update(dict.fromkeys(keys))


def check_values(table: Table, key: Key, values: Sequence[Any]) -> None:
    """Raises ValueError for what the table would not take."""
    if values[: len(table.key)] != key:
        raise ValueError(f"{table.name}: fold returned the row {values[: len(key)]} for the key {key}")
    for column, value in zip(table.columns, values, strict=True):
        if value is None:
            fits = not column.type.endswith("NOT NULL")
        elif isinstance(value, str):
            value.encode()  # a lone surrogate has no UTF-8 form: UnicodeEncodeError is a ValueError
            fits = column.type.startswith("TEXT")  # SQLite would take it anywhere, PostgreSQL does not
        else:
            fits = isinstance(value, float | bytes) or (isinstance(value, int) and abs(value) < 2**63)
        if not fits:
            raise ValueError(f"{table.name}.{column.name} ({column.type}) cannot hold {value!r}")


def _outside_runs(stream: str) -> bool:
    return not is_run(stream)


def _lifted(entry: Entry) -> Entry | None:
    """An event of an older version as one of the current version; None for an unknown type."""
    try:
        event = decode_event(entry.tag, entry.state, f"{entry.stream}@{entry.version}")
    except UnknownEvent:
        return None
    except StoreCorrupt as error:  # of one event: no reason to stop the others, as an error of the store is
        raise ValueError(str(error)) from error
    return entry._replace(tag=event.TAG, state=encode_event(event))


def _count_unknown(entry: Entry, readers: Iterable[Reader]) -> None:
    outside = _outside_runs(entry.stream)
    for reader in readers:
        if not (outside and reader.runs_only):
            reader.count_unknown(entry)
