"""What a live run waits for on the host's clock: its durable timers and the pauses before retries."""

import asyncio
from collections.abc import Callable

from ..events.clock import Alarm, CallLater, Clock, own_timers

EARLY_S = 0.000_5
"""A host timer may fire this much before the wall clock says so: the two clocks differ."""


class Alarms:
    """Host timers by command number. They are hints; the deadline is in the log."""

    __slots__ = ("_call_later", "_clock", "_handles")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._call_later: CallLater = own_timers(clock) or asyncio.get_running_loop().call_later
        self._handles: dict[int, Alarm] = {}

    def arm(self, number: int, due: float, act: Callable[[int], None]) -> None:
        """Call `act(number)` at epoch second `due`; asks again when the clock went back meanwhile."""
        self.disarm(number)
        delay = max(0.0, due - self._clock.now())
        self._handles[number] = self._call_later(delay, self._ring, number, due, act)

    def _ring(self, number: int, due: float, act: Callable[[int], None]) -> None:
        if self._clock.now() + EARLY_S < due:
            self.arm(number, due, act)
            return
        self._handles.pop(number, None)
        act(number)

    def disarm(self, number: int) -> None:
        """Forget one; nothing happens when it is not set."""
        if (handle := self._handles.pop(number, None)) is not None:
            handle.cancel()

    def clear(self) -> None:
        """Forget all."""
        for handle in self._handles.values():
            handle.cancel()
        self._handles.clear()

    def numbers(self) -> list[int]:
        """Those that are set."""
        return list(self._handles)
