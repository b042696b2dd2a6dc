"""The dispatch table against the log: `work` is a fold like any other, to be proven and built again."""

from collections.abc import Iterable
from typing import NamedTuple

from msgspec.structs import asdict

from .registry import look_at_event
from .schedule_work import ScheduleFold
from .store import Store
from .stream import INBOX, SCHEDULES, Row, is_run
from .types import Event
from .work import Work, WorkFold

_BATCH = 5_000
TRIES = 3


class WorkDifference(NamedTuple):
    """A value of `work` that is not what the log says; None: there is no such row on that side."""

    run_id: str
    column: str
    live: object
    log: object


def fold_work(rows: Iterable[Row]) -> dict[str, tuple[Work, int]]:
    """`work` rows with their `mail`, by run id, folded from rows of any streams in their order."""
    folds: dict[str, WorkFold | ScheduleFold] = {}
    mail: dict[str, int] = {}
    for row in rows:
        if row.stream.endswith(INBOX):
            mail[row.stream.removesuffix(INBOX)] = row.version
        elif (schedule := row.stream.startswith(SCHEDULES)) or is_run(row.stream):
            event = look_at_event(row.tag, row.state, row)
            if isinstance(event, Event):
                if row.stream not in folds:
                    folds[row.stream] = (ScheduleFold if schedule else WorkFold)(row.stream)
                folds[row.stream].apply(event)
    return {run_id: (fold.row(), mail.get(run_id, 0)) for run_id, fold in folds.items()}


def work_differences(store: Store) -> list[WorkDifference]:
    """Where the table is not what the log says. May be asked while the store is executed."""
    built, live = fold_work(_scan(store)), dict(_by_run(store.all_work()))
    found: list[WorkDifference] = []
    for run_id in sorted(built.keys() | live.keys()):
        if built.get(run_id) != live.get(run_id):
            found += _differences(store, run_id)
    both = sorted(built.keys() & live.keys())
    return found + _mail_differences(
        store, [run_id for run_id in both if built[run_id][1] != live[run_id][1]]
    )


def rebuild_work(store: Store) -> int:
    """Build the table again from the log; returns the number of runs. Raises `StoreBusy` while executed."""
    store.hold("rebuilding the table work")
    try:
        rows = list(fold_work(_scan(store)).values())
        store.rebuild_work(rows)
        return len(rows)
    finally:
        store.release()


def _scan(store: Store) -> Iterable[Row]:
    position = 0
    while rows := store.scan(position, _BATCH):
        yield from rows
        position = rows[-1].position


def _by_run(rows: Iterable[tuple[Work, int]]) -> Iterable[tuple[str, tuple[Work, int]]]:
    return ((work.run_id, (work, mail)) for work, mail in rows)


def _differences(store: Store, run_id: str) -> list[WorkDifference]:
    """Look at one run again: the first look may have seen it before an append and the table after it."""
    found: list[WorkDifference] = []
    for _ in range(TRIES):
        live = store.work(run_id)
        built, _mail = fold_work(store.read(run_id)).get(run_id, (None, 0))
        if live == built:
            return []
        if live is None or built is None:
            found = [WorkDifference(run_id, "", live and "row", built and "row")]
        else:
            one, other = asdict(live), asdict(built)
            found = [WorkDifference(run_id, c, one[c], other[c]) for c in one if one[c] != other[c]]
    return found


def _mail_differences(store: Store, run_ids: list[str]) -> list[WorkDifference]:
    """Look at the mail of these runs again: it must lie between two looks at their inboxes."""
    if not run_ids:
        return []
    before = [store.tail(run_id + INBOX).version for run_id in run_ids]
    mail = {work.run_id: mail for work, mail in store.all_work()}
    return [
        WorkDifference(run_id, "mail", mail[run_id], found)
        for run_id, least in zip(run_ids, before, strict=True)
        if run_id in mail and not least <= mail[run_id] <= (found := store.tail(run_id + INBOX).version)
    ]
