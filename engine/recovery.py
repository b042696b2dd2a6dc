"""Bringing runs back into memory: one queue, one loader.

A run comes back because it was running when its owner died, because something is due, or because an append
of its own was refused; then its bodies may still be running, and what they come to is kept until the handler
stands again.
"""

import asyncio
import logging
from collections import deque
from datetime import datetime
from typing import Any, Protocol

from ..events import types as t
from ..events.clock import Clock, new_event_id, to_datetime
from ..events.errors import (
    HandlerError,
    HandlerStuck,
    LeaseLost,
    RefoldError,
    SchemaMismatch,
    StoreCorrupt,
    StoreError,
    VoteRefused,
)
from ..events.log import Log
from ..events.store import Store
from ..events.types import Event
from . import blocked, inbox, pause, unbegun
from .claims import Claims
from .ends import Ends
from .live import KEPT_FACTS, Kept, LiveRun, unexpected
from .loader import History, read_history
from .run import Run

_log = logging.getLogger("refold.worker")

_FROM_OUTSIDE = (
    t.SignalReceived, t.RunCancelRequested, t.GateVoted, t.AttributesChanged, t.CompensateRequested,
    t.StepSkipped,
)  # fmt: skip
"""Causes that nobody but their sender has: fed again, unless the inbox has them."""

MAX_CLASHES = 5
RETRY_S = 1.0
"""Pause before a run that could not be read is loaded again."""


class Keeper(Protocol):
    """What recovery needs of the worker it brings runs back for."""

    store: Store
    log: Log
    clock: Clock
    owner: str
    workflows: Any
    claims: Claims
    ends: Ends
    live: dict[str, LiveRun]
    blocked: dict[str, RefoldError]

    @property
    def has_room(self) -> bool: ...
    def look_again(self) -> None: ...
    def drain_inbox(self, live: LiveRun) -> None: ...
    def settled(self, live: LiveRun) -> None: ...
    def block(self, run_id: str, error: RefoldError) -> None: ...
    def taken_over(self, run_id: str, error: RefoldError) -> None: ...


class Recovery:
    """The queue of runs to bring back, and the one task that does it."""

    def __init__(self, keeper: Any) -> None:
        self._keeper: Keeper = keeper
        self.lost: dict[str, LiveRun] = {}
        """Refused runs that wait for their rebuild, with their bodies still running."""
        self._queue: deque[str] = deque()
        self._queued: set[str] = set()
        self._clashes: dict[str, int] = {}
        """How often a run could not be appended to because of another stream than its own."""
        self._loading = ""
        self._failing = False
        """The last run could not be read, which has been told."""
        self._wake = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to load what is queued."""
        self._task = self._loop.create_task(self._load_queue(), name="refold-loader")

    async def close(self) -> None:
        """Stop loading."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    @property
    def queued(self) -> int:
        """How many runs are to be brought back."""
        return len(self._queued)

    def holds(self, run_id: str) -> bool:
        """Whether the run is on its way."""
        return run_id in self._queued or run_id in self.lost

    def loads(self, run_id: str) -> bool:
        """Whether it is too late to begin the run in another way; one that is only queued is skipped then."""
        return run_id == self._loading or run_id in self.lost

    def wake(self) -> None:
        """There may be room again."""
        if self._queue:
            self._wake.set()

    def only_lost(self) -> None:
        """Another process has the store: bring nothing back, but settle what was refused here."""
        self._queue = deque(run_id for run_id in self._queue if run_id in self.lost)
        self._queued.intersection_update(self.lost)

    def rebuild(self, live: LiveRun) -> None:
        """An append of the run was refused: unwind its handler and build it again from the log."""
        _log.warning("run %s: %s; rebuilding it from the log", live.run_id, live.refusal)
        live.alarms.clear()
        live.run.evict()
        self.lost[live.run_id] = live
        stream = live.refusal.stream if live.refusal is not None else live.run_id
        if stream != live.run_id:  # not what this run is at, but something that it wants to make
            self._clashes[live.run_id] = self._clashes.get(live.run_id, 0) + 1
            if self._clashes[live.run_id] > MAX_CLASHES:
                why = f"run {live.run_id}: {live.refusal}, {MAX_CLASHES} times on end; start the engine again"
                self._keeper.block(live.run_id, HandlerStuck(why))
                return
        self.enqueue(live.run_id)

    def bring_again(self, live: LiveRun) -> None:
        """The run was rewound: build its handler again from what counts of the log."""
        live.run.evict()
        self.lost[live.run_id] = live
        self.enqueue(live.run_id)

    def let_go(self, run_id: str) -> None:
        """Drop a run that was to be rebuilt."""
        if (live := self.lost.pop(run_id, None)) is not None:
            live.leave()

    def abandon(self, error: RefoldError) -> None:
        """The worker closes: whoever waits for what was kept hears that it was not stored."""
        for live in self.lost.values():
            for kept in live.kept:
                if kept.told is not None:
                    kept.told(error)
            live.leave()
        self.lost.clear()

    def enqueue(self, run_id: str) -> None:
        """Have the loader bring the run back, unless it is here already."""
        keeper = self._keeper
        if run_id not in keeper.live and run_id not in self._queued and run_id not in keeper.blocked:
            self._queued.add(run_id)
            self._queue.append(run_id)
            self._wake.set()

    async def _load_queue(self) -> None:
        while True:
            while self._queue and self._keeper.has_room:
                run_id = self._loading = self._queue.popleft()
                try:
                    if run_id not in self._keeper.live:
                        await self._load_safely(run_id)
                finally:  # only now: `look` asks for it again while it is being loaded
                    self._queued.discard(run_id)
                    self._loading = ""
                await asyncio.sleep(0)
            self._wake.clear()
            await self._wake.wait()

    async def _load_safely(self, run_id: str) -> None:
        try:
            await self._load(run_id)
            self._failing = False
        except (StoreCorrupt, SchemaMismatch) as error:
            self._keeper.block(run_id, error)
        except StoreError as error:
            if not self._failing:
                _log.error("run %s cannot be read, trying again: %s", run_id, error)
            self._failing = True
            self._keeper.look_again()
            self._loop.call_later(RETRY_S, self.enqueue, run_id)
        except RefoldError as error:
            self._keeper.block(run_id, error)
        except Exception as error:  # one run's trouble must not end the recovery of all others
            _log.exception("run %s cannot be brought back", run_id)
            self._keeper.block(run_id, HandlerError(unexpected(run_id, error)))

    async def _load(self, run_id: str) -> None:
        if not self._keeper.claims.take(run_id):
            if run_id in self.lost:
                self._lease_lost(self.lost.pop(run_id))
            blocked.take_requests(self._keeper, run_id)
            return
        history: History | None = None
        for page in read_history(self._keeper.store, run_id):
            history = page
            await asyncio.sleep(0)
        if history is None or history.end is not None:
            self._ended_elsewhere(run_id, history)
            return
        if (
            history.claim is not None
            and history.claim.owner != self._keeper.owner
            and not self._keeper.claims.holding()
        ):
            if run_id in self.lost:  # who holds the store takes the run back from a zombie instead
                self._lease_lost(self.lost.pop(run_id))
            return
        started = history.started
        if unbegun.must_wait(history, self._keeper.clock.now()):
            unbegun.attend(self._keeper, history)
            self._keeper.claims.let_go(run_id)
            return
        queue = started.queue if history.pending else ""
        if not self._keeper.claims.may_begin(run_id, queue, started.run_on):
            self.let_go(run_id)
            self._keeper.claims.let_go(run_id)
            blocked.take_requests(self._keeper, run_id)
            return
        workflow = self._keeper.workflows.get((started.workflow, started.workflow_version))
        if workflow is None:
            self._unregistered(history)
            return
        taken = history.claim is not None and history.claim.owner != self._keeper.owner
        changes = await history.files.changes() if taken else []
        run = Run(workflow, run_id, started)
        begins_at = to_datetime(max(self._keeper.clock.now(), history.last_at.timestamp()))
        if history.claim is None:
            history.begins(begins_at)
        try:
            for _ in run.replay_slices(history.activations):
                await asyncio.sleep(0)
            if history.floors is not None:
                run.raise_floors(history.floors)
        except asyncio.CancelledError:
            run.evict()
            raise
        except HandlerError as error:
            run.evict()
            self._attend(history, "stuck" if isinstance(error, HandlerStuck) else "diverged", str(error))
            self._keeper.block(run_id, error)
            return
        self._resume(history, run, changes, begins_at)

    def _resume(self, history: History, run: Run, changes: list[dict[str, Any]], begins_at: datetime) -> None:
        """The handler stands where it stood: claim the run, deal with what was in flight, go on."""
        run_id, keeper = run.run_id, self._keeper
        host: Any = keeper
        facts = history.facts()
        live = LiveRun(host, run, history.tail, history.work(facts), history.last_at)
        live.flight.attempts = history.attempts(facts)
        live.signal_ids, live.held = history.signal_ids, history.held
        live.spent, live.told_spent = history.spent, history.told_spent
        live.stale_mail = history.stale_mail
        held, lost = set(history.held), self.lost.pop(run_id, None)
        keeper.live[run_id] = live
        adopted: set[int] = set()
        if lost is not None:
            adopted = live.flight.adopt(lost.flight.bodies, [kept.event for kept in lost.kept])
        notes: list[Event] = []
        if history.claim is None or history.rewound or history.claim.owner != self._keeper.owner:
            generation = history.claim.generation + 1 if history.claim else 1
            head = live.head(at=begins_at.timestamp() if generation == 1 else None)
            notes.append(t.RunClaimed(owner=self._keeper.owner, generation=generation, **head))
        if history.attention != "none":
            notes.append(t.RunAttention(kind="none", **live.head()))
        notes += [t.ArtifactChanged(**change, **live.head()) for change in changes]
        live.go_on(notes, adopted)
        if lost is not None:
            self._feed(live, [kept for kept in lost.kept if not _is_held(kept, held)])
        keeper.drain_inbox(live)
        if live.idle:
            keeper.settled(live)

    def _feed(self, live: LiveRun, kept: list[Kept]) -> None:
        """Feed again what was in hand when an append was refused."""
        for event, told in kept:
            again = pause.again(live, event, live.head(event.cause, event.by))
            if again is None:
                if told is not None:
                    told(VoteRefused(f"run {live.run_id}: the gate was decided meanwhile"))
                continue
            event = again
            if isinstance(event, t.StepCompleted | t.StepFailed):
                if live.flight.awaits(event.step, event.cause):
                    live.deliver(event)
            elif isinstance(event, _FROM_OUTSIDE):
                if not event.inbox and getattr(event, "signal_id", "") not in (live.signal_ids - {""}):
                    live.deliver(event, told=told)
                elif told is not None:
                    told(None)
            elif isinstance(event, t.StepAttemptFailed):
                if live.flight.awaits(event.step, event.cause):
                    live.flight.attempts.failed(event.step, event.retry_at)
                    live.note(event)
            elif isinstance(event, KEPT_FACTS):
                live.note(event)

    def _ended_elsewhere(self, run_id: str, history: History | None) -> None:
        if history is not None and history.end is not None:
            self._keeper.ends.tell(run_id, history.end)
            blocked.pass_on(self._keeper, run_id)
        if (lost := self.lost.pop(run_id, None)) is not None:
            self._lease_lost(lost)

    def _lease_lost(self, live: LiveRun) -> None:
        """Somebody else owns the run now. What our bodies came to goes to its inbox, as evidence."""
        refusal = live.refusal
        expected, found = (refusal.expected, refusal.found) if refusal is not None else (0, 0)
        error = LeaseLost(live.run_id, expected, found)
        _log.warning("run %s was taken over by another owner; its bodies here are cancelled", live.run_id)
        for event, told in live.kept:
            if told is not None:
                told(error)
            if isinstance(event, t.StepCompleted | t.StepFailed):
                inbox.send_evidence(self._keeper.log, live.run_id, event)
        live.leave()
        self._keeper.taken_over(live.run_id, error)

    def _unregistered(self, history: History) -> None:
        name, version = history.started.workflow, history.started.workflow_version
        versions = sorted(v for n, v in self._keeper.workflows if n == name)
        kind = "missing_version" if versions else "no_worker"
        have = f"this engine has version {', '.join(versions)}" if versions else "no engine here has it"
        reason = (
            f"workflow {name!r} version {version!r} is not registered: {have}; pass it in `workflows=[…]`"
        )
        self._attend(history, kind, reason)
        self._keeper.block(history.run_id, HandlerError(f"run {history.run_id}: {reason}"))

    def _attend(self, history: History, kind: str, reason: str) -> None:
        """Note in the log that the run cannot go on by itself; once, however often it is tried."""
        if (history.attention, history.attention_reason) == (kind, reason[:8_192]):
            return
        at = max(to_datetime(self._keeper.clock.now()), history.last_at)
        trace = history.started.trace
        note = t.RunAttention(kind=kind, reason=reason[:8_192], id=new_event_id(), at=at, trace=trace)
        self._keeper.log.append(history.unit([note]), lambda error: None)


def _is_held(kept: Kept, held: set[str]) -> bool:
    """Whether the log has the cause already, and delivers it anew."""
    if kept.event.cause not in held:
        return False
    if kept.told is not None:
        kept.told(None)
    return True
