"""The one source of time, chance and ids. Nothing else imports `time`, `random` or `uuid` for them."""

import hashlib
import itertools
import os
import random
import secrets
import socket
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Protocol


class Clock(Protocol):
    """What Refold asks of a clock; give `Engine` another one in tests.

    One that also has `call_later(delay, callback, *args)`, as an event loop has it, rings the engine's alarms
    itself: then a durable timer fires when this clock says so, and the host loop is not asked. One that has
    `chance()`, a number in [0, 1), decides the jitter of retries; `seed()`, 63 bits, those of new runs.
    """

    def now(self) -> float:
        """Seconds since 1970-01-01 UTC. May jump; the engine never lets log time go back."""
        ...


class Alarm(Protocol):
    """A call that is to come."""

    def cancel(self) -> None:
        """Forget it."""


CallLater = Callable[..., Alarm]
"""`(seconds, callback, *args)`."""


def own_timers(clock: Clock) -> CallLater | None:
    """How the clock rings alarms by itself; None: it leaves that to the host loop."""
    found: Any = getattr(clock, "call_later", None)
    return found  # type: ignore[no-any-return]


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        return time.time()


def to_datetime(seconds: float) -> datetime:
    """Epoch seconds as an aware UTC datetime, rounded to whole microseconds."""
    return datetime.fromtimestamp(seconds, UTC)


def moment(at: datetime | str | None) -> datetime | None:
    """A stored time as a datetime in UTC."""
    if at is None:
        return None
    found = at if isinstance(at, datetime) else datetime.fromisoformat(at)
    return found.astimezone(UTC)


def new_run_id() -> str:
    """A UUIDv7 (RFC 9562): sorts by the time it was made."""
    milliseconds = time.time_ns() // 1_000_000
    value = (milliseconds & (2**48 - 1)) << 80 | 7 << 76
    value |= secrets.randbits(12) << 64 | 0b10 << 62 | secrets.randbits(62)
    return str(uuid.UUID(int=value))


def new_owner() -> str:
    """A name for this process as an executor: host, process id, and chance."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


def new_jitter(clock: Clock) -> float:
    """Chance in [0, 1), for pauses that should not all end at once; the clock's own if it has one."""
    chance: Callable[[], float] = getattr(clock, "chance", random.random)
    return chance()


def new_trace_id() -> str:
    """A W3C trace id: 32 lower-case hex digits."""
    return secrets.token_hex(16)


def step_trace_id(run_id: str, key: str) -> str:
    """UUIDv5 of run and step key: the same on every replay and in every process."""
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"refold:{run_id}/{key}"))


def new_seed(clock: Clock | None = None) -> int:
    """63 random bits for `run.started`, from which a run's own randomness follows; the clock's if it has."""
    seed: Callable[[], int] | None = getattr(clock, "seed", None)
    return secrets.randbits(63) if seed is None else seed()


def seed_below(seed: int, run_id: str) -> int:
    """The seed of a run that one with this seed starts: the same whenever it starts it, so for every test."""
    return int.from_bytes(hashlib.sha256(f"{seed} {run_id}".encode()).digest()[:8]) >> 1


class EventIds:
    """Ids unique over processes and restarts, at a tenth of the price of a UUID each.

    64 random bits once per process (drawn anew after a fork) and a counter.
    """

    def __init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._prefix = secrets.token_hex(8)
        self._count = itertools.count(1)

    def __call__(self) -> str:
        return f"{self._prefix}-{next(self._count):x}"


new_event_id = EventIds()
os.register_at_fork(after_in_child=new_event_id._reset)
