"""Statements in libpq's binary form: what goes in is what the server gets."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings, strategies as st
from psycopg import pq

from refold.events.postgres_connect import Patient
from refold.events.postgres_statement import Statement

ECHO = Statement(
    "echo",
    b"SELECT %(texts)s::text[]::text, %(raw)b::bytea[]::text, %(numbers)s::bigint[]::text, "
    b"%(times)s::float8[]::text, %(one)s::text, %(size)s::int::text, %(yes)s::bool::text, %(one)s::text",
)
"""Every type that the store uses; one name twice."""
AGAIN = (
    b"SELECT %(texts)s::text[]::text, %(raw)b::bytea[]::text, %(numbers)s::bigint[]::text, "
    b"%(times)s::float8[]::text, %(one)s::text, %(size)s::int::text, %(yes)s::bool::text, %(one)s::text"
)
_BACKEND = b"SELECT FROM pg_stat_activity WHERE pid = %s"
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))
INT8 = st.integers(-(2**63), 2**63 - 1)
VALUES = st.fixed_dictionaries({
    "texts": st.lists(TEXT), "raw": st.lists(st.binary()), "numbers": st.lists(INT8),
    "times": st.lists(st.none() | st.floats(allow_nan=False)), "one": st.none() | TEXT,
    "size": st.integers(-(2**31), 2**31 - 1), "yes": st.booleans(),
})  # fmt: skip


@pytest.fixture(scope="module")
def connection(postgres_server: str) -> Iterator[Patient]:
    with Patient.connect(postgres_server, autocommit=True) as connection:
        yield connection


def row(found: "pq.abc.PGresult") -> list[str | None]:
    values = [found.get_value(0, column) for column in range(found.nfields)]
    return [None if value is None else value.decode() for value in values]


@settings(max_examples=100, deadline=None)
@given(VALUES, st.booleans())
def test_the_server_gets_what_psycopg_would_send(
    connection: Patient, values: dict[str, Any], prepare: bool
) -> None:
    expected = connection.execute(AGAIN, values).fetchone()
    assert row(ECHO.execute(connection, values, prepare=prepare)) == list(expected or ())


def test_after_a_rollback_the_statement_is_prepared_again(postgres_server: str) -> None:
    """psycopg has the server forget all prepared statements then, ours among them."""
    add = Statement("add", b"SELECT (%(size)s::int + 1)::text")
    with Patient.connect(postgres_server, autocommit=True, prepare_threshold=0) as connection:
        assert row(add.execute(connection, {"size": 1}, prepare=True)) == ["2"]
        connection.execute("SELECT 1")
        with pytest.raises(psycopg.errors.DivisionByZero), connection.transaction():
            connection.execute("SELECT 1 / 0")
        connection.execute("SELECT 1")
        names = connection.execute("SELECT name FROM pg_prepared_statements").fetchall()
        assert ("refold_add",) not in names, "the control: it is gone indeed"
        assert row(add.execute(connection, {"size": 2}, prepare=True)) == ["3"]


def test_a_new_connection_gets_the_statement_too(postgres_server: str) -> None:
    add = Statement("add", b"SELECT (%(size)s::int + 1)::text")
    for size in range(2):
        with Patient.connect(postgres_server, autocommit=True) as connection:
            assert row(add.execute(connection, {"size": size}, prepare=True)) == [str(size + 1)]


def test_an_error_of_the_server_is_psycopgs_own_and_the_connection_goes_on(
    connection: Patient,
) -> None:
    divide = Statement("divide", b"SELECT (1 / %(size)s::int)::text")
    with pytest.raises(psycopg.errors.DivisionByZero, match="division by zero"):
        divide.execute(connection, {"size": 0}, prepare=True)
    assert row(divide.execute(connection, {"size": 1}, prepare=True)) == ["1"]


def test_a_connection_that_was_cut_is_an_operational_error(postgres_server: str) -> None:
    add = Statement("add", b"SELECT (%(size)s::int + 1)::text")
    with Patient.connect(postgres_server, autocommit=True) as connection:
        add.execute(connection, {"size": 1}, prepare=True)
        with psycopg.connect(postgres_server, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))
            while other.execute(_BACKEND, (connection.info.backend_pid,)).fetchone():
                pass
        with pytest.raises(psycopg.OperationalError):
            add.execute(connection, {"size": 1}, prepare=True)
        assert connection.closed


def test_more_than_fits_into_a_socket_goes_through(connection: Patient) -> None:
    measure = Statement("measure", b"SELECT sum(length(x))::text FROM unnest(%(raw)b::bytea[]) AS x")
    raw = [bytes(3_000_000), b"", bytes(5_000_000)]
    assert row(measure.execute(connection, {"raw": raw}, prepare=True)) == ["8000000"]
