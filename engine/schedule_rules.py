"""What becomes of the times of a schedule: a function of how it stands, the hour, and what still runs."""

from collections.abc import Callable, Collection, Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from msgspec import Struct, structs

from ..events.schedule_events import Defined, Span, Standing
from .schedule_times import TICK, Times

PAGE = 100
"""Runs that one append starts at most; after it come the next."""
REMEMBERED = 20
"""Runs that are remembered of a schedule which never asks whether they have ended."""


class Fire(NamedTuple):
    """This time becomes a run."""

    nominal: datetime
    why: str


class Hold(NamedTuple):
    """This time waits for the run before to end; these are asked to stop."""

    nominal: datetime
    cancelled: tuple[str, ...]


class Skip(NamedTuple):
    """These times do not become runs."""

    first: datetime
    last: datetime
    number: int
    more: bool
    reason: str
    detail: str


Decision = Fire | Hold | Skip
Decided = list[tuple[Decision, Standing]]
"""In order, each with how the schedule stands after it."""


class Case(Struct, frozen=True):
    """What is to be decided about."""

    name: str
    plan: Defined
    times: Times
    standing: Standing
    now: datetime
    running: Collection[str] = ()
    """Of the runs it started: those that have not ended."""
    taken: Collection[str] = ()
    """Run ids that are not free."""
    refused: str = ""
    """Why no run can be started of it: its arguments no longer fit."""


def run_id_of(name: str, nominal: datetime) -> str:
    """The id of the run that this time of the schedule becomes: never two of them."""
    at = nominal.astimezone(UTC)
    fraction = f".{at.microsecond:06}" if at.microsecond else ""
    return f"{name}-{at:%Y%m%dT%H%M%S}{fraction}Z"


def decide(case: Case) -> Decided:
    """What becomes of everything that is due, or of the first page of it."""
    return _Decider(case).decide()


class _Decider:
    def __init__(self, case: Case) -> None:
        self.case, self.plan, self.now = case, case.plan, case.now
        self.running = list(case.running)
        self.standing = structs.replace(case.standing, running=tuple(self.running))
        self.made: Decided = []
        self.fired = 0

    def decide(self) -> Decided:
        if self.standing.deleted:
            return []
        buffered, paused = self.standing.buffered, self.standing.paused
        if buffered is not None and not paused and (not self.running or self.plan.overlap == "allow_all"):
            self._stand(buffered=None)
            self._fire(buffered, "buffered")
        for nominal in self.standing.triggers[:PAGE]:
            self._stand(triggers=self.standing.triggers[1:])
            self._fire(nominal, "trigger")
        self._make_up()
        if not paused:
            self._take_due()
        return self.made

    def _stand(self, **changes: object) -> None:
        self.standing = structs.replace(self.standing, **changes)

    # ---- asked for by hand

    def _make_up(self) -> None:
        while self.standing.backfills and self.fired < PAGE:
            span, *rest = self.standing.backfills
            following = self.case.times.after(span.first)
            more = following is not None and following <= span.last
            left = (Span(following, span.last),) if following is not None and more else ()
            self._stand(backfills=(*left, *rest))
            self._fire(span.first, "backfill")

    # ---- what has come

    def _take_due(self) -> None:
        first, times = self.standing.next_at, self.case.times
        if first is None or first > self.now:
            return
        window = timedelta(seconds=self.plan.window_s)
        if self.plan.catch_up == "all":
            fresh: datetime | None = first
            if self.now - first > window:
                last = times.latest(first, self.now - window - TICK)
                fresh = times.after(last)
                self._pass(first, last, fresh, "late")
            self._take_all(fresh)
            return
        last = times.latest(first, self.now)
        following = times.after(last)
        if self.now - last > window:
            self._pass(first, last, following, "late")
            return
        if last > first:
            self._pass(first, times.latest(first, last - TICK), last, "missed")
        self._consider(last, following)

    def _take_all(self, at: datetime | None) -> None:
        for _ in range(PAGE):
            if at is None or at > self.now or self.fired >= PAGE:
                return
            following = self.case.times.after(at)
            self._consider(at, following)
            at = following

    def _pass(self, first: datetime, last: datetime, following: datetime | None, reason: str) -> None:
        count, more = self.case.times.count(first, last)
        self._stand(next_at=following)
        self._skip(Skip(first, last, count, more, reason, ""))

    def _consider(self, at: datetime, following: datetime | None) -> None:
        """One time that has come, and is not too late."""
        self._stand(next_at=following)
        overlap, buffered = self.plan.overlap, self.standing.buffered
        if overlap == "allow_all" or not (self.running or buffered):
            self._fire(at, "time")
            return
        goes_on = ", ".join(self.running[:3])
        if overlap == "skip" or (overlap == "buffer_one" and buffered is not None):
            self._skip(Skip(at, at, 1, False, "overlap", goes_on))
            return
        cancelled: tuple[str, ...] = tuple(self.running) if overlap == "cancel_other" else ()
        if buffered is not None:
            cancelled = ()  # they have been asked already
            self._stand(buffered=None)
            self._skip(Skip(buffered, buffered, 1, False, "replaced", ""))
        self._stand(buffered=at)
        self.made.append((Hold(at, cancelled), self.standing))

    def _fire(self, at: datetime, why: str) -> None:
        run_id = run_id_of(self.case.name, at)
        if run_id in self.case.taken:
            self._skip(Skip(at, at, 1, False, "exists", ""))
            return
        if self.case.refused:
            self._skip(Skip(at, at, 1, False, "refused", self.case.refused))
            return
        self.fired += 1
        self._stand(fired=self.standing.fired + 1)
        if why != "backfill":  # those are of another day, and nobody's predecessors
            self.running.append(run_id)
            if self.plan.overlap == "allow_all":
                self.running = self.running[-REMEMBERED:]
            self._stand(running=tuple(self.running), last_at=at, last_run=run_id)
        self.made.append((Fire(at, why), self.standing))

    def _skip(self, skip: Skip) -> None:
        """One more of the same kind is told in the same breath."""
        self._stand(skipped=self.standing.skipped + skip.number)
        before = self.made[-1][0] if self.made else None
        if isinstance(before, Skip) and (before.reason, before.detail) == (skip.reason, skip.detail):
            together = Skip(
                before.first, skip.last, before.number + skip.number, before.more or skip.more, *skip[4:]
            )
            self.made[-1] = (together, self.standing)
            return
        self.made.append((skip, self.standing))


def resumed(standing: Standing, times: Times, now: datetime, note: str) -> tuple[Skip | None, Standing]:
    """What passed while it was paused, and how it stands when it is no more."""
    after = structs.replace(standing, paused=False, note=note)
    first = standing.next_at
    if first is None or first > now:
        return None, after
    last = times.latest(first, now)
    count, more = times.count(first, last)
    after = structs.replace(after, next_at=times.after(last), skipped=standing.skipped + count)
    return Skip(first, last, count, more, "paused", ""), after


def still_running(runs: Sequence[str], goes_on: Callable[[str], str]) -> tuple[str, ...]:
    """Those that have not ended, under the id they go on as; `goes_on` gives it, or nothing."""
    return tuple(dict.fromkeys(found for run in runs if (found := goes_on(run))))
