"""What reaches a handler from outside without a question: deadlines and events."""

from collections import deque
from typing import Any

from ..events import types as t


def timer_fired(run: Any, cause: t.TimerFired) -> None:
    """A deadline has passed."""
    timer = run.timers.pop(cause.timer, None)
    if timer is not None:
        run.loop.make_ready(timer.handle)


def received(run: Any, cause: t.SignalReceived) -> None:
    """The oldest wait for an event of this name takes it, or it is kept for the next one."""
    command = run.take_waiting(cause.name)
    if command is not None:
        command.future.set_result(cause)
    else:
        run.signals.setdefault(cause.name, deque()).append(cause)
