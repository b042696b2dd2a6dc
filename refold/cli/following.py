"""What a run is doing, read from the log as it grows: for a line of progress."""

from collections.abc import Iterator
from typing import Any

from ..events import types as t
from ..events.registry import look_at_event
from ..events.store import Store
from .text import Line, clip, clock, count, visible


class Following:
    """A run's progress. `read` takes in what is new; the rest tells how it stands."""

    def __init__(self, store: Store, run_id: str) -> None:
        self.store, self.run_id = store, run_id
        self.version = 0
        self.running: dict[int, str] = {}
        self.retrying: dict[int, str] = {}
        self.timers: dict[int, Any] = {}
        self.waits: dict[int, str] = {}
        self.gates: dict[int, t.GateOpened] = {}
        self._keys: dict[int, str] = {}
        self._ended: set[int] = set()
        self._asked: dict[int, t.GateOpened] = {}

    @property
    def ended(self) -> int:
        """How many steps have ended, and are not open again since."""
        return len(self._ended)

    def read(self) -> list[Line]:
        """Take in the new events; returns what is worth a line of its own."""
        news: list[Line] = []
        for row in self.store.read(self.run_id, self.version):
            self.version = row.version
            news.extend(self._apply(look_at_event(row.tag, row.state, row)))
        return news

    def _apply(self, event: Any) -> Iterator[Line]:
        match event:
            case t.StepScheduled():
                self._keys[event.step] = visible(event.key)
            case t.StepStarted():
                self._ended.discard(event.step)  # by hand: retried, reset
                self.retrying.pop(event.step, None)
                self.running[event.step] = self._keys[event.step]
            case t.StepCompleted() | t.StepFailed() | t.StepCancelled():
                self._ended.add(event.step)
                self.running.pop(event.step, None)
                self.retrying.pop(event.step, None)
            case t.StepAttemptFailed():
                key = self.running.pop(event.step, self._keys[event.step])
                self.retrying[event.step] = key
                error = clip(visible(f"{event.error.type}: {event.error.message}"), 120)
                again = f"tried again at {clock(event.retry_at)}"
                yield [(f"{key} attempt {event.attempt} failed, {again}: ", "yellow"), (error, "")]
            case t.StepInterrupted():
                key = self.running.pop(event.step, self._keys.get(event.step, "a step"))
                yield [(f"{key} attempt {event.attempt} was cut off ({visible(event.reason)})", "yellow")]
            case t.TimerStarted():
                self.timers[event.timer] = event.due_at
            case t.TimerFired() | t.TimerCancelled():
                self.timers.pop(event.timer, None)
            case t.WaitOpened():
                self.waits[event.wait] = event.name
            case t.WaitCancelled():
                self.waits.pop(event.wait, None)
            case t.SignalReceived():
                first = next((wait for wait, name in self.waits.items() if name == event.name), None)
                if first is not None:
                    del self.waits[first]
            case t.GateOpened():
                self.gates[event.gate] = self._asked[event.gate] = event
            case t.GateClosed() | t.GateVoted() if isinstance(event, t.GateClosed) or event.decides:
                self.gates.pop(event.gate, None)
            case t.RunRewound():
                self._rewind(event)

    def _rewind(self, event: t.RunRewound) -> None:
        for known in (self._keys, self.running, self.retrying, self.timers, self.waits, self.gates):
            for number in event.dropped:
                known.pop(number, None)
        self._ended.difference_update(event.dropped, event.steps)
        self.timers.update(event.timers)
        self.waits.update(event.waits)
        self.gates.update({gate: self._asked[gate] for gate in event.gates})

    def line(self) -> Line:
        """`order-42  12 of 15 steps  running charge#1, ship#1`."""
        line: Line = [
            (visible(self.run_id), "bold"),
            (f"  {self.ended} of {count(len(self._keys), 'step')}  ", ""),
        ]
        if self.running:
            names = [*self.running.values()]
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            line.append((f"running {', '.join(names[:3])}{more}", "cyan"))
        elif self.retrying:
            line.append((f"will try {', '.join([*self.retrying.values()][:3])} again", "yellow"))
        elif self.gates:
            line.append((f"waits for people: {visible(next(iter(self.gates.values())).prompt)}", "cyan"))
        elif self.waits:
            line.append((f"waits for event {visible(next(iter(self.waits.values())))}", "cyan"))
        elif self.timers:
            line.append((f"sleeps until {clock(min(self.timers.values()))} UTC", "cyan"))
        return line
