"""The rows of schedules in the dispatch table: a worker finds what is due of them as it finds a run."""

from datetime import datetime

from .schedule_events import ScheduleEvent
from .types import Event
from .work import Work


class ScheduleFold:
    """Folds one schedule's events, in order, to its row: the last of them says all."""

    __slots__ = ("_last", "_stream")

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._last: ScheduleEvent | None = None

    def apply(self, event: Event) -> None:
        """Fold one more event of the schedule's stream."""
        if isinstance(event, ScheduleEvent):
            self._last = event

    def row(self) -> Work:
        """The row as it stands after the last event folded."""
        last = self._last
        if last is None or last.standing.deleted:
            return Work(self._stream, "", "", "done", status="deleted")
        standing = last.standing
        times: list[datetime] = []
        if not standing.paused:
            times += [at for at in (standing.buffered, standing.next_at) if at is not None]
        if standing.triggers or standing.backfills:
            times.append(last.at)
        due = min((at.timestamp() for at in times), default=None)
        return Work(self._stream, "", "", "waiting", due)


def schedule_work(stream: str, last: ScheduleEvent) -> Work:
    """The row after this event."""
    fold = ScheduleFold(stream)
    fold.apply(last)
    return fold.row()
