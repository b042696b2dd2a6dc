"""One way to meet each message of the catalogue: functions that run into it, by class and message."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from refold import Context, RunFailed, StepFailed, Workflow, workflow
from tests.engine.kit import engine
from tests.errors.catalogue import Entry, entries

Provoke = Callable[[Path], Awaitable[object] | object]
"""Runs into the error, in an empty folder: raises it, or returns what was `Said`."""

F = TypeVar("F", bound=Provoke)

CASES: dict[Entry, Provoke] = {}


@dataclass(frozen=True)
class Said:
    """An error that came back as words: from a run's end, or from the command line."""

    kind: str
    text: str


def meets(kind: str, message: str) -> Callable[[F], F]:
    """The function meets this message of this class; its beginning will do, with `…` for the rest."""
    listed = [pattern for of, pattern in entries() if of == kind]
    if message not in listed:
        beginning = message.removesuffix("…").rstrip()
        found = [pattern for pattern in listed if message.endswith("…") and pattern.startswith(beginning)]
        assert len(found) == 1, f"{kind}: {message}: in the catalogue are {found}"
        (message,) = found

    def register(provoke: F) -> F:
        assert (kind, message) not in CASES, f"twice: {kind}: {message}"
        CASES[kind, message] = provoke
        return provoke

    return register


async def in_handler(body: Callable[[Context], Any], *children: Workflow[Any, Any], **settings: Any) -> Said:
    """What a run fails with whose handler does this."""

    @workflow(name="clumsy")
    async def clumsy(ctx: Context) -> None:
        made = body(ctx)
        if hasattr(made, "__await__"):
            await made

    async with engine("memory://", clumsy, *children, **settings) as e:
        with pytest.raises(RunFailed) as met:
            await e.run(clumsy, id="r")
    return Said(met.value.type, met.value.message)


async def in_step(body: Callable[..., Any], *args: Any, **settings: Any) -> Said:
    """What a step fails with whose body does this."""
    found: list[Said] = []

    async def call(ctx: Context) -> None:
        try:
            await ctx.call(body, *args)
        except StepFailed as error:
            found.append(Said(error.type, error.message))
            raise

    await in_handler(call, **settings)
    return found[0]
