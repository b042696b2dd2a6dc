"""Histories that an engine could have written, made up by chance: for tests of what folds them."""

import copy
import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from msgspec import Raw

from refold.events import types as t
from refold.events.clock import new_event_id
from refold.events.store import Append, Store, Unit
from refold.events.stream import INBOX, Tail, chain
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


class Story(StepStory):
    """With waits, people, children, data and repairs."""

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

    # ---- data

    def set_data(self) -> None:
        match self.chance.randrange(7):
            case 0:
                self.tell(
                    t.ContextSet,
                    key=self.chance.choice("ab"),
                    value=Raw(b"%d" % self.chance.randrange(9)),
                    task=self.chance.choice(("m", "m/1")),
                    conflict=self.chance.choice(("", "", "m/2")),
                    refused=self.chance.choice(("", "", "too large")),
                )
            case 1:
                self.tell(t.CheckpointRecorded, name=self.chance.choice(("paid", "sent")), data=Raw(b"{}"))
            case 2:
                self.tell(t.PatchApplied, name=self.chance.choice(("new-tax", "no-fee")))
            case 3:
                self.tell(t.ConditionDecided, name="big", result=True)
            case 4:
                self.tell(t.CompensationRegistered, name="refund", key="refund#1", args=Raw(b"[]"))
            case 5:
                new = self.chance.choice(({"shop": "Bern"}, {"shop": None}, {"title": "Anew", "n": 1}))
                self.tell(t.AttributesSet, attributes=new)
            case _:
                self.tell(
                    t.AttributesChanged, attributes={"shop": self.chance.choice(("Ulm", None))}, by="user:bo"
                )

    def keep_file(self) -> None:
        step, attempt = self.chance.choice(self.ended)
        name = self.chance.choice(("a.pdf", "b.pdf"))
        if self.chance.random() < 0.7:
            self.tell(t.ArtifactRecorded, step=step, attempt=attempt, name=name, digest="0" * 64, size=3)
        else:
            self.tell(t.ArtifactChanged, step=step, name=name, expected="0" * 64, found="")

    # ---- operators

    def ask_to_stop(self) -> None:
        self.tell(t.RunCancelRequested, reason=self.chance.choice(("", "too late")), by="user:ana")

    def stand_out(self) -> None:
        self.tell(
            t.RunAttention, kind=self.chance.choice(("diverged", "none", "stuck")), reason="see the log"
        )

    def hold(self) -> None:
        if self.paused:
            self.tell(t.RunResumed, by="user:bo")
        else:
            self.tell(t.RunPaused, by="user:bo", reason="wait")
        self.paused = not self.paused

    def hold_a_cause(self) -> None:
        self.tell(t.CauseHeld, tag="signal.received", body=Raw(b"{}"))

    def ask_to_undo(self) -> None:
        self.tell(t.CompensateRequested, reason="wrong", by="user:bo")

    def start_undoing(self) -> None:
        self.tell(t.CompensationStarted, because="failed", steps=("charge#1", "ship#1"))

    def dismiss(self) -> None:
        self.tell(t.RunDismissed, dismissed=self.chance.random() < 0.7, by="user:bo")

    def finish(self) -> None:
        kind = self.chance.choice(
            (t.RunCompleted, t.RunFailed, t.RunCancelled, t.RunTerminated, t.RunContinued, t.RunCompensated,
             t.RunCompensationFailed)
        )  # fmt: skip
        left = {*self.timers, *self.waits, *self.gates}
        if kind is t.RunTerminated:
            left |= {*self.open_steps(), *self.children}
            self.ended += self.running.items()
        else:
            while self.open_steps():
                self.give_up()
            for fan_out in list(self.maps):
                self.close_map(fan_out)
            while self.children:
                self.give_up_child()
        more: dict[type[Event], dict[str, Any]] = {
            t.RunCompleted: {"result": Raw(b'{"parcel":1}')},
            t.RunFailed: {"error": self.failure()},
            t.RunCancelled: {"reason": self.chance.choice(("", "user"))},
            t.RunTerminated: {"reason": self.chance.choice(("", "hard")), "by": "user:bo"},
            t.RunContinued: {"next_run": "next", "args": Raw(b"[]")},
            t.RunCompensated: {"because": "cancelled"},
            t.RunCompensationFailed: {"failed": ("ship#1",), "because": "failed", "error": self.failure()},
        }
        self.tell(kind, open=tuple(sorted(left)), **more[kind])
        for name in (
            "queued",
            "running",
            "backoff",
            "doubts",
            "maps",
            "timers",
            "waits",
            "gates",
            "children",
        ):
            getattr(self, name).clear()
        self.over, self.paused = True, False

    def reopen(self) -> None:
        self.tell(t.RunReopened, reason="undo it", by="user:bo")
        self.over = False

    def rewind(self) -> None:
        """As if nothing after some event had happened."""
        to = self.chance.choice([version for version in self.versions if self.past[version - 1]])
        then = copy.deepcopy(self.past[to - 1])
        steps = {**then["queued"], **then["running"], **then["backoff"], **then["doubts"]}
        gone = {
            number for number, version in self.numbers.items() if version > to and version in self.versions
        }
        self.ended += self.running.items()
        self.versions = [version for version in self.versions if version <= to]
        self.tell(
            t.RunRewound,
            to=to,
            verb=self.chance.choice(("retry", "reset", "skip")),
            dropped=tuple(sorted(gone)),
            steps=tuple(sorted(steps)),
            timers=dict(then["timers"]),
            waits=dict(then["waits"]),
            gates=tuple(sorted(then["gates"])),
            children=tuple(sorted(then["children"])),
            by="user:bo",
        )
        for name in OPEN:
            setattr(self, name, then[name])
        self.queued = {step: self.had.get(step, 0) for step in steps}
        self.running, self.backoff, self.doubts = {}, {}, {}
        self.undoable = {
            step: key for step, key in self.undoable.items() if step not in steps and step not in gone
        }
        self.results = [step for step in self.results if step not in steps and step not in gone]
        items = {e.step for e in self.events if isinstance(e, t.StepScheduled) and e.fan_out}
        self.ended = [(step, attempt) for step, attempt in self.ended if step not in gone & items]
        self.had = {step: attempt for step, attempt in self.had.items() if step not in gone}
        self.over = self.paused = False

    # ---- the plot

    def go_on(self) -> None:
        """One more thing that may happen now."""
        choices = [self.spend, self.note]
        if self.ended:
            choices += [self.surprise, self.keep_file]
        if self.over:
            choices += [self.dismiss, self.reopen, self.rewind]
        else:
            choices += [self.schedule] * self.eager
            choices += [
                self.open_timer,
                self.open_wait,
                self.signal,
                self.ask_to_stop,
                self.stand_out,
                self.crash,
                self.open_gate,
                self.start_child,
                self.set_data,
                self.set_data,
                self.open_map,
                self.leave_out,
                self.hold,
                self.hold_a_cause,
                self.ask_to_undo,
            ]
            rare = [self.rewind, self.start_undoing, self.dismiss, self.finish]
            choices += rare * (self.chance.random() < 0.1)
            choices += [self.begin] * 3 * bool(self.queued or self.backoff)
            choices += [self.resolve] * 2 * bool(self.doubts) + [self.undo] * bool(self.undoable)
            choices += [self.next_item] * 3 * bool(self.maps)
            choices += [self.vote, self.escalate, self.close_gate] * bool(self.gates)
            choices += [self.end_child, self.end_child, self.give_up_child] * bool(self.children)
            choices += [self.complete, self.complete, self.fail, self.fail_attempt, self.release] * bool(
                self.running
            )
            choices += [self.give_up, self.skip] * bool(self.open_steps())
            choices += [self.end_timer] * 2 * bool(self.timers) + [self.end_wait] * bool(self.waits)
        self.chance.choice(choices)()
        self.remember()


def tell_story(run_id: str, chance: random.Random, length: int) -> Story:
    """One run that may or may not come to its end."""
    told = Story(run_id, chance)
    told.start()
    told.remember()
    ends_at = chance.randrange(1, length * 2)
    for place in range(length):
        if place == ends_at and not told.over:
            told.finish()
            told.remember()
        told.go_on()
    return told


def story(run_id: str, chance: random.Random, length: int) -> list[Event]:
    """Its events."""
    return tell_story(run_id, chance, length).events


def write(store: Store, histories: dict[str, Sequence[Event]], chance: random.Random) -> None:
    """Append the histories to the store, interleaved by chance, in units of one to five events."""
    tails = dict.fromkeys(histories, Tail())
    left = {run_id: list(events) for run_id, events in histories.items() if events}
    while left:
        run_id = chance.choice(sorted(left))
        size = chance.randrange(1, 6)
        events, left[run_id] = left[run_id][:size], left[run_id][size:]
        rows, after = chain(run_id, tails[run_id], events)
        assert store.commit([Unit((Append(run_id, tails[run_id].version, rows),))]) == [None]
        tails[run_id] = after
        if not left[run_id]:
            del left[run_id]


def stories(seed: int, runs: int, length: int) -> dict[str, Sequence[Event]]:
    """Histories of several runs, all from one number."""
    chance = random.Random(seed)
    return {f"run-{n}": story(f"run-{n}", chance, length) for n in range(1, runs + 1)}


def families(seed: int, runs: int, length: int) -> dict[str, Sequence[Event]]:
    """The same, with the runs' inboxes and their children's streams."""
    chance = random.Random(seed)
    streams: dict[str, Sequence[Event]] = {}
    for n in range(1, runs + 1):
        told = tell_story(f"run-{n}", chance, length)
        streams |= {told.run_id: told.events, told.run_id + INBOX: told.inbox, **told.offspring}
    return streams
