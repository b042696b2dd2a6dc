"""`refold.run`: the one blocking door, for scripts that have no event loop of their own."""

import asyncio
import os
from collections.abc import Iterable
from typing import Any, TypeVar

from .engine.engine import Engine
from .engine.loop import running
from .engine.settings import Settings
from .engine.workflow import Workflow
from .events.errors import ConfigurationError
from .events.store import Store

R = TypeVar("R")


def run(
    workflow: Workflow[..., R],
    /,
    *args: Any,
    store: str | os.PathLike[str] | Store | None = None,
    id: str | None = None,
    workflows: Iterable[Workflow[Any, Any]] = (),
    settings: Settings | None = None,
    **options: Any,
) -> R:
    """Start a run, or go on with the one of that `id`, and return its result: for scripts.

    Opens the store, executes what is unfinished in it, and closes it again. Ctrl-C shuts down in order and
    raises `KeyboardInterrupt`; after that, or after a crash, the same call with the same `id` goes on.

    Args:
        args: what the handler gets after `ctx`, by position.
        store: as for `Engine`; default: `$REFOLD_STORE`, else `./refold.db`.
        id: the run's id; without one every call is a new run.
        workflows: others that this store has runs of; children are found without being named.
        settings: see `Settings`.
        options: `key`, `attributes`, `trace_id`, `timeout`, `trigger`, `by`, as for `Engine.start`.

    Raises:
        ConfigurationError: an event loop runs in this thread already: there write `await engine.run(…)`.
        StoreBusy: another process executes this store; the message names it.

    What `Engine.start` and `Handle.result` raise, it raises, too.
    """
    _check_no_loop(workflow)
    every = [workflow, *(flow for flow in workflows if flow is not workflow)]

    async def main() -> R:
        async with Engine(store, workflows=every, settings=settings) as engine:
            handle = await engine.start(workflow, *args, id=id, **options)
            # One that only waits is replayed now all the same: changed code is to be told at once.
            engine.worker.recovery.enqueue(handle.id)
            return await handle.result()

    return asyncio.run(main())


def _check_no_loop(workflow: Any) -> None:
    name = getattr(workflow, "name", "workflow")
    if running() is not None:
        raise ConfigurationError(
            f"refold.run({name}) blocks, and a handler must not: write `await ctx.child({name}, …)`"
        )
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise ConfigurationError(
        f"refold.run({name}) blocks, and an event loop runs in this thread already (an async function, or "
        f"Jupyter): write `async with Engine(…, workflows=[{name}]) as engine: await engine.run({name}, …)`"
    )
