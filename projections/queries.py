"""Reading the read models: rows as dicts, with JSON parsed, money as `Decimal` and statuses as enums."""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from enum import StrEnum
from typing import Any

import msgspec
from msgspec import Struct

from ..events.errors import SchemaMismatch, ValueRefused
from .costs import COSTS
from .projection import Column, Form, Table
from .runs import RUNS
from .status import Attention, RunStatus, StepStatus
from .steps import STEPS
from .views import Views

Record = dict[str, Any]

LIST_COLUMNS = tuple(
    c.name for c in RUNS.table.columns if c.name not in ("args", "result", "runtime") and c.form != "hidden"
)
"""What a list of runs shows: all but the columns that may be large."""


class Page(Struct, frozen=True):
    """Some runs, and where the next page begins."""

    runs: list[Record]
    cursor: str | None
    """For the next call; None: these were the last."""


class Total(Struct, frozen=True):
    """A sum of costs."""

    usd: Decimal
    input_tokens: int
    output_tokens: int
    cache_tokens: int
    turns: int
    entries: int


# ---- from stored values to what people and programs read ------------------------------------------


def _word(kind: type[StrEnum], column: str) -> Callable[[Any], StrEnum]:
    def decode(value: Any) -> StrEnum:
        try:
            return kind(value)
        except ValueError as error:
            known = ", ".join(kind)
            raise SchemaMismatch(
                f"{column} {value!r} is none that this Refold knows ({known}): it was written by a newer "
                "one, or by hand; upgrade this process, or rebuild the read models"
            ) from error

    return decode


_FORMS: dict[Form, Callable[[Any], Any]] = {
    "json": msgspec.json.decode,
    "money": Decimal,
    "flag": bool,
    "run_status": _word(RunStatus, "run status"),
    "step_status": _word(StepStatus, "step status"),
    "attention": _word(Attention, "attention"),
}


def record(columns: Sequence[Column], values: Sequence[Any]) -> Record:
    """One row as a dict. Raises `SchemaMismatch` for a status that this code does not know."""
    found: Record = {}
    for column, value in zip(columns, values, strict=True):
        if column.form != "hidden":
            decode = _FORMS.get(column.form)
            found[column.name] = value if decode is None or value is None else decode(value)
    return found


def _records(views: Views, table: Table, columns: Sequence[str], tail: str, *parameters: Any) -> list[Record]:
    by_name = {c.name: c for c in table.columns}
    shown = [by_name[name] for name in columns]
    if table.name not in _tables(views):
        return []  # nothing has been folded yet
    sql = f"SELECT {', '.join(columns)} FROM {table.name} {tail}"
    return [record(shown, values) for values in views.query(sql, parameters)]


def _tables(views: Views) -> set[str]:
    return {name for (name,) in views.query("SELECT name FROM sqlite_schema WHERE type = 'table'")}


# ---- runs -----------------------------------------------------------------------------------------


def list_runs(
    views: Views,
    *,
    status: str | None = None,
    workflow: str | None = None,
    attention: str | None = None,
    limit: int = 50,
    cursor: str | None = None,
) -> Page:
    """Runs, those started last first; `attention="any"` for all that need it.

    Raises `ValueRefused` for a cursor that did not come from here.
    """
    where, parameters = _filters({"status": status, "workflow": workflow, "attention": attention})
    if cursor is not None:
        started_at, separator, run_id = cursor.partition("/")
        if not separator:
            raise ValueRefused(f"{cursor!r} is no cursor: pass the `cursor` of the page before")
        where.append("(started_at, run_id) < (?, ?)")
        parameters += [started_at, run_id]
    condition = f"WHERE {' AND '.join(where)}" if where else ""
    if (
        attention == "any"
    ):  # 1 ms among 1,000,000 runs; the planner, left alone, walks through all of them: 88
        condition = f"INDEXED BY runs_7 {condition}"
    tail = f"{condition} ORDER BY started_at DESC, run_id DESC LIMIT ?"
    runs = _records(views, RUNS.table, LIST_COLUMNS, tail, *parameters, limit + 1)
    more = len(runs) > limit
    runs = runs[:limit]
    return Page(runs, f"{runs[-1]['started_at']}/{runs[-1]['run_id']}" if more and runs else None)


def _filters(wanted: Mapping[str, str | None]) -> tuple[list[str], list[Any]]:
    where: list[str] = ["dismissed = 0"]
    parameters: list[Any] = []
    for name, value in wanted.items():
        if value is None:
            continue
        if name == "attention" and value != "none":
            where.append("attention <> 'none'")  # lets the partial index serve
        if (name, value) != ("attention", "any"):
            where.append(f"{name} = ?")
            parameters.append(value)
    return where, parameters


def get_run(views: Views, run_id: str) -> Record | None:
    """The row of one run with all its columns; None when there is none (yet)."""
    found = _records(views, RUNS.table, RUNS.table.names, "WHERE run_id = ?", run_id)
    return found[0] if found else None


def count_runs(views: Views) -> dict[str, int]:
    """How many runs there are in each status."""
    if RUNS.table.name not in _tables(views):
        return {}
    return dict(views.query("SELECT status, COUNT(*) FROM runs GROUP BY status ORDER BY status"))


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
    return _records(views, STEPS.table, STEPS.table.names, tail, run_id)


def edges(views: Views, run_id: str) -> list[Record]:
    """Its edges, with the readable keys of both steps."""
    if not {"step_edges", "steps"} <= _tables(views):
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
    return _records(
        views, COSTS.table, COSTS.table.names, "WHERE run_id = ? ORDER BY step, model, day", run_id
    )


def total_costs(views: Views, run_id: str | None = None, *, by: str | None = None) -> dict[str, Total]:
    """Exact sums over one run or all, by `model`, `day`, `step` or `run_id`; without `by` under `""`."""
    if by not in (None, "model", "day", "step", "run_id"):
        raise ValueRefused(f"costs cannot be added up by {by!r}; by model, day, step or run_id")
    condition, parameters = ("WHERE run_id = ?", [run_id]) if run_id is not None else ("", [])
    rows = _records(views, COSTS.table, COSTS.table.names, condition, *parameters)
    totals: dict[str, Total] = {} if by else {"": Total(Decimal(0), 0, 0, 0, 0, 0)}
    for row in rows:
        name = str(row[by]) if by else ""
        so_far = totals.get(name, Total(Decimal(0), 0, 0, 0, 0, 0))
        totals[name] = Total(*(getattr(so_far, f) + row[f] for f in Total.__struct_fields__))
    return totals
