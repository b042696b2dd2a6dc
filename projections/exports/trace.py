"""Runs as a Chrome trace: JSON that https://ui.perfetto.dev and `chrome://tracing` open.

A process is a run, a thread a lane of its timeline, a slice what happened in it; arrows lead from a step to
those that were called with its result. Format: the "Trace Event Format" document of the Chromium project.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

import msgspec

from ...events.stream import Row
from ..edges import STEP_EDGES
from ..lanes import Lane, Segment
from ..own import fold_rows
from ..timelines import Timeline, timeline_of

Read = Callable[[str], Iterable[Row]]
"""All events of a run's stream."""

_encode = msgspec.json.Encoder(enc_hook=str).encode
_NAMES = {
    "run": "running", "child": "running", "undo": "undoing", "failed": "failed", "cut": "cut off",
    "cancelled": "given up", "retry": "until the next attempt", "wait": "waiting", "paused": "paused",
}  # fmt: skip
_COLOURS = {
    "run": "good", "child": "good", "undo": "bad", "failed": "terrible", "cut": "bad", "cancelled": "grey",
    "retry": "yellow", "wait": "grey", "paused": "grey",
}  # fmt: skip
"""Names that trace viewers know."""


def trace(runs: Sequence[str], read: Read) -> Iterator[str]:
    """The trace, an event a line; one run at a time is in memory."""
    base = min((_begin(read(run_id)) for run_id in runs), default=None)
    flows = 0
    head = _encode({"format": "refold.trace", "start": base}).decode()
    yield f'{{"displayTimeUnit":"ms","otherData":{head},"traceEvents":['
    separator = "\n"
    for pid, run_id in enumerate(runs, 1):
        assert base is not None  # there is a run
        rows = list(read(run_id))
        drawing = _Drawing(pid, base, timeline_of(rows, full=True), flows)
        for event in drawing.events(_edges(rows)):
            yield separator + _encode(event).decode()
            separator = ",\n"
        flows = drawing.flows
    yield "\n]}\n"


def _begin(rows: Iterable[Row]) -> datetime:
    return next(iter(rows)).event().at


def _edges(rows: Sequence[Row]) -> list[tuple[int, int]]:
    (edges,) = fold_rows(rows, STEP_EDGES)
    return sorted((edge.from_step, edge.to_step) for edge in edges)


class _Drawing:
    """One run."""

    def __init__(self, pid: int, base: datetime, timeline: Timeline, flows: int) -> None:
        self.pid, self.base, self.timeline, self.flows = pid, base, timeline, flows
        self.threads: dict[int, tuple[int, Lane]] = {}
        """By the number of a step: its thread and its lane."""

    def events(self, edges: Sequence[tuple[int, int]]) -> Iterator[dict[str, Any]]:
        run = self.timeline.run
        yield self._name("process_name", 0, f"{run.run_id} ({run.workflow}) {run.status}")
        yield self._meta("process_sort_index", 0, sort_index=self.pid)
        yield self._name("thread_name", 0, "run")
        whole = Lane(run.workflow, "run", status=run.status)
        yield self._slice(0, whole, 1, Segment(self.timeline.start, self.timeline.end, "run"))
        for mark in self.timeline.marks:
            yield self._event("i", mark.label, "owner", 0, mark.at, s="p")
        for tid, lane in enumerate(self.timeline.lanes, 1):
            yield self._name("thread_name", tid, lane.name)
            yield self._meta("thread_sort_index", tid, sort_index=tid)
            if lane.kind in ("step", "undo"):
                self.threads[lane.number] = tid, lane
            for place, segment in enumerate(lane.segments, 1):
                yield self._slice(tid, lane, place, segment)
        for before, after in edges:
            yield from self._arrow(before, after)

    def _slice(self, tid: int, lane: Lane, place: int, segment: Segment) -> dict[str, Any]:
        """A complete event; what is not over only begins, which viewers draw to the end."""
        told: dict[str, Any] = {
            "kind": lane.kind,
            "status": lane.status,
            "what": _NAMES.get(segment.kind, segment.kind),
        }
        if lane.kind == "step" and segment.kind != "retry":
            told["attempt"] = 1 + sum(s.kind != "retry" for s in lane.segments[: place - 1])
        more = {"note": lane.note, "task": lane.task, "child": lane.run_id, "cost_usd": lane.cost or ""}
        args = told | {name: value for name, value in more.items() if value}
        name = lane.name if segment.kind not in ("retry", "paused") else _NAMES[segment.kind]
        fields: dict[str, Any] = {"cname": _COLOURS.get(segment.kind, "grey"), "args": args}
        if segment.end is None:
            return self._event("B", name, lane.kind, tid, segment.start, **fields)
        fields["dur"] = _microseconds(max(segment.end - segment.start, timedelta()))
        return self._event("X", name, lane.kind, tid, segment.start, **fields)

    def _arrow(self, before: int, after: int) -> Iterator[dict[str, Any]]:
        """From inside the slice that gave the result to the begin of the one that was called with it."""
        source, target = self.threads.get(before), self.threads.get(after)
        if not source or not target or not source[1].segments or not target[1].segments:
            return
        last = source[1].segments[-1]
        end = max(last.start, (last.end or last.start) - timedelta(microseconds=1))
        self.flows += 1
        yield self._event("s", "result", "flow", source[0], end, id=self.flows)
        yield self._event(
            "f", "result", "flow", target[0], target[1].segments[0].start, id=self.flows, bp="e"
        )

    def _event(self, ph: str, name: str, cat: str, tid: int, at: datetime, **more: Any) -> dict[str, Any]:
        ts = _microseconds(at - self.base)
        return {"ph": ph, "name": name, "cat": cat, "pid": self.pid, "tid": tid, "ts": ts, **more}

    def _meta(self, name: str, tid: int, /, **args: Any) -> dict[str, Any]:
        return {"ph": "M", "name": name, "pid": self.pid, "tid": tid, "args": args}

    def _name(self, what: str, tid: int, name: str) -> dict[str, Any]:
        return self._meta(what, tid, name=name)


def _microseconds(span: timedelta) -> int:
    return span // timedelta(microseconds=1)
