"""A worker with 2,000 sleeping runs and nothing to do: what it asks of the server, and what it burns."""

import asyncio
import time
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import psycopg

from refold import Engine

from ..harness import Figure, Scale, at_most, run_async
from ..workloads import WORKFLOWS, sleeper
from .place import Split, log_url
from .workers import Crew, refold_worker

DAY_S = 86_400.0
SETTLE_S = 4.0
"""Until the engine is open and the read models have caught up."""


def statements(dsn: str) -> int:
    """Statements that the server has logged so far: its counters have those of autovacuum, too."""
    log = Path(dict(parse_qsl(urlsplit(dsn).query))["host"], "log").read_text(errors="replace")
    return log.count("LOG:  execute ") + log.count("LOG:  statement: ")


async def prepare(url: str, runs: int) -> None:
    """Runs that all sleep for a day."""
    async with Engine(url, workflows=WORKFLOWS) as engine:
        handles = await asyncio.gather(*(engine.start(sleeper, DAY_S) for _ in range(runs)))
        for handle in handles:
            while (work := engine.store.work(handle.id)) is None or work.state != "waiting":  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await engine.projections.wait()


def run(scale: Scale, dsn: str) -> list[Figure]:
    """Queries a second and processor time of an idle worker."""
    url, seconds = log_url(dsn, "idle"), scale.pick(20, 1)
    run_async(prepare(url, scale.pick(2_000, 30)))
    split = Split(dsn, own=False)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(b"ALTER DATABASE postgres SET log_statement = 'all'")
    with Crew(refold_worker(url, views=True), 1) as crew:
        crew.begin()
        time.sleep(scale.pick(int(SETTLE_S), 1))
        with split.counted():
            began, before, cpu = time.perf_counter(), statements(dsn), crew.cpu()
            time.sleep(seconds)
            took, asked, burnt = time.perf_counter() - began, statements(dsn) - before, crew.cpu() - cpu
        crew.stop()
    return [
        at_most("idle worker: queries", asked / took, "a second", 2.0),
        at_most("idle worker: processor", burnt / took * 100, "%", 1.0,
                note=f"the server meanwhile: {split.server / took * 100:.2f} % of a core"),
    ]  # fmt: skip
