"""`children`: one row per run that another one has started, linked both ways."""

from collections.abc import Sequence
from typing import Annotated, Any

from msgspec import Struct

from ..events.stream import INBOX, Row as Entry
from . import money, reading as r, reading_waits as w
from .projection import Events, Index, Key, Scope, Table, column, table
from .reading import text, utc
from .vocabulary import events


class ChildRow(Struct, gc=False):
    """A row of `children`."""

    parent_id: Annotated[str, column("The run that started it.")]
    child: Annotated[int, column("Its number among the parent's commands.")]
    run_id: Annotated[str, column("The child; when it continued as a new run, the last of these.")] = ""
    first_run_id: Annotated[str, column("The child as it was started.")] = ""
    workflow: Annotated[str, column("Its workflow …")] = ""
    version: Annotated[str, column("… and the version of it.")] = ""
    args: Annotated[str, column("Its arguments: a JSON array.", "json")] = "[]"
    detached: Annotated[
        int, column("1: the parent does not wait for it, and is not told how it ends.", "flag")
    ] = 0
    fan_out: Annotated[
        int, column("Number of the `map` that it is an item of (`fan_outs.fan_out`); 0: of none.")
    ] = 0
    item: Annotated[int, column("Place in that map's items, from 0.")] = 0
    status: Annotated[
        str,
        column(
            "`running`, or how it ended as its parent was told: `completed`, `failed`, `cancelled`, "
            "`terminated`, "
            "`compensated` or `compensation_failed`. The row of a detached child in `runs` says how that "
            "stands."
        ),
    ] = "running"
    started_at: Annotated[str, column("When the parent started it.")] = ""
    ended_at: Annotated[str | None, column("When it ended.")] = None
    taken_at: Annotated[str | None, column("When the parent took notice of that.")] = None
    given_up_at: Annotated[str | None, column("When the parent no longer waited for it.")] = None
    result: Annotated[str | None, column("What it returned, once completed: JSON.", "json")] = None
    error_type: Annotated[str | None, column("Class of its error.")] = None
    error_message: Annotated[str | None, column("The message.")] = None
    usd: Annotated[
        str, column("US dollars spent by it and its children: exact decimal text; once it ended.", "money")
    ] = "0"
    input_tokens: Annotated[int, column("Tokens sent to models, the same way …")] = 0
    output_tokens: Annotated[int, column("… received …")] = 0
    cache_tokens: Annotated[int, column("… and served from a cache, …")] = 0
    turns: Annotated[int, column("… and turns of agents.")] = 0
    rewound: Annotated[
        int,
        column("1: the parent was rewound to before it started it, so for the parent it never was.", "flag"),
    ] = 0
    task: Annotated[str, column("Path of the parent's task that started it.")] = ""
    site: Annotated[str, column("Where the parent's handler started it: `shop.py:41`.")] = ""


def _row(rows: list[ChildRow | None], key: Key) -> ChildRow:
    return rows[0] if rows[0] is not None else ChildRow(*key)


def _started(row: ChildRow, event: w.ChildStarted) -> None:
    row.first_run_id = event.run_id
    row.run_id = row.run_id or event.run_id
    row.workflow, row.version, row.args = event.workflow, event.version, text(event.args)
    row.detached, row.fan_out, row.item = int(event.detached), event.fan_out, event.item
    row.started_at, row.task, row.site = utc(event.at), event.task, event.site


def _ended(row: ChildRow, event: w.ChildEnded) -> None:
    row.run_id, row.status, row.ended_at = event.run_id, event.status, utc(event.at)
    row.result = text(event.result) if event.status == "completed" else None
    error, spent = event.error, event.spent
    row.error_type, row.error_message = (None, None) if error is None else (error.type, error.message)
    row.usd = money.add(row.usd, spent.usd)  # a repaired child tells what it has spent since
    row.input_tokens += spent.input_tokens
    row.output_tokens += spent.output_tokens
    row.cache_tokens += spent.cache_tokens
    row.turns += spent.turns


_EVENTS: Events = {
    **events("run.started", "child.started", "child.ended", "child.cancelled", "run.rewound"),
    "child_end.sent": w.ChildEnded,
}


class Children:
    """`children`: keyed by parent and number, which both runs know from their first event."""

    name = "children"
    version = 1
    scope: Scope = "all"
    creates: frozenset[str] = frozenset()
    events: Events = _EVENTS
    table: Table = table(
        "children",
        ChildRow,
        key=("parent_id", "child"),
        indexes=(Index(("run_id",)), Index(("first_run_id",), "first_run_id <> run_id")),
    )

    def keys(self, entry: Entry, event: Any) -> Sequence[Key]:
        if isinstance(event, r.RunStarted):
            return ((event.ancestors[-1].run_id, event.child),) if event.ancestors else ()
        if isinstance(event, r.RunRewound):
            return [(entry.stream, number) for number in event.dropped]
        return ((entry.stream.removesuffix(INBOX), event.child),)

    def fold(self, rows: list[ChildRow | None], entry: Entry, event: Any) -> Sequence[ChildRow | None]:
        if isinstance(event, r.RunRewound):
            for child in rows:
                if child is not None:
                    child.rewound = 1
            return rows
        row = _row(rows, self.keys(entry, event)[0])
        if isinstance(event, r.RunStarted):
            row.run_id = entry.stream
        elif isinstance(event, w.ChildStarted):
            _started(row, event)
        elif isinstance(event, w.ChildCancelled):
            row.given_up_at = utc(event.at)
        elif entry.tag == "child_end.sent":
            _ended(row, event)
        else:
            row.taken_at = utc(event.at)
        return (row,)


CHILDREN = Children()
