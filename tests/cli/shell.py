"""The command line as a user has it: real processes in a folder of their own."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic, sleep
from typing import Any

REFOLD = (sys.executable, "-m", "refold")
PATIENCE_S = 60

APP = '''"""An app as a user writes one."""

import os
from decimal import Decimal
from pathlib import Path

import msgspec

from refold import Context, Retry, current_step, record_cost, step, workflow


class Order(msgspec.Struct):
    total: Decimal
    note: str = ""


def effect(text: str) -> None:
    with open("effects.txt", "a") as file:
        file.write(text + "\\n")


@step
async def charge(order: Order) -> str:
    effect("charge")
    record_cost("0.25")
    return "receipt"


@step
def ship(order: Order) -> str:
    effect("ship " + current_step().idempotency_key)
    if Path("slow").exists():
        os.read(os.open("gate", os.O_RDONLY), 1)  # a fifo nobody writes to
    return "parcel"


@step(retry=Retry(max_attempts=2, initial_interval=0.01))
async def refuse(text: str) -> None:
    raise ValueError(text)


@workflow
async def checkout(ctx: Context, order: Order) -> str:
    await charge(order)
    if order.note == "wait":
        await ctx.wait_for_event("paid")
    return await ship(order)


@workflow
async def fails(ctx: Context, text: str = "no") -> None:
    await refuse(text)


@workflow
async def many(ctx: Context, number: int) -> int:
    for _ in range(number):
        await charge(Order(Decimal(1)))
    return number
'''


class Shell:
    """A folder with an app in it, and commands run there."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self.environment = {k: v for k, v in os.environ.items() if k not in ("REFOLD_STORE", "NO_COLOR")}
        self.environment |= {"PYTHONWARNINGS": "error", **environment}
        self.running: list[subprocess.Popen[str]] = []
        (folder / "app.py").write_text(APP)

    def __call__(self, *args: str, code: int = 0, input: str = "", **environment: str) -> str:
        """Run a command to its end and check its exit code; returns what it printed."""
        done = self.run(*args, input=input, **environment)
        assert done.returncode == code, f"{args} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
        return done.stdout if code == 0 else done.stdout + done.stderr

    def run(self, *args: str, input: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*REFOLD, *args],
            cwd=self.folder,
            env=self.environment | environment,
            input=input,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=PATIENCE_S,
            check=False,
        )

    def json(self, *args: str, code: int = 0) -> Any:
        """What a command with `--json` prints."""
        return json.loads(self(*args, "--json", code=code))

    def start(self, *args: str) -> subprocess.Popen[str]:
        """Run a command beside the test."""
        process = subprocess.Popen(
            [*REFOLD, *args],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.running.append(process)
        return process

    def effects(self) -> list[str]:
        path = self.folder / "effects.txt"
        return path.read_text().splitlines() if path.exists() else []

    def slow_down(self) -> None:
        """From now on the step `ship` never ends by itself."""
        os.mkfifo(self.folder / "gate")
        (self.folder / "slow").touch()

    def speed_up(self) -> None:
        (self.folder / "slow").unlink()

    def until(self, happened: Callable[[], object], process: subprocess.Popen[str] | None = None) -> None:
        """Wait for something that another process does."""
        deadline = monotonic() + PATIENCE_S
        while not happened():
            assert monotonic() < deadline, "it has not happened"
            if process is not None and process.poll() is not None:
                raise AssertionError(f"ended with {process.returncode}: {process.communicate()}")
            sleep(0.02)

    def shipping(self) -> bool:
        return any(line.startswith("ship") for line in self.effects())

    def close(self) -> None:
        for process in self.running:
            if process.poll() is None:
                process.kill()
            process.communicate()
