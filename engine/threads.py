"""Worker threads for `def` steps: daemons, because a body that never returns must not hold up the exit.

`concurrent.futures` joins its threads when the interpreter ends, anyio's are not daemons either.
"""

import asyncio
import contextvars
import queue
import threading
from collections.abc import Callable
from typing import Any

Late = Callable[[Any, BaseException | None], None]
"""Told, on the loop, what a call came to that nobody waits for any more."""


class Job:
    """One call for a thread. `began` is decided once, under the pool's lock."""

    __slots__ = ("began", "function", "future", "given_up", "late", "loop")

    def __init__(self, function: Callable[[], Any], late: Late) -> None:
        context = contextvars.copy_context()
        self.function: Callable[[], Any] = lambda: context.run(function)
        self.late = late
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[Any] = self.loop.create_future()
        self.began = self.given_up = False

    def settle(self, outcome: Any, error: BaseException | None) -> None:
        """Hand the result to whoever awaits the future, or say that it came late."""
        if self.future.done():
            self.late(outcome, error)
        elif error is None:
            self.future.set_result(outcome)
        elif isinstance(error, StopIteration | KeyboardInterrupt):
            # A future refuses the one; the other ends the program, but Ctrl-C never strikes in a thread.
            self.future.set_exception(RuntimeError(f"the step raised {error!r}"))
        else:
            self.future.set_exception(error)


class Threads:
    """Up to `limit` daemon threads, made when needed, reused, and told to end by `close`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._count = self._spare = 0  # spare: threads that wait for a job, less the jobs that wait for one
        self._closed = False

    def run(self, function: Callable[[], Any], late: Late) -> Job:
        """Call it in a thread, in a copy of the current context."""
        job = Job(function, late)
        with self._lock:
            self._spare -= 1
            self._start_if_needed()
        self._jobs.put(job)
        return job

    def _start_if_needed(self) -> None:
        if self._spare >= 0 or self._count >= self._limit or self._closed:
            return
        self._count += 1
        self._spare += 1
        threading.Thread(target=self._work, name=f"refold-step-{self._count}", daemon=True).start()

    def give_up(self, job: Job) -> None:
        """Nobody waits for the job: it never begins; if it has begun, one more thread may take its place."""
        with self._lock:
            if not job.given_up and job.began and not job.future.done():
                self._limit += 1
                self._start_if_needed()
            job.given_up = True

    def begin_nothing(self) -> None:
        """What waits for a thread waits for ever: the place of what is given up now is nobody's."""
        with self._lock:
            self._closed = True

    def close(self) -> None:
        """Begin nothing more; threads end, busy ones after their job."""
        with self._lock:
            self._closed = True
            for _ in range(self._count):
                self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            with self._lock:
                job.began = not (job.given_up or self._closed)
                if not job.began:
                    self._spare += 1
                    continue
            outcome: Any = None
            error: BaseException | None = None
            try:
                outcome = job.function()
            except BaseException as raised:  # handed over to whoever awaits the future
                error = raised
            with self._lock:
                self._spare += 1
            try:
                job.loop.call_soon_threadsafe(job.settle, outcome, error)
            except RuntimeError:  # the loop is closed: nobody waits any more
                return
