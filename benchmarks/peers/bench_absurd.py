"""absurd 0.5 on PostgreSQL; run by `benchmarks.postgres.peers`, in a venv of its own.

`python bench_absurd.py prepare DSN RUNS STEPS` makes its schema and stores tasks; with `work DSN CONCURRENCY
STEPS` it is one worker of a crew: says `ready`, begins at the first line it reads, stops at the second one.
"""

import asyncio
import json
import sys
import time
from typing import Any

import psycopg
from absurd_sdk import Absurd, AsyncAbsurd
from absurdctl import BUNDLED_SCHEMA_SQL

POLL_S = 0.02
"""Its default is 0.25; this is the better of the two for it."""


def prepare(dsn: str, runs: int) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(BUNDLED_SCHEMA_SQL)
    app = Absurd(dsn)
    app.create_queue("default")

    @app.register_task("several")
    def several(params: Any, ctx: Any) -> None:
        """Only to be spawned here."""

    for number in range(runs):
        app.spawn("several", {"number": number})
    app.close()


async def work(dsn: str, concurrency: int, steps: int) -> None:
    app = AsyncAbsurd(dsn)

    @app.register_task("several")
    async def several(params: Any, ctx: Any) -> int:
        async def nothing() -> int:
            return 1

        for number in range(steps):
            await ctx.step(f"nothing-{number}", nothing)
        return steps

    worker = asyncio.create_task(app.start_worker(concurrency=concurrency, poll_interval=POLL_S))
    await asyncio.to_thread(sys.stdin.readline)
    app.stop_worker()
    await worker
    await app.close()


def main() -> None:
    mode, dsn, count, steps = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    if mode == "prepare":
        prepare(dsn, count)
        return
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.process_time()
    asyncio.run(work(dsn, count, steps))
    print(json.dumps(time.process_time() - began), flush=True)


if __name__ == "__main__":
    main()
