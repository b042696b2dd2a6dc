"""Reading a run from the log: its activations for the handler, and what was in flight when it was left."""

from collections.abc import Iterator
from datetime import datetime

from ..events import types as t
from ..events.errors import RunNotFound, StoreCorrupt
from ..events.registry import decode_event
from ..events.store import Store
from ..events.stream import Row, Tail
from ..events.types import Event
from ..events.work import WorkFold
from .attempts import Attempts
from .run import Activation, activations

PAGE = 4_000
"""Rows read at a time."""

_STEP_FACTS = frozenset(
    kind.TAG for kind in (t.StepStarted, t.StepAttemptFailed, t.StepInterrupted, t.StepReleased)
)
_STEP_ENDS = (t.StepCompleted, t.StepFailed, t.StepCancelled)
_SKIPPED = frozenset(kind.TAG for kind in (t.StepLate, t.CostRecorded, t.DebugRecorded))
"""Never needed to go on."""


class History:
    """One run's stream, decoded as far as going on with it needs."""

    def __init__(self, run_id: str) -> None:
        self.run_id = run_id
        self.tail = Tail()
        self.events: list[Event] = []
        """Causes, commands and facts about the run; facts about steps stay in `step_facts`."""
        self.claim: t.RunClaimed | None = None
        self.attention = "none"
        self.signal_ids: set[str] = set()
        self._last: Row | None = None
        self._step_facts: list[Row] = []
        self._scheduled_at: dict[int, int] = {}

    def add(self, rows: list[Row]) -> None:
        """Decode some more rows. Raises `UnknownEvent` or `StoreCorrupt`."""
        for row in rows:
            tag = row.tag
            if tag in _STEP_FACTS:
                self._step_facts.append(row)
            elif tag not in _SKIPPED:
                self._add(decode_event(tag, row.state, row), row.version)
        if rows:
            self._last = rows[-1]
            self.tail = Tail(rows[-1].version, rows[-1].hash)

    def _add(self, event: Event, version: int) -> None:
        self.events.append(event)
        if isinstance(event, t.StepScheduled):
            self._scheduled_at[event.step] = version
        elif isinstance(event, _STEP_ENDS):
            self._scheduled_at.pop(event.step, None)
            if not self._scheduled_at:
                self._step_facts.clear()  # nobody asks for what came before: see `facts`
        elif isinstance(event, t.RunClaimed):
            self.claim = event
        elif isinstance(event, t.RunAttention):
            self.attention = event.kind
        elif isinstance(event, t.SignalReceived) and event.signal_id:
            self.signal_ids.add(event.signal_id)

    @property
    def started(self) -> t.RunStarted:
        """The first event. Raises `StoreCorrupt` when the stream begins otherwise."""
        if self.events and isinstance(self.events[0], t.RunStarted):
            return self.events[0]
        raise StoreCorrupt(f"stream {self.run_id!r} does not begin with {t.RunStarted.TAG}")

    @property
    def ended(self) -> Event | None:
        """The run's end, if it has ended."""
        return next((e for e in reversed(self.events[-8:]) if isinstance(e, t.ENDS)), None)

    def activations(self) -> list[Activation]:
        """For `Run.replay`."""
        return activations(self.events)

    def facts(self) -> list[Event]:
        """Facts about the steps that have not ended: all that were stored after the first of them began."""
        if not self._scheduled_at:
            return []
        first = min(self._scheduled_at.values())
        return [decode_event(r.tag, r.state, r) for r in self._step_facts if r.version > first]

    def attempts(self, facts: list[Event]) -> Attempts:
        """Attempts of the open steps."""
        attempts = Attempts()
        for event in self.events:
            if isinstance(event, t.StepScheduled) and event.step in self._scheduled_at:
                attempts.scheduled(event.step, event.pure)
        attempts.fold(event for event in facts if event.step in self._scheduled_at)  # type: ignore[attr-defined]
        return attempts

    def work(self, facts: list[Event]) -> WorkFold:
        """The dispatch row's fold, as it stands."""
        fold = WorkFold(self.run_id)
        for event in self.events:
            fold.apply(event)
        for fact in facts:
            if fact.step in self._scheduled_at:  # type: ignore[attr-defined]
                fold.apply(fact)
        return fold

    @property
    def last_at(self) -> datetime:
        """Time of the last event read."""
        last = self._last
        return self.events[-1].at if last is None else decode_event(last.tag, last.state, last).at


def read_history(store: Store, run_id: str) -> Iterator[History]:
    """The run's history, page by page: yields the same growing object after each page.

    Raises `RunNotFound`, `UnknownEvent`, `StoreCorrupt`.
    """
    history = History(run_id)
    while True:
        rows = store.read(run_id, history.tail.version, PAGE)
        history.add(rows)
        if history.tail.version == 0:
            raise RunNotFound(run_id)
        yield history
        if len(rows) < PAGE:
            return
