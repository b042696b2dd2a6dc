"""On a terminal `refold run` names the command that the run waits for."""

import argparse
import io

import pytest

from refold import Context, Engine, workflow
from refold.cli.running import Progress
from refold.cli.screen import Screen
from tests.engine.kit import waiting

pytestmark = pytest.mark.anyio


class Terminal(io.StringIO):
    """A stream that says it is one."""

    def isatty(self) -> bool:
        return True


@workflow
async def asks(ctx: Context) -> None:
    await ctx.approval("Ship\x1b[2J it?")


@workflow
async def wants(ctx: Context) -> None:
    await ctx.wait_for_input(int, prompt="How many?")


@workflow
async def listens(ctx: Context) -> None:
    await ctx.wait_for_event("paid")


@pytest.mark.parametrize(
    ("flow", "what", "command"),
    [
        (asks, "approval#1: Ship\\x1b[2J it?", "refold approve o1 --gate 'approval#1' --store 'my shop.db'"),
        (wants, "input#1: How many?", "refold answer o1 JSON --store 'my shop.db'"),
        (listens, "event paid", "refold signal o1 paid --store 'my shop.db'"),
    ],
)
async def test_it_names_what_it_waits_for_and_the_command_once(
    flow: object, what: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    said = Terminal()
    async with Engine("memory://", workflows=[asks, wants, listens]) as engine:
        await engine.start(flow, id="o1")  # type: ignore[arg-type]
        await waiting(engine, "o1")
        told = Progress(engine, argparse.Namespace(id="o1", store="my shop.db", known=False), Screen(said))
        told.tell()
        told.tell()
    assert said.getvalue().count(f"waits for {what}") == 1
    assert said.getvalue().count(command) == 1
