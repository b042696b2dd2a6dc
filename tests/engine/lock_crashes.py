"""A program that kills itself at the appends of some runs that hold a concurrency key, and looks each time.

Each case is forked, dies by SIGKILL before or after its n-th commit, and is taken over by one that lives. It
prints what it found wrong, as JSON. `python -m tests.engine.lock_crashes FOLDER CHEAT FIRST END STEP`: which
commits.
"""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from refold import Context, Engine, RunCancelled, RunFailed, Settings, workflow
from refold.engine.worker import Worker
from refold.errors import RunEnded
from refold.events import locks, types as t
from refold.events.sqlite import SQLiteStore
from refold.events.store import Post, Unit
from refold.events.stream import LOCKS
from refold.events.verify import verify
from refold.events.work import WorkFold

KEY = "k"


@workflow
async def waits(ctx: Context) -> None:
    await ctx.wait_for_event("go")


@workflow
async def fails(ctx: Context) -> None:
    await ctx.wait_for_event("go")
    raise ValueError("no")


@workflow
async def goes_on(ctx: Context, round: int = 1) -> None:
    await ctx.wait_for_event("go")
    if round < 2:
        ctx.continue_as_new(round + 1)


async def story(path: Path) -> None:
    """One run after the other with the same key, each with another end; goes on where it was cut off."""
    settings = Settings(projections=False)
    async with Engine(path, workflows=[waits, fails, goes_on], settings=settings) as engine:
        for flow in (waits, fails, goes_on):
            run = await engine.start(flow, id=flow.name, lock=KEY)
            for _ in range(2):
                with suppress(RunEnded):
                    await run.signal("go")
            with suppress(RunFailed):
                await run.result()
        for how in ("cancel", "terminate"):
            run = await engine.start(waits, id=how, lock=KEY)
            with suppress(RunEnded):
                await getattr(run, how)()
            with suppress(RunCancelled):
                await run.result()
        if engine.store.work("terminate").status == "terminated":  # type: ignore[union-attr]
            await run.retry()
        with suppress(RunEnded):
            await run.signal("go")
        await run.result()


# ---- what must be true, at any time -------------------------------------------------------------------


def problems(path: Path) -> Iterator[str]:
    """The key is held by exactly the run that has it and has not ended; never by two."""
    store = SQLiteStore(path)
    held: list[str] = []
    for row in store.read(LOCKS + KEY):
        event = row.event()
        if isinstance(event, t.LockTaken):
            held.append(event.run_id)
        elif isinstance(event, t.LockFreed) and event.run_id in held:
            held.remove(event.run_id)
        if len(held) > 1:
            yield f"{held} held it at once"
    open_runs = sorted(work.run_id for work, _ in store.all_work() if work.state != "done")
    if sorted(held) != open_runs:
        yield f"{sorted(held)} hold it, open are {open_runs}"
    if locks.look_at(store, KEY).holder != (held[-1] if held else ""):
        yield f"its last event says {locks.look_at(store, KEY)}"
    for work, _ in store.all_work():
        fold = WorkFold(work.run_id)
        for row in store.read(work.run_id):
            fold.apply(row.event())
        if fold.row() != work:
            yield f"`work` has {work}, the log {fold.row()}"
    yield from verify(store).problems
    store.close()


# ---- sabotage -----------------------------------------------------------------------------------------


def frees_later() -> None:
    """A run's key is freed in a unit of its own, after its end."""
    free, ended = locks.freed, Worker.ended
    locks.freed = lambda *rest: ()

    def late(self: Worker, live: Any, end: Any) -> None:
        if posts := free(live.run_id, live.run.started, end):
            self.log.append(Unit(posts=posts), lambda error: None)
        ended(self, live, end)

    Worker.ended = late  # type: ignore[method-assign]


def takes_before() -> None:
    """A run's key is taken in a unit of its own, before its start."""
    take, commit = locks.taken, SQLiteStore.commit
    waiting: list[Post] = []

    def early(*rest: Any) -> Post:
        waiting.append(take(*rest))
        return Post(LOCKS + "another", "lock.freed", b'{"id":"","at":"2026-01-01T00:00:00Z","run_id":""}')

    def first(self: SQLiteStore, units: Sequence[Unit]) -> Any:
        if waiting:
            commit(self, [Unit(posts=(waiting.pop(),))])
        return patched(self, units)

    patched = SQLiteStore.commit
    locks.taken = early  # type: ignore[assignment]
    SQLiteStore.commit = first  # type: ignore[method-assign]


def nothing() -> None:
    """As it is."""


CHEATS = {cheat.__name__: cheat for cheat in (nothing, frees_later, takes_before)}


# ---- dying --------------------------------------------------------------------------------------------


def die_at(moment: int) -> None:
    """Before a commit (odd) or after it (even)."""
    commit, passed = SQLiteStore.commit, 0

    def pass_one() -> None:
        nonlocal passed
        passed += 1
        if passed == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    def watched(self: SQLiteStore, units: Sequence[Unit]) -> Any:
        pass_one()
        found = commit(self, units)
        pass_one()
        return found

    SQLiteStore.commit = watched  # type: ignore[method-assign]


def forked(path: Path, moment: int, cheat: str) -> int:
    """Its wait status: 0, or the signal that killed it."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            die_at(moment)
            CHEATS[cheat]()
            asyncio.run(story(path))
            code = 0
        finally:
            os._exit(code)
    return os.waitpid(child, 0)[1]


def main(folder: Path, cheat: str, moments: range) -> None:
    deaths, found = 0, list[str]()
    for moment in moments:
        path = folder / f"{moment}.db"
        status = forked(path, moment, cheat)
        if status not in (0, signal.SIGKILL):
            found.append(f"killed at {moment}: it failed")
        if path.exists():
            found += [f"killed at {moment}: {problem}" for problem in problems(path)]
        if status == 0:
            break  # it was through before
        deaths += 1
        if cheat == "nothing" and forked(path, 0, cheat):
            found.append(f"killed at {moment}: who took over failed")
        elif cheat == "nothing":
            found += [f"after {moment}: {problem}" for problem in problems(path)]
    print(json.dumps({"deaths": deaths, "problems": found}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], range(*map(int, sys.argv[3:])))
