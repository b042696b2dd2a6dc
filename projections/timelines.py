"""A run over time, folded from its own events: what every drawing of a run starts from."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from ..events.clock import moment
from ..events.stream import Row as Entry
from . import lane_rows as rows_of
from .fan_outs import FAN_OUTS
from .gates import GATES
from .lanes import MANY, Lane, Mark, in_order, merged
from .own import fold_rows, records, step_records
from .reading import RunClaimed, RunFailed
from .records import Record
from .runs import RUNS
from .step_row import StepRow
from .steps import STEPS, Steps
from .timers import TIMERS
from .waits import WAITS


class Timeline(Struct, frozen=True):
    """A run over time."""

    run: Any
    """Its row of `runs`, as the fold has it."""
    attempts: Sequence[Any]
    """Its rows of `steps`, the same way, without those that a rewind has taken back; what the handler called
    each with is only in them when that was asked for."""
    lanes: list[Lane]
    """By the time they begin."""
    marks: list[Mark]
    """When the second and every later owner took the run."""
    traceback: str = ""
    """Of the error that its handler failed with."""

    @property
    def start(self) -> datetime:
        """When the run was started."""
        return datetime.fromisoformat(self.run.started_at)

    @property
    def end(self) -> datetime | None:
        """When it ended; None: it has not."""
        return moment(self.run.ended_at)

    def record(self) -> Record:
        """Its row of `runs`, as queries give it."""
        return records(RUNS, [self.run])[0]

    def steps(self) -> list[Record]:
        """Its rows of `steps`, as queries give them; of a timeline with `records`."""
        return step_records(self.attempts)


class _Drawn(Steps):
    """`steps` without what no drawing shows, which is a sixth of the time of 10,000 of them."""

    def fold(self, rows: list[StepRow | None], entry: Entry, event: Any) -> Sequence[StepRow | None]:
        if entry.tag != "step.scheduled":
            return super().fold(rows, entry, event)
        row = rows[0] = StepRow(entry.stream, event.step, 0)
        row.key, row.name, row.task, row.scheduled_at = event.key, event.name, event.task, event.at
        if event.fan_out:
            row.fan_out, row.item = event.fan_out, event.item
        if event.undoes:
            row.undoes = event.undoes
        return rows


_DRAWN = _Drawn()


def timeline_of(rows: Sequence[Entry], *, full: bool = False, records: bool = False) -> Timeline:
    """The timeline of a run from the events of its stream.

    Args:
        full: a lane for every step and every item of a map; otherwise, when there are many lanes, those of
            one name share one.
        records: `Timeline.steps()` will be asked for.

    Raises ValueError when there are no events.
    """
    steps_of = STEPS if records else _DRAWN
    runs, steps, timers, waits, gates, maps = fold_rows(rows, RUNS, steps_of, TIMERS, WAITS, GATES, FAN_OUTS)
    if not runs:
        raise ValueError("a run without events has no timeline")
    for row in maps:
        FAN_OUTS.table.dump(row)  # which counts its items
    attempts = [row for row in steps if not row.rewound]
    attempts.sort(key=lambda row: (row.step, row.superseded == 0, row.superseded))
    marks, ended_at = claims(rows), moment(runs[0].ended_at)
    signs = rows_of.last_signs(rows, [mark.at for mark in marks])
    children = rows_of.children(rows, ended_at)
    lanes = [
        *rows_of.steps_and_maps(attempts, maps, children, signs, full=full),
        *rows_of.sleeps(timers, gates, waits), *rows_of.waits(waits), *rows_of.gates(gates),
        *rows_of.pauses(rows, ended_at),
    ]  # fmt: skip
    if not full and len(lanes) > MANY:
        lanes = merged(lanes)
    traceback = _traceback(rows) if runs[0].error_type else ""
    return Timeline(runs[0], attempts, in_order(lanes), marks, traceback)


def _traceback(rows: Sequence[Entry]) -> str:
    failed = next((row for row in reversed(rows) if row.tag == "run.failed"), None)
    return "" if failed is None else msgspec.json.decode(failed.state, type=RunFailed).error.traceback


def claims(rows: Sequence[Entry]) -> list[Mark]:
    """When the second and every later owner took the run."""
    taken = [msgspec.json.decode(row.state, type=RunClaimed) for row in rows if row.tag == "run.claimed"]
    return [
        Mark(rows_of.time(claim.at), f"owner {claim.generation}") for claim in taken if claim.generation > 1
    ]
