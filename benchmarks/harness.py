"""What every bench shares: figures, scale, rounds that take turns, fresh processes, and the table."""

import asyncio
import dataclasses
import json
import os
import platform
import sqlite3
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Figure:
    """One line of the table."""

    name: str
    value: float
    unit: str
    bar: str = ""
    """What is asked, as text; empty: for information only."""
    ratio: float | None = None
    """What the bar compares, when that is not the value itself: usually the multiple of a bare commit."""
    met: bool | None = None
    note: str = ""
    command: str = ""
    """Filled in by the runner."""


def at_most(
    name: str,
    value: float,
    unit: str,
    limit: float,
    *,
    ratio: float | None = None,
    of: str = "",
    note: str = "",
) -> Figure:
    """A figure whose value, or whose ratio when one is given, should not exceed `limit`."""
    asked = f"≤ {limit:g} x {of}" if ratio is not None else f"≤ {limit:g} {unit}"
    return Figure(name, value, unit, asked, ratio, (value if ratio is None else ratio) <= limit, note)


def at_least(
    name: str,
    value: float,
    unit: str,
    limit: float,
    *,
    ratio: float | None = None,
    of: str = "",
    note: str = "",
) -> Figure:
    """A figure whose value, or whose ratio when one is given, should reach `limit`."""
    asked = f"≥ {limit:g} x {of}" if ratio is not None else f"≥ {limit:,.0f} {unit}"
    return Figure(name, value, unit, asked, ratio, (value if ratio is None else ratio) >= limit, note)


@dataclass(frozen=True)
class Scale:
    """How much to do, and where."""

    folder: Path
    """An empty folder on the disk that is to be measured; removed afterwards."""
    quick: bool = False
    """Tiny sizes: shows that the bench runs; its figures mean nothing."""

    def pick(self, full: int, quick: int) -> int:
        """The size to use."""
        return quick if self.quick else full

    def path(self, name: str) -> Path:
        """A file that does not exist yet."""
        number = 0
        while (path := self.folder / f"{name}{number or ''}.db").exists():
            number += 1
        return path


Bench = Callable[[Scale], list[Figure]]


def run_async(main: Coroutine[Any, Any, T]) -> T:
    """Drive a part of a bench on a loop of its own."""
    return asyncio.run(main)


def median_ratio(values: Sequence[float], bases: Sequence[float]) -> float:
    """Median of value ÷ base, round by round: what slows one round slows both of its halves."""
    return statistics.median(value / base for value, base in zip(values, bases, strict=True))


def fresh(module: str, **options: Any) -> dict[str, Any]:
    """What `child(**options)` of a bench module returns in a new process, where nothing is warm."""
    return fresh_code(f"from {module} import child; import json, sys; "
                      "print(json.dumps(child(**json.loads(sys.argv[1]))))", options)  # fmt: skip


def fresh_code(code: str, options: dict[str, Any] | None = None) -> dict[str, Any]:
    """The JSON object that `code` prints last, run by a new interpreter."""
    command = [sys.executable, "-c", code, json.dumps(options or {})]
    # Where bytecode is not written, every process compiles what was edited since: 0.13 s of something else.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the process measured ended with {done.returncode}:\n{done.stderr[-4000:]}")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def resident_bytes() -> int:
    """Resident memory of this process (Linux; elsewhere its peak)."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except FileNotFoundError:
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


def await_us(count: int = 20_000) -> float:
    """Microseconds to await one future on the stock loop: how fast Python is here and now (3.7 on a quiet
    machine of ours), so that figures which hang on the processor can be compared between machines.
    """

    async def wait() -> float:
        loop = asyncio.get_running_loop()
        began = time.perf_counter()
        for _ in range(count):
            future = loop.create_future()
            loop.call_soon(future.set_result, None)
            await future
        return (time.perf_counter() - began) / count * 1e6

    return min(asyncio.run(wait()) for _ in range(3))


def machine() -> dict[str, Any]:
    """Where the figures come from."""
    return {
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "await_us": round(await_us(), 2),
    }


def number(value: float | None) -> str:
    """Three significant digits, or whole thousands."""
    if value is None:
        return ""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def table(figures: Sequence[Figure]) -> str:
    """The figures as aligned text."""
    words = {True: "ok", False: "MISSED", None: ""}
    rows = [("name", "figure", "unit", "bar", "ratio", "", "reproduce")]
    rows += [
        (f.name, number(f.value), f.unit, f.bar, number(f.ratio), words[f.met], f.command) for f in figures
    ]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = []
    for row, figure in zip(rows, [None, *figures], strict=True):
        cells = [
            c.rjust(w) if i in (1, 4) else c.ljust(w)
            for i, (c, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
        if figure is not None and figure.note:
            lines.append(f"    {figure.note}")
    return "\n".join(lines)


def as_json(figures: Sequence[Figure]) -> str:
    """Machine and figures as JSON."""
    return json.dumps({"machine": machine(), "figures": [dataclasses.asdict(f) for f in figures]}, indent=1)
