"""How a worker notices what others have written, what has fallen due, and who has died."""

import asyncio
import logging
from collections.abc import Iterable
from time import monotonic
from typing import Any

from ..events.clock import own_timers
from ..events.errors import StoreBusy, StoreError
from ..events.stream import SCHEDULES
from . import blocked
from .ends import stored_end

_log = logging.getLogger("refold.worker")

POLL_S = 0.02
"""How often to ask whether another process has written: 3 µs a time."""
IDLE_POLL_S = 0.03
"""The same while no run is busy: a wake-up costs 0.1 to 0.3 ms of CPU, mostly the host loop's."""
PAGE = 500
"""Runs taken from `work` per look."""
CLOCK_JUMP_S = 1.0
FAILING_S = (0.05, 1.0)
"""First and longest pause between looks while the store cannot be read."""
SWEEP_S = 1.0
"""How often, while others write, to look for runs that nobody executes any more."""


class Following:
    """The eyes of one worker on its store."""

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self._loop = asyncio.get_running_loop()
        self.look_at = float("inf")
        """When, by the engine's clock, something in the store falls due."""
        self.starved = False
        """There was no room for runs that may be due."""
        self._timer: asyncio.TimerHandle | None = None
        self._soon: asyncio.Handle | None = None
        self._sweep, self._swept, self._hinted = False, 0.0, False
        self._failing_since: float | None = None
        self._pause_s = FAILING_S[0]
        self._doubtful: set[str] = set()
        """Runs that others may have taken while we were not heard of."""
        self._drift = self._measure_drift()

    def start(self) -> None:
        """Look from time to time from now on, and when somebody says that there is something."""
        self._timer = self._loop.call_later(POLL_S, self._tick)
        self._worker.claims.listen(self._tick_now)

    def close(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
        self._worker.claims.close()

    def _tick(self) -> None:
        worker = self._worker
        self._timer = self._loop.call_later(POLL_S if worker.busy else IDLE_POLL_S, self._tick)
        try:
            if not worker.claims.holding():
                worker.retire(StoreBusy(f"another process has taken over {worker.store.url}: ask there"))
                return
            self._keep_claims()
            if self._hinted:
                self._hinted = False
                self.look()
            elif worker.claims.changed:
                self._sweep = True
                self.look()
            elif worker.clock.now() >= self.look_at:
                self.look()
            swept_s = monotonic() - self._swept
            if (self._sweep and swept_s > SWEEP_S) or swept_s > worker.claims.sweep_s:
                if swept_s > worker.claims.sweep_s:
                    self.look_at = 0.0  # or one that it had only taken, or a place in a queue
                self.take_running()  # a zombie, or one who died, may have left a run behind
            self._watch_clock()
        except StoreError as error:
            self._failed(error)
        else:
            if self._failing_since is not None:
                _log.warning("the store can be read again, after %.1f s", monotonic() - self._failing_since)
                self._failing_since, self._pause_s = None, FAILING_S[0]

    def _failed(self, error: StoreError) -> None:
        """Told once; looked for again and again, less and less often."""
        if self._failing_since is None:
            _log.error("the store cannot be read, trying again: %s", error)
            self._failing_since = monotonic()
        self.look_at = 0.0
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(self._pause_s, self._tick)
        self._pause_s = min(self._pause_s * 2, FAILING_S[1])

    def _tick_now(self) -> None:
        """Somebody says that there is something for us."""
        if self._timer is not None and not self._worker.closing:
            self._timer.cancel()
            self._hinted = True
            self._tick()

    def _watch_clock(self) -> None:
        drift = self._measure_drift()
        if abs(drift - self._drift) > CLOCK_JUMP_S:
            self._drift = drift
            for live in list(self._worker.live.values()):
                live.deadlines.rearm()
            self.look()

    def _measure_drift(self) -> float:
        clock = self._worker.clock
        return 0.0 if own_timers(clock) else clock.now() - monotonic()

    # ---- what is ours

    def _keep_claims(self) -> None:
        worker = self._worker
        if not worker.claims.tick():
            _log.warning("this worker was not heard of for longer than its lease; are its runs its own?")
            self._doubtful.update(worker.live)
        for run_id in sorted(self._doubtful):
            live = worker.live.get(run_id)
            if live is not None and live.undurable:
                continue  # its append tells
            self._doubtful.discard(run_id)
            if live is not None and not live.lost and not worker.claims.take(run_id):
                live.give_up()

    def take_running(self) -> None:
        """Have every run that is in the middle of something brought back, unless it is here."""
        worker = self._worker
        self._sweep, self._swept = False, monotonic()
        after = ""
        while page := worker.claims.running(after, PAGE, worker.blocked, worker.room):
            for run_id in page:
                live = worker.live.get(run_id)
                if live is not None and live.run.closed:
                    self._sweep = True  # repaired before we know that its end is stored: look again
                elif live is not None and live.idle and live.tail.version < worker.store.tail(run_id).version:
                    worker.evict(run_id)  # a zombie went on with it, and has left it
                worker.recovery.enqueue(run_id)
            after = page[-1]
        self._hear_ends(self._awaited())

    def _hear_ends(self, runs: Iterable[str]) -> None:
        """Tell who waits here for runs that have ended elsewhere; that takes no room."""
        worker = self._worker
        for run_id in worker.claims.ended([*runs]):
            worker.ends.tell(run_id, stored_end(worker.store, run_id))
            blocked.pass_on(worker, run_id)

    def _awaited(self) -> set[str]:
        """Runs that somebody here waits for, and that may end elsewhere."""
        found: set[str] = self._worker.ends.awaited() - self._worker.live.keys()
        return found

    def look_soon(self) -> None:
        """Look in this turn of the loop, once for all who ask: a place in a queue is free, or may be."""
        if self._soon is None and not self._worker.closing:
            self._soon = self._loop.call_soon(self._look_now)

    def _look_now(self) -> None:
        self._soon = None
        if self._worker.closing:
            return
        try:
            self.look()
        except StoreError:
            self.look_at = 0.0  # the next tick finds out, and says so

    def look(self) -> None:
        """Take what is due from the store, deliver mail to those who are here."""
        worker = self._worker
        now = worker.clock.now()
        limit = PAGE + len(worker.live) + worker.recovery.queued  # what is here fills no page
        skip = worker.blocked.keys() | worker.schedules.elsewhere
        due, newborn = worker.claims.due(now, limit, skip, worker.room), False
        for run_id in due:
            live = worker.live.get(run_id)
            if run_id.startswith(SCHEDULES):
                worker.schedules.take(run_id)
            elif live is None:
                worker.recovery.enqueue(run_id)
                if run_id in worker.blocked:
                    blocked.take_requests(worker, run_id)
            elif live.undurable and not live.run.activation:
                newborn = True  # its row does not say yet that it has begun: an empty inbox for each child
            elif not live.lost:
                worker.drain_inbox(live)
        for run_id in worker.claims.asked(worker.blocked):
            blocked.take_requests(worker, run_id)  # every worker may have left it out: whoever sees it, acts
        if worker.claims.shared:  # those that are on their way here, of which there may be many, are swept
            self._hear_ends(run for run in self._awaited() if not worker.recovery.holds(run))
        found = sum(run_id not in worker.blocked for run_id in due)
        more = newborn or found >= limit  # those that did not fit on the page are due, too
        self.starved = worker.room == 0
        soon = min(worker.claims.next_due(now) or float("inf"), worker.claims.again_at)
        self.look_at = 0.0 if more else soon
