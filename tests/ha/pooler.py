"""pgbouncer in transaction mode, in front of the server of the tests."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs, urlsplit

import psycopg

from tests.ha.nodes import folder_of_servers, free_port, tools, until
from tests.ha.packages import program


@contextmanager
def pooler(server: str) -> Iterator[str]:
    """Few connections to the server, each for whoever has a transaction."""
    bouncer, (_, who) = program("pgbouncer", "pgbouncer"), tools()
    parts = urlsplit(server)
    host = parse_qs(parts.query).get("host", [parts.hostname or "127.0.0.1"])[0]
    port, user = free_port(), parts.username or "refold"
    with folder_of_servers() as folder:
        (folder / "users.txt").write_text(f'"{user}" "{parts.password or ""}"\n')
        (folder / "pgbouncer.ini").write_text(
            f"[databases]\n* = host={host} port={parts.port or 5432}\n"
            f"[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            f"auth_type = trust\nauth_file = {folder}/users.txt\npool_mode = transaction\n"
            "default_pool_size = 5\nmax_client_conn = 500\n"
        )
        log = (folder / "log").open("wb")
        process = subprocess.Popen([bouncer, f"{folder}/pgbouncer.ini"], stdout=log, stderr=log, **who)
        (folder / "pgbouncer.pid").write_text(f"{process.pid}\n")
        try:
            url = f"postgresql://{user}@127.0.0.1:{port}{parts.path}"
            until(lambda: _answers(url), what="pgbouncer")
            yield url
        finally:
            process.kill()
            process.wait()
            log.close()


def _answers(url: str) -> bool:
    psycopg.connect(url).close()
    return True
