"""Worker threads for `def` steps: daemons, because a body that never returns must not hold up the exit.

`concurrent.futures` joins its threads when the interpreter ends, anyio's are not daemons either.
"""

import asyncio
import contextvars
import queue
import threading
from collections.abc import Callable
from typing import Any

Job = tuple[Callable[[], Any], asyncio.Future[Any], asyncio.AbstractEventLoop]


class Threads:
    """Up to `limit` daemon threads, made when needed, reused, and told to end by `close`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._count = self._idle = 0

    def run(self, function: Callable[[], Any]) -> asyncio.Future[Any]:
        """Call it in a thread, in a copy of the current context; the future is abandoned when cancelled."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        context = contextvars.copy_context()
        with self._lock:
            if self._idle:
                self._idle -= 1
            elif self._count < self._limit:
                self._count += 1
                threading.Thread(target=self._work, name=f"refold-step-{self._count}", daemon=True).start()
        self._jobs.put((lambda: context.run(function), future, loop))
        return future

    def lost(self) -> None:
        """A body was abandoned in its thread: allow one more thread in its place."""
        with self._lock:
            self._limit += 1

    def close(self) -> None:
        """Let idle threads end; busy ones end after their job."""
        with self._lock:
            for _ in range(self._count):
                self._jobs.put(None)

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            function, future, loop = job
            outcome: Any = None
            error: BaseException | None = None
            try:
                outcome = function()
            except BaseException as raised:  # handed over to whoever awaits the future
                error = raised
            with self._lock:
                self._idle += 1
            try:
                loop.call_soon_threadsafe(_settle, future, outcome, error)
            except RuntimeError:  # the loop is closed: nobody waits any more
                return


def _settle(future: asyncio.Future[Any], outcome: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(outcome)
    elif isinstance(error, StopIteration | KeyboardInterrupt):
        # A future refuses the one; the other ends the program, but Ctrl-C never strikes in a thread.
        future.set_exception(RuntimeError(f"the step raised {error!r}"))
    else:
        future.set_exception(error)
