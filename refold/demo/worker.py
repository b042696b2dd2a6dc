"""The demo's worker, a process of its own: `… -m refold.demo.worker STORE RUN FOLDER VERSION [KILL_AT]`."""

import asyncio
import contextlib
import os
import sys

from ..engine.engine import Engine
from ..events.errors import RefoldError, RunCancelled
from .effects import Doom
from .flow import release

WATCH_S = 0.5


async def work(store: str, run_id: str, folder: str, version: str) -> None:
    """Execute the run until it ends; the same call begins it and goes on with it."""
    watch = asyncio.create_task(_end_with_parent(os.getppid()))
    async with Engine(store, workflows=[release]) as engine:
        handle = await engine.start(release, folder, version, id=run_id, attributes={"title": "refold demo"})
        with contextlib.suppress(RunCancelled):
            await handle.result()
        await engine.projections.wait()
    watch.cancel()


async def _end_with_parent(parent: int) -> None:
    """Nobody is left to tell: whoever started the demo is gone, and so must we be."""
    while os.getppid() == parent:  # noqa: ASYNC110 - nobody tells us
        await asyncio.sleep(WATCH_S)
    os._exit(1)


def main(arguments: list[str]) -> int:
    """The process."""
    store, run_id, folder, version, *kill_at = arguments
    Doom.kill_at = int(kill_at[0]) if kill_at else 0
    try:
        asyncio.run(work(store, run_id, folder, version))
    except KeyboardInterrupt:
        return 130
    except RefoldError as error:
        print(error, file=sys.stderr)
        return 3
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
