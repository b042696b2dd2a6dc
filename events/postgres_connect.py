"""Connections to a server that may be silent or away: how long is waited for it, and by whom."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from time import monotonic
from typing import Any, NoReturn

import psycopg
from psycopg import Connection
from psycopg.abc import RV, PQGen

FIRST_S = 1.0
"""How long an event loop may stand still for the first attempt: a cut is mended in less."""
PAUSE_S = (0.1, 2.0)
"""First and longest pause between attempts."""


class Silent(psycopg.OperationalError):
    """The server has not said a word for too long; the connection was given up."""


class Patient(Connection[Any]):
    """A connection that waits for an answer only so long: without it a server that freezes freezes us."""

    patience_s: float | None = None
    """How long the server may be silent; None: for ever. What is on its way does not count as silence."""
    silent = False
    """Whether it was given up for that."""
    seat: tuple[str, int, int] = ("", 0, 0)
    """Host, port and process at the other end."""
    era = 0
    """How many connections had been lost when it was made."""

    def wait(self, gen: PQGen[RV], *args: Any, **options: Any) -> RV:
        if self.patience_s is None:
            return super().wait(gen, *args, **options)
        try:
            return super().wait(_no_longer(gen, self.patience_s), *args, **options)
        except Silent:
            self.give_up()

    def give_up(self) -> NoReturn:
        """Raises `Silent`. Nothing is cancelled: that would let a commit pass that no standby has."""
        self.silent = True
        self.pgconn.finish()
        raise Silent(f"the server has not answered for {self.patience_s:g} s")


@contextmanager
def unhurried(connection: Patient, times: float | None = None) -> Iterator[None]:
    """While it does what takes long: the server may be silent so many times as long, None: for ever."""
    before = connection.patience_s
    connection.patience_s = None if before is None or times is None else before * times
    try:
        yield
    finally:
        connection.patience_s = before


def _no_longer(gen: PQGen[RV], patience_s: float) -> PQGen[RV]:
    until = monotonic() + patience_s
    try:
        wanted = next(gen)
        while True:
            ready = yield wanted  # 0 when nothing has happened for a tenth of a second
            if ready:
                until = monotonic() + patience_s
            elif monotonic() > until:
                raise Silent
            wanted = gen.send(ready)
    except StopIteration as end:
        answer: RV = end.value
        return answer


class Dial:
    """Makes connections, also while the server is away.

    Who runs an event loop must not stand still for that: another thread dials, and until it has got
    through, everybody is told at once why there is no connection. Attempts are further and further apart.
    """

    def __init__(self, make: Callable[[], Patient]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._attempt: Future[Patient] | None = None
        self._error: Exception | None = None
        """Why the last attempt failed; None: it did not."""
        self._not_before, self._pause_s = 0.0, PAUSE_S[0]

    def connect(self) -> Patient:
        """A new connection. Raises what `make` raises, and `psycopg.OperationalError` while it is at it."""
        if not on_a_loop():
            return self._make()
        while True:
            attempt, error = self._begun()
            if attempt is None:
                raise psycopg.OperationalError(str(error)) from error
            try:
                made: Patient | Exception = attempt.result(FIRST_S if error is None else 0.0)
            except TimeoutError:
                self._error = error or psycopg.OperationalError("the server takes its time to answer")
                raise psycopg.OperationalError(str(self._error)) from None
            except Exception as failure:  # of whatever kind: it is raised below
                made = failure
            if self._ended(attempt, made):
                if isinstance(made, Exception):
                    raise made
                return made

    def _begun(self) -> tuple["Future[Patient] | None", Exception | None]:
        with self._lock:
            if self._attempt is None and (self._error is None or monotonic() >= self._not_before):
                self._attempt = Future()
                threading.Thread(target=self._try, args=(self._attempt,), daemon=True).start()
            return self._attempt, self._error

    def _ended(self, attempt: "Future[Patient]", made: "Patient | Exception") -> bool:
        """Whether its outcome is ours to use: another thread may have had it."""
        with self._lock:
            if self._attempt is not attempt:
                return False
            self._attempt = None
            if isinstance(made, Exception):
                self._error, self._not_before = made, monotonic() + self._pause_s
                self._pause_s = min(self._pause_s * 2, PAUSE_S[1])
            else:
                self._error, self._pause_s = None, PAUSE_S[0]
            return True

    def _try(self, attempt: "Future[Patient]") -> None:
        try:
            attempt.set_result(self._make())
        except BaseException as error:  # told to whoever asked for the connection
            attempt.set_exception(error)

    def close(self) -> None:
        """What is still being dialled is hung up."""
        with self._lock:
            attempt, self._attempt = self._attempt, None
        if attempt is not None:
            attempt.add_done_callback(_hang_up)


def _hang_up(attempt: "Future[Patient]") -> None:
    if attempt.exception() is None:
        attempt.result().close()


def on_a_loop() -> bool:
    """Whether this thread runs an event loop, which should not stand still."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
