"""Lists and counts of runs: pages of 50 among a million in milliseconds, whatever they are filtered by.

SQLite keeps no statistics of these tables and would guess. So the index to walk along is chosen here: of
all that the filters allow, the one with the fewest rows, counted up to a bound. Each has its rows in the
order of the list, so a page costs its 50 rows and those that other filters leave out.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from heapq import merge
from typing import Any

import msgspec
from msgspec import Struct

from ..events.errors import ValueRefused
from .asked import moment_asked, one_of, page_size, some_of
from .attributes import RUN_ATTRIBUTES
from .records import Record, record
from .runs import RUNS
from .status import Attention, RunStatus
from .views import Views

PROBE = 2_000
"""Rows of an index that are counted, at most, before it is chosen: 0.1 ms."""
LIST_COLUMNS = tuple(
    c.name for c in RUNS.table.columns if c.name not in ("args", "result", "runtime") and c.form != "hidden"
)
"""What a list of runs shows: all but the columns that may be large."""
_SHOWN = [c for c in RUNS.table.columns if c.name in LIST_COLUMNS]
_SELECT = ", ".join(f"runs.{name}" for name in LIST_COLUMNS)


BLOCKED_TYPES = (
    "approval", "input", "event", "child", "timer", "retry", "in_doubt", "paused", "queue", "worker",
)  # fmt: skip
"""Types of `runs.blocked_on`."""


class Page(Struct, frozen=True):
    """Some runs, and where the next page begins."""

    runs: list[Record]
    cursor: str | None
    """For the next call; None: these were the last."""

    def _repr_html_(self) -> str:
        """As a notebook shows it."""
        from .picture import runs_table

        return runs_table(self.runs, self.cursor is not None)


class Source(Struct, frozen=True):
    """Runs in the order of the list, from one index: `where` is what its rows have in common."""

    index: str
    where: tuple[str, ...] = ()
    parameters: tuple[Any, ...] = ()
    label: int | None = None
    """Place, among the labels asked for, of the one whose index it is; None: an index of `runs`."""

    @property
    def at(self) -> str:
        return "runs.started_at" if self.label is None else "labels.since"

    def tables(self, views: Views) -> str:
        if self.label is None:
            return views.source("runs", index=self.index)
        return f"{views.source('run_attributes', 'labels', index=self.index)} CROSS JOIN runs"


def list_runs(
    views: Views,
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
    """Runs, those started last first.

    Args:
        status: one, or several.
        attention: one of its words, or `any` for all runs that need it.
        blocked_on: a type of `runs.blocked_on`: `approval`, `event`, `child`, `timer` …
        parent: its children.
        root: all runs of a family, the one at the top included.
        trigger: what started it: a value of `runs.trigger`.
        lock: the runs that have held, or hold, this concurrency key.
        attributes: labels that the run has, each with this value.
        started_after, started_before: moments, or ISO 8601 texts (UTC when they name no zone); the first is
            included.
        dismissed: True: only those that were dismissed; None: these too.
        cursor: of the page before.

    Raises `ValueRefused` for a word that no run has, a limit below 1, a time that is none, and a cursor that
    did not come from here.
    """
    statuses = some_of("status", status, RunStatus)
    one_of("attention", attention, ("any", *Attention))
    one_of("blocked_on", blocked_on, BLOCKED_TYPES)
    page_size(limit)
    after = None if cursor is None else _position(cursor)
    since = moment_asked("started_after", started_after)
    until = moment_asked("started_before", started_before)
    if not views.has(RUNS.table.name, RUN_ATTRIBUTES.table.name):
        return Page([], None)
    given = {
        "attention": attention, "workflow": workflow, "version": version,
        "blocked_type": blocked_on, "parent_id": parent, "root_id": root,
        "trigger": trigger, "lock": lock,
    }  # fmt: skip
    equal = {name: value for name, value in given.items() if value is not None}
    where, parameters = _conditions(equal, statuses, dismissed)
    labels = [(key, msgspec.json.encode(value).decode()) for key, value in (attributes or {}).items()]
    _narrow(where, parameters, labels, since, until)
    sources = _choose(views, equal, statuses, labels, dismissed, cursor)
    return _page(views, sources, where, parameters, since, limit, after)


# No EXISTS: PostgreSQL makes a join of that, and reads all runs with a common label for a page of 50.
_HAS_LABEL = "(SELECT l.value FROM run_attributes l WHERE l.run_id = runs.run_id AND l.key = ?) = ?"


def _conditions(
    equal: Mapping[str, str], statuses: Sequence[str], dismissed: bool | None
) -> tuple[list[str], list[Any]]:
    where = [] if dismissed is None else [f"runs.dismissed {'<>' if dismissed else '='} 0"]
    parameters: list[Any] = [*statuses]
    if statuses:
        where.append(f"runs.status IN ({', '.join('?' * len(statuses))})")
    for name, value in equal.items():
        if (name, value) == ("attention", "any"):
            where.append("runs.attention <> 'none'")
        else:
            where.append(f"runs.{name} = ?")
            parameters.append(value)
    return where, parameters


def _narrow(
    where: list[str], parameters: list[Any], labels: Sequence[tuple[str, str]], since: str | None,
    until: str | None,
) -> None:  # fmt: skip
    for key, value in labels:
        where.append(_HAS_LABEL)
        parameters += [key, value]
    for bound, word in ((since, ">="), (until, "<")):
        if bound is not None:
            where.append(f"runs.started_at {word} ?")
            parameters.append(bound)


# ---- which index ----------------------------------------------------------------------------------------


def _choose(
    views: Views, equal: Mapping[str, str], statuses: Sequence[str], labels: Sequence[tuple[str, str]],
    dismissed: bool | None, cursor: str | None,
) -> Sequence[Source]:  # fmt: skip
    if cursor is not None and cursor.startswith("@"):
        place = cursor[1:].partition("/")[0]
        if not place.isdecimal() or int(place) >= len(labels):
            raise ValueRefused(f"{cursor!r} is of another list: ask with the filters of the page before")
        return (_of_label(int(place), *labels[int(place)]),)
    ways = list(_ways(views, equal, statuses, dismissed))
    if cursor is None:
        ways += [(_of_label(place, *label),) for place, label in enumerate(labels)]
    if not ways:
        return _all(dismissed)
    if len(ways) == 1:
        return ways[0]
    return min(ways, key=lambda way: sum(_count(views, source) for source in way))


def _all(dismissed: bool | None) -> Sequence[Source]:
    listed, hidden = (
        Source("runs_1", ("runs.dismissed = 0",)),
        Source("runs_5", ("runs.dismissed <> 0",)),
    )
    return (listed, hidden) if dismissed is None else (hidden,) if dismissed else (listed,)


def _ways(
    views: Views, equal: Mapping[str, str], statuses: Sequence[str], dismissed: bool | None
) -> Iterable[Sequence[Source]]:
    """Each a set of sources that has all the runs asked for."""
    if "attention" in equal and equal["attention"] != "none":
        every = ("runs.attention <> 'none'",)
        if equal["attention"] == "any":
            yield (Source("runs_7", every),)
        else:
            yield (Source("runs_6", (*every, "runs.attention = ?"), (equal["attention"],)),)
    if "blocked_type" in equal:
        yield (
            Source("runs_8", ("runs.blocked_type <> ''", "runs.blocked_type = ?"), (equal["blocked_type"],)),
        )
    if equal.get("trigger") not in (None, "manual", "parent"):
        rare = ("runs.trigger NOT IN ('manual', 'parent')", "runs.trigger = ?")
        yield (Source("runs_12", rare, (equal["trigger"],)),)
    if "parent_id" in equal:
        yield (Source("runs_9", ("runs.parent_id <> ''", "runs.parent_id = ?"), (equal["parent_id"],)),)
    if "root_id" in equal:
        below = Source("runs_10", ("runs.parent_id <> ''", "runs.root_id = ?"), (equal["root_id"],))
        yield (
            below,
            Source("sqlite_autoindex_runs_1", ("runs.run_id = ?", "runs.parent_id = ''"), below.parameters),
        )
    if dismissed is not False:
        return  # the others leave out what was dismissed
    if statuses:
        exact_status = ("runs.dismissed = 0", "runs.status = ?")
        yield [Source("runs_2", exact_status, (status,)) for status in statuses]
    if "workflow" in equal:
        versions = [equal["version"]] if "version" in equal else _versions(views, equal["workflow"])
        exact = ("runs.dismissed = 0", "runs.workflow = ?", "runs.version = ?")
        yield [Source("runs_3", exact, (equal["workflow"], version)) for version in versions]


def _versions(views: Views, workflow: str) -> list[str]:
    """The versions of a workflow that have runs, one step through the index for each."""
    sql = (
        f"SELECT MIN(version) FROM {views.source('runs', index='runs_3')} "
        "WHERE dismissed = 0 AND workflow = ? AND version > ?"
    )
    found: list[str] = []
    last = ""
    while (step := views.query(sql, (workflow, last))[0][0]) is not None:
        found.append(step)
        last = step
    return found


def _of_label(place: int, key: str, value: str) -> Source:
    where = ("labels.key = ?", "labels.value = ?", "labels.value IS NOT NULL")
    return Source("run_attributes_1", where, (key, value), place)


def _count(views: Views, source: Source) -> int:
    table, alias = ("run_attributes", "labels") if source.label is not None else ("runs", "")
    sql = (
        f"SELECT COUNT(*) FROM (SELECT 1 FROM {views.source(table, alias, index=source.index)} "
        f"WHERE {' AND '.join(source.where)} LIMIT {PROBE}) AS few"
    )
    count: int = views.query(sql, source.parameters)[0][0]
    return count


# ---- a page ---------------------------------------------------------------------------------------------


def _page(
    views: Views, sources: Sequence[Source], where: Sequence[str], parameters: Sequence[Any],
    since: str | None, limit: int, after: tuple[str, str] | None,
) -> Page:  # fmt: skip
    lists = [_rows(views, source, where, parameters, since, limit + 1, after) for source in sources]
    found = list(merge(*lists, key=lambda row: (row[0], row[1]), reverse=True))
    more = len(found) > limit
    found = found[:limit]
    runs = [record(_SHOWN, row[2:]) for row in found]
    if not more or not found:
        return Page(runs, None)
    label = sources[0].label
    mark = "" if label is None else f"@{label}/"
    return Page(runs, f"{mark}{found[-1][0]}/{found[-1][1]}")


def _position(cursor: str) -> tuple[str, str]:
    place = cursor.partition("/")[2] if cursor.startswith("@") else cursor
    at, separator, run_id = place.partition("/")
    if not separator:
        raise ValueRefused(f"{cursor!r} is no cursor: pass the `cursor` of the page before")
    return at, run_id


def _rows(
    views: Views, source: Source, where: Sequence[str], parameters: Sequence[Any],
    since: str | None, limit: int, after: tuple[str, str] | None,
) -> list[tuple[Any, ...]]:  # fmt: skip
    conditions, values = [*source.where, *where], [*source.parameters, *parameters]
    if source.label is not None:
        conditions.append("runs.run_id = labels.run_id")
    run_id = "runs.run_id" if source.label is None else "labels.run_id"
    if source.label is not None and since is not None:
        conditions.append("labels.since >= ?")  # never before the start, so the index can stop there
        values.append(since)
    if after is not None:
        conditions.append(f"({source.at}, {run_id}) < (?, ?)")
        values += after
    sql = (
        f"SELECT {source.at}, runs.run_id, {_SELECT} FROM {source.tables(views)} "
        f"WHERE {' AND '.join(conditions)} "
        f"ORDER BY {source.at} DESC, {run_id} DESC LIMIT ?"
    )
    return views.query(sql, [*values, limit])


def locked_runs(views: Views, limit: int = 1_000) -> list[tuple[str, str]]:
    """Keys and run ids of those that hold a concurrency key and have not ended, by key."""
    if not views.has(RUNS.table.name):
        return []
    sql = (
        f"SELECT lock, run_id FROM {views.source('runs', index='runs_11')} "
        "WHERE lock <> '' AND ended_at IS NULL ORDER BY lock LIMIT ?"
    )
    return [(key, run_id) for key, run_id in views.query(sql, [limit])]


# ---- counts ---------------------------------------------------------------------------------------------

_COUNTS = {
    "status": "SELECT status, COUNT(*) FROM runs WHERE dismissed = 0 GROUP BY status",
    "attention": "SELECT attention, COUNT(*) FROM runs WHERE attention <> 'none' GROUP BY attention",
    "blocked_on": "SELECT blocked_type, COUNT(*) FROM runs WHERE blocked_type <> '' GROUP BY blocked_type",
    "workflow": "SELECT workflow, COUNT(*) FROM runs WHERE dismissed = 0 GROUP BY workflow",
}


def count_runs(views: Views, by: str = "status") -> dict[str, int]:
    """How many runs there are of each status, attention, type of `blocked_on`, or workflow.

    By status and by workflow, those that were dismissed are left out. Raises `ValueRefused` for another `by`.
    """
    if by not in _COUNTS:
        raise ValueRefused(f"runs are not counted by {by!r}; by {', '.join(_COUNTS)}")
    if not views.has(RUNS.table.name):
        return {}
    return dict(sorted(views.query(_COUNTS[by])))


def drift(views: Views) -> list[Record]:
    """How many runs that are not over there are of each version of each workflow.

    Shape: `[{"workflow": "checkout", "version": "1", "status": "waiting", "runs": 12}, …]`.
    """
    if not views.has(RUNS.table.name):
        return []
    names = ("workflow", "version", "status", "runs")
    rows = views.query(
        f"SELECT workflow, version, status, COUNT(*) FROM {views.source('runs', index='runs_4')} "
        "WHERE ended_at IS NULL "
        "GROUP BY workflow, version, status ORDER BY workflow, version, status"
    )
    return [dict(zip(names, row, strict=True)) for row in rows]
