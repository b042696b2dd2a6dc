"""Virtual time: a clock that stands still until it is moved, and rings what is due on its way."""

import asyncio
import heapq
import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from ..events.clock import to_datetime
from ..events.errors import ConfigurationError

START = datetime(2026, 1, 1, tzinfo=UTC)
"""What a virtual clock shows first, unless it is told otherwise."""


class VirtualAlarm:
    """A call that is to come at a virtual time."""

    __slots__ = ("act", "args", "cancelled")

    def __init__(self, act: Callable[..., object], args: tuple[Any, ...]) -> None:
        self.act, self.args = act, args
        self.cancelled = False

    def cancel(self) -> None:
        """Forget it."""
        self.cancelled = True


class VirtualClock:
    """A `Clock` for tests; `TestEngine` moves it. Chance comes from `seed`: the same in every run of a test.

    Args:
        start: what it shows first, an aware datetime.
        seed: of the jitter of retries, and of the randomness of runs.
    """

    def __init__(self, start: datetime = START, *, seed: int = 0) -> None:
        if getattr(start, "tzinfo", None) is None:  # without a zone it would be another time elsewhere
            raise ConfigurationError(f"start={start!r:.80}: expected an aware datetime, with tzinfo=UTC")
        self._now = start.timestamp()
        self._alarms: list[tuple[float, int, VirtualAlarm]] = []
        self._count = 0
        self._random = random.Random(seed)
        self.sleepers: set[asyncio.Task[Any]] = set()
        """Tasks that wait in `sleep`."""

    def __repr__(self) -> str:
        return f"<virtual clock at {to_datetime(self._now).isoformat()}>"

    def now(self) -> float:
        """Seconds since 1970-01-01 UTC."""
        return self._now

    def chance(self) -> float:
        """A number in [0, 1)."""
        return self._random.random()

    def seed(self) -> int:
        """63 bits for a new run."""
        return self._random.getrandbits(63)

    def state(self) -> Any:
        """Of its chance, for `restore`."""
        return self._random.getstate()

    def restore(self, state: Any) -> None:
        """Have the chance again that there was."""
        self._random.setstate(state)

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any) -> VirtualAlarm:
        """Call it once so many virtual seconds have passed."""
        alarm = VirtualAlarm(callback, args)
        self._count += 1
        # To the microsecond, as the log has times: a sum may be a little less, and come before its time.
        heapq.heappush(self._alarms, (round(self._now + max(delay, 0.0), 6), self._count, alarm))
        return alarm

    async def sleep(self, seconds: float) -> None:
        """Wait until so many virtual seconds have passed."""
        task = asyncio.current_task()
        assert task is not None
        over = asyncio.get_running_loop().create_future()
        alarm = self.call_later(seconds, _wake, over)
        self.sleepers.add(task)
        try:
            await over
        finally:
            self.sleepers.discard(task)
            alarm.cancel()

    def next_alarm(self) -> float | None:
        """When the next one rings; None: never."""
        while self._alarms and self._alarms[0][2].cancelled:
            heapq.heappop(self._alarms)
        return self._alarms[0][0] if self._alarms else None

    def move_to(self, seconds: float) -> None:
        """Show this time, unless it is past already, and ring what is due, earliest first."""
        while (due := self.next_alarm()) is not None and due <= seconds:
            self._now = max(self._now, due)
            _, _, alarm = heapq.heappop(self._alarms)
            alarm.act(*alarm.args)
        self._now = max(self._now, seconds)


def _wake(over: "asyncio.Future[None]") -> None:
    if not over.done():
        over.set_result(None)
