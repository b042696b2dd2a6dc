"""Reading a log one batch ahead: a server finds the next events while these are folded."""

from concurrent.futures import Future, ThreadPoolExecutor

from ..events.stream import Row as Entry
from .runner import Log


class Ahead:
    """A log that is read from its beginning to its end, once. `close` it."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="refold-ahead")
        self._next: tuple[int, Future[list[Entry]]] | None = None

    def scan(self, after: int = 0, limit: int = 1000) -> list[Entry]:
        """Rows with position > `after`, which may be more or less than `limit` of them."""
        (place, found), self._next = self._next or (-1, None), None
        entries = found.result() if found is not None and place == after else self._log.scan(after, limit)
        if len(entries) >= limit:
            last = entries[-1].position
            self._next = last, self._thread.submit(self._log.scan, last, limit)
        return entries

    def position(self) -> int:
        """Position of the last row."""
        return self._log.position()

    def close(self) -> None:
        """After what is being read."""
        self._thread.shutdown()
