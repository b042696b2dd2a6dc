"""Appends while a second server confirms each of them: what a synchronous standby costs."""

import os
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg

from refold.events.postgres import PostgresStore
from refold.events.store import Append, Unit
from refold.events.stream import Tail, chain
from tests import pg

from ..bare import step_events
from ..harness import Figure, Scale, at_least
from .place import DURABLE, log_url

WRITERS = (1, 8)
PATIENCE_S = 60.0


@contextmanager
def standby(dsn: str) -> Iterator[None]:
    """A copy of the server that follows it, on a Unix socket of its own."""
    found = pg.binaries()
    assert found is not None  # else there would be no first one
    folder = Path(tempfile.mkdtemp(prefix="refold-pg-"))
    who: dict[str, Any] = {}
    if os.geteuid() == 0:
        found, user = pg._in_the_open(found, folder), pg.unprivileged()
        os.chown(folder, user.pw_uid, user.pw_gid)
        who = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    rest: dict[str, Any] = {"cwd": folder, "env": {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}, **who}

    def do(program: str, *arguments: object) -> None:
        command = [str(found / program), "-D", f"{folder}/data", *map(str, arguments)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **rest)

    settings = {"listen_addresses": "''", "unix_socket_directories": folder, **DURABLE}
    flags = " ".join(f"-c {name}={value}" for name, value in settings.items())
    try:
        do("pg_basebackup", "-d", dsn, "-R", "-X", "stream", "-c", "fast")
        do("pg_ctl", "-w", "-l", folder / "log", "-o", flags, "start")
        yield
    finally:
        with suppress(subprocess.CalledProcessError):
            do("pg_ctl", "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder, ignore_errors=True)


def confirmed(connection: psycopg.Connection[Any], names: str) -> None:
    """Have commits wait for this standby ('*'), or for none (''), from now on."""
    connection.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'".encode())
    connection.execute(b"SELECT pg_reload_conf()")
    wanted = "sync" if names else "async"
    patience = time.monotonic() + PATIENCE_S
    while connection.execute(b"SELECT sync_state FROM pg_stat_replication").fetchall() != [(wanted,)]:
        if time.monotonic() > patience:
            raise RuntimeError(f"the standby did not become {wanted}")
        time.sleep(0.05)


def appends(stores: list[PostgresStore], name: str, count: int) -> float:
    """Appends a second of as many writers, each with a run of its own."""

    def write(number: int) -> None:
        stream, tail = f"{name}-{number}", Tail()
        for _ in range(count):
            expected = tail
            rows, tail = chain(stream, tail, step_events())
            after = expected.hash if expected.version else b""
            if stores[number].commit([Unit((Append(stream, expected.version, rows, after),))]) != [None]:
                raise RuntimeError("the store refused an append that fits")

    threads = [threading.Thread(target=write, args=(number,)) for number in range(len(stores))]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return len(stores) * count / (time.perf_counter() - began)


def run(scale: Scale, dsn: str) -> list[Figure]:
    """Local and confirmed appends, in rounds that take turns."""
    rates: dict[tuple[int, str], list[float]] = {}
    stores = [PostgresStore(log_url(dsn, "standby")) for _ in range(max(WRITERS))]
    with standby(dsn), psycopg.connect(dsn, autocommit=True) as connection:
        for round_ in range(scale.pick(7, 1)):
            for names in ("", "*"):
                confirmed(connection, names)
                for writers in WRITERS:
                    name = f"{round_}-{len(names)}-{writers}"
                    count = scale.pick(600, 5) // writers + 1
                    rates.setdefault((writers, names), []).append(appends(stores[:writers], name, count))
        confirmed(connection, "")
        for store in stores:
            store.close()
    figures = []
    for writers in WRITERS:
        local, both = rates[writers, ""], rates[writers, "*"]
        ratio = statistics.median(b / a for a, b in zip(local, both, strict=True))
        figures.append(
            at_least(f"appends with a synchronous standby, writers: {writers}", statistics.median(both),
                     "a second", 0.6, ratio=ratio, of="local",
                     note=f"local: {statistics.median(local):,.0f} a second; all on the same cores and disk")
        )  # fmt: skip
    return figures
