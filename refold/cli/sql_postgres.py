"""Asking a log on PostgreSQL in SQL: one SELECT in a transaction that can only read, row by row."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import Connection, errors

from ..events.errors import ConfigurationError
from ..events.postgres_server import Server
from .schema import Described, of_catalogue

SLOW_S = 60
"""A question that makes the server think for longer between two rows is given up."""

Rows = tuple[list[str], Iterator[Any]]


class PostgresAsker:
    """One connection, in one transaction of one moment."""

    def __init__(self, connection: Connection[Any]) -> None:
        self._connection = connection

    def tables(self) -> dict[str, Described]:
        """The read models, those of a user's own among them, then the log."""
        run = self._connection.execute
        columns = run(
            "SELECT table_name::text, column_name::text, data_type::text FROM information_schema.columns "
            "WHERE table_schema = current_schema() ORDER BY table_name, ordinal_position"
        )
        names = run("SELECT name FROM projections WHERE slot = 'live'").fetchall()
        return of_catalogue(columns.fetchall(), {name for (name,) in names})

    @contextmanager
    def asked(self, query: str) -> Iterator[Rows]:
        """Names of the columns, and the rows as they are found."""
        try:
            # DECLARE … CURSOR takes one question and nothing else.
            with self._connection.cursor(name="asked") as cursor:
                cursor.itersize = 1_000
                cursor.execute(query.strip().rstrip(";").encode())
                yield [column.name for column in cursor.description or ()], iter(cursor)
        except (psycopg.Error, UnicodeEncodeError) as error:
            raise ConfigurationError(
                f"this query was refused: {_told(error)}; `refold sql` lists tables and columns"
            ) from error


def _told(error: Exception) -> str:
    if isinstance(error, errors.ReadOnlySqlTransaction):
        return "it would change something, and `refold sql` only answers SELECT"
    if isinstance(error, errors.QueryCanceled):
        return f"the server had been at it for {SLOW_S} s; ask for less"
    text = " ".join(str(error).split())
    if isinstance(error, errors.SyntaxError):
        return f"{text} (one SELECT is answered at a time, and nothing else)"
    return text


@contextmanager
def asking(server: Server) -> Iterator[PostgresAsker]:
    """A connection that can only read, and finds the tables of this log by their names."""
    connection = server.connect()
    connection.patience_s = 2 * SLOW_S  # the server gives up before
    try:
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        connection.execute(
            "SELECT set_config('search_path', %s, true), set_config('statement_timeout', %s, true), "
            "set_config('idle_in_transaction_session_timeout', '0', true)",
            (f'"{server.address.schema}"', f"{SLOW_S}s"),
        )
        yield PostgresAsker(connection)
    finally:
        connection.close()
