"""What a live run does when its time comes: durable timers, pauses before retries, the run's own deadline."""

from collections.abc import Sequence
from typing import Any

from ..events import types as t
from ..events.errors import StoreError

WHOLE_RUN = 0
"""Number of the alarm for the run's own deadline: no command has it."""


class Deadlines:
    """Of one live run; its alarms are hints, the log has the times."""

    __slots__ = ("_live",)

    def __init__(self, live: Any) -> None:
        self._live = live

    def arm_timer(self, number: int) -> None:
        """Wait on the host for a durable timer of the handler."""
        command = self._live.run.timers.get(number)
        if command is not None:
            self._live.alarms.arm(number, command.due_at.timestamp(), self._ring)

    def arm_whole(self) -> None:
        """Wait on the host for the run's own deadline."""
        if self._live.fold.deadline is not None:
            self._live.alarms.arm(WHOLE_RUN, self._live.fold.deadline, self._ring)

    def rearm(self) -> None:
        """The clock has jumped: wait anew for what the log says."""
        self.arm(self._live.alarms.numbers())

    def arm_all(self) -> None:
        """Wait for everything that the log says."""
        self.arm([*self._live.run.timers, *self._live.run.steps])

    def arm(self, numbers: Sequence[int]) -> None:
        """Earliest first: of those that are overdue the host then rings in this order."""
        for number in sorted(numbers, key=self._due):
            self.arm_timer(number)
            self._live.flight.arm_retry(number)
        self.arm_whole()

    def _due(self, number: int) -> float:
        live = self._live
        timer, pause = live.run.timers.get(number), live.flight.attempts.get(number)
        due = timer.due_at if timer is not None else pause.retry_at if pause is not None else None
        return due.timestamp() if due is not None else 0.0

    def _open(self) -> bool:
        live = self._live
        return not (live.lost or live.run.closed or live.fold.paused)  # `resume` sets alarms anew

    def _ring(self, number: int) -> None:
        live = self._live
        if not self._open():
            return
        try:
            # An acknowledged message never loses to a later deadline.
            if live.host.drain_inbox(live):
                live.alarms.arm(number, live.host.clock.now(), self._ring)
                return
        except StoreError:  # no deadline passes while nobody can see what came before it
            live.alarms.arm(number, live.host.clock.now() + 1.0, self._ring)
            return
        if not self._open():
            return
        if number == WHOLE_RUN:
            self._time_out()
        else:
            self._fire(number)

    def _fire(self, number: int) -> None:
        live = self._live
        command = live.run.timers.get(number)
        if command is not None:
            at = max(live.host.clock.now(), command.due_at.timestamp())
            live.deliver(t.TimerFired(timer=number, **live.head(at=at)))

    def _time_out(self) -> None:
        live = self._live
        if live.fold.deadline is not None:
            reason = f"the run took longer than {live.run.started.timeout_s:g} s"
            at = max(live.host.clock.now(), live.fold.deadline)
            live.deliver(t.RunCancelRequested(reason=reason, kind="Timeout", **live.head(at=at)))
