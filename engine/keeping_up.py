"""How the read models keep up with the log: in slices on the host loop, or in a thread beside it.

A file is folded on the loop: sqlite3 gives the GIL away at every row and gets it back up to 5 ms later
while the loop is busy, which made a thread slower and the loop no faster. Tables on a server are folded
in a thread, which mostly waits for the server, and by one of all the processes that execute the log.
"""

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from time import monotonic, perf_counter
from typing import Any

from ..events.errors import StoreError
from ..projections.runner import Runner

FOLLOW_S = 0.05
"""How long new events may wait for company: one write of many rows costs little more than one of a few."""
SLICE_S = 0.004
"""How long a slice may hold up the host loop."""
IDLE_S = 0.2
"""The same while nothing happens; `wait` does not wait for it."""
RETRY_S = 1.0
BATCH = 250
"""Events per transaction in a thread: after 5 ms the server works, and the host loop gets the GIL."""
STAND_BY_S = 1.0
"""How often to look whether the process that folds gets on; when it does not, another one goes on."""
QUIET_S = 10.0
"""How often to ask a server, though nobody has told of anything."""

_log = logging.getLogger("refold.projections")


class OnLoop:
    """Follows a log whose read models are this process's own business."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._batch = 128
        self._failing = False
        """Whether that has been told; it is told once, and again after it has worked meanwhile."""
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Follow, on the running loop, until `close`."""
        self._timer = asyncio.get_running_loop().call_later(FOLLOW_S, self.look)

    def look(self) -> None:
        """Fold a slice of what is new, if anything is."""
        pause = FOLLOW_S
        began = perf_counter()
        try:
            folded = self._runner.catch_up(self._batch)
            pause = 0.0 if folded >= self._batch else FOLLOW_S if folded else IDLE_S
        except StoreError as error:
            if not self._failing:
                _tell(error)
            self._failing, pause = True, RETRY_S
        else:
            self._failing = False
        if pause == 0.0:
            spent = perf_counter() - began
            self._batch = max(128, min(2_000, int(self._batch * SLICE_S / max(spent, 1e-6))))
        self._timer = asyncio.get_running_loop().call_later(pause, self.look)

    async def reach(self, position: int) -> None:
        """Fold up to this position of the log."""
        while self._runner.position < position:
            self._runner.catch_up(self._batch)
            await asyncio.sleep(0)

    def catch_up(self) -> None:
        """Fold everything there is."""
        while self._runner.catch_up(2_000):
            pass

    def close(self) -> None:
        """Stop following."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class InThread:
    """Follows a log whose read models belong to many processes: one folds, the others look now and then.

    Who has just folded goes on with it. Who finds that another one has stands by, and steps in as soon as
    there is something to fold and the position has not moved between two looks.
    """

    def __init__(self, runner: Runner, stirred: Callable[[], int]) -> None:
        """`stirred` grows with everything that this process hears of the log, and asks nobody."""
        self._runner, self._stirred = runner, stirred
        self._heard = -1
        self._reached = -1
        self._seen: int | None = None
        """Where others were when we last looked; None: we have not yet."""
        self._turn = threading.Lock()
        self._failing = False
        self._looked = self._not_before = 0.0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="refold-read-models")
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def start(self) -> None:
        """Follow, on the running loop, until `close`."""
        self._timer = asyncio.get_running_loop().call_later(FOLLOW_S, self._tick)

    def _tick(self) -> None:
        """Look when there may be something, and never twice at once."""
        loop, now, stirred = asyncio.get_running_loop(), monotonic(), self._stirred()
        if now < self._not_before or (stirred == self._heard and now - self._looked < QUIET_S):
            self._timer = loop.call_later(FOLLOW_S, self._tick)
            return
        self._heard, self._looked = stirred, now
        self._timer = None
        looked = self._thread.submit(self._look)
        looked.add_done_callback(lambda _: self._back(loop, looked))

    def _back(self, loop: asyncio.AbstractEventLoop, looked: "Future[float]") -> None:
        if not self._closed:
            with suppress(RuntimeError):  # the loop has been closed meanwhile
                loop.call_soon_threadsafe(self._go_on, looked)

    def _go_on(self, looked: "Future[float]") -> None:
        if self._closed:
            return
        pause = RETRY_S
        try:
            wait = looked.result()
            self._not_before = monotonic() + wait
            if wait:
                self._heard = -1  # there is more
            self._failing, pause = False, FOLLOW_S
        except StoreError as error:
            if not self._failing:
                _tell(error)
            self._failing, self._heard = True, -1
        finally:
            self._timer = asyncio.get_running_loop().call_later(pause, self._tick)

    def _look(self) -> float:
        """In the thread: fold, or see that somebody else does. When to look again; 0: when there is more."""
        with self._turn:
            end = self._runner.log.position()
            if end <= self._reached:
                return 0.0
            if not self._runner.alone:
                position = self._runner.position
                if position >= end:
                    self._reached = end
                    return 0.0
                if self._seen is not None and position != self._seen:
                    self._seen = position
                    return STAND_BY_S
            while folded := self._runner.catch_up(BATCH, until=end):
                if not self._runner.alone:
                    break
            self._seen = self._runner.position
            if self._seen >= end:
                self._reached = end
                return 0.0
            return STAND_BY_S if not folded or not self._runner.alone else FOLLOW_S

    async def reach(self, position: int) -> None:
        """See to it that everything up to this position is folded."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._reach, position)

    def _reach(self, position: int) -> None:
        with self._turn:
            self._runner.reach(position)

    def catch_up(self) -> None:
        """Fold everything there is."""
        self._reach(self._runner.log.position())

    def close(self) -> None:
        """Stop following, after what is being folded."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._thread.shutdown()


def follower_of(runner: Runner, store: Any) -> OnLoop | InThread:
    """How the read models of this store keep up."""
    if not runner.views.shared:
        return OnLoop(runner)
    return InThread(runner, lambda: int(store.stirred))


def _tell(error: StoreError) -> None:
    _log.error("the read models cannot be written, the log goes on without them: %s", error)
