"""`step_edges`: which steps' results the handler had when it called a step."""

from collections.abc import Sequence
from types import MappingProxyType
from typing import Annotated

from msgspec import Struct

from ..events.stream import Row as Entry
from . import reading as r
from .projection import Events, Key, Scope, Table, column, table


class EdgeRow(Struct, gc=False):
    """A row of `step_edges`."""

    run_id: Annotated[str, column("The run.")]
    to_step: Annotated[int, column("Number of the step that was called; its key is in `steps`.")]
    from_step: Annotated[int, column("Number of a step whose result the handler had by then, and used last.")]


class StepEdges:
    """`step_edges`: the graph of a run, from what really happened.

    Numbers only: the readable keys are one join with `steps` away (`queries.edges` makes it).
    """

    name = "step_edges"
    version = 1
    scope: Scope = "runs"
    creates = frozenset({"step.scheduled"})
    events: Events = MappingProxyType({"step.scheduled": r.StepScheduled})
    table: Table = table(
        "step_edges",
        EdgeRow,
        key=("run_id", "to_step", "from_step"),
        narrow=True,
    )

    def keys(self, entry: Entry, event: r.StepScheduled) -> Sequence[Key]:
        return [(entry.stream, event.step, before) for before in event.after]

    def fold(
        self, rows: list[EdgeRow | None], entry: Entry, event: r.StepScheduled
    ) -> Sequence[EdgeRow | None]:
        return [EdgeRow(entry.stream, event.step, before) for before in event.after]


STEP_EDGES = StepEdges()
