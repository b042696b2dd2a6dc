"""Histories that an engine could have written, made up by chance: for tests of what folds them."""

import random
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from msgspec import Raw, json

from refold.events import types as t
from refold.events.clock import new_event_id
from refold.events.store import Append, Store, Unit
from refold.events.stream import Tail, chain
from refold.events.types import Event, Failure

NAMES = ("charge", "ship", "mail")
MODELS = ("", "small", "large")
SIGNALS = ("approve", "hint")


class Story:
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
        self.ended: list[tuple[int, int]] = []
        self.results: list[int] = []
        self.timers: set[int] = set()
        self.waits: set[int] = set()
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
        )
        if self.chance.random() < 0.9:
            self.claim()

    def claim(self) -> None:
        self.generation += 1
        self.tell(t.RunClaimed, owner=f"host-{self.chance.randrange(3)}", generation=self.generation)

    def schedule(self) -> None:
        step, name = self.number(), self.pick(NAMES)
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
        )
        self.queued[step] = 0
        if self.chance.random() < 0.8:
            self.begin(step)

    def begin(self, step: int | None = None) -> None:
        waiting = self.queued | self.backoff
        step = int(self.pick(waiting)) if step is None else step
        attempt = waiting[step] + 1
        self.queued.pop(step, None)
        self.backoff.pop(step, None)
        self.tell(t.StepStarted, step=step, attempt=attempt)
        self.running[step] = attempt

    def complete(self) -> None:
        step, attempt = self.stop()
        self.tell(t.StepCompleted, step=step, attempt=attempt, result=Raw(b'{"ok":true}'))
        self.results.append(step)

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
        self.queued[step] = attempt - self.chance.randrange(2)

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
            else:
                self.queued[step] = attempt

    def give_up(self) -> None:
        step = self.pick(self.queued | self.running | self.backoff)
        if step in self.running:
            self.ended.append((step, self.running[step]))
        for group in (self.queued, self.running, self.backoff):
            group.pop(step, None)
        self.tell(t.StepCancelled, step=step)

    def spend(self) -> None:
        attempts = [*self.ended, *self.running.items(), (0, 0)]
        step, attempt = self.chance.choice(attempts)
        self.spent.add((step, attempt))
        self.tell(
            t.CostRecorded,
            step=step,
            attempt=attempt,
            usd=Decimal(
                self.chance.choice(("0.0001", "1", "12.50", "0.333333333333333333", "1E+2", "-0.01"))
            ),
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

    def open_timer(self) -> None:
        timer = self.number()
        self.tell(t.TimerStarted, timer=timer, due_at=self.now + timedelta(seconds=self.chance.randrange(9)))
        self.timers.add(timer)

    def end_timer(self) -> None:
        timer = self.pick(self.timers)
        self.timers.remove(timer)
        self.tell(self.chance.choice((t.TimerFired, t.TimerCancelled)), timer=timer)

    def open_wait(self) -> None:
        wait = self.number()
        self.tell(t.WaitOpened, wait=wait, name=self.pick(SIGNALS))
        self.waits.add(wait)

    def end_wait(self) -> None:
        wait = self.pick(self.waits)
        self.waits.remove(wait)
        self.tell(t.WaitCancelled, wait=wait)

    def signal(self) -> None:
        self.tell(t.SignalReceived, name=self.pick(SIGNALS), payload=Raw(b"null"))

    def ask_to_stop(self) -> None:
        self.tell(t.RunCancelRequested, reason=self.chance.choice(("", "too late")), by="user:ana")

    def stand_out(self) -> None:
        self.tell(
            t.RunAttention, kind=self.chance.choice(("diverged", "none", "stuck")), reason="see the log"
        )

    def finish(self) -> None:
        while self.queued or self.running or self.backoff:
            self.give_up()
        match self.chance.randrange(3):
            case 0:
                self.tell(t.RunCompleted, result=Raw(b'{"parcel":1}'))
            case 1:
                self.tell(t.RunFailed, error=self.failure())
            case _:
                self.tell(t.RunCancelled, reason=self.chance.choice(("", "user")))
        self.over = True

    # ---- the plot

    def go_on(self) -> None:
        """One more thing that may happen now."""
        choices = [self.spend, self.note]
        if self.ended:
            choices.append(self.surprise)
        if not self.over:
            choices += [self.schedule] * self.eager
            choices += [
                self.open_timer,
                self.open_wait,
                self.signal,
                self.ask_to_stop,
                self.stand_out,
                self.crash,
            ]
            choices += [self.begin] * 3 * bool(self.queued or self.backoff)
            choices += [self.complete, self.complete, self.fail, self.fail_attempt, self.release] * bool(
                self.running
            )
            choices += [self.give_up] * bool(self.queued or self.running or self.backoff)
            choices += [self.end_timer] * 2 * bool(self.timers) + [self.end_wait] * bool(self.waits)
        self.chance.choice(choices)()


def story(run_id: str, chance: random.Random, length: int) -> list[Event]:
    """The events of one run that may or may not come to its end."""
    told = Story(run_id, chance)
    told.start()
    ends_at = chance.randrange(1, length * 2)
    for place in range(length):
        if place == ends_at:
            told.finish()
        told.go_on()
    return told.events


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
