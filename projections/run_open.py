"""What the fold of `runs` remembers of a run, and the columns that follow from it."""

from typing import Any

import msgspec
from msgspec import Struct

from .kept import Kept
from .run_row import RunRow

REMEMBERED = 64
"""Gates and children that are over and still known by name: a rewind may open them again."""


class OpenGate(Struct, array_like=True, gc=False):
    """What `blocked_on` says of a gate."""

    kind: str = "approval"
    name: str = ""
    stages: list[tuple[int, int, str | None]] = []
    """Version of the stream, approvals needed from there on, and until when."""


class Doubt(Struct, array_like=True, gc=False):
    """A step of which nobody knows what it did."""

    key: str
    since: str
    reason: str


class Open(Struct, omit_defaults=True, gc=False):
    """The hidden column `open`, as JSON.

    Maps, so that an event costs the same however much is open. They are written once per batch of events:
    in batches of 500, an event of 10,000 parallel steps costs 4 % more than one of 1,000 (26 µs for all
    four read models), one of 30,000 twice as much. Bits instead of maps would be linear for longer, but
    could not say how long an attempt ran that a crash has cut off.
    """

    begun: bool = False
    """Somebody has taken the run up."""
    waiting: bool = False
    """Nothing runs, and there is something to wait for."""
    paused: bool = False
    compensating: bool = False
    queued: int = 0
    """Steps that wait for an attempt to start: new ones, released or interrupted ones."""
    keys: dict[int, str] = {}
    """Readable keys of the steps that are open."""
    running: dict[int, str] = {}
    """Step to the start of its attempt."""
    retries: dict[int, str] = {}
    """Step to the time of its next attempt."""
    doubts: dict[int, Doubt] = {}
    """By step."""
    timers: dict[int, str] = {}
    """Timer to its time."""
    waits: dict[int, str] = {}
    """Wait to the name it waits for."""
    gates: dict[int, OpenGate] = {}
    children: dict[int, str] = {}
    """Those waited for, by number: their run ids."""
    kept: Kept = msgspec.field(default_factory=Kept)
    """Signals that came before their wait."""
    alert: str = "none"
    """What the last `run.attention` said; stronger than what follows from the steps."""
    alert_since: str | None = None
    alert_reason: str = ""
    retrying_since: str | None = None
    retrying_reason: str = ""
    blocked_since: str | None = None
    labels: list[tuple[int, str]] = []
    """Attributes, and the version of the stream since when they stand; empty: those given to `start`."""
    past_gates: dict[int, OpenGate] = {}
    past_children: dict[int, str] = {}
    child_mail: int = 0
    """The last inbox message of a child that is accounted for: a rewind may copy it once more."""

    def close_gate(self, gate: int) -> None:
        closed = self.gates.pop(gate, None)
        if closed is not None:
            _remember(self.past_gates, gate, closed)

    def close_child(self, child: int) -> None:
        run_id = self.children.pop(child, None)
        if run_id is not None:
            _remember(self.past_children, child, run_id)

    def over(self) -> "Open":
        """What is left to remember once the run has ended, should it be rewound."""
        for gate in list(self.gates):
            self.close_gate(gate)
        for child in list(self.children):
            self.close_child(child)
        return Open(
            kept=self.kept, labels=self.labels, past_gates=self.past_gates, past_children=self.past_children,
            child_mail=self.child_mail,
        )  # fmt: skip


def _remember(past: dict[int, Any], number: int, what: Any) -> None:
    past[number] = what
    if len(past) > REMEMBERED:
        del past[next(iter(past))]


encode = msgspec.json.Encoder().encode
decode_open = msgspec.json.Decoder(Open).decode
NOTHING = encode(Open())


def derive(row: RunRow, state: Open) -> None:
    """The columns of a run that is not over which follow from the state alone."""
    row.status = _status(state)
    early = row.start_at is not None and not state.begun and not row.generation
    reason: dict[str, Any] | None = None
    if state.paused:
        reason = {"type": "paused"}
    elif early:
        reason = {"type": "timer", "timer": 0, "due_at": row.start_at}
    elif not state.begun and row.queue:
        early, reason = not row.generation, {"type": "queue", "name": row.queue, "key": row.queue_key}
    elif not state.begun and row.run_on:
        early, reason = True, {"type": "worker", "tag": row.run_on}
    elif state.waiting:
        reason = _blocked_on(state)
    row.blocked_on = None if reason is None else encode(reason).decode()
    row.blocked_type = "" if reason is None else str(reason["type"])
    since = row.started_at if early else state.blocked_since if state.begun and state.waiting else None
    row.blocked_since = row.paused_since if state.paused else since
    row.steps_running, row.children_running = len(state.running), len(state.children)
    row.gates_open = len(state.gates)
    row.attention_next_at = min(state.retries.values(), default=None)
    if state.alert != "none":
        row.attention, row.attention_since = state.alert, state.alert_since
        row.attention_reason = state.alert_reason or None
    elif state.doubts:
        first = next(iter(state.doubts.values()))
        row.attention, row.attention_since, row.attention_reason = "in_doubt", first.since, first.reason
    elif state.retries:
        row.attention, row.attention_since = "retrying", state.retrying_since
        row.attention_reason = state.retrying_reason
    else:
        row.attention, row.attention_since = "none", state.alert_since
        row.attention_reason = state.alert_reason or None


def _status(state: Open) -> str:
    if state.paused:
        return "paused"
    if not state.begun:
        return "pending"
    if state.compensating:
        return "compensating"
    return "waiting" if state.waiting else "running"


def _blocked_on(state: Open) -> dict[str, Any]:
    if state.doubts:
        step, doubt = next(iter(state.doubts.items()))
        return {"type": "in_doubt", "step": step, "key": doubt.key}
    if state.gates:
        number, gate = next(iter(state.gates.items()))
        _, needed, due_at = gate.stages[-1] if gate.stages else (0, 1, None)
        deadline = {"due_at": due_at} if due_at else {}
        return {"type": gate.kind, "gate": number, "name": gate.name, "approvals_needed": needed, **deadline}
    if state.waits:
        wait, name = next(iter(state.waits.items()))
        deadline = {"due_at": min(state.timers.values())} if state.timers else {}
        return {"type": "event", "wait": wait, "name": name, **deadline}
    if state.children:
        child, run_id = next(iter(state.children.items()))
        return {"type": "child", "child": child, "run_id": run_id}
    if state.retries:
        due_at, step = min((due, step) for step, due in state.retries.items())
        return {"type": "retry", "step": step, "due_at": due_at}
    due_at, timer = min((due, timer) for timer, due in state.timers.items())
    return {"type": "timer", "timer": timer, "due_at": due_at}
