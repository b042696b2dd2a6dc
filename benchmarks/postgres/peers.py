"""DBOS and absurd on the same server in the same minutes: runs of five steps, in one process and in four."""

import json
import statistics
import subprocess

import psycopg

from ..harness import Figure, Scale, at_least, run_async
from ..peers import HERE, python_of
from .place import Split, log_url
from .runs import IN_FLIGHT, STEPS, many_runs
from .workers import Crew, throughput, until

CREW = 4
ABSURD_CONCURRENCY = 50


def database(dsn: str, name: str) -> str:
    """A database of its own for a peer."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return dsn.replace("/postgres?", f"/{name}?")


def dbos(dsn: str, runs: int, split: Split) -> float:
    """Steps a second of DBOS, all runs in one process. The server's time has that of making its tables."""
    program = [str(python_of("dbos")), str(HERE / "bench_dbos_postgres.py")]
    command = [*program, dsn, *map(str, (runs, STEPS, IN_FLIGHT))]
    with split.counted():
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    if done.returncode:
        raise RuntimeError(f"DBOS on PostgreSQL ended with {done.returncode}\n{done.stderr[-3000:]}")
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    split.workers += answer["cpu_s"]
    return answer["steps_per_s"]


def absurd(dsn: str, runs: int, split: Split) -> float:
    """Steps a second of four absurd workers over tasks that are stored already."""
    program = [str(python_of("absurd")), str(HERE / "bench_absurd.py")]
    subprocess.run([*program, "prepare", dsn, str(runs), str(STEPS)], check=True, timeout=600)
    command = [*program, "work", dsn, str(ABSURD_CONCURRENCY), str(STEPS)]
    left = b"SELECT COUNT(*) FROM absurd.t_default WHERE state <> 'completed'"
    with Crew(command, CREW) as crew, psycopg.connect(dsn, autocommit=True) as connection, split.counted():
        crew.begin()
        took = until(connection, left, 0)
        split.workers += crew.stop()
    return runs * STEPS / took


def run(scale: Scale, dsn: str) -> list[Figure]:
    """Rounds that take turns."""
    rates: dict[str, list[float]] = {"one": [], "dbos": [], "four": [], "absurd": []}
    splits = {name: Split(dsn, own=name == "one") for name in rates}
    runs, rounds = scale.pick(2000, 20), scale.pick(3, 1)
    sizes = {"one": runs, "four": runs, "dbos": scale.pick(200, 5), "absurd": scale.pick(1000, 10)}
    for number in range(rounds):
        url = log_url(dsn, f"one_{number}")
        rates["one"].append(run_async(many_runs(url, runs, splits["one"], views=False)))
        rates["dbos"].append(dbos(database(dsn, f"dbos_{number}"), sizes["dbos"], splits["dbos"]))
        rates["four"].append(throughput(dsn, f"four_{number}", CREW, runs, splits["four"]))
        rates["absurd"].append(absurd(database(dsn, f"absurd_{number}"), sizes["absurd"], splits["absurd"]))

    def theirs(name: str, label: str) -> Figure:
        spent = splits[name].text(rounds * sizes[name] * STEPS)
        return Figure(label, statistics.median(rates[name]), "steps/s", note=f"processor: {spent} a step")

    def ours(name: str, peer: str, label: str, limit: float) -> Figure:
        ratio = statistics.median(our / their for our, their in zip(rates[name], rates[peer], strict=True))
        spent = splits[name].text(rounds * sizes[name] * STEPS)
        less = splits[peer].all_ms(sizes[peer]) / splits[name].all_ms(sizes[name])
        return at_least(
            "Refold: the same", statistics.median(rates[name]), "steps/s", limit, ratio=ratio, of=label,
            note=f"processor: {spent} a step, {less:.1f} times less",
        )  # fmt: skip

    return [
        theirs("dbos", "DBOS 3: 5-step runs, one process"),
        ours("one", "dbos", "DBOS", 20),
        theirs("absurd", "absurd 0.5: 5-step runs, four workers"),
        ours("four", "absurd", "absurd", 3),
    ]
