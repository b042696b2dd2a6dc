"""Names the handler that blocks the host loop: a thread that looks, because the loop cannot."""

import logging
import sys
import threading
import traceback
from time import monotonic

_log = logging.getLogger("refold.watchdog")

LOOK_S = 0.5


class Watchdog:
    """Warns once per activation that takes longer than `limit_s`, with the line it is at."""

    def __init__(self, limit_s: float, thread_id: int) -> None:
        self._limit_s, self._thread_id = limit_s, thread_id
        self._current: tuple[str, float] | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="refold-watchdog", daemon=True)
        self._thread.start()

    def enter(self, run_id: str) -> None:
        """A handler is being activated."""
        self._current = (run_id, monotonic())

    def leave(self) -> None:
        """It is idle again."""
        self._current = None

    def close(self) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        warned: tuple[str, float] | None = None
        while not self._stop.wait(LOOK_S):
            current = self._current
            if current is None or current is warned or monotonic() - current[1] < self._limit_s:
                continue
            warned = current
            frame = sys._current_frames().get(self._thread_id)
            where = "".join(traceback.format_stack(frame)[-6:]) if frame is not None else "(unknown)\n"
            _log.warning(
                "run %s: its handler has been busy for more than %.1f s and holds up everything else; "
                "put slow or blocking work in a step. It is at\n%s",
                current[0], self._limit_s, where,
            )  # fmt: skip
