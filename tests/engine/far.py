"""Steps whose bodies run in other processes, where this module is imported by its name."""

import logging
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from refold import Retry, current_step, record_cost, step

SOON = Retry(max_attempts=3, initial_interval=0.01, max_interval=0.01)


@dataclass
class Point:
    x: int
    y: tuple[int, ...]


class Unlucky(Exception):
    data = {"odds": 13}  # noqa: RUF012 - an exception's data, never changed


class Hopeless(Unlucky):
    pass


@step(run_in="process")
def moved(point: Point, by: int = 1, **named: Any) -> Point:
    return Point(point.x + by, (*point.y, *named.values()))


@step(run_in="process")
async def pid() -> int:
    return os.getpid()


@step(run_in="process")
def tells(cents: str) -> str:
    info = current_step()
    print("printed")
    logging.getLogger("shop").warning("logged %s", cents)
    record_cost(cents, model="m", input_tokens=3, detail={"a": [1]})
    info.debug({"workflow": info.workflow, "trace": info.trace_id})
    info.artifact("a.txt", data=b"abc")
    return f"{info.idempotency_key} {info.attempt}"


@step(run_in="process", retry=SOON)
def unlucky(file: str) -> int:
    tries = Path(file).stat().st_size if Path(file).exists() else 0
    Path(file).write_bytes(b"." * (tries + 1))
    if tries < 2:
        raise Unlucky(f"try {tries}")
    return tries


@step(run_in="process", retry=Retry(max_attempts=3, initial_interval=0.01, non_retryable=(Unlucky,)))
def hopeless() -> None:
    raise Hopeless("no")


@step(run_in="process")
def returns_a_socket() -> Any:
    return object()


@step(run_in="process", retry=SOON)
def dies_once(file: str) -> str:
    if not Path(file).exists():
        Path(file).touch()
        print("the last words")
        os._exit(7)
    return "alive"


@step(run_in="process", execution="at_most_once")
def dies(signal: int) -> None:
    os.kill(os.getpid(), signal)


def spin(folder: str, name: str) -> None:
    """Say which process this is, then keep it and its interpreter busy, in C, for ever."""
    file = Path(folder) / name
    file.with_suffix(".part").write_text(str(os.getpid()))
    file.with_suffix(".part").rename(file)
    re.match("(a+)+$", "a" * 60 + "b")


spins = step(run_in="process")(spin)
"""The step and the function have names of their own."""


@step(run_in="process", timeout=0.3)
def spins_too_long(folder: str) -> None:
    spin(folder, "late")


@step(run_in="process")
def meets(folder: str, me: int, others: int) -> int:
    """Ends when all are here, so they must be in as many processes."""
    (Path(folder) / f"here-{me}").touch()
    while len(list(Path(folder).glob("here-*"))) < others:
        time.sleep(0.01)
    return os.getpid()


# ---- by an executor -------------------------------------------------------------------------------


@step(run_in="cluster")
def weighs(word: str) -> list[Any]:
    record_cost("0.1", model=word)
    return [len(word), current_step().idempotency_key]


@step(run_in="cluster", retry=Retry(max_attempts=2, initial_interval=0.01))
def fails_there(folder: str) -> None:
    with (Path(folder) / "tries").open("a") as file:
        file.write("x")
    raise Unlucky("there")


@step(run_in="cluster", timeout=0.2)
def takes_long(seconds: float) -> str:
    time.sleep(seconds)
    return "late"


@step(run_in="cluster")
def kills_its_worker_once(file: str) -> int:
    if not Path(file).exists():
        Path(file).write_text(str(os.getpid()))
        os._exit(1)
    return int(Path(file).read_text())
