"""`checkpoints`: places in the history of a run that its handler has named."""

from collections.abc import Sequence
from types import MappingProxyType
from typing import Annotated, Any

from msgspec import Struct

from ..events.stream import Row as Entry
from . import reading as r
from .projection import Events, Key, Look, Scope, Table, column, table
from .reading import text, utc
from .vocabulary import events


class CheckpointRow(Struct, gc=False):
    """A row of `checkpoints`."""

    run_id: Annotated[str, column("The run.")]
    version: Annotated[int, column("Version of the run's stream: where to come back to.")]
    name: Annotated[str, column("Its name; several may share one.")] = ""
    data: Annotated[str, column("What the handler kept with it: JSON.", "json")] = "null"
    task: Annotated[str, column("Path of the task that recorded it; `m` is the handler itself.")] = ""
    at: Annotated[str, column("When.")] = ""
    rewound: Annotated[
        int, column("1: the run was rewound to before it, so it is as if it never was.", "flag")
    ] = 0


def _after(look: Look, entry: Entry, event: r.RunRewound) -> Sequence[Key]:
    return [key for key in look.keys(entry.stream) if key[1] > event.to]


class Checkpoints:
    """`checkpoints`: one row each."""

    name = "checkpoints"
    version = 1
    scope: Scope = "runs"
    creates = frozenset({"checkpoint.recorded"})
    events: Events = events("checkpoint.recorded", "run.rewound")
    finds = MappingProxyType({"run.rewound": _after})
    table: Table = table("checkpoints", CheckpointRow, key=("run_id", "version"))

    def keys(self, entry: Entry, event: Any) -> Sequence[Key]:
        return ((entry.stream, entry.version),)

    def fold(
        self, rows: list[CheckpointRow | None], entry: Entry, event: Any
    ) -> Sequence[CheckpointRow | None]:
        if not isinstance(event, r.RunRewound):
            data = text(event.data)
            return (CheckpointRow(entry.stream, entry.version, event.name, data, event.task, utc(event.at)),)
        for row in rows:
            if row is not None:
                row.rewound = 1
        return rows


CHECKPOINTS = Checkpoints()
