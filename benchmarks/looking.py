"""How long somebody waits who looks at runs from a shell, whole processes."""

import asyncio
import os
import statistics
import subprocess
import sys
import time

from refold import Engine

from .harness import ROOT, Figure, Scale, at_most
from .workloads import WORKFLOWS, mapped, sequential


async def fill(url: str, steps: int) -> None:
    """A run of so many steps, a map of so many items, and a page of small runs."""
    async with Engine(url, workflows=WORKFLOWS) as engine:
        await (await engine.start(sequential, steps, id="long")).result()
        await (await engine.start(mapped, steps, 100, id="map")).result()
        for number in range(50):
            await (await engine.start(sequential, 2, id=f"small-{number}")).result()
        await engine.projections.wait()


def seconds(rounds: int, *arguments: str) -> float:
    """Median of whole processes, from start to exit."""
    command = [sys.executable, "-m", "refold", *arguments]
    # Where bytecode is not written, every process compiles what was edited since: 0.13 s of something else.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    spans = []
    for _ in range(rounds + 1):  # the first writes the bytecode files
        began = time.perf_counter()
        subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=True)
        spans.append(time.perf_counter() - began)
    return statistics.median(spans[1:])


def run(scale: Scale) -> list[Figure]:
    """Commands that only look."""
    steps, rounds = scale.pick(10_000, 20), scale.pick(9, 1)
    path = str(scale.path("look"))
    asyncio.run(fill(f"sqlite:///{path}", steps))
    store = ("--store", path)
    return [
        Figure("refold --help", seconds(rounds, "--help"), "s"),
        at_most("refold runs, 50 of them", seconds(rounds, "runs", *store), "s", 0.35),
        at_most(f"refold show, {steps:,} steps", seconds(rounds, "show", "long", *store), "s", 1.0),
        at_most(f"refold show, a map of {steps:,} items", seconds(rounds, "show", "map", *store), "s", 1.0),
    ]
