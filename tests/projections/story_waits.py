"""The waits of a made-up run: for time, for events, for people, for other runs."""

import copy
import random
from datetime import datetime, timedelta
from typing import Any

from msgspec import Raw

from refold.events import types as t
from refold.events.clock import new_event_id
from refold.events.types import Event, Spent
from tests.projections.story_steps import PEOPLE, StepStory

SIGNALS = ("approve", "hint")
NUMBERED: dict[type[Event], str] = {
    t.StepScheduled: "step", t.BranchSkipped: "step", t.TimerStarted: "timer", t.WaitOpened: "wait",
    t.GateOpened: "gate", t.ChildStarted: "child", t.FanOutOpened: "fan_out",
}  # fmt: skip
"""Commands that take a number of their own."""
OPEN = ("queued", "running", "backoff", "doubts", "maps", "timers", "waits", "kept", "gates", "children")
"""What a rewind puts back."""


class WaitStory(StepStory):
    """With what a run waits for."""

    def __init__(self, run_id: str, chance: random.Random) -> None:
        self.timers: dict[int, datetime] = {}
        self.waits: dict[int, str] = {}
        self.kept: list[str] = []
        """Names of signals that came before their wait."""
        self.gates: dict[int, int] = {}
        """Open gates and their stage."""
        self.children: dict[int, str] = {}
        self.mail = 0
        self.said: dict[int, tuple[int, dict[str, Any]]] = {}
        """What each child's end said, and as which message."""
        self.inbox: list[Event] = []
        self.offspring: dict[str, list[Event]] = {}
        self.past: list[dict[str, Any]] = []
        """What was open after each event."""
        self.versions: list[int] = []
        """Those that a rewind has not taken back."""
        self.numbers: dict[int, int] = {}
        """Number of a command to the version of its event."""
        self.paused = False
        super().__init__(run_id, chance)

    def tell(self, kind: type[Event], /, **fields: Any) -> None:
        super().tell(kind, **fields)
        if kind in NUMBERED:
            self.numbers[fields[NUMBERED[kind]]] = len(self.events)
        self.versions.append(len(self.events))

    def remember(self) -> None:
        """The state as it is after the last event."""
        self.past += [{}] * (len(self.events) - len(self.past))
        self.past[-1] = {name: copy.deepcopy(getattr(self, name)) for name in OPEN}

    def start(self) -> None:
        super().start()
        (first, *_) = self.events
        assert isinstance(first, t.RunStarted)
        self.kept += [signal.name for signal in first.carried]

    # ---- timers and signals

    def open_timer(self) -> None:
        timer, due_at = self.number(), self.now + timedelta(seconds=self.chance.randrange(9))
        self.tell(t.TimerStarted, timer=timer, due_at=due_at)
        self.timers[timer] = due_at

    def end_timer(self) -> None:
        timer = self.pick(self.timers)
        del self.timers[timer]
        self.tell(self.chance.choice((t.TimerFired, t.TimerCancelled)), timer=timer)

    def open_wait(self) -> None:
        wait, name = self.number(), self.pick(SIGNALS)
        self.tell(t.WaitOpened, wait=wait, name=name)
        if name in self.kept:
            self.kept.remove(name)
        else:
            self.waits[wait] = name

    def end_wait(self) -> None:
        wait = self.pick(self.waits)
        del self.waits[wait]
        self.tell(t.WaitCancelled, wait=wait)

    def signal(self) -> None:
        name = self.pick(SIGNALS)
        self.tell(t.SignalReceived, name=name, payload=Raw(b"null"), by="user:ana", signal_id="s1")
        taker = next((wait for wait, awaited in self.waits.items() if awaited == name), None)
        if taker is None:
            self.kept.append(name)
        else:
            del self.waits[taker]

    # ---- gates

    def open_gate(self) -> None:
        gate = self.number()
        self.tell(
            t.GateOpened,
            gate=gate,
            kind=self.chance.choice(("approval", "input")),
            name=f"approval#{gate}",
            prompt="ship it?",
            shown=Raw(b'{"total": 5}'),
            digest="d" * 64,
            options=("today", "tomorrow"),
            approvers=self.chance.randrange(1, 3),
            voters=self.chance.choice(((), PEOPLE)),
            excluded=("user:cy",),
            due_at=self.chance.choice((None, self.now + timedelta(seconds=5))),
            on_timeout="reject",
            token=f"{self.run_id}-{gate}",
        )
        self.gates[gate] = 0

    def vote(self) -> None:
        gate = self.pick(self.gates)
        decides = self.chance.choice(("", "approved", "rejected", "answered"))
        words = {"approved": "approve", "rejected": "reject", "answered": "answer", "": "approve"}
        self.tell(
            t.GateVoted,
            gate=gate,
            vote=words[decides],
            selections=self.chance.choice(((), ("today",))),
            feedback=self.chance.choice(("", "fine")),
            answer=Raw(b"[1]") if decides == "answered" else Raw(b"null"),
            digest="d" * 64,
            decides=decides,
            by=self.chance.choice(PEOPLE),
        )
        if decides:
            del self.gates[gate]

    def escalate(self) -> None:
        gate = self.pick(self.gates)
        self.gates[gate] += 1
        due_at = self.chance.choice((None, self.now + timedelta(seconds=50)))
        stage = self.gates[gate]
        self.tell(t.GateEscalated, gate=gate, stage=stage, voters=("user:boss",), approvers=1, due_at=due_at)

    def close_gate(self) -> None:
        gate = self.pick(self.gates)
        del self.gates[gate]
        outcome = self.chance.choice(("timed_out", "cancelled"))
        self.tell(t.GateClosed, gate=gate, outcome=outcome, then="reject" if outcome == "timed_out" else "")

    # ---- children

    def start_child(self) -> None:
        child, run_id = self.number(), f"{self.run_id}~{len(self.offspring) + 1}"
        detached = self.chance.random() < 0.2
        args = Raw(b"[1]")
        self.tell(
            t.ChildStarted, child=child, run_id=run_id, workflow="kid", version="1", args=args,
            detached=detached, task="m",
        )  # fmt: skip
        above = t.Ancestor(self.run_id, "checkout")
        begin = t.RunStarted(
            id=new_event_id(), at=self.now, workflow="kid", workflow_version="1", args=args, seed=1,
            ancestors=(above,), child=child, detached=detached,
        )  # fmt: skip
        self.offspring[run_id] = [begin]
        if not detached:
            self.children[child] = run_id

    def end_child(self) -> None:
        child = int(self.pick(self.children))
        run_id = self.children.pop(child)
        before = self.said.get(child)
        if before and (before[1]["status"] == "completed" or self.chance.random() < 0.5):
            self.tell(t.ChildEnded, inbox=before[0], **before[1])  # after a rewind: the same message again
            return
        self.mail += 1
        status = self.chance.choice(("completed", "completed", "failed", "cancelled", "terminated"))
        spent = Spent(usd=self.money(), input_tokens=self.chance.randrange(9), turns=1)
        if before:  # it was retried meanwhile
            spent += before[1]["spent"]
        error = self.failure() if status == "failed" else None
        said: dict[str, Any] = {
            "child": child, "run_id": run_id, "status": status, "spent": spent, "error": error,
        }  # fmt: skip
        self.said[child] = self.mail, said
        self.inbox.append(t.ChildEndSent(id=new_event_id(), at=self.now, **said))
        self.tell(t.ChildEnded, inbox=self.mail, **said)

    def give_up_child(self) -> None:
        child = int(self.pick(self.children))
        self.tell(t.ChildCancelled, child=child, run_id=self.children.pop(child))
