"""DBOS 3 on SQLite under the peer workloads; run by `benchmarks.peers`, in a venv of its own.

`python bench_dbos.py FOLDER WORKLOAD SIZES JOURNAL` prints one JSON object. JOURNAL is `delete` (what DBOS
does by itself: rollback journal, synchronous FULL) or `wal` (the file was put in WAL mode beforehand, which
sticks; synchronous stays FULL).
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pysqlite3

sys.modules["sqlite3"] = pysqlite3  # before SQLAlchemy looks for it

from dbos import DBOS  # noqa: E402


@DBOS.step()
def sync_step(i: int) -> int:
    return i


@DBOS.workflow()
def sequential(steps: int) -> int:
    for i in range(steps):
        sync_step(i)
    return steps


def w1(steps: int) -> dict[str, float]:
    """Milliseconds a step, one run; the sync form, which is the quicker one here."""
    sequential(5)
    began = time.perf_counter()
    sequential(steps)
    return {"ms_per_step": (time.perf_counter() - began) / steps * 1000}


def w2(runs: int, steps: int, in_flight: int) -> dict[str, float]:
    """Steps a second over many runs, `in_flight` of them at a time (the size of DBOS's thread pool).

    The asyncio form measured 140 steps a second where this one did 174.
    """
    began = time.perf_counter()
    handles = [DBOS.start_workflow(sequential, steps) for _ in range(runs)]
    for handle in handles:
        handle.get_result()
    return {"steps_per_s": runs * steps / (time.perf_counter() - began)}


def w3(times: int, idle_s: float) -> dict[str, float]:
    """Start to result of a one-step run in an idle process, milliseconds."""
    spans = []
    for _ in range(times):
        time.sleep(idle_s)
        began = time.perf_counter()
        DBOS.start_workflow(sequential, 1).get_result()
        spans.append((time.perf_counter() - began) * 1000)
    return {"p50_ms": statistics.median(spans)}


WORKLOADS: dict[str, Callable[..., dict[str, float]]] = {"w1": w1, "w2": w2, "w3": w3}


def main() -> None:
    folder, workload, sizes, journal = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3]), sys.argv[4]
    path = folder / "dbos.sqlite"
    connection: Any = pysqlite3.connect(path)
    connection.execute(f"pragma journal_mode = {journal}")
    connection.close()
    DBOS(config={
        "name": "bench", "system_database_url": f"sqlite:///{path}", "log_level": "ERROR",
        "application_version": "1", "executor_id": "bench", "max_executor_threads": sizes.get("in_flight"),
    })  # fmt: skip
    DBOS.launch()
    figures = WORKLOADS[workload](**sizes)
    with pysqlite3.connect(path) as reader:
        mode = reader.execute("pragma journal_mode").fetchone()[0]
        stored = reader.execute("select count(*) from operation_outputs").fetchone()[0]
    print(json.dumps({**figures, "journal": mode, "steps_stored": stored}), flush=True)
    DBOS.destroy()


if __name__ == "__main__":
    main()
