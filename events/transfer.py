"""Moving a log: out of a store as lines, and into another store, whole or not at all."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from heapq import merge
from itertools import groupby

from msgspec import Struct

from . import locks
from .blobs import references
from .errors import RunNotFound, StartConflict, StoreCorrupt, UnknownEvent
from .lines import Content, End, Header, Writer, read_log
from .registry import decode_event, look_at_event
from .schedule_work import ScheduleFold
from .store import SCHEMA_VERSION, Append, Reading, Store, Unit
from .stream import INBOX, KEYS, LOCKS, NO_RUNS, SCHEDULES, Row, Tail, check_chain, is_run
from .types import ChildStarted, RunContinued, RunStarted
from .verify import verify
from .work import WorkFold

PAGE = 1_000
UNIT_BYTES = 8 * 1024 * 1024
"""As much of a file as is in memory at once, but for one larger line."""
NAMED = 5
"""Conflicts told in one message."""

Progress = Callable[[int, int], None]
"""Told from time to time how many events are done, and how many there are."""


# ---- out


def export_log(
    store: Reading, runs: Sequence[str] | None = None, *, progress: Progress | None = None
) -> Iterator[str]:
    r"""The log as JSON Lines (see `events/lines.py`), each with its line feed: for `file.writelines`.

    A snapshot of this moment: what is appended meanwhile is not in it. Every hash is checked on the way,
    so a damaged log is found out now and not when it is needed. Memory does not grow with the events.

    Args:
        runs: only these, with their inboxes and start keys and the contents that they refer to; see
            `family_of` for their children. Default: everything.

    Raises `RunNotFound` before the first line; `StoreCorrupt`.
    """
    for run_id in runs or ():
        if "/" in run_id or not store.tail(run_id).version:
            raise RunNotFound(run_id)
    return _lines(store, None if runs is None else tuple(dict.fromkeys(runs)), progress)


def _lines(store: Reading, runs: tuple[str, ...] | None, progress: Progress | None) -> Iterator[str]:
    if runs is None:
        end = events = store.position()
        rows = scan_log(store, end)
        digests = _all_digests(store)
    else:
        tails = {name: version for run_id in runs for name, version in streams_of(store, run_id).items()}
        events = sum(tails.values())
        rows = merged(store, tails)
        digests = None
    writer, schema = Writer(), getattr(store, "schema_version", SCHEMA_VERSION)
    yield writer.header(_refold_version(), schema, runs, events).decode()
    streams_seen: dict[str, Tail] = {}
    referred: set[str] = set()
    for row in rows:
        _check(streams_seen, row)
        if digests is None:
            referred |= references(row.tag, row.state)
        yield writer.event(row).decode()
        if progress is not None and writer.events % PAGE == 0:
            progress(writer.events, events)
    if writer.events != events:
        raise StoreCorrupt(
            f"{store.url}: {events} events were to be exported, {writer.events} are there: some are missing "
            "from the log; `refold verify` says which"
        )
    for digest in digests if digests is not None else sorted(referred):
        yield writer.content(digest, store.blob(digest)).decode()
    yield writer.end(len(streams_seen)).decode()


def _check(tails: dict[str, Tail], row: Row) -> None:
    try:
        tails[row.stream] = check_chain((row,), tails.get(row.stream, Tail()))
    except TypeError as error:  # SQLite keeps any type in any column
        raise StoreCorrupt(
            f"stream {row.stream!r} version {row.version}: a column is not of its type"
        ) from error


def scan_log(store: Reading, end: int) -> Iterator[Row]:
    """All rows up to a position, in the order of commit, page by page."""
    position = 0
    while position < end and (rows := store.scan(position, min(PAGE, end - position))):
        yield from (row for row in rows if row.position <= end)
        position = rows[-1].position


def read_stream(store: Reading, stream: str, end: int) -> Iterator[Row]:
    """The rows of a stream up to a version, page by page."""
    version = 0
    while version < end and (rows := store.read(stream, version, min(PAGE, end - version))):
        yield from rows
        version = rows[-1].version


def merged(store: Reading, tails: Mapping[str, int]) -> Iterator[Row]:
    """The rows of several streams up to these versions, in the order of commit."""
    return merge(*(read_stream(store, *tail) for tail in tails.items()), key=lambda row: row.position)


def _all_digests(store: Reading) -> list[str]:
    found: list[str] = []
    while page := store.blobs(found[-1] if found else ""):
        found += page
    return found


def _refold_version() -> str:
    from importlib.metadata import PackageNotFoundError, version  # 47 ms

    try:
        return version("refold")
    except PackageNotFoundError:
        return "0+unknown"


def streams_of(store: Reading, run_id: str) -> dict[str, int]:
    """A run's streams and their versions: its history, its inbox, and that of the key it was started with."""
    (first,) = store.read(run_id, 0, 1)
    started = look_at_event(first.tag, first.state, first)
    names = [run_id, run_id + INBOX]
    if isinstance(started, RunStarted) and started.key:
        names.append(KEYS + started.key)
    return {name: version for name in names if (version := store.tail(name).version)}


def family_of(store: Reading, runs: Iterable[str]) -> list[str]:
    """The runs, their children and those that they went on as, and so on. Raises `RunNotFound`."""
    found: dict[str, None] = {}
    ahead = list(runs)[::-1]
    while ahead:
        run_id = ahead.pop()
        if run_id in found:
            continue
        found[run_id] = None
        end = store.tail(run_id).version
        if "/" in run_id or not end:
            raise RunNotFound(run_id)
        below = [other for row in read_stream(store, run_id, end) for other in _leads_to(row)]
        ahead += [other for other in reversed(below) if store.tail(other).version]
    return list(found)


def _leads_to(row: Row) -> Iterator[str]:
    if row.tag in (ChildStarted.TAG, RunContinued.TAG):
        match row.event():
            case ChildStarted(run_id=run_id) | RunContinued(next_run=run_id):
                yield run_id


# ---- in


class Imported(Struct, frozen=True):
    """What an import has brought."""

    runs: int
    """That are new here."""
    advanced: int
    """That were here up to an earlier event."""
    there: int
    """That were here already, as far as the file knows them; nothing was written for them."""
    events: int
    """Written."""
    contents: int
    """Of large values, in the file."""


def import_log(
    store: Store, lines: Iterable[bytes | str], *, name: str = "the log", progress: Progress | None = None
) -> Imported:
    """Store what `export_log` gave, in one transaction: after a crash there is all of it or nothing.

    Runs that are here already are passed over, so that importing twice is harmless; of one that is here up
    to an earlier event the rest is added. Open runs go on in this store as soon as an engine executes it;
    nobody may execute it meanwhile. At the end the whole store is verified.

    Raises:
        StoreCorrupt, SchemaMismatch: what `read_log` raises; nothing was stored.
        StartConflict: a run of the same id has another history here; nothing was stored.
        StoreBusy: another process executes this store.
    """
    store.hold("importing a log")
    try:
        arrival = _Arrival(store, name, progress)
        store.commit_all(arrival.units(lines))
    finally:
        store.release()
    if problems := verify(store).problems:
        raise StoreCorrupt(f"{store.url} is damaged, found after the import was stored: {problems[0]}")
    return arrival.report()


class _Stream:
    """Where a stream ends here and in the file."""

    __slots__ = ("differs", "here", "there")

    def __init__(self, here: Tail) -> None:
        self.here = here
        self.there = Tail()
        self.differs = False

    @property
    def added(self) -> int:
        return max(self.there.version - self.here.version, 0)


class _Arrival:
    """From the lines of a file to what of them must be stored."""

    def __init__(self, store: Store, name: str, progress: Progress | None) -> None:
        self.store, self.name, self.progress = store, name, progress
        self.streams: dict[str, _Stream] = {}
        self.folds: dict[str, WorkFold] = {}
        self.schedules: dict[str, ScheduleFold] = {}
        self.referred: dict[str, Row] = {}
        self.brought: set[str] = set()
        self.locked: dict[str, RunStarted] = {}
        """Runs with a concurrency key, by id …"""
        self.keys: dict[str, locks.Lock] = {}
        """… and the keys, as the file leaves them."""
        self.events = self.total = self.line = 0

    def units(self, lines: Iterable[bytes | str]) -> Iterator[Unit]:
        """What is to be stored; raises before the last one when it may not be."""
        rows: list[Row] = []
        size = 0
        for item in read_log(lines, self.name):
            self.line += 1
            if isinstance(item, Row):
                if self._take(item):
                    rows.append(item)
                    size += len(item.state)
                self._tell()
            elif isinstance(item, Content):
                self.brought.add(item.digest)
                yield Unit(blobs=((item.digest, item.data),))
            elif isinstance(item, Header):
                self.total = item.events
            if rows and (len(rows) >= PAGE or size >= UNIT_BYTES or isinstance(item, End)):
                yield _unit(rows)
                rows, size = [], 0
            if isinstance(item, End):
                self._settle()
        yield from self._works()

    def _tell(self) -> None:
        self.events += 1
        if self.progress is not None and self.events % PAGE == 0:
            self.progress(self.events, self.total)

    def _take(self, row: Row) -> bool:
        """Fold it, compare it; whether it is new here."""
        stream = self.streams.get(row.stream)
        if stream is None:
            stream = self.streams[row.stream] = _Stream(self.store.tail(row.stream))
        stream.there = Tail(row.version, row.hash)
        if row.version == stream.here.version:  # a hash covers all that came before
            stream.differs = row.hash != stream.here.hash
        for digest in references(row.tag, row.state):
            self.referred.setdefault(digest, row)
        if is_run(row.stream):
            with suppress(UnknownEvent):  # of a newer Refold: kept, and this run waits for it
                event = decode_event(row.tag, row.state, row)
                fold = self.folds.get(row.stream)
                if fold is None:
                    fold = self.folds[row.stream] = WorkFold(row.stream)
                fold.apply(event)
                if isinstance(event, RunStarted) and event.lock:
                    self.locked[row.stream] = event
        elif row.stream.startswith(SCHEDULES):
            with suppress(UnknownEvent):
                fold_of = self.schedules.setdefault(row.stream, ScheduleFold(row.stream))
                fold_of.apply(decode_event(row.tag, row.state, row))
        elif row.stream.startswith(LOCKS) and row.version > stream.here.version:
            with suppress(UnknownEvent):
                key = row.stream.removeprefix(LOCKS)
                before = self.keys.get(key) or locks.look_at(self.store, key)
                self.keys[key] = locks.after(row, before)
        return row.version > stream.here.version and not stream.differs

    def _settle(self) -> None:
        """At the end of the file: whether all of it may be stored."""
        conflicts = [reason for owner, group in self._by_owner() if (reason := self._conflict(owner, group))]
        if conflicts:
            more = f" (and {len(conflicts) - NAMED} more)" if len(conflicts) > NAMED else ""
            raise StartConflict(
                f"{self.name} cannot be imported into {self.store.url}: {'; '.join(conflicts[:NAMED])}{more}"
                "; nothing was stored: import into another store, or export the other runs only",
                next(owner for owner, group in self._by_owner() if self._conflict(owner, group)),
            )
        for digest in self.referred.keys() - self.brought:
            row = self.referred[digest]
            try:
                self.store.blob(digest)
            except StoreCorrupt as error:
                raise StoreCorrupt(
                    f"{self.name}, line {self.line}: the log ends without the content {digest} that version "
                    f"{row.version} of stream {row.stream!r} refers to; nothing was stored, export it again"
                ) from error

    def _by_owner(self) -> Iterator[tuple[str, list[str]]]:
        names = sorted(self.streams, key=_owner)
        return ((owner, list(group)) for owner, group in groupby(names, _owner))

    def _conflict(self, owner: str, group: list[str]) -> str:
        what = f"start key {owner.removeprefix(KEYS)!r}" if owner.startswith(KEYS) else f"run {owner!r}"
        if owner.startswith(NO_RUNS[1:]):
            what = "{} {!r}".format(*owner.split("/", 1))
        for name in group:
            stream = self.streams[name]
            if stream.differs or (stream.there.version < stream.here.version and self._left(name, stream)):
                where = " in its inbox" if name.endswith(INBOX) else ""
                return f"{what} has another history here{where}"
        if any(self.streams[name].added for name in group) and any(
            self.streams[name].there.version < self.streams[name].here.version for name in group
        ):
            return f"{what} has gone on here, and elsewhere, too"
        return ""

    def _left(self, name: str, stream: _Stream) -> bool:
        """Whether the stream here, which is longer, is not what follows upon that in the file."""
        rows = self.store.read(name, stream.there.version - 1, 1)
        return not rows or rows[0].hash != stream.there.hash

    def _works(self) -> Iterator[Unit]:
        """The rows of `work`, after all mail, of which they take note."""
        new = [run_id for run_id in self.folds if self.streams[run_id].added]
        for start in range(0, len(new), PAGE):
            yield Unit(works=tuple(self.folds[run_id].row() for run_id in new[start : start + PAGE]))
        if fresh := tuple(fold.row() for name, fold in self.schedules.items() if self.streams[name].added):
            yield Unit(works=fresh)
        over_first = sorted(self.locked.items(), key=lambda one: self.folds[one[0]].state != "done")
        for run_id, started in over_first:
            lock = self.keys.get(started.lock) or locks.look_at(self.store, started.lock)
            over = self.folds[run_id].state == "done"
            if self.streams[run_id].added and (posts := locks.brought(lock, run_id, started, over)):
                yield Unit(posts=posts)
                self.keys[lock.key] = locks.Lock(lock.key, "" if over else run_id, version=lock.version + 1)

    def report(self) -> Imported:
        runs = [self.streams[run_id] for run_id in self.folds]
        fresh = sum(stream.here.version == 0 for stream in runs)
        advanced = sum(bool(stream.here.version and stream.added) for stream in runs)
        written = sum(stream.added for stream in self.streams.values())
        return Imported(fresh, advanced, len(runs) - fresh - advanced, written, len(self.brought))


def _owner(stream: str) -> str:
    return stream if stream.startswith(NO_RUNS) else stream.removesuffix(INBOX)


def _unit(rows: Sequence[Row]) -> Unit:
    """Rows in their order, those of one stream that follow each other as one append."""
    appends = [
        Append(stream, group[0].version - 1, group)
        for stream, group in (
            (name, list(rows_of)) for name, rows_of in groupby(rows, lambda row: row.stream)
        )
    ]
    return Unit(tuple(appends))
