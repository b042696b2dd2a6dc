"""`engine.runs`: the questions that people and programs ask about many runs, or about all of one."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any

from ..events.errors import RunNotFound
from ..projections import overview, queries
from ..projections.queries import Cost, Page, Record
from .read_models import ReadModels

Records = list[Record]


class Runs:
    """Answers from the read models, which follow the log within about 50 ms.

    `await engine.projections.wait()` closes the gap. Rows are dicts, with the columns that
    docs/reference/read-models.md lists: JSON parsed, money as `Decimal`, flags as `bool`, words as enums.
    """

    def __init__(self, models: ReadModels) -> None:
        self._models = models

    # ---- runs

    def list(
        self,
        *,
        status: str | Collection[str] | None = None,
        attention: str | None = None,
        workflow: str | None = None,
        version: str | None = None,
        blocked_on: str | None = None,
        parent: str | None = None,
        root: str | None = None,
        trigger: str | None = None,
        lock: str | None = None,
        attributes: Mapping[str, Any] | None = None,
        started_after: str | datetime | None = None,
        started_before: str | datetime | None = None,
        dismissed: bool | None = False,
        limit: int = 50,
        cursor: str | None = None,
    ) -> Page:
        """A page of runs, those started last first: `Page(runs=[{…}, …], cursor="…" or None)`.

        Rows have the columns of `runs` but `args`, `result` and `runtime`.

        Args:
            status: `running`, `waiting`, `failed` …; or several: `["failed", "cancelled"]`.
            attention: `retrying`, `diverged`, `in_doubt` …, or `any` for all runs that need it.
            blocked_on: a type: `approval`, `input`, `event`, `child`, `timer`, `retry`, `in_doubt`, `paused`,
                `queue`, `worker`.
            parent: the children of this run.
            root: the whole family of this run.
            trigger: what started it: `webhook`, `schedule`, `parent` …
            lock: those that hold this concurrency key, or have held it.
            attributes: labels, each with this value: `{"shop": "Bern"}`.
            started_after: a moment, or ISO 8601 text (UTC when it names no zone); it is included …
            started_before: … and this is not.
            dismissed: True: only those that were dismissed; None: these too.
            cursor: `cursor` of the page before, with the same filters.

        Raises `ValueRefused` for a status, attention or type that there is none of, a time or a cursor that
        is none, and a limit below 1.
        """
        return queries.list_runs(
            self._models.views, status=status, attention=attention, workflow=workflow, version=version,
            blocked_on=blocked_on, parent=parent, root=root, trigger=trigger, lock=lock,
            attributes=attributes, started_after=started_after, started_before=started_before,
            dismissed=dismissed, limit=limit, cursor=cursor,
        )  # fmt: skip

    def count(self, by: str = "status") -> dict[str, int]:
        """How many runs there are: `{"waiting": 12, …}`.

        By `status`, `attention`, `blocked_on` (its type) or `workflow`. Raises `ValueRefused` for another.
        """
        return queries.count_runs(self._models.views, by)

    def drift(self) -> Records:
        """Runs that are not over, by version: `[{"workflow", "version", "status", "runs": 3}, …]`."""
        return queries.drift(self._models.views)

    def get(self, run_id: str) -> Record:
        """One run with all columns of `runs`. Raises `RunNotFound`."""
        found = queries.get_run(self._models.views, run_id)
        if found is None:
            raise RunNotFound(run_id)
        return found

    def current(self, run_id: str) -> Record:
        """Where a run stands: `{"step", "status", "iteration", "running", "workflow_chain"}`.

        `step` is the key of the last step called of those that are not over, else of the last one called,
        and None before the first; `status` and `iteration` are that step's. `running` has the keys of all
        that are not over, `workflow_chain` the workflows from the top of the run's family down to its own.
        Raises `RunNotFound`.
        """
        return overview.current(self._models.views, run_id)

    def summary(self, run_id: str) -> Records:
        """A row per step: `[{"id": "charge#2", "label", "status", "attempts", "result", "error"}, …]`.

        In the order of their calls; `error` is `{"type", "message"}` of the last attempt, or None. Raises
        `RunNotFound`.
        """
        self.get(run_id)
        return overview.summary(self._models.views, run_id)

    # ---- what belongs to one

    def steps(self, run_id: str, *, all_attempts: bool = True, rewound: bool = False) -> Records:
        """Rows of `steps`: each attempt, or only the latest; `rewound`: those taken back by a rewind, too."""
        return queries.list_steps(self._models.views, run_id, all_attempts=all_attempts, rewound=rewound)

    def edges(self, run_id: str) -> Records:
        """Which step followed from which: `[{"from_step", "to_step", "from_key", "to_key"}, …]`."""
        return queries.edges(self._models.views, run_id)

    def children(self, run_id: str, *, rewound: bool = False) -> Records:
        """Rows of `children`, each with `run_status`, how the child's own row stands now."""
        return queries.list_children(self._models.views, run_id, rewound=rewound)

    def cost(self, run_id: str) -> Cost:
        """What a run and all below it have spent so far: `Cost(usd, input_tokens, …, turns, runs)`."""
        return queries.tree_cost(self._models.views, run_id)

    def waits(self, run_id: str) -> Records:
        """Rows of `waits`."""
        return queries.list_waits(self._models.views, run_id)

    def timers(self, run_id: str) -> Records:
        """Rows of `timers`."""
        return queries.list_timers(self._models.views, run_id)

    def fan_outs(self, run_id: str) -> Records:
        """Rows of `fan_outs`: each `map` with its totals."""
        return queries.list_fan_outs(self._models.views, run_id)

    def items(
        self, run_id: str, fan_out: int, *, status: str | None = None, after: int = -1, limit: int = 50
    ) -> Records:
        """Rows of `fan_out_items` by place; the next page begins after the last one's `item`."""
        return queries.list_items(
            self._models.views, run_id, fan_out, status=status, after=after, limit=limit
        )

    def context(self, run_id: str) -> dict[str, Any]:
        """The shared context as it stands: key to value."""
        return queries.get_context(self._models.views, run_id)

    def context_history(self, run_id: str) -> Records:
        """Rows of `context`: all values it had, in the order they were set."""
        return queries.context_history(self._models.views, run_id)

    def checkpoints(self, run_id: str, *, rewound: bool = False) -> Records:
        """Rows of `checkpoints`."""
        return queries.list_checkpoints(self._models.views, run_id, rewound=rewound)

    def artifacts(self, run_id: str) -> Records:
        """Rows of `artifacts`."""
        return queries.list_artifacts(self._models.views, run_id)

    # ---- what waits, over all runs

    def gates(
        self,
        *,
        open_only: bool = True,
        voter: str | None = None,
        run_id: str | None = None,
        due_before: str | None = None,
        limit: int = 50,
        cursor: str | None = None,
    ) -> tuple[Records, str | None]:
        """Rows of `gates`, those opened first first, and the cursor of the next page or None.

        Args:
            voter: only those that this one may vote on now.
            due_before: only those with a deadline before this time, by deadline.
        """
        return queries.list_gates(
            self._models.views, open_only=open_only, voter=voter, run_id=run_id, due_before=due_before,
            limit=limit, cursor=cursor,
        )  # fmt: skip

    def gate(self, token: str) -> Record | None:
        """The gate of this token, or None."""
        return queries.find_gate(self._models.views, token)

    def waiting_for(self, name: str, limit: int = 50) -> Records:
        """Rows of `waits`: open waits for the event of this name, the oldest first."""
        return queries.waiting_for(self._models.views, name, limit)

    def due_timers(self, before: str, limit: int = 1000) -> Records:
        """Rows of `timers`: open ones that are due before this time, the earliest first."""
        return queries.due_timers(self._models.views, before, limit)
