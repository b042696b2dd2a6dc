"""Stored runs, executed by one, two and four worker processes; server and workers share the same cores."""

import asyncio
import json
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import Any, Self

import psycopg

from refold import Engine, Settings

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


async def store_runs(url: str, runs: int) -> None:
    """Runs that nobody has begun yet."""
    async with Engine(url, workflows=WORKFLOWS, execute=False) as engine:
        for number in range(runs):
            await engine.start(sequential, STEPS, id=f"run-{number}")


def throughput(dsn: str, schema: str, workers: int, runs: int, split: Split) -> float:
    """Steps a second of so many workers, from the word to the end of the last run."""
    url = log_url(dsn, schema)
    run_async(store_runs(url, runs))
    left = f"SELECT COUNT(*) FROM {schema}.work WHERE state <> 'done'".encode()
    command = refold_worker(url)
    with Crew(command, workers) as crew, psycopg.connect(dsn, autocommit=True) as connection, split.counted():
        took = until_done(crew, connection, left)
        split.workers += crew.stop()
    return runs * STEPS / took


def until_done(crew: Crew, connection: psycopg.Connection[Any], left: bytes) -> float:
    """Seconds from the word until nothing is left."""
    began = time.perf_counter()
    crew.begin()
    while connection.execute(left).fetchone() != (0,):
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
        Figure("2,000 stored runs of 5 steps, one worker", statistics.median(rates[1]), "steps/s",
               note=f"processor: {one.text(steps)} a step; with the server elsewhere a worker has a "
               f"core for itself: up to {1000 / one.worker_ms(steps):,.0f} steps/s each"),
        at_least("the same, two workers", statistics.median(rates[2]), "steps/s", 1.3, ratio=ratios[2],
                 of="one worker",
                 note=f"processor: {two.text(steps)} a step; of two cores, shared with the server, at most "
                 f"{2000 / (two.worker_ms(steps) + two.server_ms(steps)):,.0f} steps/s"),
        Figure("the same, four workers", statistics.median(rates[4]), "steps/s", ratio=ratios[4]),
    ]  # fmt: skip
