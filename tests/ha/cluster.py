"""Three nodes of PostgreSQL, Patroni and etcd on the loopback, as Debian packages them."""

import json
import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg

from tests.ha.nodes import family, folder_of_servers, free_port, tools, until
from tests.ha.packages import program

# The API of etcd 2: through that of etcd 3 Patroni 3.0.2 (Debian 12) writes the leader's key without looking
# who has it, so that a primary that was frozen takes it back, and what its successor acknowledged is lost.
PATRONI = """
scope: refold
name: n{number}
restapi: {{listen: '127.0.0.1:{rest}', connect_address: '127.0.0.1:{rest}'}}
etcd: {{hosts: '{etcds}'}}
bootstrap:
  dcs:
    ttl: 20
    loop_wait: 2
    retry_timeout: 6
    maximum_lag_on_failover: 1048576
    primary_start_timeout: 0
    master_start_timeout: 0
    synchronous_mode: {synchronous}
    postgresql:
      use_pg_rewind: true
      parameters: {{wal_level: replica, hot_standby: 'on', max_connections: 100, wal_log_hints: 'on',
        wal_keep_size: 256MB, max_wal_senders: 10, shared_buffers: 64MB}}
  initdb: [{{encoding: UTF8}}, data-checksums, {{auth: trust}}]
  pg_hba: ['host all all 127.0.0.1/32 trust', 'host replication all 127.0.0.1/32 trust']
postgresql:
  listen: 127.0.0.1:{port}
  connect_address: 127.0.0.1:{port}
  data_dir: {folder}/data{number}
  bin_dir: {bin}
  pgpass: {folder}/pgpass{number}
  authentication:
    superuser: {{username: postgres, password: x}}
    replication: {{username: postgres, password: x}}
    rewind: {{username: postgres, password: x}}
  parameters: {{unix_socket_directories: '{folder}'}}
watchdog: {{mode: 'off'}}
"""


class Member:
    """One node: a server, the Patroni that looks after it, and an etcd."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.port, self.rest, self.etcd, self.peer = (free_port() for _ in range(4))
        self.processes: dict[str, subprocess.Popen[Any]] = {}

    def role(self) -> str:
        """`primary`, `standby`, or empty when it does not answer."""
        try:
            with psycopg.connect(
                f"host=127.0.0.1 port={self.port} user=postgres dbname=postgres connect_timeout=2",
                autocommit=True,
            ) as connection:
                row = connection.execute("SELECT pg_is_in_recovery()").fetchone()
                return "standby" if row == (True,) else "primary"
        except psycopg.Error:
            return ""


class Cluster:
    """Started by `cluster`; nothing of it is left afterwards."""

    def __init__(self, folder: Path, *, synchronous: bool) -> None:
        self.folder, self.synchronous = folder, synchronous
        self.bin, self.who = tools()
        self.programs = {
            "etcd": program("etcd", "etcd-server"),
            "patroni": program("patroni", "patroni", "python3-etcd"),
        }
        self.members = [Member(number) for number in (1, 2, 3)]
        etcds = ",".join(f"127.0.0.1:{member.etcd}" for member in self.members)
        for member in self.members:
            (folder / f"p{member.number}.yml").write_text(PATRONI.format(
                number=member.number, rest=member.rest, etcds=etcds, port=member.port, folder=folder,
                bin=self.bin, synchronous=str(synchronous).lower(),
            ))  # fmt: skip

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{member.port}" for member in self.members)
        return f"postgresql://postgres@{hosts}/postgres?patience=4&connect_timeout=2"

    def start(self) -> None:
        for member in self.members:
            self.start_etcd(member)
        until(lambda: self._etcd_is_well(), what="etcd")
        for member in self.members:
            self.start_patroni(member)
        self.wait_until_whole()

    def _etcd_is_well(self) -> bool:
        place = f"http://127.0.0.1:{self.members[0].etcd}/health"
        with urllib.request.urlopen(place, timeout=5) as answer:
            return bool(json.load(answer)["health"] == "true")

    def start_etcd(self, member: Member) -> None:
        peers = ",".join(f"e{other.number}=http://127.0.0.1:{other.peer}" for other in self.members)
        client, peer = f"http://127.0.0.1:{member.etcd}", f"http://127.0.0.1:{member.peer}"
        self._run(member, "etcd", "--name", f"e{member.number}", "--data-dir", f"etcd{member.number}",
                  "--listen-client-urls", client, "--advertise-client-urls", client,
                  "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
                  "--initial-cluster", peers, "--initial-cluster-state", "new",
                  "--heartbeat-interval", "300", "--election-timeout", "3000",
                  "--unsafe-no-fsync", "--enable-v2")  # fmt: skip

    def start_patroni(self, member: Member) -> None:
        self._run(member, "patroni", f"p{member.number}.yml")

    def _run(self, member: Member, name: str, *arguments: str) -> None:
        path = self.folder / f"{name}{member.number}.log"
        path.touch()
        with path.open("ab") as log:
            command = [self.programs[name], *arguments]
            process: subprocess.Popen[Any] = subprocess.Popen(
                command, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **self.who
            )
            member.processes[name] = process
            (self.folder / f"{name}{member.number}.pid").write_text(f"{process.pid}\n")

    # ---- looking

    def primary(self) -> Member | None:
        return next((member for member in self.members if member.role() == "primary"), None)

    def state(self) -> list[dict[str, Any]]:
        """What Patroni says of its members."""
        for member in self.members:
            with suppress(OSError, ValueError):
                place = f"http://127.0.0.1:{member.rest}/cluster"
                with urllib.request.urlopen(place, timeout=5) as answer:
                    found: list[dict[str, Any]] = json.load(answer)["members"]
                    return found
        return []

    def wait_until_whole(self, number: int = 3) -> None:
        """All follow the primary, and one of them is what commits wait for, where that is wanted."""

        def whole() -> bool:
            state = self.state()
            roles = [one["role"] for one in state if one["state"] in ("running", "streaming")]
            wanted = {"leader", "sync_standby"} if self.synchronous else {"leader"}
            return len(roles) >= number and wanted <= set(roles) and self.primary() is not None

        until(whole, 240, "a cluster of so many members")

    # ---- harm

    def pids(self, member: Member, *names: str) -> list[int]:
        """Of the node's programs; `postgres` is the server with its children."""
        found = [pid for name in names if (p := member.processes.get(name)) for pid in family(p.pid)]
        if "postgres" in names:
            with suppress(OSError, IndexError, ValueError):
                pid_file = self.folder / f"data{member.number}" / "postmaster.pid"
                found += family(int(pid_file.read_text().split()[0]))
        return found

    def signal(self, member: Member, number: signal.Signals, *names: str) -> list[int]:
        found = self.pids(member, *names)
        send(found, number)
        return found

    def switch_over(self, member: Member) -> None:
        """Ask Patroni to make another one the primary."""
        body = json.dumps({"leader": f"n{member.number}"}).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{member.rest}/switchover", body)
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=120) as answer:
            answer.read()

    def bring_back(self, member: Member) -> None:
        for process in member.processes.values():
            process.wait(30)
        self.start_etcd(member)
        self.start_patroni(member)

    def stop(self) -> None:
        for member in self.members:
            found = self.pids(member, "patroni", "etcd", "postgres")
            send(found, signal.SIGKILL)
            send(found, signal.SIGCONT)
        for member in self.members:
            for process in member.processes.values():
                process.wait(30)
        for member in self.members:  # what Patroni has started in between
            send(self.pids(member, "postgres"), signal.SIGKILL)


def send(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


@contextmanager
def cluster(*, synchronous: bool = True) -> Iterator[Cluster]:
    with folder_of_servers() as folder:
        made = Cluster(folder, synchronous=synchronous)
        try:
            made.start()
            yield made
        finally:
            made.stop()
