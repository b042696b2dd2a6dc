"""`step_edges`: which steps' results the handler had when it called a step."""

from collections.abc import Sequence
from types import MappingProxyType
from typing import Annotated

from msgspec import Struct

from ..events.stream import Row as Entry
from . import reading as r
from .projection import Events, Key, Look, Scope, Table, column, table
from .vocabulary import events


class EdgeRow(Struct, gc=False):
    """A row of `step_edges`."""

    run_id: Annotated[str, column("The run.")]
    to_step: Annotated[int, column("Number of the step that was called; its key is in `steps`.")]
    from_step: Annotated[int, column("Number of a step whose result the handler had by then, and used last.")]


def _taken_back(look: Look, entry: Entry, event: r.RunRewound) -> Sequence[Key]:
    """Edges to steps that are as if never called."""
    dropped = set(event.dropped)
    return [key for key in look.keys(entry.stream) if key[1] in dropped]


class StepEdges:
    """`step_edges`: the graph of a run, from what really happened.

    Numbers only: the readable keys are one join with `steps` away (`queries.edges` makes it).
    """

    name = "step_edges"
    version = 2
    scope: Scope = "runs"
    creates = frozenset({"step.scheduled"})
    events: Events = events("step.scheduled", "run.rewound")
    finds = MappingProxyType({"run.rewound": _taken_back})
    table: Table = table(
        "step_edges",
        EdgeRow,
        key=("run_id", "to_step", "from_step"),
        narrow=True,
    )

    def keys(self, entry: Entry, event: r.StepScheduled) -> Sequence[Key]:
        after = event.after
        if len(after) == 1:
            return ((entry.stream, event.step, after[0]),)
        return [(entry.stream, event.step, before) for before in after]

    def fold(
        self, rows: list[EdgeRow | None], entry: Entry, event: r.StepScheduled | r.RunRewound
    ) -> Sequence[EdgeRow | None]:
        if isinstance(event, r.RunRewound):
            return [None] * len(rows)
        after = event.after
        if len(after) == 1:
            return (EdgeRow(entry.stream, event.step, after[0]),)
        return [EdgeRow(entry.stream, event.step, before) for before in after]


STEP_EDGES = StepEdges()
