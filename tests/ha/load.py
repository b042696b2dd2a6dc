"""A worker, or one who starts runs; both write down what is acknowledged."""

import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from time import time

import anyio

from refold import Context, Engine, Settings, current_step, step, workflow
from refold.errors import StoreError
from refold.events.store import Refusal, Unit

role, url, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
STEPS = 6


def note(name: str, lines: Sequence[str]) -> None:
    """At once, and whole: others write to the same file."""
    fd = os.open(folder / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(fd, "".join(f"{line}\n" for line in lines).encode())
    os.close(fd)


@step
async def work(number: int) -> int:
    info = current_step()
    note("effects", [f"{info.run_id} {info.key} {info.attempt} {os.getpid()}"])
    await anyio.sleep(0.01)
    return number


@workflow
async def job(ctx: Context, steps: int) -> int:
    total = 0
    for number in range(steps):
        total += await work(number)
        if number % 3 == 2:
            await ctx.sleep(0.2)
    return total


def write_down(engine: Engine) -> None:
    """Every event that the store says it has, and when it said so."""
    store = engine.store
    commit = store.commit

    def told(units: Sequence[Unit]) -> list[Refusal | None]:
        refusals = commit(units)
        note("acknowledged", [
            f"{time():.3f} {row.stream} {row.version} {row.hash.hex()}"
            for unit, refusal in zip(units, refusals, strict=True) if refusal is None
            for append in unit.appends for row in append.rows
        ])  # fmt: skip
        return refusals

    store.commit = told  # type: ignore[method-assign]


async def main() -> None:
    settings = Settings(lease_ttl=6.0, lease_refresh=2.0, grace=0.5, projections=False)
    executes = role == "work"
    async with Engine(url, workflows=[job], settings=settings, execute=executes) as engine:
        write_down(engine)
        print("ready", flush=True)
        number = 0
        while not executes and not (folder / "enough").exists():
            with suppress(StoreError):
                await engine.start(job, STEPS, id=f"run-{number}")
                number += 1
            await anyio.sleep(0.05)
        if not executes:
            note("started", [str(number)])
            return
        await anyio.sleep_forever()


anyio.run(main)
