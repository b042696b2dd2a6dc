"""Projections that only tests have, and what tests ask of tables."""

from collections.abc import Sequence
from types import MappingProxyType
from typing import Annotated, Any

import pytest
from msgspec import Struct

from refold.events import types as t
from refold.events.registry import encode_event
from refold.events.store import Append, Store, Unit
from refold.events.stream import Row, Tail, row_hash
from refold.events.types import Event
from refold.projections.core import CORE
from refold.projections.projection import Events, Key, Projection, Scope, Table, column, table
from refold.projections.runner import Runner
from refold.projections.views import Views


class NameRow(Struct):
    name: Annotated[str, column("Name of a step.")]
    calls: Annotated[int, column("How often it was called, over all runs.")] = 0


class WiderRow(NameRow):
    longest: Annotated[int, column("Length of its longest arguments.")] = 0


class Names:
    """How often each step was called: a projection of a user's, over typed events."""

    name = "names"
    version = 1
    scope: Scope = "runs"
    creates: frozenset[str] = frozenset()
    events: Events = MappingProxyType({"step.scheduled": t.StepScheduled})
    table: Table = table("names", NameRow, key=("name",))

    def keys(self, entry: Row, event: Any) -> Sequence[Key]:
        return ((event.name,),)

    def fold(self, rows: list[Any], entry: Row, event: Any) -> Sequence[Any]:
        row = rows[0] or NameRow(event.name)
        row.calls += 1
        return (row,)


class WiderNames(Names):
    """Version 2 of it: one column more."""

    version = 2
    table: Table = table("names", WiderRow, key=("name",))

    def fold(self, rows: list[Any], entry: Row, event: Any) -> Sequence[Any]:
        row = rows[0] or WiderRow(event.name)
        row.calls += 1
        row.longest = max(row.longest, len(event.args))
        return (row,)


def each(names: str, *cases: Any, postgres: int = 1) -> pytest.MarkDecorator:
    """Each case on SQLite and in memory; on PostgreSQL, where it takes its time, only the first of them."""
    every = [(store, case) for store in ("sqlite", "memory") for case in cases]
    every += [("postgres", case) for case in cases[:postgres]]
    flat = [(store, *(case if isinstance(case, tuple) else (case,))) for store, case in every]
    return pytest.mark.parametrize(("store", *names.split()), flat, indirect=["store"])


def caught_up(store: Store, views: Views, projections: Sequence[Projection] = CORE) -> Runner:
    runner = Runner(store, views, projections)
    while runner.catch_up():
        pass
    return runner


def dump(views: Views, projections: Sequence[Projection] = CORE) -> dict[str, list[tuple[Any, ...]]]:
    """Every stored value of every table, with its type."""
    return {
        p.name: [
            tuple((type(value), value) for value in row)
            for row in views.query(f"SELECT * FROM {p.table.name} ORDER BY {', '.join(p.table.key)}")
        ]
        for p in projections
    }


def append(store: Store, stream: str, *events: Event | tuple[str, bytes]) -> list[Row]:
    """Append events, or tags with bodies that no event has."""
    tail: Tail = store.tail(stream)
    rows: list[Row] = []
    for event in events:
        tag, state = event if isinstance(event, tuple) else (event.TAG, encode_event(event))
        digest = row_hash(tail.hash, stream, tail.version + 1, tag, state)
        tail = Tail(tail.version + 1, digest)
        rows.append(Row(stream, tail.version, tag, state, digest))
    expected = tail.version - len(rows)
    assert store.commit([Unit((Append(stream, expected, rows),))]) == [None]
    return rows
