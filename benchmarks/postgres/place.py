"""The server that these benches measure, its bare commit, and where the processor's time goes."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

from tests import pg

from ..bare import step_bytes
from ..harness import Scale

DURABLE = {"fsync": "on", "full_page_writes": "on", "autovacuum": "on", "shared_buffers": "256MB"}
"""What tests switch off for speed; the rest are PostgreSQL's defaults."""
WARM_UP = 1_000
"""Commits before measuring."""
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

    def __init__(self, scale: Scale, dsn: str, table: str = "bare") -> None:
        self._body = b"x" * step_bytes()
        self._connection = psycopg.connect(dsn, autocommit=True, prepare_threshold=0)
        self._connection.execute(
            f"CREATE TABLE IF NOT EXISTS public.{table} "
            "(position bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body bytea)".encode()
        )
        self._insert = f"INSERT INTO public.{table} (body) VALUES (%b)".encode()
        self.commits(scale.pick(WARM_UP, 5))

    def commits(self, count: int) -> float:
        """Seconds one INSERT with its COMMIT took, mean over `count` of them."""
        execute, insert, body = self._connection.execute, self._insert, (self._body,)
        began = time.perf_counter()
        for _ in range(count):
            execute(insert, body)
        return (time.perf_counter() - began) / count

    def close(self) -> None:
        self._connection.close()


class Split:
    """Processor seconds of the server and of whoever uses it, over several stretches of time (Linux)."""

    def __init__(self, dsn: str, *, own: bool = True) -> None:
        self.server = self.workers = 0.0
        self._dsn, self._own = dsn, own

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count this stretch; this process's time only when it is the one that works."""
        server, own = server_cpu(self._dsn), time.process_time()
        yield
        if self._own:
            self.workers += time.process_time() - own
        self.server += server_cpu(self._dsn) - server

    def server_ms(self, steps: int) -> float:
        return self.server / steps * 1000

    def worker_ms(self, steps: int) -> float:
        return self.workers / steps * 1000

    def all_ms(self, steps: int) -> float:
        return self.worker_ms(steps) + self.server_ms(steps)

    def text(self, steps: int) -> str:
        return f"workers {self.worker_ms(steps):.3f} ms, server {self.server_ms(steps):.3f} ms"


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


def cpu_of(pid: int) -> float:
    """Processor seconds of another process so far (Linux)."""
    return sum(map(int, _stat(pid)[11:13])) / TICKS


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name: state, parent …"""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
