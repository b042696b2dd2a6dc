"""DBOS 3 on PostgreSQL; run by `benchmarks.postgres.peers`, in the venv of `bench_dbos.py`.

`python bench_dbos_postgres.py DSN RUNS STEPS IN_FLIGHT` prints steps a second of so many runs in one
process, and the processor time that they took it.
"""

import json
import sys
import time

from dbos import DBOS


@DBOS.step()
def nothing(number: int) -> int:
    return number


@DBOS.workflow()
def sequential(steps: int) -> int:
    for number in range(steps):
        nothing(number)
    return steps


def main() -> None:
    dsn, runs, steps, in_flight = sys.argv[1], *map(int, sys.argv[2:])
    DBOS(config={
        "name": "bench", "system_database_url": dsn, "log_level": "ERROR", "application_version": "1",
        "executor_id": "bench", "max_executor_threads": in_flight, "sys_db_pool_size": 20,
    })  # fmt: skip
    DBOS.launch()
    sequential(1)
    began, cpu = time.perf_counter(), time.process_time()
    handles = [DBOS.start_workflow(sequential, steps) for _ in range(runs)]
    for handle in handles:
        handle.get_result()
    took, spent = time.perf_counter() - began, time.process_time() - cpu
    print(json.dumps({"steps_per_s": runs * steps / took, "cpu_s": spent}), flush=True)
    DBOS.destroy()


if __name__ == "__main__":
    main()
