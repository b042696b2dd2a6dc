"""The log: group commit in front of a store.

Appends queue up; one committer stores all that wait in one transaction. On an idle system with quick
commits that happens inline on the host loop (a hop to a thread costs as much as a good part of a
commit, and under load one thread hopping for the GIL costs far more); when commits turn slow, as on a
network disk, one thread takes over so that the host loop is not held up. The choice is made from the
commits as they happen.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter

from .errors import AppendRefused, RefoldError, StoreError
from .store import Refusal, Store, Unit, read_rows

Done = Callable[[RefoldError | None], None]
"""Told once whether the unit is durable (None) or why it never will be."""

INLINE_LIMIT_S = 0.004
"""Mean commit time above which commits move to a thread."""
UNIT_S = 0.000_05
"""What a unit costs of a commit by itself, counted off: a batch of 200 is work, not a slow disk. Without
this 200 runs in flight moved commits to the thread, which cost a quarter of the throughput."""
LINGER_S = 0.02
"""How long an append that nobody waits for may wait for company."""
LINGER_UNITS = 256
"""… and how many of them at the most."""
MAX_BATCH = 1_000
"""Units in one transaction …"""
MAX_BYTES = 32 * 1024 * 1024
"""… and their bytes, but for a single larger one: a statement of a server takes less than 1 GiB."""
MAX_QUEUE = 10_000
"""Units that may wait; then `room()` holds back whoever produces more."""
LOOK_BACK = 10_000
"""How many last messages of an inbox are looked through for one of unknown outcome; others post, too."""
RETRY_S = (0.05, 2.0)
"""First and longest pause between tries when the store cannot be written."""

_log = logging.getLogger("refold.log")


class _Pending:
    __slots__ = ("done", "doubt", "retry", "unit")

    def __init__(self, unit: Unit, done: Done, retry: bool) -> None:
        self.unit, self.done, self.retry = unit, done, retry
        self.doubt: StoreError | None = None
        """Why it is tried again, though it may be stored."""


class Log:
    """Queue and committer of one process. Used from the thread of its event loop only."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.commits = 0
        """Transactions so far."""
        self.failure: StoreError | None = None
        """Why the store cannot be written at the moment; None while all is well."""
        self._loop = asyncio.get_running_loop()
        self._queue: deque[_Pending] = deque()
        self._timer: asyncio.Handle | None = None
        self._urgent = False
        self._busy = False
        self._mean_s = 0.0
        self._pause_s = RETRY_S[0]
        self._thread: ThreadPoolExecutor | None = None
        self._idle: list[asyncio.Future[None]] = []
        self._room: list[asyncio.Future[None]] = []
        self._closed = False

    # ---- producers

    def append(self, unit: Unit, done: Done, *, urgent: bool = True, retry: bool = True) -> None:
        """Queue a unit; `done` is called on the loop when its fate is known, in the order of the queue.

        `urgent`: somebody waits for it; otherwise it may linger for company. `retry`: keep trying
        while the store cannot be written (an owner's own history must not be lost); otherwise
        `done` gets the `StoreError` and nothing of the unit is stored.
        """
        self._queue.append(_Pending(unit, done, retry))
        if self._busy or self._urgent:
            return
        if urgent or len(self._queue) >= LINGER_UNITS:
            self._urgent = True
            self._schedule(0.0)
        elif self._timer is None:
            self._schedule(LINGER_S)

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def full(self) -> bool:
        """Whether producers should wait for `room()`."""
        return len(self._queue) >= MAX_QUEUE

    async def room(self) -> None:
        """Wait until the queue has room."""
        while self.full:
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._room.append(waiter)
            await waiter

    async def flush(self) -> None:
        """Wait until everything queued by now is durable or refused. Raises the store's failure."""
        while self._queue or self._busy:
            if self.failure is not None:
                raise self.failure
            self._urgent = True
            self._schedule(0.0)
            waiter: asyncio.Future[None] = self._loop.create_future()
            self._idle.append(waiter)
            await waiter

    async def close(self) -> None:
        """Flush, then stop. What the store does not take is reported to its `done`, never dropped."""
        try:
            await self.flush()
        finally:
            self._closed = True
            if self._timer is not None:
                self._timer.cancel()
            error = self.failure or StoreError("the log was closed before this was stored; do it again")
            while self._queue:
                self._tell(self._queue.popleft().done, error)
            if self._thread is not None:
                self._thread.shutdown(wait=False)

    # ---- the committer

    def _schedule(self, delay: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if delay:
            self._timer = self._loop.call_later(delay, self._pump)
        else:
            self._timer = self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._timer = None
        if self._busy or self._closed or not self._queue:
            self._urgent = False  # else the next append believes that a commit is coming
            return
        batch = self._next_batch()
        self._urgent = False
        self._busy = True
        units = [pending.unit for pending in batch]
        if self._mean_s > INLINE_LIMIT_S:
            if self._thread is None:
                self._thread = ThreadPoolExecutor(1, thread_name_prefix="refold-log")
            future = self._loop.run_in_executor(self._thread, self._commit, units)
            future.add_done_callback(lambda done: self._settle(batch, done.result()))
            return
        try:
            outcome = self._commit(units)
        except BaseException:  # a person's Ctrl-C in the middle of it: look up what was stored, then go on
            cut = StoreError("the commit was interrupted; look whether it was stored before you do it again")
            self._loop.call_soon(self._settle, batch, (cut, 0.0))
            raise
        self._settle(batch, outcome)

    def _next_batch(self) -> list[_Pending]:
        """As many as may go together; never fewer than one."""
        batch, size = [self._queue.popleft()], 0
        while self._queue and len(batch) < MAX_BATCH and (size := size + batch[-1].unit.size) < MAX_BYTES:
            batch.append(self._queue.popleft())
        return batch

    def _commit(self, units: list[Unit]) -> tuple[list[Refusal | None] | StoreError, float]:
        began = perf_counter()
        try:
            return self.store.commit(units), perf_counter() - began
        except StoreError as error:
            return error, perf_counter() - began
        except Exception as error:  # a store of somebody's own that raises what it should not
            return _astray(error), perf_counter() - began

    def _settle(
        self, batch: list[_Pending], outcome: tuple[list[Refusal | None] | StoreError, float]
    ) -> None:
        result, seconds = outcome
        self._busy = False
        if isinstance(result, StoreError):
            self._mean_s = max(self._mean_s, seconds * 0.1)  # a server that was silent may be so again
            self._after_failure(batch, result)
        else:
            self.commits += 1
            self._mean_s += (max(seconds - len(batch) * UNIT_S, 0.0) - self._mean_s) * 0.1
            self.failure, self._pause_s = None, RETRY_S[0]
            unclear = [p for p, refusal in zip(batch, result, strict=True) if not self._answered(p, refusal)]
            if unclear and (doubt := unclear[0].doubt) is not None:
                self._look_later(unclear, doubt)
        self._wake()

    def _answered(self, pending: _Pending, refusal: Refusal | None) -> bool:
        """Tell it, if it is clear: a first try that was still under way when we looked refuses the second."""
        ours = refusal is not None and pending.doubt is not None and self._stored(pending.unit, {})
        if ours is None and not self._closed:
            return False
        self._tell(pending.done, None if ours else _refused(refusal))
        return True

    def _look_later(self, batch: list[_Pending], error: StoreError) -> None:
        """Nobody can say yet what was stored of it."""
        self._busy = True
        self._loop.call_later(self._pause_s, self._settle, batch, (error, 0.0))
        self._pause_s = min(self._pause_s * 2, RETRY_S[1])

    def _after_failure(self, batch: list[_Pending], error: StoreError) -> None:
        """Find out what of the batch was stored all the same; keep or refuse the rest."""
        if self.failure is None:
            _log.error("the log cannot be written, appends wait: %s", error)
        self.failure = error
        inboxes: dict[str, set[bytes]] = {}
        fates = [self._stored(pending.unit, inboxes) for pending in batch]
        if None in fates and not self._closed:
            # Appended again now, what was stored would be refused, and delivered twice: look again first.
            self._look_later(batch, error)
            return
        keep: list[_Pending] = []
        for pending, stored in zip(batch, fates, strict=True):
            if stored:
                self._tell(pending.done, None)
            elif pending.retry and stored is not None:
                pending.doubt = error
                keep.append(pending)
            else:
                self._tell(pending.done, error)
        self._queue.extendleft(reversed(keep))
        if self._queue and not self._closed:
            self._urgent = True
            self._schedule(self._pause_s)
            self._pause_s = min(self._pause_s * 2, RETRY_S[1])

    def _stored(self, unit: Unit, inboxes: dict[str, set[bytes]]) -> bool | None:
        """Whether a unit of unknown outcome is in the store; None when that cannot be told yet.

        Rows are compared by hash, which covers the event's unique id: never by version alone, or a
        stranger's row would pass for ours. A message has no version of ours; its bytes hold its id.
        """
        try:
            for append in unit.appends:
                found = read_rows(self.store, append.stream, append.expected, 1)
                return bool(found) and found[0].hash == append.rows[0].hash
            for post in unit.posts:
                stream = post.stream
                if stream not in inboxes:
                    after = max(self.store.tail(stream).version - LOOK_BACK, 0)
                    inboxes[stream] = {row.state for row in read_rows(self.store, stream, after)}
                return post.state in inboxes[stream]
            for digest, _ in unit.blobs:
                return self.store.blobs(digest[:-1], 1) == [digest]
        except StoreError:
            return None
        return True

    def _tell(self, done: Done, error: RefoldError | None) -> None:
        try:
            done(error)
        except Exception as fault:  # one run's trouble must not keep the others from being told
            self._loop.call_exception_handler({"message": "refold: after a commit", "exception": fault})

    def _wake(self) -> None:
        if self._queue and not self._busy and self._timer is None and not self._closed:
            self._urgent = True
            self._schedule(0.0)
        if self._room and not self.full:
            _release(self._room)
        if self._idle and (self.failure is not None or not (self._queue or self._busy)):
            _release(self._idle)


def _astray(error: Exception) -> StoreError:
    return StoreError(
        f"the store raised {type(error).__name__}: {error}; expected StoreError for what it cannot: mend it"
    )


def _refused(refusal: Refusal | None) -> AppendRefused | None:
    return AppendRefused(refusal.stream, refusal.expected, refusal.found) if refusal else None


def _release(waiters: list[asyncio.Future[None]]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
    waiters.clear()
