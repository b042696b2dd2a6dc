"""DBOS and absurd on the same server in the same minutes: runs of five steps, in one process and in four."""

import json
import statistics
import subprocess

import psycopg

from ..harness import Figure, Scale, at_least, run_async
from ..peers import HERE, python_of
from .place import Split, log_url
from .runs import IN_FLIGHT, STEPS, many_runs
from .workers import Crew, throughput, until_done

CREW = 4
ABSURD_CONCURRENCY = 50


def database(dsn: str, name: str) -> str:
    """A database of its own for a peer."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return dsn.replace("/postgres?", f"/{name}?")


def dbos(dsn: str, runs: int) -> float:
    """Steps a second of DBOS, all runs in one process."""
    program = [str(python_of("dbos")), str(HERE / "bench_dbos_postgres.py")]
    command = [*program, dsn, *map(str, (runs, STEPS, IN_FLIGHT))]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode:
        raise RuntimeError(f"DBOS on PostgreSQL ended with {done.returncode}\n{done.stderr[-3000:]}")
    rate: float = json.loads(done.stdout.splitlines()[-1])["steps_per_s"]
    return rate


def absurd(dsn: str, runs: int) -> float:
    """Steps a second of four absurd workers over tasks that are stored already."""
    program = [str(python_of("absurd")), str(HERE / "bench_absurd.py")]
    subprocess.run([*program, "prepare", dsn, str(runs), str(STEPS)], check=True, timeout=600)
    command = [*program, "work", dsn, str(ABSURD_CONCURRENCY), str(STEPS)]
    left = b"SELECT COUNT(*) FROM absurd.t_default WHERE state <> 'completed'"
    with Crew(command, CREW) as crew, psycopg.connect(dsn, autocommit=True) as connection:
        took = until_done(crew, connection, left)
        crew.stop()
    return runs * STEPS / took


def run(scale: Scale, dsn: str) -> list[Figure]:
    """Rounds that take turns."""
    one: list[float] = []
    four: list[float] = []
    theirs: dict[str, list[float]] = {"dbos": [], "absurd": []}
    runs, rounds = scale.pick(2000, 20), scale.pick(3, 1)
    for number in range(rounds):
        url = log_url(dsn, f"one_{number}")
        one.append(run_async(many_runs(url, runs, Split(dsn), views=False)))
        theirs["dbos"].append(dbos(database(dsn, f"dbos_{number}"), scale.pick(200, 5)))
        four.append(throughput(dsn, f"four_{number}", CREW, runs, Split(dsn, own=False)))
        theirs["absurd"].append(absurd(database(dsn, f"absurd_{number}"), scale.pick(1000, 10)))
    ratios = {
        name: statistics.median(our / their for our, their in zip(ours, theirs[name], strict=True))
        for name, ours in (("dbos", one), ("absurd", four))
    }
    return [
        Figure("DBOS 3: 5-step runs, one process", statistics.median(theirs["dbos"]), "steps/s"),
        at_least("Refold: the same", statistics.median(one), "steps/s", 20, ratio=ratios["dbos"], of="DBOS"),
        Figure("absurd 0.5: 5-step runs, four workers", statistics.median(theirs["absurd"]), "steps/s"),
        at_least("Refold: the same", statistics.median(four), "steps/s", 3, ratio=ratios["absurd"],
                 of="absurd"),
    ]  # fmt: skip
