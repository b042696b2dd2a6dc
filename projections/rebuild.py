"""Building read models anew beside the live ones: to replace them, or to prove them equal to the log."""

import gc
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from itertools import groupby
from time import sleep
from typing import Any

from msgspec import Struct

from ..events.errors import ConfigurationError, SchemaMismatch, StoreBusy
from .ahead import Ahead
from .projection import Key, Projection, Table, Value
from .runner import Log, Runner, check_names
from .views import Standing, Views, schema_of, table_name
from .views_sqlite import SqliteViews

BATCH = 5_000
"""Events per transaction of a build; a live runner gets its turn between two of them."""

STILL_S = 0.5
"""Who builds the same tables and has not got on for so long is helped out."""

Progress = Callable[[int, int], None]
"""Called with the number of events folded so far, and how many there are."""


class Difference(Struct, frozen=True):
    """Where a live table is not what the log says."""

    table: str
    key: Key
    column: str
    """Empty: the whole row is on one side only."""
    live: Value
    log: Value

    def __str__(self) -> str:
        place = f"{self.table} {'/'.join(str(part) for part in self.key)}"
        if not self.column:
            return f"{place}: {'not in the log' if self.log is None else 'missing'}"
        return f"{place}: {self.column} is {self.live!r}, the log says {self.log!r}"


def open_runner(
    log: Log, views: Views, projections: Sequence[Projection], progress: Progress | None = None
) -> Runner:
    """A runner over tables of the right version, of this very log.

    Tables of an older version are rebuilt beside and swapped before it returns. Tables that were folded
    from another log (the file was replaced, or restored from a backup) are dropped, to be folded anew.
    Raises `SchemaMismatch` for tables of a newer version.
    """
    check_names(projections)
    _drop_strangers(log, views, projections, "live")
    found = views.standings()
    old = [
        p.name
        for p in projections
        if p.name in found
        and found[p.name].version <= p.version
        and (found[p.name].version, found[p.name].schema) != _wanted(p)
    ]
    if old:
        rebuild(log, views, projections, old, progress, anew=not views.shared)
    runner = Runner(log, views, projections)
    _ = runner.position  # refuses newer tables now, not at the first event
    return runner


def _drop_strangers(log: Log, views: Views, projections: Sequence[Projection], slot: str) -> None:
    found, ours = views.standings(slot), dict[Standing, bool]()
    for p in projections:
        standing = found.get(p.name)
        if standing is None or not standing.position:
            continue
        place = Standing(0, "", standing.position, standing.anchor)
        if place not in ours:
            last = log.scan(standing.position - 1, 1)
            ours[place] = bool(last) and (last[0].position, last[0].hash) == (place.position, place.anchor)
        if not ours[place]:
            with views.writing():
                if views.standings(slot).get(p.name) == standing:
                    _drop(views, p, slot)


def rebuild(
    log: Log,
    views: Views,
    projections: Sequence[Projection],
    names: Sequence[str] | None = None,
    progress: Progress | None = None,
    *,
    anew: bool = True,
) -> int:
    """Build the tables of these projections (all when `names` is None) beside the live ones, then swap.

    Readers see the old rows until the swap, which is one transaction; a live runner goes on meanwhile.
    Several processes that build the same tables build them together, one at a time; `anew=False` goes on
    with what others have begun. Returns the number of events folded. Raises `SchemaMismatch` when a live
    table is of a newer version.
    """
    chosen = _chosen(projections, names)
    for p in chosen:
        standing = views.standings().get(p.name)
        if standing is not None and standing.version > p.version:
            raise SchemaMismatch(
                f"{views.place}: {p.name} has version {standing.version}, this Refold only knows how to "
                f"build version {p.version}; upgrade this process"
            )
    _clear(log, views, chosen, anew=anew)
    with views.filling(), closing(Ahead(log)) if views.shared else nullcontext(log) as ahead:
        builder, done = Runner(ahead, views, chosen, slot="building"), 0
        while anew or not _current(views, chosen):
            done += _run(builder, log, progress)
            if _swapped(views, chosen):
                break
            progress = None
    return done


def _clear(log: Log, views: Views, chosen: Sequence[Projection], *, anew: bool) -> None:
    """Drop what a build that was killed has left, unless it is good enough to go on with."""
    _drop_strangers(log, views, chosen, "building")
    with views.writing():
        found = views.standings("building")
        for p in chosen:
            begun = found.get(p.name)
            if anew or (begun is not None and (begun.version, begun.schema) != _wanted(p)):
                _drop(views, p, "building")


def _wanted(projection: Projection) -> tuple[int, str]:
    return projection.version, schema_of(projection.table)


def _current(views: Views, chosen: Sequence[Projection]) -> bool:
    """Whether the live tables are those of this code: another process has put them there."""
    live = views.standings()
    return all(p.name in live and (live[p.name].version, live[p.name].schema) == _wanted(p) for p in chosen)


def _overtaken(views: Views, chosen: Sequence[Projection]) -> bool:
    """Whether another process, which built the same after we had begun, has put them in their place."""
    built = views.standings("building")
    return not any(p.name in built for p in chosen) and _current(views, chosen)


def _run(runner: Runner, log: Log, progress: Progress | None, until: int | None = None) -> int:
    done = 0
    while True:
        with _without_gc():
            folded = runner.catch_up(BATCH, until=until)
        done += folded
        if runner.views.shared and not runner.alone:
            _stand_by(runner)
            if runner.slot == "building" and _overtaken(runner.views, runner.projections):
                return done
        if progress is not None and folded:
            progress(done, max(done, log.position() if until is None else until))
        if not folded and runner.position >= (log.position() if until is None else until):
            return done


def _stand_by(runner: Runner) -> None:
    """Let another process fold that is at it, until it has not got on for a while, or has got there."""
    position = runner.position
    while position < runner.log.position():
        before = position
        sleep(STILL_S)
        position = runner.position
        if position <= before:
            break


@contextmanager
def _without_gc() -> Iterator[None]:
    """A fold makes thousands of values and no cycles; looking for cycles costs it 5 of 29 µs an event."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _swapped(views: Views, chosen: Sequence[Projection]) -> bool:
    try:
        return _swap(views, chosen)
    except StoreBusy:
        if not views.shared:
            raise
        sleep(STILL_S)  # somebody reads: on a server, a table in use is not dropped
        return False


def _swap(views: Views, chosen: Sequence[Projection]) -> bool:
    """Put the tables that were built in the place of the live ones, unless those have come further."""
    with views.writing():
        live, built = views.standings(), views.standings("building")
        if _overtaken(views, chosen):
            return True
        for p in chosen:
            if p.name not in built or (p.name in live and live[p.name].position > built[p.name].position):
                return False
        for p in chosen:
            views.put_live(p.table, table_name(p, "building"))
            _forget(views, p, "live")
            for table, name in _BOOKS:
                views.run(
                    f"UPDATE {table} SET slot = 'live' WHERE {name} = ? AND slot = 'building'", (p.name,)
                )
    return True


_BOOKS = (("projections", "name"), ("parked_events", "projection"), ("unknown_events", "projection"))


def _drop(views: Views, projection: Projection, slot: str) -> None:
    ((found,),) = views.query(
        "SELECT MAX(version) FROM projections WHERE name = ? AND slot = ?", (projection.name, slot)
    )
    views.run(f"DROP TABLE IF EXISTS {table_name(projection, slot, found)}")
    _forget(views, projection, slot)


def _forget(views: Views, projection: Projection, slot: str) -> None:
    for table, name in _BOOKS:
        views.run(f"DELETE FROM {table} WHERE {name} = ? AND slot = ?", (projection.name, slot))


def _chosen(projections: Sequence[Projection], names: Sequence[str] | None) -> list[Projection]:
    known = [p.name for p in projections]
    for name in names or ():
        if name not in known:
            raise ConfigurationError(f"there is no projection {name!r}; there are {', '.join(known)}")
    return [p for p in projections if names is None or p.name in names]


# ---- the proof ------------------------------------------------------------------------------------


def check(
    log: Log,
    views: Views,
    projections: Sequence[Projection],
    names: Sequence[str] | None = None,
    progress: Progress | None = None,
    limit: int = 100,
) -> list[Difference]:
    """Fold the log again and compare every value of every live row with it, at the same position.

    The live tables are caught up first. Returns the first `limit` differences: none, if all is well.
    """
    chosen = _chosen(projections, names)
    _run(Runner(log, views, chosen), log, None)
    differences: list[Difference] = []
    with views.reading():
        standings = views.standings()
        by_position = sorted(chosen, key=lambda p: standings[p.name].position if p.name in standings else 0)
        for position, group in groupby(by_position, lambda p: standings[p.name].position):
            same = list(group)
            scratch = SqliteViews(None, scratch=True)
            try:
                _run(Runner(log, scratch, same), log, progress, until=position)
                for p in same:
                    differences += _compare(p.table, views, scratch, limit - len(differences))
            finally:
                scratch.close()
    return differences


def _compare(table: Table, live: Views, built: Views, limit: int) -> list[Difference]:
    found: list[Difference] = []
    for mine, right in _pairs(_rows(table, live), _rows(table, built), len(table.key)):
        if len(found) >= limit:
            break
        some = mine if mine is not None else right
        assert some is not None
        key = some[: len(table.key)]
        if mine is None or right is None:
            sides = ("row" if mine is not None else None, "row" if right is not None else None)
            found.append(Difference(table.name, key, "", *sides))
        elif mine != right or [*map(type, mine)] != [*map(type, right)]:
            found += [
                Difference(table.name, key, column, one, other)
                for column, one, other in zip(table.names, mine, right, strict=True)
                if one != other or type(one) is not type(other)
            ]
    return found[:limit]


def _rows(table: Table, views: Views) -> Iterator[tuple[Any, ...]]:
    order = ", ".join(table.key)
    return views.rows(f"SELECT {', '.join(table.names)} FROM {table.name} ORDER BY {order}")


def _pairs(
    left: Iterator[tuple[Any, ...]], right: Iterator[tuple[Any, ...]], width: int
) -> Iterator[tuple[tuple[Any, ...] | None, tuple[Any, ...] | None]]:
    """Rows of two sorted tables side by side; None where a key is on one side only."""
    one, other = next(left, None), next(right, None)
    while one is not None or other is not None:
        if other is None or (one is not None and one[:width] < other[:width]):
            yield one, None
            one = next(left, None)
        elif one is None or other[:width] < one[:width]:
            yield None, other
            other = next(right, None)
        else:
            yield one, other
            one, other = next(left, None), next(right, None)
