"""Reading a run from the log: its activations for the handler, and what was in flight when it was left."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from ..events import types as t
from ..events.blobs import bring_back, put_all_away
from ..events.errors import RunNotFound, StoreCorrupt
from ..events.registry import decode_event
from ..events.store import Append, Post, Store, Unit, read_rows
from ..events.stream import Row, Tail, chain
from ..events.types import Event, Spent
from ..events.work import WorkFold
from . import artifacts
from .activation import Activation, Floors
from .attempts import Attempts
from .commands import event_number
from .family import spent_of
from .pause import cause_in, held_steps

PAGE = 4_000
"""Rows read at a time."""

_STEP_FACTS = frozenset(
    kind.TAG
    for kind in (t.StepStarted, t.StepAttemptFailed, t.StepInterrupted, t.StepReleased, t.StepInDoubt)
)
_STEP_ENDS = (t.StepCompleted, t.StepFailed, t.StepSkipped, t.StepCancelled)
_ABOUT_FILES = frozenset((t.ArtifactRecorded.TAG, t.ArtifactChanged.TAG))
_ATTEMPT_OVER = (t.StepCompleted, t.StepFailed, t.StepAttemptFailed, t.StepReleased)
_SKIPPED = frozenset(kind.TAG for kind in (t.StepLate, t.DebugRecorded, t.StepProbed))
"""Never needed to go on."""


class History:
    """One run's stream, decoded as far as going on with it needs."""

    def __init__(self, run_id: str, read: Callable[[str], bytes] | None = None) -> None:
        self.run_id = run_id
        self._read = read
        """Gives large values by their digest."""
        self.tail = Tail()
        self.activations: list[Activation] = []
        """For `Run.replay`: what was rewound is not among them."""
        self.claim: t.RunClaimed | None = None
        self.attention, self.attention_reason = "none", ""
        self.end: Event | None = None
        """The run's end, if it has ended."""
        self.stale_mail = 0
        """Version of the inbox when it was last brought back after an end: acts up to it are out of date."""
        self.rewound = False
        """The last thing that happened to it was a repair: its next owner claims it, be it the same."""
        self.held: dict[str, t.CauseHeld] = {}
        """Causes that came while it was paused and are not delivered yet, by id."""
        self.spent = Spent()
        """By the run and its children …"""
        self.told_spent = Spent()
        """… and what of it its parent was told at an end that was repaired."""
        self.files = artifacts.Kept()
        """Files that the steps have left."""
        self.signal_ids: set[str] = set()
        self.ends_at: list[int] = []
        """Version of the last event of each activation …"""
        self.causes_at: list[int] = []
        """… and of its cause."""
        self.dropped: list[tuple[int, int]] = []
        """Parts that were rewound: the versions between these two are as if they had not been."""
        self._fold = WorkFold(run_id)
        self._last: Row | None = None
        self._step_facts: list[Row] = []
        self._given_up: list[Row] = []
        """Facts about steps that were cancelled: no end says how many attempts they had."""
        self._cancelled = False
        self._scheduled: dict[int, tuple[int, t.StepScheduled]] = {}
        """Open steps, with the version they were scheduled at."""
        self._again: dict[int, tuple[int, bool]] = {}
        """Steps that a repair has opened again: attempts they have had, and whether the last was cut off."""
        self._floors: Floors | None = None

    def add(self, rows: list[Row]) -> None:
        """Decode some more rows. Raises `UnknownEvent` or `StoreCorrupt`."""
        for row in rows:
            tag = row.tag
            if tag in _STEP_FACTS:
                self._step_facts.append(row)
            elif tag in _ABOUT_FILES:
                self.files.add(decode_event(tag, row.state, row))
            elif tag not in _SKIPPED:
                event = decode_event(tag, row.state, row)
                self._add(event if self._read is None else bring_back(event, self._read), row.version)
        if rows:
            self._last = rows[-1]
            self.tail = Tail(rows[-1].version, rows[-1].hash)

    def _add(self, event: Event, version: int) -> None:
        self._fold.apply(event)
        if isinstance(event, t.RunCancelled) and event.unbegun:
            self._ended(event)
        elif isinstance(event, t.CAUSES):
            self._add_cause(event, version)
        elif isinstance(event, t.COMMANDS):
            self._add_command(event, version)
        elif isinstance(event, t.RunClaimed):
            if self.claim is None:
                self.begins(event.at)
            self.claim, self.rewound = event, False
        elif isinstance(event, t.RunAttention):
            self.attention, self.attention_reason = event.kind, event.reason
            if event.kind == "stuck" and not self.activations[-1].commands:
                self.activations[-1] = self.activations[-1]._replace(open=True)
        elif isinstance(event, t.CauseHeld):
            self.held[event.id] = event
            cause = cause_in(event)
            if isinstance(cause, t.SignalReceived) and cause.signal_id:
                self.signal_ids.add(cause.signal_id)
        elif isinstance(event, t.CostRecorded):
            self.spent += spent_of(event)
        elif isinstance(event, t.RunTerminated):
            self._ended(event)
        elif isinstance(event, t.RunRewound):
            self._rewind(event, version)

    def begins(self, at: datetime) -> None:
        """It is claimed for the first time: the time of one that waited for a place or a worker is this."""
        started = self.started
        if (started.queue or started.run_on) and not started.forked_from:  # a fork has that of what it shares
            self.activations[0] = self.activations[0]._replace(began=at.timestamp())

    def _add_cause(self, event: Event, version: int) -> None:
        self.held.pop(event.cause, None)
        floors, self._floors = self._floors, None
        later = event.start_at if isinstance(event, t.RunStarted) else None
        began = None if later is None else later.timestamp()
        self.activations.append(Activation(event, [], isinstance(event, t.RunReopened), floors, began))
        self.ends_at.append(version)
        self.causes_at.append(version)
        if isinstance(event, _STEP_ENDS):
            self._step_ended(event.step)
        elif isinstance(event, t.SignalReceived) and event.signal_id:
            self.signal_ids.add(event.signal_id)
        elif isinstance(event, t.ChildEnded):
            self.spent += event.spent
        elif isinstance(event, t.RunStarted):
            self.signal_ids.update(signal.signal_id for signal in event.carried if signal.signal_id)
        elif isinstance(event, t.RunReopened):
            self._repaired(event)

    def _repaired(self, event: Event) -> None:
        if self.end is not None:
            self.stale_mail = getattr(event, "mail", 0)
        self.end, self.rewound = None, True

    def _add_command(self, event: Event, version: int) -> None:
        self.activations[-1].commands.append(event)
        self.ends_at[-1] = version
        if isinstance(event, t.StepScheduled):
            self._scheduled[event.step] = version, event
        elif isinstance(event, t.StepCancelled):
            self._cancelled = True
            self._step_ended(event.step)
        elif isinstance(event, t.ENDS):
            self._ended(event)

    def _ended(self, end: Event) -> None:
        self.end = end
        self.told_spent = self.started.spent_before + self.spent

    @property
    def untold(self) -> Spent:
        """What the parent does not know of what was spent."""
        return self.started.spent_before + self.spent - self.told_spent

    def _step_ended(self, step: int) -> None:
        self._scheduled.pop(step, None)
        if not self._scheduled:
            if self._cancelled:
                self._given_up += self._step_facts
                self._cancelled = False
            self._step_facts.clear()  # nobody asks for what came before: see `facts`

    def _rewind(self, event: t.RunRewound, version: int) -> None:
        kept = sum(1 for version in self.ends_at if version <= event.to)
        kept = max(kept, 1)
        dropped = [e for a in self.activations[kept:] for e in (a.cause, *a.commands)]
        first = self.activations[0]
        if event.to == 1:  # from the very beginning
            dropped += first.commands
            self.activations[0] = first._replace(commands=[], open=True)
        before = [a.floors for a in (*self.activations[kept:], *self.activations[: event.to == 1])]
        del self.activations[kept:], self.ends_at[kept:], self.causes_at[kept:]
        self.dropped.append((event.to, version))
        floors = floors_of(dropped, *before, self._floors)
        if event.to == 1:
            self.activations[0] = self.activations[0]._replace(floors=floors)
        else:
            self._floors = floors
        self._reopen(event.steps, dropped)
        self.held.clear()
        self._repaired(event)

    def _reopen(self, steps: Iterable[int], dropped: list[Event]) -> None:
        scheduled = {
            e.step: e for a in self.activations for e in a.commands if isinstance(e, t.StepScheduled)
        }
        facts = [*dropped, *self._decoded([*self._given_up, *self._step_facts])]
        had = {step: self._again.get(step, (0, False)) for step in steps}
        for fact in facts:
            step, attempt = getattr(fact, "step", 0), getattr(fact, "attempt", 0)
            if step in had and attempt > had[step][0]:
                had[step] = attempt, False
        over = {(e.step, e.attempt) for e in facts if isinstance(e, _ATTEMPT_OVER)}
        begun = {(e.step, e.attempt) for e in facts if isinstance(e, t.StepStarted)} - over
        self._again = {step: (a, unknown or (step, a) in begun) for step, (a, unknown) in had.items()}
        self._scheduled = {step: (0, scheduled[step]) for step in had if step in scheduled}
        self._step_facts.clear()

    @property
    def started(self) -> t.RunStarted:
        """The first event. Raises `StoreCorrupt` when the stream begins otherwise."""
        if self.activations and isinstance(self.activations[0].cause, t.RunStarted):
            return self.activations[0].cause
        raise StoreCorrupt(f"stream {self.run_id!r} does not begin with {t.RunStarted.TAG}; restore a backup")

    @property
    def paused(self) -> bool:
        """Whether nothing may be delivered."""
        return self._fold.paused

    @property
    def pending(self) -> bool:
        """Whether it has not begun, or has ended and waits in its queue to go on."""
        return self._fold.state == "pending"

    @property
    def floors(self) -> Floors | None:
        """Of a repair after which nothing has been delivered yet."""
        return self._floors

    def facts(self) -> list[Event]:
        """Facts about the steps that have not ended: all that were stored after the first of them began."""
        if not self._scheduled:
            return []
        first = min(version for version, _ in self._scheduled.values())
        return self._decoded(row for row in self._step_facts if row.version > first)

    @staticmethod
    def _decoded(rows: Iterable[Row]) -> list[Event]:
        return [decode_event(row.tag, row.state, row) for row in rows]

    def attempts(self, facts: list[Event]) -> Attempts:
        """Attempts of the open steps."""
        attempts = Attempts()
        for step, (_, event) in self._scheduled.items():
            attempts.scheduled(step, event.pure)
            if step in self._again:
                attempts.reopened(step, *self._again[step])
        attempts.fold(event for event in facts if event.step in self._scheduled)  # type: ignore[attr-defined]
        return attempts

    def work(self, facts: list[Event]) -> WorkFold:
        """The dispatch row's fold, as it stands."""
        held = held_steps(self.held.values())
        for fact in facts:
            step: Any = fact.step  # type: ignore[attr-defined]
            if step in self._scheduled and step not in held:
                self._fold.apply(fact)
        return self._fold

    def unit(self, events: Sequence[Event], posts: tuple[Post, ...] = ()) -> Unit:
        """What appends these events where the stream ends, by whoever has no handler of the run."""
        stored, blobs = put_all_away(events)
        rows, _ = chain(self.run_id, self.tail, stored)
        fold = self.work(self.facts())
        for event in events:
            fold.apply(event)
        own = Append(self.run_id, self.tail.version, rows, self.tail.hash)
        return Unit((own,), (fold.row(),), posts, blobs)

    @property
    def last_at(self) -> datetime:
        """Time of the last event read."""
        assert self._last is not None
        return decode_event(self._last.tag, self._last.state, self._last).at


def activations(events: Iterable[Event]) -> list[Activation]:
    """A run's decoded events, the first one first, as activations; facts left out."""
    history = History("")
    for version, event in enumerate(events, 1):
        history._add(event, version)
    return history.activations


def floors_of(dropped: Iterable[Event], *before: Floors | None) -> Floors:
    """What these commands, and those of parts rewound before, have used up of numbers, children, ordinals."""
    number = children = 0
    ordinals: dict[str, int] = {}
    for floors in before:
        if floors is not None:
            number, children = max(number, floors.number), max(children, floors.children)
            ordinals |= {n: max(o, ordinals.get(n, 0)) for n, o in floors.ordinals.items()}
    for event in dropped:
        if isinstance(event, t.FanOutOpened):
            number = max(number, event.fan_out + event.count)
        elif isinstance(event, t.COMMANDS):
            number = max(number, event_number(event))
        if isinstance(event, t.ChildStarted):
            children = max(children, int(event.run_id.rpartition("~")[2]))
        for key, prefix in ((getattr(event, "key", ""), ""), (_gate_name(event), "gate ")):
            name, mark, ordinal = key.rpartition("#")
            if mark and ordinal.isdecimal():
                ordinals[prefix + name] = max(ordinals.get(prefix + name, 0), int(ordinal))
    return Floors(number, children, ordinals)


def _gate_name(event: Event) -> str:
    return event.name if isinstance(event, t.GateOpened) else ""


def whole_history(store: Store, run_id: str) -> History:
    """The run's history, read at once. Raises `RunNotFound`, `UnknownEvent`, `StoreCorrupt`."""
    *_, history = read_history(store, run_id)
    return history


def read_history(store: Store, run_id: str) -> Iterator[History]:
    """The run's history, page by page: yields the same growing object after each page.

    Raises `RunNotFound`, `UnknownEvent`, `StoreCorrupt`.
    """
    history = History(run_id, store.blob)
    while True:
        rows = read_rows(store, run_id, history.tail.version, PAGE)
        history.add(rows)
        if history.tail.version == 0:
            raise RunNotFound(run_id)
        yield history
        if len(rows) < PAGE:
            return
