"""The executing half of an engine: takes runs, keeps them in memory while they are busy, lets them go.

A run is in one of three places: `live` (its handler is in memory), waiting in the store's `work` table
(for a timer or a message, at no cost), or in the queue of the one loader that brings it back.
"""

import asyncio
import logging
import threading
from collections.abc import Mapping
from time import monotonic
from typing import Any

from ..events import types as t
from ..events.clock import Clock
from ..events.errors import ConfigurationError, HandlerError, RefoldError, StoreError
from ..events.log import Log
from ..events.store import Store
from ..events.stream import Tail
from ..events.types import Event
from ..events.work import WorkFold
from . import blocked, inbox
from .bodies import Bodies
from .claims import Alone, Claims
from .ends import Ends
from .family import Along, Newborn
from .following import Following
from .idle import Idle
from .live import LiveRun, Told
from .placement import may_wait
from .recovery import RETRY_S, Recovery
from .run import Run
from .schedule_firing import Firing
from .settings import Settings
from .starting import start_unit
from .watchdog import Watchdog
from .workflow import Workflow

_log = logging.getLogger("refold.worker")

Workflows = Mapping[tuple[str, str], Workflow[Any, Any]]


class Worker:
    """Owns the runs of one store while it holds it. Implements `live.Host`."""

    def __init__(
        self,
        store: Store,
        workflows: Workflows,
        clock: Clock,
        owner: str,
        settings: Settings,
        claims: Claims | None = None,
    ) -> None:
        self.store, self.workflows, self.clock, self.owner = store, workflows, clock, owner
        self.claims: Claims = Alone(store, owner) if claims is None else claims
        self.settings = settings
        self.log = Log(store)
        self.bodies = Bodies(settings.step_threads, settings.step_processes)
        self.thread_id = threading.get_ident()
        self.closing = False
        self.live: dict[str, LiveRun] = {}
        self.blocked: dict[str, RefoldError] = {}
        """Runs that cannot go on in this process, and why."""
        self._loop = asyncio.get_running_loop()
        self._watchdog = Watchdog(settings.blocking_limit, self.thread_id)
        self._idle = Idle()
        self._ending: list[LiveRun] = []
        self.ends = Ends()
        self._mailed: set[str] = set()
        self.recovery = Recovery(self)
        self.following = Following(self)
        self.schedules = Firing(self)

    # ---- life

    def start(self) -> None:
        """Begin to execute: recover what was running, then follow the store."""
        self.following.take_running()
        self.look()
        self.recovery.start()
        self.following.start()

    async def close(self, grace: float) -> None:
        """Start nothing new, give bodies `grace` seconds, record what was cut off, store everything."""
        self.closing = True
        self.following.close()
        try:
            await self.recovery.close()
            await self._drain(grace)
            await self.log.close()
        except StoreError as error:
            _log.error(
                "shut down while the store could not be written; the log has all it acknowledged: %s", error
            )
        finally:
            for live in self.live.values():
                live.leave()
            self.live.clear()
            self.recovery.abandon(StoreError("the engine was closed before this was stored; do it again"))
            for run_id in self.ends.awaited():  # not a CancelledError: nobody has cancelled who waits
                goes_on = "it goes on when an engine executes this store again"
                closed = ConfigurationError(f"the engine was closed before run {run_id} ended; {goes_on}")
                self.ends.fail(run_id, closed)
            self._watchdog.close()
            self.bodies.close()

    async def _drain(self, grace: float) -> None:
        deadline = monotonic() + grace
        while bodies := self._bodies():
            await asyncio.wait(bodies, timeout=max(0.0, deadline - monotonic()))
            if monotonic() >= deadline:
                break
        self.bodies.threads.begin_nothing()
        stopped = self._bodies()
        for live in self.live.values():
            live.alarms.clear()
            live.flight.interrupt_all()
        await self.log.flush()
        if stopped:
            await asyncio.wait(stopped, timeout=1.0)  # let their `finally` blocks run

    def _bodies(self) -> list[asyncio.Task[None]]:
        """Bodies still running, those that unwind after their run's end included."""
        self._ending = [live for live in self._ending if live.flight.bodies]
        lives = [*self.live.values(), *self._ending]
        tasks = [body.task for live in lives for body in live.flight.bodies.values()]
        return [task for task in tasks if task is not None and not task.done()]

    # ---- starting

    def start_run(
        self, flow: Workflow[Any, Any], run_id: str, started: t.RunStarted,
        along: Along, told: Told,
    ) -> None:  # fmt: skip
        """Store a new run and begin it; `told` hears when that is durable, or why it is refused."""
        # Never two handlers of one run: whoever asks for an id that is on its way is told once it is stored.
        on_its_way = run_id in self.live or self.recovery.holds(run_id)
        elsewhere = may_wait(started) or not self.claims.may_begin(run_id, "", started.run_on)
        if on_its_way or not self.has_room or self.closing or elsewhere:
            self._store_start(run_id, started, along, told)
            return
        run = Run(flow, run_id, started)
        live = LiveRun(self, run, Tail(), WorkFold(run_id), started.at)
        self.live[run_id] = live
        live.advance(started, told=told, along=along, claim=1, retry=False)
        live.deadlines.arm_whole()

    def begin(self, newborn: Newborn) -> None:
        """A run that another one has started, in its own append, is durable."""
        run_id = newborn.run_id
        here = self.workflows.get((newborn.workflow.name, newborn.workflow.version))
        # `look` may have seen it first: never two handlers of one run.
        brought = run_id in self.live or self.recovery.loads(run_id)
        if may_wait(newborn.started):
            self.following.look_soon()
            return
        if not self.claims.may_begin(run_id, "", newborn.started.run_on):
            self.claims.let_go(run_id)
            return
        if here is None or brought or not self.has_room or self.closing:
            self.recovery.enqueue(run_id)
            return
        run = Run(here, run_id, newborn.started)
        live = LiveRun(self, run, newborn.tail, newborn.fold, newborn.started.at)
        self.live[run_id] = live
        live.begin(1)
        live.deadlines.arm_whole()

    def mail_for(self, run_id: str) -> None:
        """A message for this run is durable: bring it to the run's attention, once for many of them."""
        if not self._mailed:
            self._loop.call_soon(self._deliver_mail)
        self._mailed.add(run_id)

    def _deliver_mail(self) -> None:
        mailed, self._mailed = self._mailed, set()
        told = False
        for run_id in sorted(mailed):
            try:
                self._deliver_to(run_id)
            except StoreError as error:
                if not told:
                    _log.error("the mail of run %s cannot be read, trying again: %s", run_id, error)
                told = True
                self._loop.call_later(RETRY_S, self.mail_for, run_id)

    def _deliver_to(self, run_id: str) -> None:
        live = self.live.get(run_id)
        if run_id in self.blocked:
            blocked.take_requests(self, run_id)
        elif live is None:
            self._bring_for_mail(run_id)
        elif not live.lost:
            self.drain_inbox(live)

    def _bring_for_mail(self, run_id: str) -> None:
        work = self.store.work(run_id)
        if work is not None and work.state != "done":
            self.recovery.enqueue(run_id)
        elif work is not None and work.status == "continued":
            blocked.pass_on(self, run_id)

    @property
    def busy(self) -> bool:
        """Whether any run has something in flight."""
        return len(self.live) > len(self._idle)

    @property
    def room(self) -> int:
        """How many more runs may be busy."""
        coming = self.recovery.queued
        return max(0, self.settings.max_active - (len(self.live) - len(self._idle)) - coming)

    @property
    def has_room(self) -> bool:
        """Whether one more run may be busy."""
        return len(self.live) - len(self._idle) < self.settings.max_active

    def _store_start(self, run_id: str, started: t.RunStarted, along: Along, told: Told) -> None:
        """This run is stored now and begun later: too many are busy, or it has to wait for its turn."""

        def stored(error: RefoldError | None) -> None:
            if error is None:
                self.claims.let_go(run_id)  # another worker may have room
                if may_wait(started):
                    self.following.look_soon()
                else:
                    self.recovery.enqueue(run_id)
            told(error)

        self.log.append(start_unit(run_id, started, along), stored, retry=False)

    # ---- giving up

    def retire(self, error: RefoldError) -> None:
        """Another process has taken the store over: begin nothing more, let runs be refused one by one."""
        if not self.closing:
            _log.error("this process no longer executes %s: another one has taken it over", self.store.url)
            self.closing = True
            self.recovery.only_lost()
            self.following.close()
            self.ends.fail_all(error)
            for live in list(self.live.values()):
                live.alarms.clear()
                if live.undurable == 0:
                    del self.live[live.run_id]
                    live.leave()

    def taken_over(self, run_id: str, error: RefoldError) -> None:
        """Another owner has the run, and perhaps the whole store."""
        self.ends.fail(run_id, error)
        if not self.claims.holding():
            self.retire(error)

    def block(self, run_id: str, error: RefoldError) -> None:
        """The run cannot go on in this process."""
        self.blocked[run_id] = error
        self.mail_for(run_id)  # it may have been asked to end meanwhile
        self.recovery.let_go(run_id)
        self.claims.let_go(run_id)
        self.following.look_soon()  # it may have had a place in a queue
        self.ends.fail(run_id, error)

    # ---- following the store

    def look(self) -> None:
        """Take what is due from the store, deliver mail to those who are here."""
        self.following.look()

    def look_again(self) -> None:
        """Look at the next tick, whatever the store says about deadlines."""
        self.following.look_at = 0.0

    def drain_inbox(self, live: LiveRun) -> bool:
        more = inbox.drain(self.store, live)
        if more:
            self.mail_for(live.run_id)
        return more

    def reload(self, live: LiveRun) -> None:
        if self.live.get(live.run_id) is live:
            del self.live[live.run_id]
        self._idle.discard(live.run_id)
        self.recovery.bring_again(live)

    # ---- what live runs tell us (live.Host)

    def entering(self, live: LiveRun | None) -> None:
        if live is None:
            self._watchdog.leave()
        else:
            self._watchdog.enter(live.run_id)
            self._idle.discard(live.run_id)

    def settled(self, live: LiveRun) -> None:
        if not live.idle or self.live.get(live.run_id) is not live:
            return
        due = live.fold.row().due_at
        if due is not None and due <= self.clock.now():
            return  # its alarm rings next: let go now, it would be loaded and let go again for ever
        self._idle.add(live)
        self._has_room_again()
        while self._idle.bytes > self.settings.memory_bytes and self._idle:
            self.evict(self._idle.cheapest())

    def evict(self, run_id: str) -> bool:
        """Let an idle run go; the store brings it back when something is due. False: it is busy."""
        live = self.live.get(run_id)
        if live is None or not live.idle:
            return False
        self._idle.discard(run_id)
        del self.live[run_id]
        live.leave()
        self.claims.let_go(run_id)
        self.following.look_at = min(self.following.look_at, live.fold.row().due_at or float("inf"))
        return True

    def halted(self, live: LiveRun, error: RefoldError) -> None:
        self.live.pop(live.run_id, None)
        live.leave()
        if isinstance(error, HandlerError):
            _log.error("run %s halted: %s", live.run_id, error)
            self.block(live.run_id, error)

    def refused(self, live: LiveRun) -> None:
        run_id = live.run_id
        if self.live.get(run_id) is live:
            del self.live[run_id]
        if live.kept and isinstance(live.kept[0].event, t.RunStarted):
            live.leave()
            self.look_again()  # the run that was there first may have been left to us
            for kept in live.kept:
                if kept.told is not None:
                    kept.told(live.refusal)
            return
        self.recovery.rebuild(live)

    def ended(self, live: LiveRun, end: Event) -> None:
        self.live.pop(live.run_id, None)
        if live.flight.bodies:  # they unwind, and what they still record belongs to the run
            self._ending.append(live)
        self.ends.tell(live.run_id, end)
        self.schedules.run_ended(live.run_id)
        if isinstance(end, t.RunContinued):
            self.mail_for(live.run_id)  # what came while its last append was under way goes along
        self._has_room_again()
        if live.run.started.queue:
            self.following.look_soon()  # its place is free

    def _has_room_again(self) -> None:
        self.recovery.wake()
        if self.following.starved and (not self.recovery.queued or 4 * self.room >= self.settings.max_active):
            self.look_again()  # a look for every single run that ends would take longer than the runs

    def end_of(self, run_id: str) -> "asyncio.Future[Event]":
        """A future of the run's end event; fails when the run is blocked here."""
        waiter = self.ends.wait_for(run_id)
        if (error := self.blocked.get(run_id)) is not None:
            self.ends.fail(run_id, error)
        return waiter
