"""A run at a glance: where it stands now, and its steps with what came of them."""

from typing import Any

from ..events.errors import RunNotFound
from .records import Record, select
from .runs import RUNS
from .steps import STEPS
from .views import Views

_OPEN = ("running", "retrying", "scheduled", "unknown")


def current(views: Views, run_id: str) -> Record:
    """`{"step", "status", "iteration", "running", "workflow_chain"}` of a run. Raises `RunNotFound`.

    `step` is the key of the last step called of those that are not over, else of the last one called, and
    None before the first; `status` and `iteration` are that step's. `running` has the keys of all that are
    not over. `workflow_chain` names the workflows from the top of its family down to its own.
    """
    chain = _chain(views, run_id)
    columns = ("key", "status", "iteration", "step")
    tail = "WHERE run_id = ? AND superseded = 0 AND rewound = 0"
    marks = ", ".join("?" * len(_OPEN))
    running = select(
        views, STEPS.table, f"{tail} AND status IN ({marks}) ORDER BY step", run_id, *_OPEN, columns=columns
    )
    last = running[-1:] or select(
        views, STEPS.table, f"{tail} ORDER BY step DESC LIMIT 1", run_id, columns=columns
    )
    step = last[0] if last else {"key": None, "status": None, "iteration": 0}
    return {
        "step": step["key"], "status": step["status"], "iteration": step["iteration"],
        "running": [row["key"] for row in running], "workflow_chain": chain,
    }  # fmt: skip


def _chain(views: Views, run_id: str) -> list[str]:
    if not views.has(RUNS.table.name):
        raise RunNotFound(run_id)
    rows = views.query(
        "WITH RECURSIVE above(run_id, workflow, parent_id, height) AS ("
        "SELECT run_id, workflow, parent_id, 0 FROM runs WHERE run_id = ? "
        "UNION ALL SELECT r.run_id, r.workflow, r.parent_id, a.height + 1 "
        "FROM runs r JOIN above a ON r.run_id = a.parent_id) "
        "SELECT workflow FROM above ORDER BY height DESC",
        (run_id,),
    )
    if not rows:
        raise RunNotFound(run_id)
    return [workflow for (workflow,) in rows]


def summary(views: Views, run_id: str) -> list[Record]:
    """`[{"id": "charge#2", "label": "charge", "status", "attempts", "result", "error"}, …]`, a row per step.

    In the order in which they were called; `error` is `{"type", "message"}` of the last attempt, or None.
    """
    columns = ("key", "name", "status", "attempt", "result", "error_type", "error_message")
    tail = "WHERE run_id = ? AND superseded = 0 AND rewound = 0 ORDER BY step"
    return [_summed(row) for row in select(views, STEPS.table, tail, run_id, columns=columns)]


def _summed(row: Record) -> Record:
    error: Any = None
    if row["error_type"] is not None:
        error = {"type": row["error_type"], "message": row["error_message"]}
    return {
        "id": row["key"], "label": row["name"], "status": row["status"], "attempts": row["attempt"],
        "result": row["result"], "error": error,
    }  # fmt: skip


def held_by(views: Views, owner: str) -> dict[str, int]:
    """How many runs that are not over this owner has taken, by status."""
    return _unfinished(views, "AND owner = ?", owner)


def unfinished(views: Views) -> dict[str, int]:
    """How many runs are not over, by status."""
    return _unfinished(views, "")


def _unfinished(views: Views, condition: str, *parameters: str) -> dict[str, int]:
    if not views.has(RUNS.table.name):
        return {}
    sql = (
        f"SELECT status, COUNT(*) FROM {views.source('runs', index='runs_4')} "
        f"WHERE ended_at IS NULL {condition} GROUP BY status ORDER BY status"
    )
    return dict(views.query(sql, parameters))
