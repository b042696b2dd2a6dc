"""`VirtualClock`: alarms ring in order, at their time, and chance is the same each time."""

import asyncio

import pytest

from refold.events.clock import to_datetime
from refold.testing import VirtualClock
from refold.testing.clock import START


def test_alarms_ring_earliest_first_and_see_their_own_time() -> None:
    clock = VirtualClock()
    rung: list[tuple[str, float]] = []

    def ring(name: str) -> None:
        rung.append((name, clock.now() - START.timestamp()))

    clock.call_later(20, ring, "second")
    clock.call_later(10, ring, "first")
    clock.call_later(20, ring, "third, as it came later")
    clock.call_later(15, ring, "never").cancel()
    clock.call_later(10, lambda: clock.call_later(5, ring, "set by another"))
    clock.move_to(START.timestamp() + 100)
    assert rung == [("first", 10), ("set by another", 15), ("second", 20), ("third, as it came later", 20)]
    assert clock.now() == START.timestamp() + 100


def test_an_alarm_rings_at_a_time_that_the_log_can_have() -> None:
    """To the microsecond: whoever looks a millionth of one too early finds nothing due."""
    sums_that_are_off = 0
    for number in range(1_000):
        clock, delay = VirtualClock(), number * 0.001001
        clock.move_to(to_datetime(START.timestamp() + number * 0.123457).timestamp())
        clock.call_later(delay, print)
        at = clock.now() + delay
        sums_that_are_off += at != to_datetime(at).timestamp()
        assert clock.next_alarm() == to_datetime(at).timestamp()
    assert sums_that_are_off  # control


def test_time_does_not_go_back() -> None:
    clock = VirtualClock()
    clock.move_to(START.timestamp() + 5)
    clock.move_to(START.timestamp())
    assert clock.now() == START.timestamp() + 5
    assert clock.next_alarm() is None


def test_chance_is_the_same_for_one_seed_and_another_for_another() -> None:
    def drawn(seed: int) -> list[float]:
        clock = VirtualClock(seed=seed)
        return [clock.chance(), clock.seed(), clock.chance()]

    assert drawn(1) == drawn(1) != drawn(2)


@pytest.mark.anyio
async def test_a_sleep_that_is_cancelled_leaves_no_alarm() -> None:
    clock = VirtualClock()
    sleeping = asyncio.ensure_future(clock.sleep(60))
    await asyncio.sleep(0)
    assert clock.next_alarm() == START.timestamp() + 60
    sleeping.cancel()
    await asyncio.gather(sleeping, return_exceptions=True)
    assert clock.next_alarm() is None
    assert not clock.sleepers
