"""A run folded from its own stream, without any table: so that a caller reads its own writes."""

from collections.abc import Iterable

from ..events.stream import Row as Entry
from .batch import Reader, fold_fast, routes
from .projection import Projection
from .records import Record, record
from .runs import RUNS
from .steps import STEPS


def fold_run(rows: Iterable[Entry]) -> Record:
    """The row of `runs` that these events of one run come to, as `queries.get_run` would give it.

    Raises ValueError when there are none.
    """
    found = _fold(RUNS, rows)
    if not found:
        raise ValueError("a run without events has no status")
    return found[0]


def fold_steps(rows: Iterable[Entry]) -> list[Record]:
    """The rows of `steps` that these events of one run come to, as `queries.list_steps` would give them."""
    found = [row for row in _fold(STEPS, rows) if not row["rewound"]]
    return sorted(found, key=lambda row: (row["step"], row["superseded"] == 0, row["superseded"]))


def _fold(projection: Projection, rows: Iterable[Entry]) -> list[Record]:
    reader = Reader(projection, lambda key: None, lambda first: ())
    fold_fast(rows, [reader], routes([reader]))
    columns = projection.table.columns
    return [record(columns, values) for _, values in reader.changes() if values is not None]
