"""What started a run is in its first event: a kind, what belongs to it, and whether a hook was behind it."""

from datetime import UTC, datetime
from typing import Any

import pytest

from refold import ConfigurationError, Context, workflow
from refold.events import types as t
from refold.events.registry import decode_event, encode_event
from refold.triggers import KINDS, Trigger, trigger_of
from tests.engine.kit import Place, engine, of

pytestmark = pytest.mark.anyio

AT = datetime(2026, 1, 31, 2, tzinfo=UTC)
TYPED = [
    Trigger("manual"),
    Trigger("api"),
    Trigger.webhook("/orders"),
    Trigger.schedule("nightly", AT),
    Trigger.event("orders"),
    Trigger.hook("on-failure", "order-41"),
    Trigger.retry("order-41"),
]


@workflow
async def leaf(ctx: Context) -> int:
    return 1


@workflow
async def tree(ctx: Context, round: int = 1) -> int:
    await ctx.child(leaf)
    if round < 2:
        ctx.continue_as_new(round + 1)
    return round


@pytest.mark.parametrize("trigger", TYPED, ids=str)
async def test_a_trigger_is_stored_with_what_belongs_to_it(trigger: Trigger) -> None:
    """F01."""
    async with engine("memory://", leaf) as e:
        run = await e.start(leaf, trigger=trigger)
        (started,) = of(run, t.RunStarted)
        assert trigger_of(started) == trigger
        assert started.trigger == trigger.kind in KINDS
        assert trigger_of(decode_event(started.TAG, encode_event(started))) == trigger


async def test_a_bare_word_is_stored_as_before(place: Place) -> None:
    async with engine(place, leaf) as e:
        runs = [await e.start(leaf), await e.start(leaf, trigger="payroll")]
        starts = [of(run, t.RunStarted)[0] for run in runs]
        assert [started.trigger for started in starts] == ["manual", "payroll"]
        assert not any(b"trigger" in encode_event(started) for started in starts[:1])
        assert b"triggered_by" not in encode_event(starts[1])


async def test_children_continuations_and_forks_say_which_run_they_come_from(place: Place) -> None:
    """F01."""
    async with engine(place, tree, leaf) as e:
        run = await e.start(tree, id="r", trigger=Trigger.webhook("/orders"))
        await run.result()
        fork = await (await e.get("r~1")).fork(id="f")
        await fork.result()
        found = [trigger_of(of(await e.get(id), t.RunStarted)[0]) for id in ("r", "r~1", "r~r2", "f")]
        assert found == [
            Trigger.webhook("/orders"),
            Trigger("workflow", run_id="r"),
            Trigger("continue_as_new", run_id="r"),
            Trigger("fork", run_id="r~1"),
        ]


async def test_that_a_hook_is_behind_a_run_reaches_everything_below_it(place: Place) -> None:
    """F01: hooks of such runs would call each other for ever."""
    async with engine(place, tree, leaf) as e:
        await e.run(tree, id="r", trigger=Trigger.hook("on-failure", "order-41"))
        await e.run(tree, id="plain")
        below = [of(await e.get(id), t.RunStarted)[0] for id in ("r", "r~1", "r~r2", "r~r2~1")]
        assert [started.is_triggered_by_hook for started in below] == [True] * 4
        assert not of(await e.get("plain~1"), t.RunStarted)[0].is_triggered_by_hook


@pytest.mark.parametrize(
    ("trigger", "words"),
    [
        ("", "trigger ''"),
        (7, "trigger 7"),
        (Trigger.webhook("a\nb"), "path of the trigger"),
        (Trigger.schedule("nightly", datetime(2026, 1, 31, 2)), "no datetime with a time zone"),
    ],
)
async def test_a_trigger_that_is_none_is_refused_before_anything_is_stored(trigger: Any, words: str) -> None:
    async with engine("memory://", leaf) as e:
        with pytest.raises(ConfigurationError, match=words):
            await e.start(leaf, trigger=trigger)
        assert e.store.position() == 0
