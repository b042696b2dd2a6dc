"""`gates`: the inbox of the people who decide and answer."""

from collections.abc import Sequence
from typing import Any

from msgspec import Struct, json

from ..events.stream import Row as Entry
from . import reading as r, reading_waits as w
from .ends import END_TAGS, left_open
from .gate_row import GateRow
from .projection import Events, Index, Key, Scope, Table, table
from .reading import text, utc
from .vocabulary import events


class Vote(Struct):
    """One of `gates.votes`."""

    by: str
    at: str
    vote: str
    selections: tuple[str, ...]
    feedback: str
    answer: Any
    digest: str
    version: int
    decides: str = ""


class Stage(Struct):
    """One of `gates.stages`."""

    voters: tuple[str, ...]
    approvers: int
    due_at: str | None
    at: str
    version: int


_encode = json.Encoder().encode
_decode_votes = json.Decoder(list[Vote]).decode
_decode_stages = json.Decoder(list[Stage]).decode


def _text(value: Any) -> str:
    return _encode(value).decode()


def _opened(entry: Entry, event: w.GateOpened) -> GateRow:
    row = GateRow(entry.stream, event.gate, event.kind, event.name)
    row.prompt, row.shown, row.digest = event.prompt, text(event.shown), event.digest
    row.options, row.schema, row.token = _text(event.options), text(event.schema), event.token
    row.excluded, row.on_timeout = _text(event.excluded), event.on_timeout
    row.opened_at, row.task, row.site = utc(event.at), event.task, event.site
    _set_stages(row, [_stage(entry, event)])
    return row


def _stage(entry: Entry, event: w.GateOpened | w.GateEscalated) -> Stage:
    due_at = None if event.due_at is None else utc(event.due_at)
    return Stage(event.voters, event.approvers, due_at, utc(event.at), entry.version)


def stages(row: GateRow) -> list[Stage]:
    """How the gate was opened, and each escalation since."""
    return _decode_stages(row.stages)


def _set_stages(row: GateRow, stages: list[Stage]) -> None:
    """The row at the last of these."""
    now = stages[-1]
    row.stages, row.stage = _text(stages), len(stages) - 1
    row.voters, row.approvals_needed, row.due_at = _text(now.voters), now.approvers, now.due_at


def _set_votes(row: GateRow, votes: list[Vote]) -> None:
    row.votes, row.approvals = _text(votes), sum(vote.vote == "approve" for vote in votes)


def _voted(row: GateRow, entry: Entry, event: w.GateVoted) -> None:
    vote = Vote(
        event.by, utc(event.at), event.vote, event.selections, event.feedback, event.answer, event.digest,
        entry.version, event.decides,
    )  # fmt: skip
    _set_votes(row, [*_decode_votes(row.votes), vote])
    if event.decides:
        row.status, row.decided_at, row.decided_by = event.decides, utc(event.at), event.by
        row.selections, row.feedback = _text(event.selections), event.feedback
        row.answer = text(event.answer)


def _closed(row: GateRow, event: w.GateClosed) -> None:
    row.status, row.decided_at, row.timeout_means = event.outcome, utc(event.at), event.then


def _rewound(row: GateRow, event: r.RunRewound) -> GateRow | None:
    """One that never was is gone; one that is open again keeps what had been said by then."""
    if row.gate not in event.gates:
        return None
    _set_votes(row, [vote for vote in _decode_votes(row.votes) if vote.version <= event.to])
    _set_stages(row, [stage for stage in _decode_stages(row.stages) if stage.version <= event.to])
    row.status, row.decided_at, row.decided_by = "open", None, ""
    row.selections, row.feedback, row.answer, row.timeout_means = "[]", "", "null", ""
    return row


class Gates:
    """`gates`: open ones by age and by deadline, each with all that one needs to decide."""

    name = "gates"
    version = 1
    scope: Scope = "runs"
    creates = frozenset({"gate.opened"})
    events: Events = events(
        *END_TAGS,
        "gate.opened",
        "gate.voted",
        "gate.escalated",
        "gate.closed",
        "run.rewound",
    )
    table: Table = table(
        "gates",
        GateRow,
        key=("run_id", "gate"),
        indexes=(
            Index(("opened_at", "run_id", "gate"), "status = 'open'"),
            Index(("due_at", "run_id", "gate"), "status = 'open' AND due_at IS NOT NULL"),
            Index(("token",), "token <> ''"),
        ),
    )

    def keys(self, entry: Entry, event: Any) -> Sequence[Key]:
        if isinstance(event, r.RunRewound):
            return [(entry.stream, number) for number in dict.fromkeys((*event.dropped, *event.gates))]
        if isinstance(event, r.RunEnded):
            return left_open(entry, event)
        return ((entry.stream, event.gate),)

    def fold(self, rows: list[GateRow | None], entry: Entry, event: Any) -> Sequence[GateRow | None]:
        if isinstance(event, w.GateOpened):
            return (_opened(entry, event),)
        if isinstance(event, r.RunRewound):
            return [None if row is None else _rewound(row, event) for row in rows]
        for row in rows:
            if row is not None:
                _change(row, entry, event)
        return rows


def _change(row: GateRow, entry: Entry, event: Any) -> None:
    if isinstance(event, w.GateVoted):
        _voted(row, entry, event)
    elif isinstance(event, w.GateEscalated):
        _set_stages(row, [*_decode_stages(row.stages), _stage(entry, event)])
    elif isinstance(event, w.GateClosed):
        _closed(row, event)
    else:
        row.status, row.decided_at = "ended", utc(event.at)


GATES = Gates()
