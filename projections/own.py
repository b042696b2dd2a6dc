"""A run folded from its own stream, without any table: so that a caller reads its own writes."""

from collections.abc import Iterable, Sequence
from typing import Any

from ..events.errors import StoreCorrupt, StoreError, UnknownEvent
from ..events.stream import Row as Entry
from .batch import Reader, fold_fast, routes
from .projection import Projection
from .records import Record, record
from .runs import RUNS
from .steps import STEPS


def fold_run(rows: Sequence[Entry]) -> Record:
    """The row of `runs` that these events of one run come to, as `queries.get_run` would give it.

    Raises ValueError when there are none.
    """
    found = records(RUNS, fold_rows(rows, RUNS)[0])
    if not found:
        raise ValueError("a run without events has no status")
    return found[0]


def fold_steps(rows: Sequence[Entry]) -> list[Record]:
    """The rows of `steps` that these events of one run come to, as `queries.list_steps` would give them."""
    return step_records(fold_rows(rows, STEPS)[0])


def step_records(rows: Iterable[Any]) -> list[Record]:
    """Rows of `steps` as `queries.list_steps` would give them."""
    found = [row for row in records(STEPS, rows) if not row["rewound"]]
    return sorted(found, key=lambda row: (row["step"], row["superseded"] == 0, row["superseded"]))


def records(projection: Projection, rows: Iterable[Any]) -> list[Record]:
    """Rows of a projection as dicts."""
    columns, dump = projection.table.columns, projection.table.dump
    return [record(columns, dump(row)) for row in rows]


def _damaged(rows: Sequence[Entry], error: Exception) -> StoreCorrupt:
    for row in rows:
        try:
            row.event()
        except UnknownEvent:
            continue
        except StoreCorrupt as found:
            return found
    name = rows[0].stream
    return StoreCorrupt(
        f"run {name!r}: its events do not follow from each other ({type(error).__name__}: {error}); "
        "refold verify tells which of them was changed or is missing"
    )


def fold_rows(rows: Sequence[Entry], *projections: Projection) -> list[Sequence[Any]]:
    """For each of the projections its rows, as it folds them: in one pass, each event decoded once.

    Raises `StoreCorrupt` for events that cannot be read, or do not follow from each other.
    """
    readers = [Reader(projection, lambda key: None, lambda first: ()) for projection in projections]
    try:
        fold_fast(rows, readers, routes(readers))
    except (StoreError, MemoryError):
        raise
    except Exception as error:  # whatever a projection raised, at an event that was damaged
        raise _damaged(rows, error) from error
    return [
        [row for row in (reader.rows[key] for key in reader.dirty) if row is not None] for reader in readers
    ]
