"""Three nodes with Patroni and etcd, harmed one after the other under load: nothing acknowledged is lost."""

import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from time import monotonic, sleep, time

import pytest

from refold.errors import StoreError
from refold.events import types as t
from refold.events.postgres import PostgresStore
from refold.events.store import Unit
from refold.events.stream import Row
from refold.events.verify import verify
from refold.testing.samples import sample_append
from tests.ha.cluster import Cluster, Member, cluster, send
from tests.ha.nodes import until

pytestmark = pytest.mark.slow
LOAD = Path(__file__).with_name("load.py")
WORKERS = 3
STEPS = 6


class Load:
    """Processes that execute, and one that starts runs."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder
        self.processes: list[subprocess.Popen[str]] = []

    def add(self, role: str) -> subprocess.Popen[str]:
        command = [sys.executable, str(LOAD), role, self.url, str(self.folder)]
        with (self.folder / f"{role}.log").open("a") as log:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        self.processes.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    def acknowledged(self) -> list[tuple[float, str, int, str]]:
        path = self.folder / "acknowledged"
        lines = path.read_text().splitlines() if path.exists() else []
        found = [line.split() for line in lines]
        return [(float(at), stream, int(version), kept) for at, stream, version, kept in found]

    def goes_on(self, since: float) -> bool:
        """Whether several events have been acknowledged after that moment."""
        return sum(at > since for at, *_ in self.acknowledged()) > 20

    def gap(self, since: float) -> float:
        """The longest time from that moment on in which nothing was acknowledged."""
        times = sorted(at for at, *_ in self.acknowledged() if at > since - 1.0)
        return max(after - before for before, after in pairwise(times))

    def attempts(self) -> Counter[tuple[str, ...]]:
        lines = (self.folder / "effects").read_text().splitlines()
        return Counter(tuple(line.split()[:3]) for line in lines)

    def stop(self) -> None:
        for process in self.processes:
            process.kill()
            process.communicate()


@contextmanager
def load(url: str, folder: Path) -> Iterator[Load]:
    made = Load(url, folder)
    try:
        for _ in range(WORKERS):
            made.add("work")
        made.add("start")
        yield made
    finally:
        made.stop()


# ---- what is done to it -----------------------------------------------------------------------------


def switchover(made: Cluster, old: Member) -> None:
    made.switch_over(old)


def kill_the_server(made: Cluster, old: Member) -> None:
    made.signal(old, signal.SIGKILL, "postgres")


def kill_the_node(made: Cluster, old: Member) -> None:
    made.signal(old, signal.SIGKILL, "patroni", "postgres", "etcd")


def freeze_the_node(made: Cluster, old: Member) -> float:
    """Until another one is the primary; then it wakes, and believes for a moment that it still is."""
    frozen = made.signal(old, signal.SIGSTOP, "patroni", "postgres", "etcd")
    try:
        until(lambda: another(made, old), 120, "another primary")
        promoted = time()
        sleep(3)  # time in which the others get on
    finally:
        send(frozen, signal.SIGCONT)
    print(f"  the one that woke acknowledged {zombie_acknowledges(made, old)} commits", flush=True)
    return promoted


def zombie_acknowledges(made: Cluster, old: Member) -> int:
    """How many commits the old primary acknowledges, until it follows."""
    acknowledged, deadline = 0, monotonic() + 60
    url = f"postgresql://postgres@127.0.0.1:{old.port}/postgres?patience=0.5&connect_timeout=2"
    while monotonic() < deadline and old.role() != "standby":
        try:
            store = PostgresStore(url, create=False)
        except StoreError:
            sleep(0.1)
            continue
        try:
            store.commit([Unit((sample_append(store, f"zombie-{time()}"),))])
            acknowledged += 1
        except StoreError:
            pass
        finally:
            store.close()
    assert acknowledged == 0
    return acknowledged


def another(made: Cluster, old: Member) -> bool:
    return any(member is not old and member.role() == "primary" for member in made.members)


HARM: tuple[Callable[[Cluster, Member], float | None], ...] = (
    switchover, kill_the_server, freeze_the_node, kill_the_node,
)  # fmt: skip


def test_nothing_acknowledged_is_lost_when_nodes_fail(tmp_path: Path) -> None:
    with cluster() as made, load(made.url, tmp_path) as running:
        until(lambda: running.goes_on(0.0), 120, "the load")
        for harm in HARM:
            made.wait_until_whole()
            old, began = made.primary(), time()
            assert old is not None
            known = harm(made, old)
            until(lambda old=old: another(made, old), 120, "another primary")
            promoted = known or time()
            until(lambda since=promoted: running.goes_on(since), 120, "the load")
            print(
                f"{harm.__name__}: another primary after {promoted - began:.1f} s, nothing acknowledged for "
                f"{running.gap(began):.1f} s", flush=True,
            )  # fmt: skip
            if harm is kill_the_node:
                made.bring_back(old)
        made.wait_until_whole()
        (tmp_path / "enough").touch()
        store = PostgresStore(made.url)
        until(lambda: (tmp_path / "started").exists(), 120)
        until(lambda: all(work.state == "done" for work, _ in store.all_work()), 180, "the end of all runs")
        check(store, running)
        store.close()


def check(store: PostgresStore, running: Load) -> None:
    acknowledged = running.acknowledged()
    kept = {(row.stream, row.version): row.hash.hex() for row in everything(store)}
    lost = [line for line in acknowledged if kept.get((line[1], line[2])) != line[3]]
    runs = int((running.folder / "started").read_text())
    for number in range(runs):
        events = [row.event() for row in store.read(f"run-{number}")]
        completed = Counter(event.step for event in events if isinstance(event, t.StepCompleted))
        assert len(completed) == STEPS
        assert set(completed.values()) == {1}
    twice = [key for key, times in running.attempts().items() if times > 1]
    print(
        f"{runs} runs, {len(acknowledged)} events acknowledged: {len(lost)} lost, {len(twice)} steps twice",
        flush=True,
    )
    assert not lost
    assert not twice
    assert not verify(store).problems


def everything(store: PostgresStore) -> Iterator[Row]:
    after = 0
    while rows := store.scan(after, 5_000):
        yield from rows
        after = rows[-1].position


def test_with_asynchronous_replication_acknowledged_events_are_lost_and_that_is_noticed() -> None:
    """Control: the standbys hear nothing of the last events, and the primary's node dies."""
    with cluster(synchronous=False) as made:
        store = PostgresStore(made.url)
        store.commit([Unit((sample_append(store, "run", 2),))])
        old = made.primary()
        assert old is not None
        deaf = [pid for member in made.members if member is not old for pid in receivers(made, member)]
        assert len(deaf) == 2
        sleep(1)
        send(deaf, signal.SIGSTOP)
        for _ in range(20):
            assert store.commit([Unit((sample_append(store, "run", 1),))]) == [None]
        made.signal(old, signal.SIGKILL, "patroni", "postgres", "etcd")
        send(deaf, signal.SIGKILL)
        until(lambda: another(made, old), 120, "another primary")
        after = PostgresStore(made.url)
        print(f"acknowledged: 22 events, found after the failover: {after.tail('run').version}", flush=True)
        assert after.tail("run").version < 22
        after.close()
        with pytest.raises(StoreError, match="does not have event 22 of 'run', which was acknowledged"):
            until(lambda: store.tail("run").version > 22)
        store.close()


def receivers(made: Cluster, member: Member) -> list[int]:
    """The processes through which a standby hears of commits."""
    found = made.pids(member, "postgres")
    return [pid for pid in set(found) if b"walreceiver" in Path(f"/proc/{pid}/cmdline").read_bytes()]
