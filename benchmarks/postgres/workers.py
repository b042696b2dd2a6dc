"""Runs that are there at once, for one, two and four idle workers; the server shares their cores."""

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, Self

import psycopg

from refold import Engine, Settings
from refold.events.postgres import PostgresStore
from refold.events.store import Refusal, Unit

from ..harness import ROOT, Figure, Scale, at_least, run_async
from ..workloads import WORKFLOWS, sequential
from .place import Split, cpu_of, log_url

STEPS = 5
CONCURRENCY = 200
READY = b"ready\n"

_WORKER = (
    "import json, sys; from benchmarks.postgres.workers import worker; worker(**json.loads(sys.argv[1]))"
)


def worker(url: str, views: bool = False) -> None:
    """Execute what there is from the word on until told to stop; then print the processor time."""
    sys.stdout.buffer.write(READY)
    sys.stdout.flush()
    sys.stdin.readline()
    began = time.process_time()

    async def work() -> None:
        settings = Settings(projections=views, max_active=CONCURRENCY)
        async with Engine(url, workflows=WORKFLOWS, settings=settings):
            await asyncio.to_thread(sys.stdin.readline)

    asyncio.run(work())
    print(json.dumps(time.process_time() - began))


def refold_worker(url: str, *, views: bool = False) -> list[str]:
    """The command of a worker."""
    return [sys.executable, "-c", _WORKER, json.dumps({"url": url, "views": views})]


class Crew:
    """So many worker processes, ready to begin."""

    def __init__(self, command: list[str], workers: int) -> None:
        pipe: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "cwd": ROOT}
        with ExitStack() as stack:
            self._processes = [stack.enter_context(subprocess.Popen(command, **pipe)) for _ in range(workers)]
            for process in self._processes:
                stack.callback(process.kill)
                if process.stdout is None or process.stdout.readline() != READY:
                    raise RuntimeError("a worker did not start")
            self._stack = stack.pop_all()

    def begin(self) -> None:
        """Open the engines."""
        self._tell()

    def stop(self) -> float:
        """Processor seconds that they took."""
        self._tell()
        spent: list[float] = [json.loads(p.stdout.readline()) for p in self._processes if p.stdout]
        return sum(spent)

    def cpu(self) -> float:
        """Processor seconds so far, those of getting ready included."""
        return sum(cpu_of(process.pid) for process in self._processes)

    def _tell(self) -> None:
        for process in self._processes:
            if process.stdin is not None:
                process.stdin.write(b"\n")
                process.stdin.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()


class Collecting(PostgresStore):
    """Keeps what is to be stored, so that thousands of runs can be there at once."""

    units: list[Unit]

    def commit(self, units: Sequence[Unit]) -> list[Refusal | None]:
        self.units += units
        return [None] * len(units)


async def collect_runs(store: Collecting, runs: int) -> None:
    """Runs to be begun by anybody."""
    store.units = []
    async with Engine(store, workflows=WORKFLOWS, execute=False) as engine:
        for _ in range(runs):
            await engine.start(sequential, STEPS)


def throughput(dsn: str, schema: str, workers: int, runs: int, split: Split) -> float:
    """Steps a second of so many workers that are idle until all the runs are there at once."""
    url = log_url(dsn, schema)
    store = Collecting(url)
    run_async(collect_runs(store, runs))
    there = f"SELECT COUNT(*) < {workers} FROM {schema}.workers".encode()
    left = f"SELECT COUNT(*) FROM {schema}.work WHERE state <> 'done'".encode()
    with Crew(refold_worker(url), workers) as crew, psycopg.connect(dsn, autocommit=True) as connection:
        crew.begin()
        until(connection, there, False)
        time.sleep(1.0)
        store.commit_all(store.units)
        before = crew.cpu()
        with split.counted():
            took = until(connection, left, 0)
        split.workers += crew.cpu() - before
        crew.stop()
    store.close()
    return runs * STEPS / took


def until(connection: psycopg.Connection[Any], query: bytes, wanted: object) -> float:
    """Seconds until the query says so."""
    began = time.perf_counter()
    while connection.execute(query).fetchone() != (wanted,):
        time.sleep(0.02)
    return time.perf_counter() - began


def run(scale: Scale, dsn: str) -> list[Figure]:
    """Throughput by the number of workers, in rounds that take turns."""
    runs, rounds = scale.pick(2000, 20), scale.pick(3, 1)
    sizes = (1, 2, 4)
    rates: dict[int, list[float]] = {size: [] for size in sizes}
    splits = {size: Split(dsn, own=False) for size in sizes}
    for number in range(rounds):
        for size in sizes:
            rates[size].append(throughput(dsn, f"crew_{size}_{number}", size, runs, splits[size]))
    ratios = {
        size: statistics.median(many / one for many, one in zip(rates[size], rates[1], strict=True))
        for size in sizes
    }
    steps = rounds * runs * STEPS
    one, two = splits[1], splits[2]
    return [
        Figure("2,000 runs of 5 steps at once, one worker", statistics.median(rates[1]), "steps/s",
               note=f"processor: {one.text(steps)} a step; with the server elsewhere a worker has a "
               f"core for itself: up to {1000 / one.worker_ms(steps):,.0f} steps/s each"),
        at_least("the same, two workers", statistics.median(rates[2]), "steps/s", 1.3, ratio=ratios[2],
                 of="one worker",
                 note=f"processor: {two.text(steps)} a step; of two cores, shared with the server, at most "
                 f"{2000 / (two.worker_ms(steps) + two.server_ms(steps)):,.0f} steps/s"),
        Figure("the same, four workers", statistics.median(rates[4]), "steps/s", ratio=ratios[4]),
    ]  # fmt: skip
