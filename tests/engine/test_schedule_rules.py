"""The times of schedules, and what becomes of them: against the clock on the wall, and a naive model."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from hypothesis import given, settings, strategies as st
from msgspec import Raw, structs

from refold.engine.schedule_rules import PAGE, Case, Decided, Fire, Hold, Skip, decide, resumed, run_id_of
from refold.engine.schedule_times import Cron, Interval, Times, times_of, timing
from refold.events.schedule_events import ScheduleCreated, Standing

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def times_between(times: Times, after: datetime, until: datetime) -> list[datetime]:
    found: list[datetime] = []
    at = times.after(after)
    while at is not None and at <= until:
        found.append(at)
        at = times.after(at)
    return found


def local(found: list[datetime], zone: str) -> list[str]:
    return [f"{at.astimezone(ZoneInfo(zone)):%d %H:%M %Z}" for at in found]


# ---- the clock on the wall


def test_what_falls_into_the_hour_that_is_left_out_comes_right_after_it() -> None:
    madrid = Cron("30 2 * * *", "Europe/Madrid")
    found = times_between(madrid, datetime(2026, 3, 28, tzinfo=UTC), datetime(2026, 3, 31, tzinfo=UTC))
    assert local(found, "Europe/Madrid") == ["28 02:30 CET", "29 03:00 CEST", "30 02:30 CEST"]


def test_what_falls_into_the_hour_that_comes_twice_is_done_once() -> None:
    madrid = Cron("30 2 * * *", "Europe/Madrid")
    found = times_between(madrid, datetime(2026, 10, 24, tzinfo=UTC), datetime(2026, 10, 27, tzinfo=UTC))
    assert local(found, "Europe/Madrid") == ["24 02:30 CEST", "25 02:30 CEST", "26 02:30 CET"]


def test_what_is_to_come_every_hour_comes_every_hour_when_clocks_change() -> None:
    hourly = Cron("15 * * * *", "Europe/Madrid")
    for day in (datetime(2026, 3, 29, tzinfo=UTC), datetime(2026, 10, 25, tzinfo=UTC)):
        found = times_between(hourly, day, day + timedelta(hours=6))
        assert found == [day + timedelta(hours=hour, minutes=15) for hour in range(6)]


def test_months_without_a_31st_are_left_out_and_the_last_day_can_be_asked_for() -> None:
    year = (datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 12, 31, 23, tzinfo=UTC))
    assert [at.month for at in times_between(Cron("0 0 31 * *", "UTC"), *year)] == [1, 3, 5, 7, 8, 10, 12]
    assert [at.day for at in times_between(Cron("0 0 L * *", "UTC"), *year)][:3] == [31, 28, 31]


def test_a_leap_day_comes_every_four_years() -> None:
    found = Cron("0 12 29 2 *", "UTC").after(datetime(2026, 1, 1, tzinfo=UTC))
    assert found == datetime(2028, 2, 29, 12, tzinfo=UTC)


_EXPRESSIONS = (
    "30 2 * * *", "0,15,30 2-3 * * *", "*/20 * * * *", "15 * * * *", "0 0 * * *", "45 1 * * SUN",
    "*/7 2 * * *", "30 */2 * * *", "0 1-4 * * *", "59 23 28 3 *",
)  # fmt: skip
_CHANGES = (
    ("Europe/Madrid", datetime(2026, 3, 29, 1, tzinfo=UTC)),
    ("Europe/Madrid", datetime(2026, 10, 25, 1, tzinfo=UTC)),
    ("America/New_York", datetime(2026, 3, 8, 7, tzinfo=UTC)),
    ("America/New_York", datetime(2026, 11, 1, 6, tzinfo=UTC)),
    ("Africa/Casablanca", datetime(2026, 2, 15, 2, tzinfo=UTC)),
    ("UTC", datetime(2026, 3, 29, 1, tzinfo=UTC)),
)


def _matches(expression: str, at: datetime) -> bool:
    """Whether the clock on the wall shows what these five fields say, of the forms used here."""
    shown = (at.minute, at.hour, at.day, at.month, at.isoweekday() % 7)
    return all(_in(field, value) for field, value in zip(expression.split(), shown, strict=True))


def _in(field: str, value: int) -> bool:
    field = field.replace("SUN", "0")
    if field.startswith("*"):
        return value % int(field[2:] or 1) == 0
    for part in field.split(","):
        first, _, last = part.partition("-")
        if int(first) <= value <= int(last or first):
            return True
    return False


def _by_hand(expression: str, zone: str, first: datetime, until: datetime) -> Iterator[datetime]:
    """Every minute of the span by the two rules of Debian's cron."""
    fixed = not any(field.startswith("*") for field in expression.split()[:2])
    at = first
    while at <= until:
        now, before = at.astimezone(ZoneInfo(zone)), (at - MINUTE).astimezone(ZoneInfo(zone))
        wanted = _matches(expression, now)
        if fixed:
            wanted = wanted and now.fold == 0
            shown = before.replace(tzinfo=None) + MINUTE
            while shown < now.replace(tzinfo=None):  # left out by the clock
                wanted = wanted or _matches(expression, shown)
                shown += MINUTE
        if wanted:
            yield at
        at += MINUTE


@settings(max_examples=40, deadline=None)
@given(
    expression=st.sampled_from(_EXPRESSIONS),
    change=st.sampled_from(_CHANGES),
    begin=st.integers(-300, 200),
    more=st.integers(1, 400),
)
def test_cron_says_what_counting_minutes_says(
    expression: str, change: tuple[str, datetime], begin: int, more: int
) -> None:
    zone, moment = change
    cron, first = Cron(expression, zone), moment + begin * MINUTE
    until = first + more * MINUTE
    expected = list(_by_hand(expression, zone, first + MINUTE, until))
    assert times_between(cron, first, until) == expected
    if expected:
        assert cron.latest(expected[0], until) == expected[-1]
        assert cron.count(expected[0], until) == (len(expected), False)
        assert cron.count(expected[0], until, 1) == (1, len(expected) > 1)


@given(
    every=st.integers(1, 100_000),
    anchor=st.integers(-(10**6), 10**6),
    first=st.integers(-(10**6), 10**6),
    more=st.integers(0, 10**6),
)
def test_an_interval_is_counted_from_its_anchor(every: int, anchor: int, first: int, more: int) -> None:
    times = times_of(timing(None, "UTC", every / 10 + 0.1, EPOCH + timedelta(seconds=anchor), None))
    step = timedelta(seconds=every / 10 + 0.1)
    begin = times.after(EPOCH + timedelta(seconds=first))
    assert begin is not None
    assert begin - step <= EPOCH + timedelta(seconds=first) < begin
    assert (begin - (EPOCH + timedelta(seconds=anchor))) % step == timedelta(0)
    until = begin + timedelta(seconds=more)
    last = times.latest(begin, until)
    assert last <= until < last + step
    assert times.count(begin, last) == ((last - begin) // step + 1, False)


def test_times_end_with_the_calendar() -> None:
    for times in (Cron("0 0 1 1 *", "Europe/Madrid"), Interval(3e9, EPOCH)):
        last = times.after(datetime(9990, 1, 1, tzinfo=UTC))
        while last is not None:
            last = times.after(last)


# ---- what becomes of them


class Model:
    """What should become of whole seconds, said once more and as simply as possible."""

    def __init__(self, catch_up: str, window: int, overlap: str) -> None:
        self.catch_up, self.window, self.overlap = catch_up, window, overlap
        self.next = 1
        self.held: int | None = None
        self.running: set[int] = set()
        self.fired: list[int] = []
        self.skipped: dict[int, str] = {}

    def look(self, now: int) -> None:
        if self.held is not None and (not self.running or self.overlap == "allow_all"):
            self.fire(self.held)
            self.held = None
        due, self.next = list(range(self.next, now + 1)), max(self.next, now + 1)
        fresh = [at for at in due if now - at <= self.window]
        if self.catch_up == "all":
            self.leave(due[: len(due) - len(fresh)], "late")
        elif not fresh:
            self.leave(due, "late")
        else:
            self.leave(due[:-1], "missed")
            fresh = fresh[-1:]
        for at in fresh:
            self.take(at)

    def take(self, at: int) -> None:
        if self.overlap == "allow_all" or (not self.running and self.held is None):
            self.fire(at)
        elif self.overlap == "skip" or (self.overlap == "buffer_one" and self.held is not None):
            self.leave([at], "overlap")
        else:
            if self.held is not None:
                self.leave([self.held], "replaced")
            self.held = at

    def fire(self, at: int) -> None:
        self.fired.append(at)
        self.running.add(at)

    def leave(self, times: list[int], reason: str) -> None:
        self.skipped.update(dict.fromkeys(times, reason))


def _seconds(at: datetime) -> int:
    return round((at - EPOCH).total_seconds())


@settings(max_examples=150, deadline=None)
@given(
    catch_up=st.sampled_from(["skip", "latest", "all"]),
    window=st.integers(1, 40),
    overlap=st.sampled_from(["skip", "buffer_one", "cancel_other", "allow_all"]),
    steps=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 2)), min_size=1, max_size=12),
)
def test_whatever_happens_every_time_is_fired_held_or_skipped_once_as_the_model_says(
    catch_up: str, window: int, overlap: str, steps: list[tuple[int, int]]
) -> None:
    model = Model(catch_up, window, overlap)
    standing = Standing(defined=1, next_at=EPOCH + timedelta(seconds=1))
    plan = ScheduleCreated(
        id="1", at=EPOCH, standing=standing, workflow="w", workflow_version="1", args=Raw(b"[]"),
        timing=timing(None, "UTC", 1.0, None, None), catch_up=catch_up, window_s=float(window),
        overlap=overlap,
    )  # fmt: skip
    fired: list[int] = []
    skipped: dict[int, str] = {}
    now = 0
    for more, ends in steps:
        now += more
        for run in sorted(model.running)[:ends]:
            model.running.discard(run)
        model.look(now)
        goes_on = [run_id_of("x", EPOCH + timedelta(seconds=run)) for run in fired if run in model.running]
        while decided := _decide(plan, standing, now, goes_on):
            for decision, after in decided:
                standing = after
                if isinstance(decision, Fire):
                    fired.append(_seconds(decision.nominal))
                    goes_on.append(run_id_of("x", decision.nominal))
                elif isinstance(decision, Skip):
                    span = range(_seconds(decision.first), _seconds(decision.last) + 1)
                    assert len(span) == decision.number
                    assert not skipped.keys() & set(span), "skipped twice"
                    skipped.update(dict.fromkeys(span, decision.reason))
        assert (fired, skipped) == (model.fired, model.skipped)
        assert standing.buffered == (model.held and EPOCH + timedelta(seconds=model.held))
        assert standing.next_at == EPOCH + timedelta(seconds=model.next)
        assert (standing.fired, standing.skipped) == (len(fired), len(skipped))
    assert len(set(fired)) == len(fired)
    assert not set(fired) & skipped.keys()


def _decide(plan: ScheduleCreated, standing: Standing, now: int, goes_on: list[str]) -> Decided:
    moment = EPOCH + timedelta(seconds=now)
    return decide(Case("x", plan, times_of(plan.timing), standing, moment, goes_on))


def test_a_page_of_runs_is_started_at_a_time() -> None:
    standing = Standing(defined=1, next_at=EPOCH)
    plan = ScheduleCreated(
        id="1", at=EPOCH, standing=standing, workflow="w", workflow_version="1", args=Raw(b"[]"),
        timing=timing(None, "UTC", 1.0, None, None), catch_up="all", overlap="allow_all",
    )  # fmt: skip
    decided = _decide(plan, standing, 1_000, [])
    assert len(decided) == PAGE
    assert decided[-1][1].next_at == EPOCH + timedelta(seconds=PAGE)
    assert len(decided[-1][1].running) < PAGE, "what is remembered is bounded"


def test_who_is_to_stop_is_asked_once() -> None:
    standing = Standing(defined=1, next_at=EPOCH + timedelta(seconds=1), running=("a",))
    plan = ScheduleCreated(
        id="1", at=EPOCH, standing=standing, workflow="w", workflow_version="1", args=Raw(b"[]"),
        timing=timing(None, "UTC", 1.0, None, None), overlap="cancel_other",
    )  # fmt: skip
    (held,) = _decide(plan, standing, 1, ["a"])
    assert held[0] == Hold(EPOCH + timedelta(seconds=1), ("a",))
    replaced, again = _decide(plan, held[1], 2, ["a"])
    assert isinstance(replaced[0], Skip)
    assert again[0] == Hold(EPOCH + timedelta(seconds=2), ())


def test_what_passed_in_a_pause_is_counted_when_it_ends() -> None:
    standing = Standing(defined=1, next_at=EPOCH + timedelta(seconds=10), paused=True)
    times = Interval(10.0, EPOCH)
    skip, after = resumed(standing, times, EPOCH + timedelta(seconds=35), "again")
    assert skip is not None
    assert (skip.number, skip.reason) == (3, "paused")
    assert (after.next_at, after.paused, after.note) == (EPOCH + timedelta(seconds=40), False, "again")
    assert resumed(standing, times, EPOCH, "") == (None, structs.replace(standing, paused=False))


def test_ids_of_runs_tell_schedule_and_time() -> None:
    assert run_id_of("nightly", datetime(2026, 1, 31, 2, 30, tzinfo=UTC)) == "nightly-20260131T023000Z"
    tenth = datetime(2026, 1, 31, 2, 30, 0, 100_000, tzinfo=UTC)
    assert run_id_of("nightly", tenth) == "nightly-20260131T023000.100000Z"
