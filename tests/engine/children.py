"""Programs that tests of the engine run as processes of their own: `python -m tests.engine.children NAME …`.

They talk over pipes: what happened is a line on stdout, what is to happen next is a line on stdin.
"""

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from refold import Context, Engine, RefoldError, Settings, step, workflow
from tests.engine.kit import until

ROOT = Path(__file__).parents[2]
SETTINGS = Settings(projections=False, grace=0.2)


def say(*words: object) -> None:
    print(*words, flush=True)


async def appears(folder: str, name: str) -> None:
    """Wait until the test makes this file."""
    while True:
        if (Path(folder) / name).exists():
            return
        await asyncio.sleep(0.01)


def mark_and_block(folder: str, name: str) -> None:
    mark(folder, name)
    while not (Path(folder) / f"go-{name}").exists():
        time.sleep(0.01)


def mark(folder: str, name: str) -> None:
    with (Path(folder) / "effects").open("a") as file:
        file.write(f"{os.getpid()} {name}\n")
    say("marked", name)


# ---- what they execute ----------------------------------------------------------------------------


@step
async def leave_mark(folder: str, name: str) -> str:
    """One line per effect; then wait until the test lets go."""
    mark(folder, name)
    await appears(folder, f"go-{name}")
    return name


@step
async def leave_mark_and_block(folder: str, name: str) -> str:
    """The same, but the host loop gets no chance to look around before the body ends."""
    mark_and_block(folder, name)
    return name


@workflow
async def marks(ctx: Context, folder: str) -> Any:
    first = await asyncio.gather(*[leave_mark(folder, name) for name in "abc"])
    return [*first, await ctx.wait_for_event("end")]


@workflow
async def single(ctx: Context, folder: str) -> str:
    name = await leave_mark(folder, "a")
    return f"{name} {await ctx.wait_for_event('end')}"


@workflow
async def blocks(ctx: Context, folder: str) -> str:
    name = await leave_mark_and_block(folder, "a")
    return f"{name} {await ctx.wait_for_event('end')}"


@workflow
async def counts(ctx: Context, expected: int) -> list[Any]:
    return [await ctx.wait_for_event("letter") for _ in range(expected)]


@workflow
async def fans(ctx: Context, folder: str) -> int:
    @step
    async def item(number: int) -> int:
        mark(folder, str(number))
        return number

    return sum(await ctx.map(item, range(1000)))


@step
async def mark_number(folder: str, number: int) -> int:
    mark(folder, str(number))
    return number


@workflow
async def marks_one(ctx: Context, where: tuple[str, int]) -> int:
    return await mark_number(*where)


@workflow
async def families(ctx: Context, folder: str) -> int:
    return sum(await ctx.map(marks_one, [(folder, number) for number in range(1000)]))


WORKFLOWS = (marks, single, blocks, counts, fans, families)


# ---- programs -------------------------------------------------------------------------------------


async def execute(url: str, name: str, folder: str) -> None:
    """Start (or find) run `r` and wait for its result; say how that ended."""
    flow = {"marks": marks, "single": single, "blocks": blocks, "fans": fans, "families": families}[name]
    async with Engine(url, workflows=WORKFLOWS, settings=SETTINGS) as engine:
        say("owner", engine.worker.owner)
        handle = await engine.start(flow, folder, id="r")
        say("started")
        try:
            say("result", await handle.result())
        except RefoldError as error:
            say("error", type(error).__name__)
            await appears(folder, "go-home")
    say("closed")


async def start_and_die(url: str, folder: str) -> None:
    """The process is killed right after `start` has returned."""
    async with Engine(url, workflows=WORKFLOWS, settings=SETTINGS) as engine:
        await engine.start(single, folder, id="r")
        os.kill(os.getpid(), signal.SIGKILL)


async def read_along(url: str) -> None:
    """Look at run `r` while another process executes it, until its end; nothing may ever go back."""
    async with Engine(url, workflows=WORKFLOWS, execute=False) as engine:
        handle = await engine.get("r")
        seen = 0
        say("reading")
        waiter = asyncio.ensure_future(handle.result())
        while not waiter.done():
            events = handle.events()
            assert len(events) >= seen
            seen = len(events)
            await asyncio.sleep(0.005)
        say(sorted(await waiter))
        assert engine.verify("r").problems == ()


async def write_along(url: str, name: str, count: str) -> None:
    """Send run `r` so many letters."""
    async with Engine(url, workflows=WORKFLOWS, execute=False) as engine:
        for number in range(int(count)):
            await engine.signal("r", "letter", f"{name}{number}", by=f"process {name}")
    say("sent")


@step
async def interrupted_body(where: str) -> str:
    if where == "body":
        raise KeyboardInterrupt
    return where


@workflow
async def interrupted(ctx: Context, where: str) -> str:
    got = await interrupted_body(where)
    if where == "handler":
        raise KeyboardInterrupt
    return got


async def ctrl_c(url: str, where: str) -> None:
    """Ctrl-C strikes in a handler or in a body."""
    async with Engine(url, workflows=[interrupted], settings=SETTINGS) as engine:
        handle = await engine.start(interrupted, where, id="r")
        await handle.result()


async def never_ends(url: str) -> None:
    """A step in a thread that does not end; the process does."""

    began: list[str] = []

    @step
    def stuck() -> None:
        began.append("stuck")
        threading.Event().wait()

    @workflow(name="hangs")
    async def hangs(ctx: Context) -> None:
        await stuck()

    async with Engine(url, workflows=[hangs], settings=Settings(projections=False, grace=0)) as engine:
        await engine.start(hangs, id="r")
        await until(lambda: began)
    say("closed")


PROGRAMS: dict[str, Callable[..., Coroutine[Any, Any, None]]] = {
    program.__name__: program
    for program in (execute, start_and_die, read_along, write_along, ctrl_c, never_ends)
}


# ---- the test's side ------------------------------------------------------------------------------


@contextmanager
def child(
    name: str, *arguments: object, module: str = "tests.engine.children"
) -> Iterator[subprocess.Popen[str]]:
    """Run one beside the test; it does not outlive the block."""
    command = [sys.executable, "-m", module, name, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()


def lines_until(
    process: subprocess.Popen[str], beginning: str | tuple[str, ...], count: int = 1
) -> list[str]:
    """What it says, up to the `count`-th line that begins so."""
    assert process.stdout is not None
    said: list[str] = []
    for line in process.stdout:
        said.append(line.rstrip("\n"))
        count -= said[-1].startswith(beginning)
        if not count:
            return said
    assert process.stderr is not None
    raise AssertionError(f"it ended with {process.wait()} after saying {said}\n{process.stderr.read()}")


if __name__ == "__main__":
    asyncio.run(PROGRAMS[sys.argv[1]](*sys.argv[2:]))
