"""Which runs of a store began, went on and ended, read from the log as it grows: for `refold worker`."""

from time import monotonic
from typing import Any

from ..events import types as t
from ..events.store import Store
from ..events.stream import Row
from .text import seconds

PAGE = 1_000
QUIET_S = 10.0
"""How often to ask a server, though nobody has told of anything."""
_TOLD = {t.RunClaimed.TAG, t.StepInDoubt.TAG, *(kind.TAG for kind in t.ENDS)}

Item = tuple[str, str, dict[str, Any]]
"""What happened, in a word; what people read about it; what programs read."""


class News:
    """Reads what was committed since the last look, or since it was made."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._heard = self._looked = -1.0
        self._position = store.position()

    def due(self) -> bool:
        """Whether there may be something to read: always, unless the store hears of what others write."""
        heard, now = getattr(self._store, "stirred", None), monotonic()
        if heard == self._heard and now - self._looked < QUIET_S:
            return False
        if heard is not None:
            self._heard = heard
        self._looked = now
        return True

    def read(self) -> tuple[list[Item], bool]:
        """One item for each run that began, went on, ended, or waits for a person; whether to read on.

        A page at a time: an event takes 4 µs, and the handlers wait meanwhile.
        """
        rows = self._store.scan(self._position, PAGE)
        if rows:
            self._position = rows[-1].position
        return [self._item(row) for row in rows if row.tag in _TOLD], len(rows) == PAGE

    def _item(self, row: Row) -> Item:
        event: Any = row.event()
        work = self._store.work(row.stream)
        about: dict[str, Any] = {"run": row.stream, "workflow": work.workflow if work is not None else ""}
        if isinstance(event, t.RunClaimed):
            return ("began" if event.generation == 1 else "goes_on"), "", about
        if isinstance(event, t.StepInDoubt):
            text = (
                f"nobody knows what attempt {event.attempt} of step {event.step} did: refold why {row.stream}"
            )
            return "in_doubt", text, {**about, "step": event.step, "attempt": event.attempt}
        took = (event.at - self._store.read(row.stream, 0, 1)[0].event().at).total_seconds()
        text, more = f"in {seconds(took)}", {**about, "seconds": took}
        if (error := getattr(event, "error", None)) is not None:
            text += f": {error.type}: {error.message}"
            more["error"] = {"type": error.type, "message": error.message}
        elif reason := getattr(event, "reason", ""):
            text += f": {reason}"
            more["reason"] = reason
        return event.TAG.removeprefix("run."), text, more
