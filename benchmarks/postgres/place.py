"""The server that these benches measure, its bare commit, and where the processor's time goes."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from tests import pg

from ..bare import step_bytes

DURABLE = {"fsync": "on", "full_page_writes": "on", "autovacuum": "on", "shared_buffers": "256MB"}
"""What tests switch off for speed; the rest are PostgreSQL's defaults."""
WARM_UP = 1_000
"""Commits before measuring: the server's files and plans are there, its WAL segments are recycled or not."""
TICKS = os.sysconf("SC_CLK_TCK")


@contextmanager
def server(**options: object) -> Iterator[str]:
    """A server of our own with durable settings; its data lies in the folder for temporary files."""
    with pg.server(**{**DURABLE, **options}) as dsn:
        yield dsn


def log_url(dsn: str, schema: str) -> str:
    """The URL of a log in a schema of its own."""
    return f"{dsn}&schema={schema}"


class Bare:
    """A table with a key and a body: an INSERT and its COMMIT are the least a log on PostgreSQL can do."""

    def __init__(self, dsn: str, size: int | None = None, table: str = "bare") -> None:
        self.body = b"x" * (step_bytes() if size is None else size)
        self._connection = psycopg.connect(dsn, autocommit=True, prepare_threshold=0)
        self._table = table
        self._connection.execute(
            f"CREATE TABLE IF NOT EXISTS {table} "
            "(position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body bytea)".encode()
        )
        self._insert = f"INSERT INTO {table} (body) VALUES (%b)".encode()
        self.commits(WARM_UP)

    def commits(self, count: int) -> float:
        """Seconds one INSERT with its COMMIT took, mean over `count` of them."""
        execute, insert, body = self._connection.execute, self._insert, (self.body,)
        began = time.perf_counter()
        for _ in range(count):
            execute(insert, body)
        return (time.perf_counter() - began) / count

    def close(self) -> None:
        self._connection.close()


def server_cpu(dsn: str) -> float:
    """Processor seconds of the server and all its processes so far (Linux)."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        backend = connection.info.backend_pid
        postmaster = int(_stat(backend)[1])
        total = 0.0
        for folder in Path("/proc").iterdir():
            if not folder.name.isdecimal():
                continue
            try:
                fields = _stat(int(folder.name))
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(folder.name) == postmaster:  # with those of its children that have ended
                total += sum(map(int, fields[11:15])) / TICKS
            elif int(fields[1]) == postmaster:
                total += sum(map(int, fields[11:13])) / TICKS
        return total


def own_cpu() -> float:
    """Processor seconds of this process so far."""
    return time.process_time()


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name: state, parent …"""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
