"""What a gate admits, and when it is decided: a fold of its opening, its escalations and its votes.

The engine asks it before a vote is stored, whoever sends it, and once more when the owner copies it.
"""

import hashlib
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec
from msgspec import Raw

from .types import Event, GateClosed, GateEscalated, GateOpened, GateVoted


class Gate:
    """One gate as its events have left it: what was asked for at its opening counts."""

    __slots__ = ("approvals", "approvers", "closed", "due_at", "opened", "stage", "voted", "voters")

    def __init__(self, opened: GateOpened) -> None:
        self.opened = opened
        self.voters, self.approvers, self.due_at = opened.voters, opened.approvers, opened.due_at
        self.voted: set[str] = set()
        self.approvals = self.stage = 0
        self.closed = ""
        """`approved`, `rejected`, `answered`, `timed_out` or `cancelled`; empty: it is open."""

    def apply(self, event: Event) -> None:
        """Fold one more event of this gate."""
        if isinstance(event, GateVoted):
            self.voted.add(event.by)
            self.approvals += event.vote == "approve"
            self.closed = event.decides
        elif isinstance(event, GateEscalated):
            self.stage, self.voters, self.approvers = event.stage, event.voters, event.approvers
            self.due_at = event.due_at
        elif isinstance(event, GateClosed):
            self.closed = event.outcome

    def decides(self, vote: str) -> str:
        """How one more vote of this kind would close the gate; empty: it would not."""
        if vote == "reject":
            return "rejected"
        if vote == "answer":
            return "answered"
        return "approved" if self.approvals + 1 >= self.approvers else ""

    def refusal(self, ballot: "Ballot", now: datetime) -> str:
        """Why this vote is not admitted; empty: it is."""
        opened, by = self.opened, ballot.by
        if self.closed:
            return f"it is closed: {self.closed.replace('_', ' ')}"
        if self.due_at is not None and now >= self.due_at:
            return f"its deadline has passed ({self.due_at.isoformat()})"
        if (ballot.vote == "answer") != (opened.kind == "input"):
            wanted = "an answer" if opened.kind == "input" else "approve or reject"
            return f"it asks for {wanted}, not {ballot.vote}"
        if self.voters and by not in self.voters:
            return f"{by!r} may not vote; these may: {', '.join(self.voters)}"
        if by in opened.excluded:
            return f"{by!r} asked for it and may not decide it"
        if by in self.voted:
            return f"{by!r} has voted already"
        unknown = [choice for choice in ballot.selections if choice not in opened.options]
        if unknown:
            offered = ", ".join(opened.options) or "nothing"
            return f"{unknown[0]!r} is not offered; offered: {offered}"
        if ballot.digest and ballot.digest != opened.digest:
            return "what the voter was shown is not what the gate asks: look again"
        return answer_problem(opened.schema, ballot.answer) if ballot.vote == "answer" else ""


class Ballot(msgspec.Struct, frozen=True, kw_only=True):
    """A vote before it is one."""

    vote: str
    by: str
    selections: tuple[str, ...] = ()
    digest: str = ""
    answer: Raw = Raw(b"null")


def answer_problem(schema: Raw, answer: Raw) -> str:
    """Why an answer does not fit a JSON Schema; empty: it does."""
    if bytes(schema) == b"null":
        return ""
    import jsonschema_rs

    validator = jsonschema_rs.validator_for(
        msgspec.json.decode(schema), retriever=_nothing_remote, validate_formats=True, formats=_FORMATS
    )
    error = next(iter(validator.iter_errors(msgspec.json.decode(answer))), None)
    if error is None:
        return ""
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.instance_path)
    return f"the answer does not fit at ${path}: {error.message}"


def _reads_as(kind: type) -> Callable[[str], bool]:
    def fits(text: str) -> bool:
        try:
            msgspec.convert(text, kind)
        except msgspec.ValidationError:
            return False
        return True

    return fits


_FORMATS = {
    "date": _reads_as(date), "time": _reads_as(time), "date-time": _reads_as(datetime),
    "duration": _reads_as(timedelta), "uuid": _reads_as(UUID), "decimal": _reads_as(Decimal),
}  # fmt: skip
"""As types read them: to JSON Schema a time without an offset is none, and any text a decimal number."""


def check_schema(schema: Raw) -> None:
    """Raises ValueError for what is no JSON Schema."""
    import jsonschema_rs

    jsonschema_rs.validator_for(msgspec.json.decode(schema), retriever=_nothing_remote)


def _nothing_remote(uri: str) -> Any:
    raise ValueError(f"the schema refers to {uri}: put what it needs under its own $defs")


def shown_digest(prompt: str, options: tuple[str, ...], shown: Raw) -> str:
    """SHA-256, in hex, of what is put before the people who decide."""
    return hashlib.sha256(msgspec.json.encode([prompt, options, msgspec.json.decode(shown)])).hexdigest()
