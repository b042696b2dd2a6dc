"""Reading the read models: rows as dicts, with JSON parsed, money as `Decimal` and statuses as enums."""

from decimal import Decimal
from typing import Any

from msgspec import Struct

from ..events.errors import ConfigurationError, ValueRefused
from .belongings import (
    Cost,
    context_history,
    get_context,
    list_artifacts,
    list_checkpoints,
    list_children,
    list_fan_outs,
    list_items,
    tree_cost,
)
from .costs import COSTS
from .inbox_list import due_timers, find_gate, list_gates, list_timers, list_waits, waiting_for
from .projection import Table
from .records import Record, record, select, shown
from .run_list import LIST_COLUMNS, Page, count_runs, drift, list_runs, locked_runs
from .runs import RUNS
from .steps import STEPS
from .views import Views

__all__ = [
    "LIST_COLUMNS", "Cost", "Page", "Record", "Total", "context_history", "count_runs", "drift", "due_timers",
    "edges", "find_gate", "get_context", "get_run", "list_artifacts", "list_checkpoints", "list_children",
    "list_costs", "list_fan_outs", "list_gates", "list_items", "list_runs", "list_steps", "list_timers",
    "list_waits", "locked_runs", "read_table", "record", "total_costs", "tree_cost", "waiting_for",
]  # fmt: skip


class Total(Struct, frozen=True):
    """A sum of costs."""

    usd: Decimal
    input_tokens: int
    output_tokens: int
    cache_tokens: int
    turns: int
    entries: int


def read_table(views: Views, table: Table, limit: int = 1000, **equal: Any) -> list[Record]:
    """Rows of any table in the order of its key, those whose columns have these values.

    Raises `ConfigurationError` for a column that the table does not have.
    """
    known = shown(table)
    for name in equal:
        if name not in known:
            raise ConfigurationError(f"{table.name} has no column {name!r}; it has {', '.join(known)}")
    where = [f"{name} IS NULL" if value is None else f"{name} = ?" for name, value in equal.items()]
    tail = f"{'WHERE' if where else ''} {' AND '.join(where)} ORDER BY {', '.join(table.key)} LIMIT ?"
    return select(views, table, tail, *(value for value in equal.values() if value is not None), limit)


def get_run(views: Views, run_id: str) -> Record | None:
    """The row of one run with all its columns; None when there is none (yet)."""
    found = select(views, RUNS.table, "WHERE run_id = ?", run_id)
    return found[0] if found else None


# ---- what belongs to a run -------------------------------------------------------------------------


def list_steps(
    views: Views, run_id: str, *, all_attempts: bool = True, rewound: bool = False
) -> list[Record]:
    """Its steps by number, each with its attempts in order (or only the latest).

    `rewound`: also those that a rewind has taken back, each before what came in its place.
    """
    latest = "" if all_attempts else "AND (superseded = 0 OR rewound <> 0)"
    standing = "" if rewound else "AND rewound = 0"
    tail = f"WHERE run_id = ? {latest} {standing} ORDER BY step, rewound DESC, superseded = 0, superseded"
    return select(views, STEPS.table, tail, run_id)


def edges(views: Views, run_id: str) -> list[Record]:
    """Its edges, with the readable keys of both steps."""
    if not views.has("step_edges", "steps"):
        return []
    rows = views.query(
        "SELECT e.from_step, e.to_step, f.key, t.key FROM step_edges e "
        "LEFT JOIN steps f ON f.run_id = e.run_id AND f.step = e.from_step AND f.superseded = 0 "
        "LEFT JOIN steps t ON t.run_id = e.run_id AND t.step = e.to_step AND t.superseded = 0 "
        "WHERE e.run_id = ? ORDER BY e.to_step, e.from_step",
        (run_id,),
    )
    return [dict(zip(("from_step", "to_step", "from_key", "to_key"), row, strict=True)) for row in rows]


def list_costs(views: Views, run_id: str) -> list[Record]:
    """Its costs by step, model and day."""
    return select(views, COSTS.table, "WHERE run_id = ? ORDER BY step, model, day", run_id)


def total_costs(views: Views, run_id: str | None = None, *, by: str | None = None) -> dict[str, Total]:
    """Exact sums over one run or all, by `model`, `day`, `step` or `run_id`; without `by` under `""`."""
    if by not in (None, "model", "day", "step", "run_id"):
        raise ValueRefused(f"costs cannot be added up by {by!r}; by model, day, step or run_id")
    condition, parameters = ("WHERE run_id = ?", [run_id]) if run_id is not None else ("", [])
    rows = select(views, COSTS.table, condition, *parameters)
    totals: dict[str, Total] = {} if by else {"": Total(Decimal(0), 0, 0, 0, 0, 0)}
    for row in rows:
        name = str(row[by]) if by else ""
        so_far = totals.get(name, Total(Decimal(0), 0, 0, 0, 0, 0))
        totals[name] = Total(*(getattr(so_far, f) + row[f] for f in Total.__struct_fields__))
    return totals
