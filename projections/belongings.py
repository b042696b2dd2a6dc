"""What belongs to a run: its children, fan-outs, context, checkpoints, artifacts, and what its tree cost."""

from decimal import Decimal
from typing import Any

from msgspec import Struct

from .artifacts import ARTIFACTS
from .checkpoints import CHECKPOINTS
from .children import CHILDREN
from .context import CONTEXT
from .fan_out_items import FAN_OUT_ITEMS
from .fan_outs import FAN_OUTS
from .records import Record, select
from .runs import RUNS
from .views import Views


def list_children(views: Views, run_id: str, *, rewound: bool = False) -> list[Record]:
    """The children of a run by number; `rewound`: also those that it never started, after a rewind.

    `run_status` is how the child's own row in `runs` stands, which is more than the parent was told: of a
    detached child, or of one that was retried.
    """
    standing = "" if rewound else "AND rewound = 0"
    found = select(views, CHILDREN.table, f"WHERE parent_id = ? {standing} ORDER BY child", run_id)
    for row in found:
        now = views.query("SELECT status FROM runs WHERE run_id = ?", (row["run_id"],))
        row["run_status"] = now[0][0] if now else None
    return found


class Cost(Struct, frozen=True):
    """What some runs have spent."""

    usd: Decimal
    input_tokens: int
    output_tokens: int
    cache_tokens: int
    turns: int
    runs: int
    """How many they are."""


def tree_cost(views: Views, run_id: str) -> Cost:
    """What a run and all below it have spent so far, each counted once; detached ones are left out.

    Unlike `runs.total_usd`, it has what children have spent that are not over.
    """
    if not views.has(RUNS.table.name):
        return Cost(Decimal(0), 0, 0, 0, 0, 0)
    rows = views.query(
        "WITH RECURSIVE tree(id) AS (SELECT run_id FROM runs WHERE run_id = ? "
        f"UNION SELECT r.run_id FROM tree CROSS JOIN {views.source('runs', 'r', index='runs_9')} "
        "WHERE r.parent_id = tree.id AND r.parent_id <> '' AND r.detached = 0) "
        "SELECT cost_usd, input_tokens, output_tokens, cache_tokens, turns FROM tree CROSS JOIN runs "
        "WHERE run_id = id",
        (run_id,),
    )
    sent, received, cached, turns = (sum(row[place] for row in rows) for place in range(1, 5))
    return Cost(sum((Decimal(row[0]) for row in rows), Decimal(0)), sent, received, cached, turns, len(rows))


# ---- fan-outs -------------------------------------------------------------------------------------------


def list_fan_outs(views: Views, run_id: str) -> list[Record]:
    """The fan-outs of a run, in order, with their totals."""
    return select(views, FAN_OUTS.table, "WHERE fan_outs.run_id = ? ORDER BY fan_out", run_id)


def list_items(
    views: Views,
    run_id: str,
    fan_out: int,
    *,
    status: str | None = None,
    after: int = -1,
    limit: int = 50,
) -> list[Record]:
    """Items of a fan-out by place, from the one behind `after`; only those of a status, if one is given."""
    where, values = "WHERE run_id = ? AND fan_out = ? AND item > ?", [run_id, fan_out, after]
    if status is not None:
        where += " AND status = ?"
        values.append(status)
    return select(views, FAN_OUT_ITEMS.table, f"{where} ORDER BY item LIMIT ?", *values, limit)


# ---- data -----------------------------------------------------------------------------------------------


def get_context(views: Views, run_id: str) -> dict[str, Any]:
    """The shared context of a run as it stands."""
    tail = "WHERE run_id = ? AND superseded = 0 AND version > 0 ORDER BY key"
    return {row["key"]: row["value"] for row in select(views, CONTEXT.table, tail, run_id)}


def context_history(views: Views, run_id: str) -> list[Record]:
    """All values that the context of a run had and has, in the order they were set."""
    return select(views, CONTEXT.table, "WHERE run_id = ? ORDER BY version, key", run_id)


def list_checkpoints(views: Views, run_id: str, *, rewound: bool = False) -> list[Record]:
    """The checkpoints of a run, in order; `rewound`: also those before which it was rewound."""
    standing = "" if rewound else "AND rewound = 0"
    return select(views, CHECKPOINTS.table, f"WHERE run_id = ? {standing} ORDER BY version", run_id)


def list_artifacts(views: Views, run_id: str) -> list[Record]:
    """The artifacts of a run by step and name."""
    return select(views, ARTIFACTS.table, "WHERE run_id = ? ORDER BY step, name", run_id)
