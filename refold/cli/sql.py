"""`refold sql`: questions in SQL about the read models and the log, and nothing but questions."""

import argparse
import csv
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from ..events.errors import ConfigurationError, StoreError
from ..events.store import Reading
from ..projections.views import Views
from ..projections.views_sqlite import SqliteViews
from .exits import OK
from .schema import EVENTS, Described, describe, tables
from .screen import Screen
from .stores import caught_up, looking
from .text import as_json, clip, visible

SHOWN = 1_000
"""Rows on a terminal; into a pipe go all."""
WIDEST = 60
"""Characters of a value in a table on a terminal."""
STEPS = 20_000
"""Of SQLite's machine, between two looks whether Ctrl-C was pressed: 1 ms or less."""

_ALLOWED = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
_PRAGMAS = {"table_info", "table_xinfo", "table_list", "index_list", "index_info"}
_UNSAFE = {"load_extension", "fts3_tokenizer"}
"""Functions that load code, or take an address for code."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r")

Row = Sequence[Any]


def sql(args: argparse.Namespace, screen: Screen) -> int:
    """`refold sql [QUERY]`."""
    if args.json and args.csv:
        raise ConfigurationError("either --json or --csv")
    with looking(args.store) as store, caught_up(store) as views, _asking(store, views) as asker:
        known = asker.tables()
        if args.query is None or args.query in known:
            describe(known if args.query is None else {args.query: known[args.query]}, screen, json=args.json)
            return OK
        with asker.asked(args.query) as (names, rows):
            names = _unique(names)
            if args.json:
                _print_json(screen, names, rows)
            elif args.csv:
                _print_csv(screen, names, rows)
            elif screen.terminal:
                _print_table(screen, names, rows)
            else:
                for row in chain([names], rows):
                    screen.raw("\t".join(map(_cell, row)))
    return OK


# ---- asking ------------------------------------------------------------------------------------------------


class Asker(Protocol):
    """What answers questions about one store, and nothing but questions."""

    def tables(self) -> dict[str, Described]:
        """What can be asked about."""
        ...

    def asked(self, query: str) -> AbstractContextManager[tuple[list[str], Iterator[Row]]]:
        """Names of the columns, and the rows as they are found. Raises `ConfigurationError`."""
        ...


class _FileAsker:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def tables(self) -> dict[str, Described]:
        return tables(self._connection)

    def asked(self, query: str) -> AbstractContextManager[tuple[list[str], Iterator[Row]]]:
        return _asked(self._connection, query)


@contextmanager
def _asking(store: Reading, views: Views) -> Iterator[Asker]:
    server = getattr(store, "server", None)
    if server is not None:
        # Not at the top: only who has such a store has the driver.
        from .sql_postgres import asking

        with asking(server) as asker:
            yield asker
    else:
        with _connected(store, views) as connection:
            yield _FileAsker(connection)


@contextmanager
def _connected(store: Reading, views: Views) -> Iterator[sqlite3.Connection]:
    """A connection of its own that can only read: the read models, and the log beside them."""
    path = getattr(store, "path", None)
    if not isinstance(path, Path) or not isinstance(views, SqliteViews):
        raise ConfigurationError(f"{store.url}: `refold sql` asks a SQLite file or PostgreSQL")
    with closing(_open(views)) as connection:
        try:
            _attach(connection, path)
            connection.execute(f"CREATE TEMP VIEW events AS {EVENTS}")
            connection.execute("PRAGMA query_only = ON")
        except sqlite3.Error as error:
            raise StoreError(f"cannot open {path} to read it: {error}") from error
        connection.text_factory = _text
        connection.set_authorizer(_authorize)
        connection.set_progress_handler(lambda: 0, STEPS)  # where Python notices Ctrl-C
        yield connection


def _open(views: SqliteViews) -> sqlite3.Connection:
    if views.path is not None:
        return sqlite3.connect(f"file:{quote(str(views.path.absolute()))}?mode=ro", uri=True)
    connection = sqlite3.connect("file::memory:", uri=True)
    views.connection.backup(connection)  # where no file of read models can be written
    return connection


def _attach(connection: sqlite3.Connection, path: Path) -> None:
    """Read-only; and as it lies there in a folder where SQLite may not even make the -shm file."""
    uri = f"file:{quote(str(path))}?mode=ro"
    try:
        connection.execute("ATTACH ? AS log", (uri,))
        connection.execute("SELECT COUNT(*) FROM log.sqlite_schema").fetchone()
    except sqlite3.OperationalError:
        if "log" in {name for _, name, _ in connection.execute("PRAGMA database_list")}:
            connection.execute("DETACH log")
        connection.execute("ATTACH ? AS log", (f"{uri}&immutable=1",))


def _text(raw: bytes) -> str:
    """One damaged event must not hide the others: what is no UTF-8 is written out."""
    return raw.decode(errors="backslashreplace")


def _authorize(action: int, first: str | None, second: str | None, *_: Any) -> int:
    if action == sqlite3.SQLITE_FUNCTION:
        return sqlite3.SQLITE_DENY if second in _UNSAFE else sqlite3.SQLITE_OK
    if action in _ALLOWED or (action == sqlite3.SQLITE_PRAGMA and first in _PRAGMAS):
        return sqlite3.SQLITE_OK
    return sqlite3.SQLITE_DENY


@contextmanager
def _asked(connection: sqlite3.Connection, query: str) -> Iterator[tuple[list[str], Iterator[Row]]]:
    """Names of the columns, and the rows as they are found."""
    try:
        cursor = connection.execute(query)
        if cursor.description is None:
            raise ConfigurationError("the query asks for nothing; `refold sql` only answers SELECT")
        yield [name for name, *_ in cursor.description], iter(cursor)
    except sqlite3.Error as error:
        told = str(error)
        if told == "interrupted":
            raise KeyboardInterrupt from None
        if any(word in told for word in ("authoriz", "prohibited", "readonly")):
            told = "it would change something or read elsewhere, and `refold sql` only answers SELECT"
        elif "one statement" in told:
            told = "it has several statements; ask one at a time"
        raise ConfigurationError(
            f"this query was refused: {told}; `refold sql` lists tables and columns"
        ) from error
    except UnicodeEncodeError as error:
        raise ConfigurationError(f"this query is no text: {error}") from error


def _unique(names: list[str]) -> list[str]:
    """`id`, `id_2`: two columns of one name would be one in JSON."""
    found: list[str] = []
    for name in names:
        numbered = (f"{name}_{number}" for number in range(2, len(names) + 2))
        found.append(name if name not in found else next(new for new in numbered if new not in found))
    return found


# ---- answering ------------------------------------------------------------------------------------------


def _plain(value: Any) -> Any:
    """Bytes as the text that they mostly are (events), else in hexadecimal."""
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.hex()


def _cell(value: Any) -> str:
    return "" if value is None else visible(_plain(value))


def _print_json(screen: Screen, names: Sequence[str], rows: Iterator[Row]) -> None:
    separator = "["
    for row in rows:
        entry = dict(zip(names, map(_plain, row), strict=True))
        screen.raw(separator + as_json(entry, indent=None))
        separator = ","
    screen.raw("]" if separator == "," else "[]")


class _Lines:
    """A file for the csv module."""

    def __init__(self, screen: Screen) -> None:
        self.screen = screen

    def write(self, text: str) -> None:
        self.screen.raw(text.removesuffix("\n"))


def _print_csv(screen: Screen, names: Sequence[str], rows: Iterator[Row]) -> None:
    writer = csv.writer(_Lines(screen), lineterminator="\n")
    for row in chain([names], rows):
        writer.writerow([_harmless(value) for value in row])


def _harmless(value: Any) -> Any:
    """A text that a spreadsheet would take for a formula gets an apostrophe before it; numbers stay."""
    value = _plain(value)
    if not isinstance(value, str):
        return value
    text = "\n".join(visible(line) for line in value.split("\n"))
    return f"'{text}" if value.startswith(_FORMULA) and not _is_number(value) else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text.isascii() and text == text.strip()


def _print_table(screen: Screen, names: Sequence[str], rows: Iterator[Row]) -> None:
    """As a table when it fits, else a block of lines for each row."""
    found = list(islice(rows, SHOWN))
    cells = [[clip(_cell(value), WIDEST) for value in row] for row in found]
    names = [visible(name) for name in names]
    widths = [max(map(len, column)) for column in zip(names, *cells, strict=True)]
    if sum(widths) + 2 * len(widths) <= screen.width:
        numbers = [
            name for i, name in enumerate(names)
            if found and all(isinstance(row[i], int | float) or row[i] is None for row in found)
        ]  # fmt: skip
        screen.table(names, cells, right=" ".join(name for name in numbers if " " not in name))
    else:
        left = max(map(len, names))
        for number, row in enumerate(found, 1):
            screen.print((f"row {number}", "bold"))
            for name, value in zip(names, row, strict=True):
                screen.print(
                    "  ", (name.ljust(left), "dim"), "  ", clip(_cell(value), screen.width - left - 4)
                )
    more = next(rows, None) is not None
    count = f"the first {SHOWN:,} rows: a pipe, --csv or --json gets all" if more else f"{len(found):,} rows"
    screen.print((count if len(found) != 1 else "1 row", "dim"))
