"""The steps of a made-up run: called, attempted, ended, and what people decide about them."""

import random
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from msgspec import Raw, json

from refold.events import types as t
from refold.events.clock import new_event_id
from refold.events.run_events import Ancestor, Carried
from refold.events.triggers import Trigger
from refold.events.types import Event, Failure

NAMES = ("charge", "ship", "mail")
MODELS = ("", "small", "large")
PEOPLE = ("user:ana", "user:bo")


class StepStory:
    """One run, told event by event; every choice comes from `chance`."""

    def __init__(self, run_id: str, chance: random.Random) -> None:
        self.run_id, self.chance = run_id, chance
        self.now = datetime(2026, 1, 31, 23, 59, 50, tzinfo=UTC)
        self.events: list[Event] = []
        self.commands = 0
        self.ordinals = dict.fromkeys(NAMES, 0)
        self.queued: dict[int, int] = {}
        """Open steps that wait for a start, with the attempts they have had."""
        self.running: dict[int, int] = {}
        self.backoff: dict[int, int] = {}
        self.doubts: dict[int, int] = {}
        self.had: dict[int, int] = {}
        """Attempts that each step has had."""
        self.undoable: dict[int, str] = {}
        """Steps that have completed, and their keys."""
        self.ended: list[tuple[int, int]] = []
        self.results: list[int] = []
        self.maps: dict[int, dict[int, str]] = {}
        """Open fan-outs: place of each item to how it stands."""
        self.generation = 0
        self.over = False
        self.spent: set[tuple[int, int]] = set()
        self.eager = chance.choice((0, 1, 4))
        """How much rather it calls steps than waits."""

    def tell(self, kind: type[Event], /, **fields: Any) -> None:
        if self.chance.random() < 0.8:  # sometimes two events at one moment, sometimes on a whole second
            self.now += timedelta(microseconds=self.chance.choice((1, 250, 1_000_000, 86_400_000_000 // 7)))
        if self.chance.random() < 0.1:
            self.now = self.now.replace(microsecond=0) + timedelta(seconds=1)
        self.events.append(kind(id=new_event_id(), at=self.now, trace="f" * 32, **fields))

    def number(self) -> int:
        self.commands += 1
        return self.commands

    def pick(self, choices: Iterable[Any]) -> Any:
        return self.chance.choice(sorted(choices))

    def failure(self, error_class: str = "error") -> Failure:
        return Failure(
            type="Boom", message=self.chance.choice(("no", "ünïcode\u2028", "")), error_class=error_class
        )

    def money(self) -> Decimal:
        return Decimal(self.chance.choice(("0.0001", "1", "12.50", "0.333333333333333333", "1E+2", "-0.01")))

    # ---- what may happen

    def start(self) -> None:
        self.tell(
            t.RunStarted,
            workflow=self.chance.choice(("checkout", "deploy")),
            workflow_version="2",
            args=Raw(b'[1, {"a": [null]}]'),
            seed=7,
            key=self.chance.choice(("", "order-1")),
            attributes=self.chance.choice(({}, {"title": "Order 1"}, {"title": 5, "shop": "Bern"})),
            runtime={"python": "3.12"},
            by=self.chance.choice(PEOPLE),
            timeout_s=self.chance.choice((0.0, 90.5)),
            **self.origin(),
        )
        if self.chance.random() < 0.9:
            self.claim()

    def origin(self) -> dict[str, Any]:
        """Where it comes from; most runs come from nowhere."""
        above = (Ancestor("top", "deploy"), Ancestor("mid", "checkout"))
        return self.chance.choice(
            (
                {},
                {},
                {"ancestors": above, "child": 7, "detached": self.chance.random() < 0.5},
                {"continued_from": "before", "carried": (Carried("hint", Raw(b"1")),)},
                {"forked_from": "other", "forked_at": 3},
                {
                    "start_at": self.now,
                    "lock": "/srv/data",
                    "trigger": "webhook",
                    "triggered_by": Trigger.webhook("/orders"),
                },
                {"queue": "emails", "priority": -3, "queue_key": "ana", "run_on": "gpu"},
            )
        )

    def claim(self) -> None:
        self.generation += 1
        self.tell(t.RunClaimed, owner=f"host-{self.chance.randrange(3)}", generation=self.generation)

    def schedule(self, step: int = 0, **of_a_map: int) -> None:
        step, name = step or self.number(), self.pick(NAMES)
        self.ordinals[name] += 1
        after = sorted(self.chance.sample(self.results, min(len(self.results), self.chance.randrange(3))))
        self.tell(
            t.StepScheduled,
            step=step,
            name=name,
            key=f"{name}#{self.ordinals[name]}",
            args=Raw(json.encode([step, "x" * self.chance.randrange(3)])),
            kwargs=Raw(self.chance.choice((b"{}", b'{"b":1}'))),
            pure=self.chance.random() < 0.2,
            max_attempts=3,
            timeout_s=self.chance.choice((0.0, 2.5)),
            after=tuple(after),
            task="m",
            site="shop.py:41",
            iteration=self.chance.randrange(2),
            compensate=self.chance.choice(("", "refund")),
            undoes=self.chance.choice(("", "", "charge#1")),
            optional=self.chance.random() < 0.2,
            total_timeout_s=self.chance.choice((0.0, 60.0)),
            **of_a_map,
        )
        self.queued[step] = 0
        if self.chance.random() < 0.8:
            self.begin(step)

    def begin(self, step: int | None = None) -> None:
        waiting = self.queued | self.backoff | self.doubts
        step = int(self.pick(waiting)) if step is None else step
        attempt = waiting[step] + 1
        self.leave(step)
        self.tell(t.StepStarted, step=step, attempt=attempt)
        self.running[step] = self.had[step] = attempt

    def open_steps(self) -> dict[int, int]:
        return self.queued | self.running | self.backoff | self.doubts

    def leave(self, step: int) -> None:
        for group in (self.queued, self.running, self.backoff, self.doubts):
            group.pop(step, None)

    def settle(self, step: int, how: str) -> None:
        """The step has ended; so has the item that it is, if it is one."""
        for fan_out, items in self.maps.items():
            if step - fan_out - 1 in items:
                items[step - fan_out - 1] = how

    def complete(self) -> None:
        step, attempt = self.stop()
        self.tell(t.StepCompleted, step=step, attempt=attempt, result=Raw(b'{"ok":true}'))
        self.results.append(step)
        self.undoable[step] = ""
        self.settle(step, "completed")

    def stop(self) -> tuple[int, int]:
        step = self.pick(self.running)
        attempt = self.running.pop(step)
        self.ended.append((step, attempt))
        return step, attempt

    def fail(self) -> None:
        step, attempt = self.stop()
        error = self.failure(self.chance.choice(("error", "timed_out", "non_retryable")))
        self.tell(t.StepFailed, step=step, attempt=attempt, error=error)
        self.results.append(step)
        self.settle(step, "failed")

    def fail_attempt(self) -> None:
        step, attempt = self.stop()
        error = self.failure(self.chance.choice(("error", "timed_out")))
        due = self.now + timedelta(seconds=self.chance.randrange(1, 5))
        self.tell(t.StepAttemptFailed, step=step, attempt=attempt, error=error, retry_at=due)
        self.backoff[step] = attempt

    def release(self) -> None:
        step, attempt = self.stop()
        self.ended.remove((step, attempt))
        if (step, attempt) in self.spent:  # its body has begun, so it cannot be taken back
            self.tell(t.StepInterrupted, step=step, attempt=attempt, reason="shutdown")
            self.ended.append((step, attempt))
            self.queued[step] = attempt
            return
        self.tell(t.StepReleased, step=step, attempt=attempt)
        # An engine may count a start that came to nothing, or not.
        self.queued[step] = self.had[step] = attempt - self.chance.randrange(2)

    def crash(self) -> None:
        if not self.running:
            return
        reason = self.chance.choice(("crash", "crash", "shutdown"))
        if reason == "crash":
            self.claim()
        while self.running:
            step, attempt = self.stop()
            self.tell(t.StepInterrupted, step=step, attempt=attempt, reason=reason)
            if self.chance.random() < 0.2:
                self.tell(t.StepFailed, step=step, attempt=attempt, error=self.failure("interrupted"))
                self.results.append(step)
                self.settle(step, "failed")
            else:
                self.queued[step] = attempt
                if self.chance.random() < 0.5:
                    self.doubt(step, attempt)

    def doubt(self, step: int, attempt: int) -> None:
        if self.chance.random() < 0.5:
            outcome = self.chance.choice(("unknown", "not_happened"))
            self.tell(t.StepProbed, step=step, attempt=attempt, outcome=outcome)
        if self.chance.random() < 0.7:
            self.leave(step)
            self.tell(t.StepInDoubt, step=step, attempt=attempt, reason="cut off")
            self.doubts[step] = attempt

    def resolve(self) -> None:
        """A person says what a step in doubt came to."""
        step, by = int(self.pick(self.doubts)), self.chance.choice(PEOPLE)
        attempt = self.doubts[step]
        match self.chance.randrange(3):
            case 0:
                self.leave(step)
                self.tell(t.StepCompleted, step=step, attempt=attempt, result=Raw(b"7"), by=by)
                self.settle(step, "completed")
            case 1:
                self.leave(step)
                self.tell(t.StepFailed, step=step, attempt=attempt, error=self.failure(), by=by)
                self.settle(step, "failed")
            case _:
                self.begin(step)

    def skip(self) -> None:
        step = int(self.pick(self.open_steps()))
        if step in self.running:
            self.ended.append((step, self.running[step]))
        self.leave(step)
        self.tell(t.StepSkipped, step=step, result=Raw(b'"by hand"'), reason="it is done", by="user:bo")
        self.results.append(step)
        self.settle(step, "skipped")

    def leave_out(self) -> None:
        step, name = self.number(), self.pick(NAMES)
        self.ordinals[name] += 1
        self.tell(t.BranchSkipped, step=step, name=name, key=f"{name}#{self.ordinals[name]}", reason="small")

    def undo(self) -> None:
        step = int(self.pick(self.undoable))
        del self.undoable[step]
        self.tell(t.StepCompensated, step=step, key="charge#1")

    def give_up(self) -> None:
        step = self.pick(self.open_steps())
        if step in self.running:
            self.ended.append((step, self.running[step]))
        self.leave(step)
        self.tell(t.StepCancelled, step=step)
        self.settle(step, "cancelled")

    def spend(self) -> None:
        attempts = [*self.ended, *self.running.items(), (0, 0)]
        step, attempt = self.chance.choice(attempts)
        self.spent.add((step, attempt))
        self.tell(
            t.CostRecorded,
            step=step,
            attempt=attempt,
            usd=self.money(),
            model=self.chance.choice(MODELS),
            input_tokens=self.chance.randrange(100),
            output_tokens=self.chance.randrange(100),
            turns=self.chance.randrange(3),
        )

    def surprise(self) -> None:
        step, attempt = self.chance.choice(self.ended)
        if self.chance.random() < 0.5:
            self.tell(t.StepLate, step=step, attempt=attempt, result=Raw(b"[1]"))
        else:
            self.tell(t.StepLate, step=step, attempt=attempt, error=self.failure())

    def note(self) -> None:
        self.tell(t.DebugRecorded, step=1, attempt=1, message=Raw(b'"hm"'))

    # ---- fan-outs

    def open_map(self) -> None:
        fan_out, count = self.number(), self.chance.randrange(5)
        self.commands += count
        skipped = tuple(place for place in range(count) if self.chance.random() < 0.2)
        self.tell(
            t.FanOutOpened,
            fan_out=fan_out,
            name="charge",
            items=Raw(json.encode([{"n": place} for place in range(count)])),
            count=count,
            limit=2,
            skipped=skipped,
            task="m",
        )
        self.maps[fan_out] = {p: "skipped" if p in skipped else "pending" for p in range(count)}

    def next_item(self) -> None:
        fan_out = int(self.pick(self.maps))
        pending = [place for place, how in self.maps[fan_out].items() if how == "pending"]
        if not pending:
            self.close_map(fan_out)
            return
        self.maps[fan_out][pending[0]] = "running"
        self.schedule(fan_out + 1 + pending[0], fan_out=fan_out, item=pending[0])

    def close_map(self, fan_out: int) -> None:
        items = self.maps.pop(fan_out)
        for place, how in items.items():
            if how == "running":
                self.leave(fan_out + 1 + place)
                self.tell(t.StepCancelled, step=fan_out + 1 + place)
        self.tell(t.FanOutClosed, fan_out=fan_out, count=len(items))
