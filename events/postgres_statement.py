"""A statement that runs often, as libpq takes it quickest: prepared once, its parameters in binary form.

psycopg writes an array as text, item by item, in Python: for the twenty of an append that took 0.3 ms, more
than the commit on the disk. The waiting is ours, too: its share was 0.08 ms a statement.
"""

import re
import select
from collections.abc import Callable, Mapping, Sequence
from struct import Struct
from typing import Any

from psycopg import OperationalError, errors, pq

from .postgres_connect import Patient

_PARAMETER = re.compile(rb"%\((\w+)\)[sb]::(\w+(?:\[\])?)")
_LENGTH, _INT8, _FLOAT8 = Struct("!i").pack, Struct("!q").pack, Struct("!d").pack
_NULL = _LENGTH(-1)
_DIMENSION = Struct("!iiiii").pack
_BINARY = pq.Format.BINARY

Encode = Callable[[Any], bytes]

_SCALARS: dict[bytes, tuple[int, Encode]] = {
    b"text": (25, str.encode),
    b"bytea": (17, bytes),
    b"int": (23, _LENGTH),
    b"bigint": (20, _INT8),
    b"float8": (701, _FLOAT8),
    b"bool": (16, lambda value: b"\1" if value else b"\0"),
}


def _array_of(oid: int, encode: Encode) -> Encode:
    empty = Struct("!iii").pack(0, 0, oid)

    def array(values: Sequence[Any]) -> bytes:
        if not values:
            return empty
        parts = [_DIMENSION(1, 1, oid, len(values), 1)]
        for value in values:
            if value is None:
                parts.append(_NULL)
            else:
                item = encode(value)
                parts += (_LENGTH(len(item)), item)
        return b"".join(parts)

    return array


class Statement:
    """A query each of whose parameters has its type behind it: `%(size)s::int`."""

    def __init__(self, name: str, sql: bytes) -> None:
        self._name = f"refold_{name}".encode()
        self._parameters: dict[str, Encode] = {}
        self._sql = _PARAMETER.sub(self._numbered, sql)
        self._formats = [_BINARY] * len(self._parameters)
        self._prepared_on: Patient | None = None

    def _numbered(self, match: re.Match[bytes]) -> bytes:
        name, kind = match[1].decode(), match[2]
        oid, encode = _SCALARS[kind.removesuffix(b"[]")]
        self._parameters.setdefault(name, _array_of(oid, encode) if kind.endswith(b"[]") else encode)
        return b"$%d::%s" % (list(self._parameters).index(name) + 1, kind)

    def execute(
        self, connection: Patient, parameters: Mapping[str, Any], *, prepare: bool
    ) -> "pq.abc.PGresult":
        """Its result, in binary form, from a connection that is ours alone. Raises `psycopg.Error`.

        `prepare=False`: in a transaction, which would not survive that the statement is not there any more.
        """
        values = [
            None if (value := parameters[name]) is None else encode(value)
            for name, encode in self._parameters.items()
        ]
        pgconn = connection.pgconn
        if not prepare:
            pgconn.send_query_params(self._sql, values, param_formats=self._formats, result_format=_BINARY)
            return _answer(connection, values)
        try:
            return self._execute_prepared(connection, values)
        except errors.InvalidSqlStatementName:  # psycopg has the server forget all of them after a rollback
            self._prepared_on = None
            return self._execute_prepared(connection, values)

    def _execute_prepared(self, connection: Patient, values: "Sequence[bytes | None]") -> "pq.abc.PGresult":
        pgconn = connection.pgconn
        if self._prepared_on is not connection:
            pgconn.send_prepare(self._name, self._sql)
            _answer(connection, ())
            self._prepared_on = connection
        pgconn.send_query_prepared(self._name, values, self._formats, _BINARY)
        return _answer(connection, values)


def _answer(connection: Patient, sent: "Sequence[bytes | None]") -> "pq.abc.PGresult":
    """Wait for the answer to what was sent; signals get through, a person's Ctrl-C among them."""
    pgconn, patience_s = connection.pgconn, connection.patience_s
    # A server says nothing while it stores what it was sent: one that is busy gets 1 s more for each MB.
    longest = None if patience_s is None else patience_s * 1000 + sum(len(one or b"") for one in sent) / 1000
    poll = select.poll()
    poll.register(pgconn.socket, select.POLLIN | select.POLLOUT)
    while pgconn.flush():  # the server may have something to say before it takes the rest
        if not poll.poll(longest):
            connection.give_up()
        pgconn.consume_input()
    poll.modify(pgconn.socket, select.POLLIN)
    last: pq.abc.PGresult | None = None
    while True:
        while pgconn.is_busy():
            if not poll.poll(longest):
                connection.give_up()
            pgconn.consume_input()
        result = pgconn.get_result()
        if result is None:
            break
        last = result
    if last is None:
        raise OperationalError("the server gave no answer")
    if last.status not in (pq.ExecStatus.COMMAND_OK, pq.ExecStatus.TUPLES_OK):
        raise errors.error_from_result(last)
    return last
