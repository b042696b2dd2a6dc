"""Gates: a handler waits for people to decide, or to answer."""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any, Literal

import msgspec
from msgspec import Raw, Struct

from ..events import codec, types as t
from ..events.errors import ConfigurationError, GateRejected, GateTimedOut, ValueRefused
from ..events.gate import Gate, check_schema, shown_digest
from ..events.types import Event
from .commands import Command, MarkerCommand
from .loop import Future
from .names import check_name, check_text, is_number

OnTimeout = Literal["reject", "approve", "fail", "continue"]
Decode = Callable[[Raw, str], Any]

NULL = Raw(b"null")
LAST_MOMENT_S = 253_402_300_000.0


class Stage(Struct, frozen=True, kw_only=True):
    """Who may decide next when nobody has in time, and until when."""

    timeout: float | None = None
    """Seconds, counted from the end of the stage before; None: no deadline (only for the last)."""
    voters: Sequence[str] = ()
    """Who may vote from then on, unless they have voted before; empty: anybody."""
    approvers: int = 1
    """Approvals needed; those given before count, but it takes one more in any case."""


class Decision(Struct, frozen=True, kw_only=True):
    """What people decided at a gate."""

    outcome: Literal["approved", "timed_out"]
    """`timed_out` when nobody decided and `on_timeout` was `approve` or `continue`."""
    by: str
    """Whose vote decided; empty after a timeout."""
    at: datetime
    """When, UTC: of that vote, or of the deadline."""
    selections: list[str]
    """Of the options, what the deciding vote chose."""
    feedback: str
    """What the deciding vote said beside it."""
    digest: str
    """SHA-256 of what was put before them."""
    approvals: list[str]
    """Everybody who approved, in order."""

    @property
    def approved(self) -> bool:
        """False only after a timeout with `on_timeout="continue"`."""
        return self.outcome == "approved"


class GateCommand(Command):
    """An open question to people. Its state is that of the log's gate, not of what the code asks now."""

    __slots__ = ("approvals", "decode", "fields", "future", "gate", "name")

    def __init__(self, name: str, future: Future, fields: dict[str, Any], decode: Decode | None) -> None:
        super().__init__()
        self.name, self.future, self.fields, self.decode = name, future, fields, decode
        self.gate: Gate | None = None
        self.approvals: list[str] = []

    def misfit(self, vote: str, answer: Raw) -> str:
        """Why the handler could not take an answer although its schema allows it; empty: it can.

        JSON Schema says less than a type: 3.0 is an integer to it.
        """
        if vote != "answer" or self.decode is None:
            return ""
        try:
            self.decode(answer, "the answer")
        except ValueRefused as refused:
            return str(refused)
        return ""

    def open_among(self, run: Any) -> dict[int, Any]:
        return run.gates  # type: ignore[no-any-return]

    def bound(self, run: Any, event: Event | None) -> None:
        if not isinstance(event, t.GateOpened):
            event = self.event({"id": "", "at": run.ctx.now()})
        assert isinstance(event, t.GateOpened)
        self.gate = Gate(event)
        self.future.command = self
        run.gates[self.number] = self

    def matches(self, event: Event) -> bool:
        return (
            isinstance(event, t.GateOpened) and event.name == self.name and event.kind == self.fields["kind"]
        )

    def event(self, head: dict[str, Any]) -> t.GateOpened:
        return t.GateOpened(gate=self.number, name=self.name, **self.fields, **head)

    def taken_back(self, head: dict[str, Any]) -> Event:
        return t.GateClosed(gate=self.number, outcome="cancelled", **head)

    def describe(self) -> str:
        return f"gate {self.name!r} ({self.fields['kind']})"


def voted(run: Any, cause: t.GateVoted) -> None:
    """Somebody decided, or answered; the handler hears of it when that closes the gate."""
    command: GateCommand | None = run.gates.get(cause.gate)
    if command is None or command.gate is None:
        return
    command.gate.apply(cause)
    if cause.vote == "approve":
        command.approvals.append(cause.by)
    if cause.decides:
        del run.gates[cause.gate]
        command.future.command = None
        if not command.future.done():
            command.future.set_result(cause)


async def approval(
    run: Any, prompt: str, *, options: Sequence[str], approvers: int, voters: Sequence[str],
    timeout: float | None, on_timeout: OnTimeout, shown: Any, self_approval: bool,
    escalation: Sequence[Stage], name: str,
) -> Decision:  # fmt: skip
    """See `Context.approval`."""
    stages = (Stage(timeout=timeout, voters=voters, approvers=approvers), *escalation)
    excluded = () if self_approval else (run.started.by,)
    _check_stages(stages, on_timeout, excluded)
    if isinstance(options, str):
        raise ConfigurationError(f"options={options!r}: expected a list of texts")
    chosen = tuple(check_text(option, "option") for option in options)
    packed = codec.encode(shown, "what is shown at the gate")
    digest = shown_digest(check_text(prompt, "prompt"), chosen, packed)
    fields: dict[str, Any] = {
        "kind": "approval", "prompt": prompt, "shown": packed, "digest": digest, "options": chosen,
        "approvers": approvers, "voters": _names(voters), "due_at": _due(run, timeout),
        "excluded": excluded, "on_timeout": on_timeout,
    }  # fmt: skip
    command = _open(run, name, fields)
    vote = await _answer(run, command, stages, on_timeout)
    if vote is None:
        return _late(run, command, on_timeout, digest)
    if vote.vote == "reject":
        raise GateRejected(command.name, vote.by, vote.feedback)
    return Decision(
        outcome="approved", by=vote.by, at=vote.at, selections=list(vote.selections), feedback=vote.feedback,
        digest=digest, approvals=command.approvals,
    )  # fmt: skip


async def wait_for_input(
    run: Any, wanted: Any, *, prompt: str, timeout: float | None, voters: Sequence[str], shown: Any, name: str
) -> Any:
    """See `Context.wait_for_input`."""
    stage = Stage(timeout=timeout, voters=voters)
    _check_stages((stage,), "fail")
    schema, decode = _schema(wanted)
    packed = codec.encode(shown, "what is shown at the gate")
    fields: dict[str, Any] = {
        "kind": "input", "prompt": check_text(prompt, "prompt"), "shown": packed,
        "digest": shown_digest(prompt, (), packed), "voters": _names(voters), "due_at": _due(run, timeout),
        "on_timeout": "fail", "schema": schema,
    }  # fmt: skip
    command = _open(run, name, fields, decode)
    vote = await _answer(run, command, (stage,), "fail")
    if vote is None:
        raise GateTimedOut(command.name)
    return decode(vote.answer, f"answer to {command.name}")


def _schema(wanted: Any) -> tuple[Raw, Decode]:
    """JSON Schema and decoder of a type, or of a schema given as a dict."""
    if isinstance(wanted, dict):
        schema = codec.encode(wanted, "schema")
        try:
            check_schema(schema)
        except ValueError as error:
            raise ConfigurationError(f"wait_for_input({wanted!r:.80}): not a JSON Schema: {error}") from None
        return schema, codec.decoder(Any)
    try:
        return codec.encode(msgspec.json.schema(wanted)), codec.decoder(wanted)
    except TypeError as error:
        raise ConfigurationError(f"wait_for_input({wanted!r:.80}): {error}; give a JSON Schema") from None


def _open(run: Any, name: str, fields: dict[str, Any], decode: Decode | None = None) -> GateCommand:
    run.check_open()
    full = f"{check_name(name, 'gate name')}#{run.ordinal(f'gate {name}')}"
    token = hashlib.sha256(f"{run.started.seed}/{run.run_id}/{full}".encode()).hexdigest()[:32]
    task = asyncio.current_task(run.loop)
    fields |= {"token": token, "task": getattr(task, "path", "")}
    command = GateCommand(full, run.loop.create_future(), fields, decode)
    command.future.command = command
    run.issued.append(command)
    return command


async def _answer(
    run: Any, command: GateCommand, stages: Sequence[Stage], on_timeout: str
) -> t.GateVoted | None:
    """The vote that closed the gate; None: time ran out in the last stage."""
    future = command.future
    for place, stage in enumerate(stages):
        if place:
            _escalate(run, command, place, stage)
        try:
            # Not `asyncio.timeout`: it cancels what it waits for, and the gate stays open for the next stage.
            await asyncio.wait([future], timeout=stage.timeout)
        except asyncio.CancelledError:
            future.cancel()
            raise
        if future.done():
            vote: t.GateVoted = future.result()
            return vote
    run.gates.pop(command.number, None)
    future.command = None
    future.cancel()
    fields = {"gate": command.number, "outcome": "timed_out", "then": on_timeout}
    run.issue(MarkerCommand(t.GateClosed, ("gate", "outcome"), **fields))
    return None


def _escalate(run: Any, command: GateCommand, place: int, stage: Stage) -> None:
    event: dict[str, Any] = {
        "gate": command.number, "stage": place, "voters": _names(stage.voters),
        "approvers": stage.approvers, "due_at": _due(run, stage.timeout),
    }  # fmt: skip
    marker = MarkerCommand(t.GateEscalated, ("gate", "stage"), **event)
    run.issue(marker)
    if command.gate is not None:
        recorded = run.recorded(t.GateEscalated, gate=command.number, stage=place)
        command.gate.apply(recorded or marker.event({"id": "", "at": run.ctx.now()}))


def _late(run: Any, command: GateCommand, on_timeout: OnTimeout, digest: str) -> Decision:
    if on_timeout == "reject":
        raise GateRejected(command.name, "", "nobody decided in time")
    if on_timeout == "fail":
        raise GateTimedOut(command.name)
    return Decision(
        outcome="timed_out" if on_timeout == "continue" else "approved", by="", at=run.ctx.now(),
        selections=[], feedback="", digest=digest, approvals=command.approvals,
    )  # fmt: skip


def _check_stages(stages: Sequence[Stage], on_timeout: str, excluded: Sequence[str] = ()) -> None:
    if on_timeout not in ("reject", "approve", "fail", "continue"):
        raise ConfigurationError(f"on_timeout={on_timeout!r}: expected reject, approve, fail or continue")
    for place, stage in enumerate(stages):
        last = place == len(stages) - 1
        if stage.timeout is None and not last:
            raise ConfigurationError("a stage without a timeout never escalates: give it one, or end there")
        if stage.timeout is not None and not (is_number(stage.timeout) and 0 < stage.timeout < LAST_MOMENT_S):
            raise ConfigurationError(f"timeout={stage.timeout!r}: expected seconds, more than 0")
        if type(stage.approvers) is not int or stage.approvers < 1:
            raise ConfigurationError(f"approvers={stage.approvers!r}: expected an int, 1 or more")
        _check_voters(stage, excluded)


def _check_voters(stage: Stage, excluded: Sequence[str]) -> None:
    if isinstance(stage.voters, str):
        raise ConfigurationError(f"voters={stage.voters!r}: expected a list of names")
    able = len(set(stage.voters).difference(excluded))
    if stage.voters and able < stage.approvers:
        but = f" ({', '.join(excluded)} asked for it)" if set(excluded) & set(stage.voters) else ""
        raise ConfigurationError(
            f"approvers={stage.approvers}, but only {able} of voters={list(stage.voters)} may vote{but}: "
            "nobody could ever open this gate"
        )


def _names(voters: Sequence[str]) -> tuple[str, ...]:
    return tuple(check_name(voter, "voter") for voter in voters)


def _due(run: Any, timeout: float | None) -> datetime | None:
    if timeout is None:
        return None
    now: datetime = run.ctx.now()
    try:
        return now + timedelta(seconds=timeout)
    except OverflowError:
        return None
