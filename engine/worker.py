"""The executing half of an engine: takes runs, keeps them in memory while they are busy, lets them go.

A run is in one of three places: `live` (its handler is in memory), waiting in the store's `work` table
(for a timer or a message, at no cost), or in the queue of the one loader that brings it back.
"""

import asyncio
import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Mapping
from time import monotonic
from typing import Any

from msgspec import structs

from ..events import types as t
from ..events.clock import Clock, new_event_id, to_datetime
from ..events.errors import (
    ConfigurationError,
    HandlerError,
    LeaseLost,
    RefoldError,
    SchemaMismatch,
    StoreBusy,
    StoreCorrupt,
    StoreError,
)
from ..events.log import Log
from ..events.store import Append, Store, Unit
from ..events.stream import Tail, chain
from ..events.types import Event
from ..events.work import WorkFold
from . import inbox
from .bodies import Bodies
from .live import KEPT_FACTS, Kept, LiveRun, Told
from .loader import History, read_history
from .run import Run
from .settings import Settings
from .watchdog import Watchdog
from .workflow import Workflow

_log = logging.getLogger("refold.worker")

POLL_S = 0.02
"""How often to ask whether another process has written: 3 µs a time."""
PAGE = 500
"""Runs taken from `work` per look."""
CLOCK_JUMP_S = 1.0
SWEEP_S = 1.0
"""How often, while others write, to look for runs that nobody executes any more."""
RETRY_S = 1.0
"""Pause before a run that could not be read is loaded again."""

Workflows = Mapping[tuple[str, str], Workflow[Any, Any]]


class Worker:
    """Owns the runs of one store while it holds it. Implements `live.Host`."""

    def __init__(
        self, store: Store, workflows: Workflows, clock: Clock, owner: str, settings: Settings
    ) -> None:
        self.store, self.workflows, self.clock, self.owner = store, workflows, clock, owner
        self.settings = settings
        self.log = Log(store)
        self.bodies = Bodies(settings.step_threads)
        self.thread_id = threading.get_ident()
        self.closing = False
        self.live: dict[str, LiveRun] = {}
        self.blocked: dict[str, RefoldError] = {}
        """Runs that cannot go on in this process, and why."""
        self._loop = asyncio.get_running_loop()
        self._watchdog = Watchdog(settings.blocking_limit, self.thread_id)
        self._idle: OrderedDict[str, int] = OrderedDict()
        self._idle_bytes = 0
        self._queue: deque[str] = deque()
        self._queued: set[str] = set()
        self._lost: dict[str, LiveRun] = {}
        """Refused runs that wait for their rebuild, with their bodies still running."""
        self._wake = asyncio.Event()
        self._ends: dict[str, list[asyncio.Future[Event]]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._timer: asyncio.TimerHandle | None = None
        self._look_at = float("inf")
        self._sweep, self._swept = False, 0.0
        self._drift = self._measure_drift()

    # ---- life

    def start(self) -> None:
        """Begin to execute: recover what was running, then follow the store."""
        self._take_running()
        self.look()
        self._tasks.append(self._loop.create_task(self._load_queue(), name="refold-loader"))
        self._timer = self._loop.call_later(POLL_S, self._tick)

    def _take_running(self) -> None:
        """Have every run that is in the middle of something brought back, unless it is here."""
        self._sweep, self._swept = False, monotonic()
        after = ""
        while page := self.store.running(after, PAGE):
            for run_id in page:
                self.enqueue(run_id)
            after = page[-1]

    async def close(self, grace: float) -> None:
        """Start nothing new, give bodies `grace` seconds, record what was cut off, store everything."""
        self.closing = True
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        try:
            await self._drain(grace)
            await self.log.close()
        except StoreError as error:
            _log.error(
                "shut down while the store could not be written; the log has all it acknowledged: %s", error
            )
        finally:
            for live in [*self.live.values(), *self._lost.values()]:
                live.leave()
            self.live.clear()
            for run_id in list(self._ends):  # not a CancelledError: nobody has cancelled who waits
                goes_on = "it goes on when an engine executes this store again"
                closed = ConfigurationError(f"the engine was closed before run {run_id} ended; {goes_on}")
                self._fail_waiters(run_id, closed)
            self._watchdog.close()
            self.bodies.threads.close()

    async def _drain(self, grace: float) -> None:
        deadline = monotonic() + grace
        while bodies := self._bodies():
            done, _ = await asyncio.wait(bodies, timeout=max(0.0, deadline - monotonic()))
            if not done:
                break
        stopped = self._bodies()
        for live in self.live.values():
            live.alarms.clear()
            live.flight.interrupt_all()
        await self.log.flush()
        if stopped:
            await asyncio.wait(stopped, timeout=1.0)  # let their `finally` blocks run

    def _bodies(self) -> list[asyncio.Task[None]]:
        return [
            b.task for live in self.live.values() for b in live.flight.bodies.values() if b.task is not None
        ]

    # ---- starting

    def start_run(
        self, flow: Workflow[Any, Any], run_id: str, started: t.RunStarted,
        extra: tuple[Append, ...], told: Told,
    ) -> None:  # fmt: skip
        """Store a new run and begin it; `told` hears when that is durable, or why it is refused."""
        # Never two handlers of one run: whoever asks for an id that is on its way is told once it is stored.
        here = run_id in self.live or run_id in self._queued or run_id in self._lost
        if here or len(self.live) - len(self._idle) >= self.settings.max_active or self.closing:
            self._store_start(run_id, started, extra, told)
            return
        run = Run(flow, run_id, started)
        live = LiveRun(self, run, Tail(), WorkFold(run_id), started.at)
        self.live[run_id] = live
        live.advance(started, told=told, extra=extra, claim=1, retry=False)

    def _store_start(self, run_id: str, started: t.RunStarted, extra: tuple[Append, ...], told: Told) -> None:
        """Too many runs are busy: this one is stored now and begun later."""

        def stored(error: RefoldError | None) -> None:
            if error is None:
                self.enqueue(run_id)
            told(error)

        self.log.append(start_unit(run_id, started, extra), stored, retry=False)

    # ---- taking runs back into memory

    def enqueue(self, run_id: str) -> None:
        """Have the loader bring the run back, unless it is here already."""
        if run_id not in self.live and run_id not in self._queued and run_id not in self.blocked:
            self._queued.add(run_id)
            self._queue.append(run_id)
            self._wake.set()

    async def _load_queue(self) -> None:
        while True:
            while self._queue and len(self.live) - len(self._idle) < self.settings.max_active:
                run_id = self._queue.popleft()
                try:
                    await self._load_safely(run_id)
                finally:  # only now: `look` asks for it again while it is being loaded
                    self._queued.discard(run_id)
                await asyncio.sleep(0)
            self._wake.clear()
            await self._wake.wait()

    async def _load_safely(self, run_id: str) -> None:
        try:
            await self._load(run_id)
        except (StoreCorrupt, SchemaMismatch) as error:
            self._block(run_id, error)
        except StoreError as error:
            _log.error("run %s cannot be read, trying again: %s", run_id, error)
            self._look_at = 0.0
            self._loop.call_later(RETRY_S, self.enqueue, run_id)
        except RefoldError as error:
            self._block(run_id, error)

    async def _load(self, run_id: str) -> None:
        history: History | None = None
        for page in read_history(self.store, run_id):
            history = page
            await asyncio.sleep(0)
        if history is None or history.ended is not None:
            self._ended_elsewhere(run_id, history)
            return
        if history.claim is not None and history.claim.owner != self.owner and not self.store.holding():
            if run_id in self._lost:  # who holds the store takes the run back from a zombie instead
                self._lease_lost(self._lost.pop(run_id))
            return
        started = history.started
        workflow = self.workflows.get((started.workflow, started.workflow_version))
        if workflow is None:
            self._unregistered(history)
            return
        run = Run(workflow, run_id, started)
        try:
            for _ in run.replay_slices(history.activations()):
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            run.evict()
            raise
        except HandlerError as error:
            run.evict()
            self.attend(history, _attention_of(error), str(error))
            self._block(run_id, error)
            return
        self._resume(history, run)

    def _resume(self, history: History, run: Run) -> None:
        """The handler stands where it stood: claim the run, deal with what was in flight, go on."""
        run_id = run.run_id
        facts = history.facts()
        live = LiveRun(self, run, history.tail, history.work(facts), history.last_at)
        live.flight.attempts = history.attempts(facts)
        live.signal_ids = history.signal_ids
        lost = self._lost.pop(run_id, None)
        self.live[run_id] = live
        adopted: set[int] = set()
        if lost is not None:
            adopted = live.flight.adopt(lost.flight.bodies, [kept.event for kept in lost.kept])
        notes: list[Event] = []
        if history.claim is None or history.claim.owner != self.owner:
            generation = history.claim.generation + 1 if history.claim else 1
            notes.append(t.RunClaimed(owner=self.owner, generation=generation, **live.head()))
        if history.attention != "none":
            notes.append(t.RunAttention(kind="none", **live.head()))
        live.go_on(notes, adopted)
        if lost is not None:
            self._feed(live, lost.kept)
        self.drain_inbox(live)
        if live.idle:
            self.settled(live)

    def _feed(self, live: LiveRun, kept: list[Kept]) -> None:
        """Feed again what was in hand when an append was refused."""
        for event, told in kept:
            event = structs.replace(event, id=new_event_id(), at=live.head()["at"])
            if isinstance(event, t.StepCompleted | t.StepFailed):
                if live.flight.awaits(event.step, event.cause):
                    live.deliver(event)
            elif isinstance(event, t.SignalReceived | t.RunCancelRequested):
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
        for waiter in self._ends.pop(run_id, ()):
            if not waiter.done() and history is not None and history.ended is not None:
                waiter.set_result(history.ended)
        if (lost := self._lost.pop(run_id, None)) is not None:
            self._lease_lost(lost)

    def _lease_lost(self, live: LiveRun) -> None:
        """Somebody else owns the run now. What our bodies came to goes to its inbox, as evidence."""
        refusal = live.refusal
        error = (
            LeaseLost(live.run_id, refusal.expected, refusal.found)
            if refusal
            else LeaseLost(live.run_id, 0, 0)
        )
        _log.warning("run %s was taken over by another owner; its bodies here are cancelled", live.run_id)
        for event, told in live.kept:
            if told is not None:
                told(error)
            if isinstance(event, t.StepCompleted | t.StepFailed):
                inbox.send_evidence(self.store, self.log, live.run_id, event)
        self._let_go(live)
        self._fail_waiters(live.run_id, error)
        if not self.store.holding():
            self._retire(error)

    def _retire(self, error: RefoldError) -> None:
        """Another process has taken the store over: begin nothing more, let runs be refused one by one."""
        if not self.closing:
            _log.error("this process no longer executes %s: another one has taken it over", self.store.url)
            self.closing = True
            self._queue = deque(run_id for run_id in self._queue if run_id in self._lost)
            self._queued.intersection_update(self._lost)
            if self._timer is not None:
                self._timer.cancel()
            for run_id in list(self._ends):
                self._fail_waiters(run_id, error)
            for live in list(self.live.values()):
                live.alarms.clear()
                if live.undurable == 0:
                    del self.live[live.run_id]
                    live.leave()

    def _let_go(self, live: LiveRun | None) -> None:
        if live is not None:
            live.leave()

    def _unregistered(self, history: History) -> None:
        name, version = history.started.workflow, history.started.workflow_version
        versions = sorted(v for n, v in self.workflows if n == name)
        kind = "missing_version" if versions else "no_worker"
        have = f"this engine has version {', '.join(versions)}" if versions else "no engine here has it"
        reason = (
            f"workflow {name!r} version {version!r} is not registered: {have}; pass it in `workflows=[…]`"
        )
        self.attend(history, kind, reason)
        self._block(history.run_id, HandlerError(f"run {history.run_id}: {reason}"))

    def attend(self, history: History, kind: str, reason: str) -> None:
        """Note in the log that the run cannot go on by itself; once, however often it is tried."""
        if history.attention == kind:
            return
        at = max(to_datetime(self.clock.now()), history.last_at)
        trace = history.started.trace
        note = t.RunAttention(kind=kind, reason=reason[:8_192], id=new_event_id(), at=at, trace=trace)
        rows, _ = chain(history.run_id, history.tail, [note])
        unit = Unit((Append(history.run_id, history.tail.version, rows, history.tail.hash),))
        self.log.append(unit, lambda error: None)

    def _block(self, run_id: str, error: RefoldError) -> None:
        self.blocked[run_id] = error
        self._let_go(self._lost.pop(run_id, None))
        self._fail_waiters(run_id, error)

    # ---- following the store

    def _tick(self) -> None:
        self._timer = self._loop.call_later(POLL_S, self._tick)
        try:
            if not self.store.holding():
                self._retire(StoreBusy(f"another process has taken over {self.store.url}: ask there"))
                return
            if self.store.changed():
                self._sweep = True
                self.look()
            elif self.clock.now() >= self._look_at:
                self.look()
            if self._sweep and monotonic() - self._swept > SWEEP_S:  # a zombie may have left a run behind
                self._take_running()
        except StoreError as error:
            _log.error("the store cannot be read: %s", error)
            self._look_at = 0.0
        drift = self._measure_drift()
        if abs(drift - self._drift) > CLOCK_JUMP_S:
            self._drift = drift
            for live in list(self.live.values()):
                live.rearm()
            self.look()

    def _measure_drift(self) -> float:
        return self.clock.now() - monotonic()

    def look(self) -> None:
        """Take what is due from the store, deliver mail to those who are here."""
        now = self.clock.now()
        for run_id in self.store.due(now, PAGE + len(self.blocked) + len(self.live)):
            live = self.live.get(run_id)
            if live is None:
                self.enqueue(run_id)
            elif not live.lost:
                self.drain_inbox(live)
        self._look_at = self.store.next_due(now) or float("inf")

    def drain_inbox(self, live: LiveRun) -> None:
        inbox.drain(self.store, live)

    # ---- what live runs tell us (live.Host)

    def entering(self, live: LiveRun | None) -> None:
        if live is None:
            self._watchdog.leave()
            return
        self._watchdog.enter(live.run_id)
        if (size := self._idle.pop(live.run_id, None)) is not None:
            self._idle_bytes -= size

    def settled(self, live: LiveRun) -> None:
        if not live.idle or self.live.get(live.run_id) is not live:
            return
        due = live.fold.row().due_at
        if due is not None and due <= self.clock.now():
            return  # its alarm rings next: let go now, it would be loaded and let go again for ever
        self._idle_bytes += live.size - self._idle.pop(live.run_id, 0)
        self._idle[live.run_id] = live.size
        if len(self._queue):
            self._wake.set()
        while self._idle_bytes > self.settings.memory_bytes and self._idle:
            self.evict(self._cheapest())

    def _cheapest(self) -> str:
        """Of the 32 that have waited longest, the one with the shortest history."""
        candidates = [run_id for run_id, _ in zip(self._idle, range(32), strict=False)]
        return min(candidates, key=lambda run_id: self.live[run_id].tail.version)

    def evict(self, run_id: str) -> bool:
        """Let an idle run go; the store brings it back when something is due. False: it is busy."""
        live = self.live.get(run_id)
        if live is None or not live.idle:
            return False
        self._idle_bytes -= self._idle.pop(run_id, 0)
        del self.live[run_id]
        live.leave()
        due = live.fold.row().due_at
        self._look_at = min(self._look_at, due if due is not None else float("inf"))
        return True

    def halted(self, live: LiveRun, error: RefoldError) -> None:
        self.live.pop(live.run_id, None)
        live.leave()
        if isinstance(error, HandlerError):
            _log.error("run %s halted: %s", live.run_id, error)
            self._block(live.run_id, error)

    def refused(self, live: LiveRun) -> None:
        run_id = live.run_id
        if self.live.get(run_id) is live:
            del self.live[run_id]
        if live.kept and isinstance(live.kept[0].event, t.RunStarted):
            live.leave()
            self._look_at = 0.0  # the run that was there first may have been left to us
            if (told := live.kept[0].told) is not None:
                told(live.refusal)
            return
        _log.warning("run %s: %s; rebuilding it from the log", run_id, live.refusal)
        live.alarms.clear()
        live.run.evict()
        self._lost[run_id] = live
        self.enqueue(run_id)

    def ended(self, live: LiveRun, end: Event) -> None:
        self.live.pop(live.run_id, None)
        live.lost = True
        for waiter in self._ends.pop(live.run_id, ()):
            if not waiter.done():
                waiter.set_result(end)
        if self._queue:
            self._wake.set()

    # ---- waiting for ends

    def end_of(self, run_id: str) -> "asyncio.Future[Event]":
        """A future of the run's end event; fails when the run is blocked here."""
        waiter: asyncio.Future[Event] = self._loop.create_future()
        if (error := self.blocked.get(run_id)) is not None:
            waiter.set_exception(error)
        else:
            self._ends.setdefault(run_id, []).append(waiter)
        return waiter

    def _fail_waiters(self, run_id: str, error: RefoldError) -> None:
        for waiter in self._ends.pop(run_id, ()):
            if not waiter.done():
                waiter.set_exception(error)


def start_unit(run_id: str, started: t.RunStarted, extra: tuple[Append, ...]) -> Unit:
    """The unit that stores a run without beginning it."""
    rows, _ = chain(run_id, Tail(), [started])
    fold = WorkFold(run_id)
    fold.apply(started)
    return Unit((Append(run_id, 0, rows), *extra), fold.row())


def _attention_of(error: HandlerError) -> str:
    return "stuck" if type(error).__name__ == "HandlerStuck" else "diverged"
