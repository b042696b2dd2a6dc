"""The reference page and the schema say the same, word for word."""

import re
import sqlite3
from pathlib import Path
from typing import Annotated, Any

import pytest
from msgspec import Raw, Struct, structs

from refold.events import types as t
from refold.events.clock import step_trace_id
from refold.events.errors import ConfigurationError
from refold.events.memory import MemoryStore
from refold.events.registry import TYPES
from refold.projections import vocabulary
from refold.projections.core import CORE
from refold.projections.projection import Projection, column, table
from refold.projections.steps import _trace_id
from refold.projections.views_sqlite import SqliteViews
from tests.projections.samples import caught_up
from tests.projections.test_runner import fill

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "read-models.md").read_text(encoding="utf-8")


def section(title: str) -> str:
    _, found, rest = PAGE.partition(f"\n## {title}\n")
    assert found, f"the page has no section {title!r}"
    return rest.split("\n## ")[0]


def table_lines(projection: Projection) -> list[str]:
    return [f"| `{c.name}` | {c.type} | {c.doc} |" for c in projection.table.columns]


@pytest.mark.parametrize("projection", CORE, ids=lambda p: p.name)
def test_every_column_is_documented_as_it_is(projection: Projection) -> None:
    text = section(f"`{projection.table.name}`")
    documented = [line for line in text.splitlines() if line.startswith("| `")]
    assert documented == table_lines(projection)
    key = ", ".join(f"`{name}`" for name in projection.table.key)
    assert f"Key: {key}. Version {projection.version}." in text


def test_the_schema_is_what_the_columns_say() -> None:
    store, views = MemoryStore(), SqliteViews(None)
    fill(store)
    caught_up(store, views)
    for projection in CORE:
        name = projection.table.name
        real = views.query('SELECT name, type, "notnull", pk FROM pragma_table_info(?) ORDER BY cid', (name,))
        key = projection.table.key
        assert [(n, f"{kind}{' NOT NULL' if notnull else ''}", pk) for n, kind, notnull, pk in real] == [
            (c.name, c.type, key.index(c.name) + 1 if c.name in key else 0) for c in projection.table.columns
        ]


def test_every_table_of_the_file_has_its_place_on_the_page() -> None:
    store, views = MemoryStore(), SqliteViews(None)
    fill(store)
    caught_up(store, views)
    for (name,) in views.query("SELECT name FROM sqlite_schema WHERE type = 'table'"):
        assert f"`{name}`" in PAGE, f"{name} is not documented"


def test_what_the_mapping_names_exists() -> None:
    columns = {f"{p.name}.{c.name}" for p in CORE for c in p.table.columns}
    bare = {c.name for p in CORE for c in p.table.columns} | {p.name for p in CORE}
    for cell in (
        line.split(" | ")[-1] for line in section("Where to find what other engines call …").splitlines()
    ):
        for name in re.findall(r"`([a-z_.]+)`", cell):
            assert name in columns | bare | {"debug.recorded"}, name


def test_the_query_on_the_page_runs() -> None:
    (sql,) = re.findall(r"```sql\n(.*?)```", PAGE, re.DOTALL)
    views = SqliteViews(None)
    store = MemoryStore()
    fill(store)
    caught_up(store, views)
    assert views.query(sql) == []
    with pytest.raises(sqlite3.OperationalError):
        views.connection.execute(sql.replace("superseded", "superceded"))


# ---- the lean events are those of the log ------------------------------------------------------------------


@pytest.mark.parametrize("tag", sorted(vocabulary.EVENTS))
def test_lean_events_have_fields_and_defaults_of_the_real_ones(tag: str) -> None:
    """A field at its default is not stored: another default here would be another value."""
    real = {field.name: field for field in structs.fields(TYPES[tag])}
    for field in structs.fields(vocabulary.EVENTS[tag]):
        theirs = real[field.name]
        assert field.required == theirs.required, field.name
        assert _default(field) == _default(theirs), field.name


def _default(field: structs.FieldInfo) -> Any:
    if callable(field.default_factory):
        made: Any = field.default_factory()
        return bytes(made) if not isinstance(made, dict | list) else {dict: b"{}", list: b"[]"}[type(made)]
    if isinstance(field.default, Raw):
        return bytes(field.default)
    if isinstance(field.default, Struct):
        return structs.asdict(field.default)
    if field.default is None:
        return b"null"  # what is read as JSON, too
    return b"{}" if field.default == {} else field.default


def test_every_tag_of_a_run_is_read() -> None:
    elsewhere = (t.SignalSent, t.CancelSent, t.VoteSent, t.ChildEndSent, t.RequestSent, t.KeyTaken)
    others = tuple(tag for tag in TYPES if tag.startswith(("queue.", "lock.", "schedule.")))
    assert set(TYPES) - set(vocabulary.EVENTS) == {*others, *(kind.TAG for kind in elsewhere)}


@pytest.mark.parametrize("run_id", ["r", "order/42", "ü", "019b" * 8])
def test_the_quick_trace_id_is_the_trace_id(run_id: str) -> None:
    assert _trace_id(run_id, "charge#2") == step_trace_id(run_id, "charge#2")


# ---- what a table refuses ---------------------------------------------------------------------------


class Undocumented(Struct):
    a: str


class Silent(Struct):
    a: Annotated[str, "no description"]


class Nested(Struct):
    a: Annotated[dict[str, str], column("A dict.")]


class Fine(Struct):
    a: Annotated[str, column("One.")]
    b: Annotated[int, column("Two.")]


@pytest.mark.parametrize(
    ("name", "row", "key", "error"),
    [
        ("t", Undocumented, ("a",), "Undocumented.a: annotate it"),
        ("t", Silent, ("a",), "Silent.a: say what it holds"),
        ("t", Nested, ("a",), "is none of str, int, float, bool, bytes"),
        ("t", Fine, ("b",), "must be the first fields of Fine"),
        ("t", Fine, (), "must be the first fields of Fine"),
        ("t; DROP TABLE runs", Fine, ("a",), "cannot name a table or column"),
    ],
)
def test_a_table_says_what_is_wrong_with_it(
    name: str, row: type[Struct], key: tuple[str, ...], error: str
) -> None:
    with pytest.raises(ConfigurationError, match=error):
        table(name, row, key=key)
