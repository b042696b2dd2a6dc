"""The times of a schedule: of a cron expression in a time zone, of an interval, or one moment."""

from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import Any, Protocol

from ..events.errors import ConfigurationError
from ..events.schedule_events import Timing
from .names import is_number
from .step import LONGEST_S

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LEAST_S = 0.1
"""Of an interval."""
TICK = timedelta(microseconds=1)
COUNTED = 1_000
"""Times of a cron expression that are counted, when many were missed; 30 µs each."""
BEFORE = timedelta(hours=3)
"""So long before a moment cronsim begins to look for the next time: it keeps the two rules about changed
clocks (what falls into the gap comes right after it, what comes twice is done once) by what it has passed."""


class Times(Protocol):
    """An unending, or ending, row of moments, always the same."""

    def after(self, moment: datetime) -> datetime | None:
        """The first later than this; None: there is none."""
        ...

    def latest(self, first: datetime, until: datetime) -> datetime:
        """The last up to `until`, which is not before `first`, which is one."""
        ...

    def count(self, first: datetime, last: datetime, limit: int = COUNTED) -> tuple[int, bool]:
        """How many from one to another, both ends included; and whether there are more than the limit."""
        ...


class Once:
    """One moment."""

    def __init__(self, at: datetime) -> None:
        self._at = at

    def after(self, moment: datetime) -> datetime | None:
        return self._at if self._at > moment else None

    def latest(self, first: datetime, until: datetime) -> datetime:
        return first

    def count(self, first: datetime, last: datetime, limit: int = COUNTED) -> tuple[int, bool]:
        return 1, False


class Interval:
    """Every so many seconds, counted from an anchor."""

    def __init__(self, every_s: float, anchor: datetime) -> None:
        self._every, self._anchor = timedelta(seconds=every_s), anchor

    def after(self, moment: datetime) -> datetime | None:
        try:
            return self._anchor + self._every * ((moment - self._anchor) // self._every + 1)
        except OverflowError:  # the year 10,000
            return None

    def latest(self, first: datetime, until: datetime) -> datetime:
        return self._anchor + self._every * ((until - self._anchor) // self._every)

    def count(self, first: datetime, last: datetime, limit: int = COUNTED) -> tuple[int, bool]:
        return (last - first) // self._every + 1, False


class Cron:
    """A cron expression in a time zone."""

    def __init__(self, expression: str, timezone: str) -> None:
        self._expression, self._zone = expression, zone_of(timezone)
        self._cronsim = _cronsim()
        try:
            if len(expression.split()) == 6:  # with seconds, and other rules about changed clocks
                raise self._cronsim.CronSimError("Wrong number of fields")
            self._cronsim.CronSim(expression, EPOCH)
        except self._cronsim.CronSimError as error:
            raise ConfigurationError(
                f"cron={expression!r:.80}: {error}; expected five fields (minute hour day month weekday), "
                "as in '30 9 * * MON-FRI'"
            ) from None

    def _from(self, moment: datetime) -> Iterator[datetime]:
        """Its times later than this, each once, in order."""
        last, start = moment, moment.astimezone(self._zone)
        times = self._cronsim.CronSim(self._expression, start)
        if times.fixup_tz is not None:
            times = self._cronsim.CronSim(self._expression, (moment - BEFORE).astimezone(self._zone))
        with suppress(OverflowError):  # the year 10,000
            for at in times:
                found = at.astimezone(UTC)
                if found > last:
                    last = found
                    yield found

    def after(self, moment: datetime) -> datetime | None:
        return next(self._from(moment), None)

    def latest(self, first: datetime, until: datetime) -> datetime:
        span, found = timedelta(minutes=2), first
        while until - span > first:
            begun = self.after(until - span)
            if begun is not None and begun <= until:
                found = begun
                break
            span *= 4
        for at in self._from(found):
            if at > until:
                break
            found = at
        return found

    def count(self, first: datetime, last: datetime, limit: int = COUNTED) -> tuple[int, bool]:
        number = 1
        for at in self._from(first):
            if at > last or number == limit:
                return number, at <= last
            number += 1
        return number, False


def _cronsim() -> Any:
    """The library, when it is there: only who uses cron expressions needs it."""
    try:
        import cronsim
    except ImportError:
        raise ConfigurationError(
            "cron=… needs the library cronsim: pip install 'refold[schedules]' (every=… and at=… need none)"
        ) from None
    return cronsim


def zone_of(name: Any) -> tzinfo:
    """The time zone of this name. Raises `ConfigurationError`."""
    from zoneinfo import ZoneInfo

    try:
        return UTC if name == "UTC" else ZoneInfo(name)  # cronsim has less to do without changes of clocks
    except (KeyError, ValueError, OSError, TypeError, AttributeError) as error:
        raise ConfigurationError(
            f"timezone={name!r:.80}: no such time zone here ({type(error).__name__}); expected a name "
            "such as 'Europe/Madrid'; pip install tzdata where the system has no time zones"
        ) from None


def timing(
    cron: str | None, timezone: str, every: float | None, anchor: datetime | None, at: datetime | None
) -> Timing:
    """The options of a schedule that say when, checked. Raises `ConfigurationError`."""
    if sum(value is not None for value in (cron, every, at)) != 1:
        raise ConfigurationError(
            f"a schedule needs one of cron=…, every=… and at=…; got cron={cron!r:.80}, every={every!r:.80}, "
            f"at={at!r:.80}"
        )
    for moment, what in ((anchor, "anchor"), (at, "at")):
        given: Any = moment
        if given is not None and (not isinstance(given, datetime) or given.tzinfo is None):
            raise ConfigurationError(
                f"{what}={given!r:.80}: expected a datetime with a time zone, as datetime.now(UTC) has"
            )
    if every is not None:
        if not is_number(every) or not LEAST_S <= every < LONGEST_S:
            raise ConfigurationError(f"every={every!r:.80}: expected seconds, {LEAST_S} or more")
        start = None if anchor is None else anchor.astimezone(UTC)
        return Timing(every_s=float(every), anchor=start)
    if anchor is not None:
        raise ConfigurationError("anchor=… is where an interval is counted from: give every=…, too")
    if at is not None:
        return Timing(once=at.astimezone(UTC))
    if not isinstance(cron, str):
        raise ConfigurationError(f"cron={cron!r:.80}: expected text, as in '30 9 * * MON-FRI'")
    found = Timing(cron=" ".join(cron.split()), timezone=timezone)
    if times_of(found).after(EPOCH) is None:
        raise ConfigurationError(f"cron={cron!r:.80}: no such day ever comes; mend the expression")
    return found


@lru_cache(1_000)
def times_of(when: Timing) -> Times:
    """Its times. Raises `ConfigurationError` where the library or the time zone is missing."""
    if when.once is not None:
        return Once(when.once)
    if when.every_s:
        return Interval(when.every_s, when.anchor or EPOCH)
    return Cron(when.cron, when.timezone)
