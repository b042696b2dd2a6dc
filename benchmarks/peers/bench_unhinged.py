"""unhinged 0.2 (absurd on SQLite) under the peer workloads; run by `benchmarks.peers`, in a venv of its own.

`python bench_unhinged.py FOLDER WORKLOAD SIZES JOURNAL` prints one JSON object. unhinged always uses WAL with
synchronous FULL, so JOURNAL is only `wal`.
"""

import asyncio
import json
import sqlite3
import statistics
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from unhinged import Unhinged
from unhinged.aio import AsyncUnhinged


def w1(path: str, steps: int) -> dict[str, float]:
    """Milliseconds a step, one run, on the sync worker."""
    app = Unhinged(path)
    took: list[float] = []

    @app.register_task("sequential")
    def sequential(params: Any, ctx: Any) -> int:
        began = time.perf_counter()
        for i in range(params["steps"]):
            ctx.step("nothing", lambda i=i: i)
        took.append(time.perf_counter() - began)
        return 1

    for count in (5, steps):
        app.spawn("sequential", {"steps": count})
        app.run_until_idle()
    app.close()
    return {"ms_per_step": took[-1] / steps * 1000}


def w2(path: str, runs: int, steps: int, in_flight: int) -> dict[str, float]:
    """Steps a second over many runs, `in_flight` of them at any time; the async worker, spawning included."""
    app = AsyncUnhinged(path)

    @app.register_task("several")
    async def several(params: Any, ctx: Any) -> int:
        for i in range(steps):
            await ctx.step("nothing", lambda i=i: i)
        return steps

    began = time.perf_counter()
    for number in range(runs):
        app.spawn("several", {"number": number})
    asyncio.run(app.start_worker(concurrency=in_flight, stop_when_idle=True))
    took = time.perf_counter() - began
    app.close()
    return {"steps_per_s": runs * steps / took}


def w3(path: str, times: int, idle_s: float) -> dict[str, float]:
    """Start to result of a one-step run in an idle process, milliseconds; default polling."""
    app = Unhinged(path)

    @app.register_task("one")
    def one(params: Any, ctx: Any) -> int:
        return int(ctx.step("nothing", lambda: 1))

    worker = threading.Thread(target=app.start_worker)
    worker.start()
    spans = []
    for number in range(times):
        time.sleep(idle_s)
        began = time.perf_counter()
        task = app.spawn("one", {"number": number})
        app.await_task_result(task["task_id"], timeout=60)
        spans.append((time.perf_counter() - began) * 1000)
    app.stop_worker()
    worker.join()
    app.close()
    return {"p50_ms": statistics.median(spans)}


WORKLOADS: dict[str, Callable[..., dict[str, float]]] = {"w1": w1, "w2": w2, "w3": w3}


def main() -> None:
    folder, workload, sizes = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
    path = str(folder / "unhinged.db")
    figures = WORKLOADS[workload](path, **sizes)
    with sqlite3.connect(path) as reader:
        mode = reader.execute("pragma journal_mode").fetchone()[0]
        tables = [name for (name,) in reader.execute("select name from sqlite_master where type = 'table'")]
        stored = sum(
            reader.execute(f'select count(*) from "{name}"').fetchone()[0]
            for name in tables
            if name.startswith("c_") or "checkpoint" in name
        )
    print(json.dumps({**figures, "journal": mode, "steps_stored": stored}), flush=True)


if __name__ == "__main__":
    main()
