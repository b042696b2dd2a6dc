"""Histories that an engine could have written, made up by chance: for tests of what folds them."""

import copy
import random
from collections.abc import Sequence
from typing import Any

from msgspec import Raw

from refold.events import types as t
from refold.events.store import Append, Store, Unit
from refold.events.stream import INBOX, Tail, chain
from refold.events.types import Event
from tests.projections.story_waits import OPEN, WaitStory


class Story(WaitStory):
    """With data, operators and repairs."""

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
