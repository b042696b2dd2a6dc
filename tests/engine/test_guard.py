"""Clocks, chance and files in a handler: found when it is registered, refused when it runs (3.12+)."""

import datetime
import os
import random
import secrets
import sys
import time
import uuid
from collections.abc import Callable
from datetime import date
from time import monotonic as clock
from types import FunctionType
from typing import Any

import anyio
import pytest

from refold.engine import guard
from refold.events.errors import ForbiddenInHandler
from tests.engine.fake import Context, FakeRun

watched = pytest.mark.skipif(sys.version_info < (3, 12), reason="sys.monitoring came with 3.12")


class Stamp(datetime.datetime):
    """A subclass, as pandas has one."""


Handler = Any

# One handler per line: what is found in it.
FORBIDDEN: dict[str, tuple[Handler, str]] = {}


def forbidden(what: str) -> Callable[[Handler], Handler]:
    def note(handler: Handler) -> Handler:
        FORBIDDEN[handler.__name__] = (handler, what)
        return handler

    return note


@forbidden("time.time()")
async def wall_clock(ctx: Any) -> None:
    time.time()


@forbidden("time.monotonic()")
async def imported_name(ctx: Any) -> None:
    clock()


@forbidden("time.perf_counter_ns()")
async def nested_function(ctx: Any) -> None:
    def inner() -> int:
        return time.perf_counter_ns()

    inner()


@forbidden("time.sleep()")
async def blocking(ctx: Any) -> None:
    time.sleep(0)  # noqa: ASYNC251 - the point


@forbidden("datetime.now()")
async def now(ctx: Any) -> None:
    datetime.datetime.now(tz=datetime.UTC)


@forbidden("date.today()")
async def today(ctx: Any) -> None:
    date.today()


@forbidden("random.choice()")
async def choice(ctx: Any) -> None:
    random.choice([1, 2])


@forbidden("random.random()")
async def dice(ctx: Any) -> None:
    random.random()


@forbidden("random.shuffle()")
async def local_import(ctx: Any) -> None:
    from random import shuffle as mix

    mix([1, 2])


@forbidden("secrets.token_hex()")
async def secret(ctx: Any) -> None:
    secrets.token_hex()


@forbidden("uuid.uuid4()")
async def unique(ctx: Any) -> None:
    uuid.uuid4()


@forbidden("os.urandom()")
async def entropy(ctx: Any) -> None:
    os.urandom(1)


@forbidden("os.getpid()")
async def process(ctx: Any) -> None:
    os.getpid()


@forbidden("open()")
async def file(ctx: Any) -> None:
    open(__file__).close()  # noqa: ASYNC230 - the point


@forbidden("id()")
async def address(ctx: Any) -> None:
    id(ctx)


@pytest.mark.parametrize("name", FORBIDDEN)
def test_it_is_found_by_reading(name: str) -> None:
    handler, what = FORBIDDEN[name]
    (finding,) = guard.scan(handler)
    assert finding.what == what
    assert finding.file == __file__
    assert handler.__code__.co_firstlineno < finding.line <= handler.__code__.co_firstlineno + 5
    assert f"{__file__}:{finding.line}: {what} in a handler: {finding.remedy}" == str(finding)


@watched
@pytest.mark.parametrize("name", FORBIDDEN)
def test_it_is_refused_at_run_time_with_line_and_remedy(name: str) -> None:
    handler, what = FORBIDDEN[name]
    assert guard.arm(handler)
    assert guard.arm(handler)  # again: no effect
    (finding,) = guard.scan(handler)
    main = FakeRun(handler).start().main
    assert main is not None
    error = main.exception()
    assert isinstance(error, ForbiddenInHandler)
    assert what in str(error)
    assert f"test_guard.py:{finding.line}: {finding.remedy}" in str(error)


@watched
def test_the_same_code_outside_of_a_handler_is_left_alone() -> None:
    guard.arm(dice)
    anyio.run(dice, None)


@watched
def test_other_code_is_left_alone() -> None:
    async def helper(ctx: Context) -> float:
        return time.time()

    async def handler(ctx: Context) -> float:
        return await helper(ctx)

    guard.arm(handler)
    assert FakeRun(handler).start().result > 0


@watched
def test_what_goes_through_a_variable_is_seen_only_at_run_time() -> None:
    async def handler(ctx: Context) -> None:
        sources = [time.time]
        for source in sources:
            source()

    assert not guard.scan(handler)
    guard.arm(handler)
    main = FakeRun(handler).start().main
    assert main is not None
    assert isinstance(main.exception(), ForbiddenInHandler)


@watched
def test_a_subclass_of_datetime_is_a_clock_too() -> None:
    async def handler(ctx: Context) -> None:
        Stamp.now()

    assert [finding.what for finding in guard.scan(handler)] == ["Stamp.now()"]
    guard.arm(handler)
    main = FakeRun(handler).start().main
    assert main is not None
    assert isinstance(main.exception(), ForbiddenInHandler)


@watched
def test_a_free_tool_id_is_taken_and_none_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Taken:
        def get_tool(self, number: int) -> str:
            return "another"

    monkeypatch.setattr(sys, "monitoring", Taken())
    assert not guard.arm(dice)


@pytest.mark.skipif(sys.version_info >= (3, 12), reason="before sys.monitoring")
def test_before_3_12_nothing_is_watched() -> None:
    assert not guard.arm(dice)


def helper(depth: int) -> float:
    return time.time() if depth else helper(1)


async def spawned(ctx: Any) -> None:
    uuid.uuid4()


def read(path: str) -> str:
    return open(path).read()


def test_functions_of_the_same_package_are_followed() -> None:
    async def handler(ctx: Any) -> None:
        helper(0)
        async with anyio.create_task_group() as group:
            group.start_soon(spawned, ctx)

    assert [finding.what for finding in guard.scan(handler)] == ["time.time()", "uuid.uuid4()"]


def test_closures_are_followed() -> None:
    def inner() -> int:
        return os.getpid()

    async def handler(ctx: Any) -> None:
        inner()

    assert [finding.what for finding in guard.scan(handler)] == ["os.getpid()"]


def test_what_runs_as_a_step_is_not_the_handler_s() -> None:
    def step(function: Any) -> Any:
        return function

    async def handler(ctx: Any) -> None:
        def body() -> float:
            return time.time()

        @step
        def decorated() -> float:
            return time.time()

        await ctx.call(read, "x")
        await ctx.call(time.time)
        await ctx.call(body)
        await ctx.call(lambda: random.random())
        await decorated()

    assert not guard.scan(handler)


def test_what_is_deterministic_is_not_found() -> None:
    async def handler(ctx: Any, time: Any) -> Any:
        seeded = random.Random(7)
        time.time()  # a parameter of that name
        stamp = datetime.datetime.fromisoformat("2026-01-01")
        return seeded.random(), ctx.random.choice([1]), ctx.now(), uuid.UUID(int=1), stamp, sorted({"b", "a"})

    assert not guard.scan(handler)


def test_loops_over_sets_are_found() -> None:
    async def handler(ctx: Any, names: list[str]) -> None:
        for name in {"a", "b"}:
            await ctx.step(name)
        for name in set(names):
            await ctx.step(name)
        for number in {1, 2}:
            await ctx.step(number)
        for name in sorted({"a", "b"}):
            await ctx.step(name)

    found = guard.scan(handler)
    first = handler.__code__.co_firstlineno
    assert [(finding.line - first, finding.what) for finding in found] == [
        (1, "a loop over a set"),
        (3, "a loop over a set"),
    ]
    assert "sort it" in found[0].remedy


def test_an_unseeded_generator_is_found() -> None:
    async def handler(ctx: Any) -> Any:
        return random.Random().random()

    assert [finding.what for finding in guard.scan(handler)] == ["random.Random()"]


def test_a_function_without_source_has_no_findings() -> None:
    typed_in = wall_clock.__code__.replace(co_filename="<stdin>")
    assert guard.scan(FunctionType(typed_in, {"time": time})) == []
