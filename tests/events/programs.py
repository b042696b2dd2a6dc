"""Small programs that tests run as processes of their own: `python -m tests.events.programs NAME …`.

Each has one thread and forks freely, which a test runner with threads must not. They talk to the test
over pipes: nobody waits by sleeping.
"""

import ctypes
import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Raw

from refold.events.registry import decode_event
from refold.events.sqlite import SQLiteStore
from refold.events.sqlite_file import File
from refold.events.store import Append, Post, Unit
from refold.events.stream import INBOX, Tail, chain, check_chain
from refold.events.types import Event, RunStarted, StepStarted
from refold.events.verify import verify
from refold.events.work import WorkFold
from refold.testing.samples import sample_append, sample_post, sample_rows, sample_work

AT = datetime(2026, 1, 1, tzinfo=UTC)


def forked(child: Callable[[], None]) -> int:
    """Run `child` in a forked process that ends without unwinding anything of ours."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        child()
        code = 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def say(*words: object) -> None:
    print(*words, flush=True)


# ---- ordinary processes ----------------------------------------------------------------------


def append(path: str, stream: str, commits: str) -> None:
    """Append to one stream, sometimes several rows at once, beside whoever else does."""
    store = SQLiteStore(path)
    chance = random.Random(stream)
    for _ in range(int(commits)):
        rows = sample_append(store, stream, chance.choice([1, 1, 2, 5]))
        assert store.commit([Unit((rows,))]) == [None]
    store.close()


def hold(path: str, owner: str) -> None:
    """Hold the store until standard input ends."""
    store = SQLiteStore(path)
    store.hold(owner)
    say("held")
    sys.stdin.read()


def hold_and_fork(path: str) -> None:
    """Hold the store, fork a child that goes on living, and die by SIGKILL."""
    store = SQLiteStore(path)
    store.hold("parent")

    def wait() -> None:
        say("child", os.getpid())
        sys.stdin.read()

    forked(wait)
    os.kill(os.getpid(), signal.SIGKILL)


def block(path: str) -> None:
    """Keep the write lock until standard input ends."""
    store = SQLiteStore(path)
    with store._file.writing():
        say("blocking")
        sys.stdin.read()


def use_after_fork(path: str) -> None:
    """Use a store on the wrong side of a fork."""
    store = SQLiteStore(path)

    def child() -> None:
        for use in (store.position, lambda: store.commit([])):
            try:
                use()
            except Exception as error:
                say(type(error).__name__, error)

    os.waitpid(forked(child), 0)
    say(store.position())


def correspond(path: str, me: str, commits: str) -> None:
    """Execute a run that writes to all others, too; say what was stored and what refused."""
    store, chance, tail, fold = SQLiteStore(path), random.Random(me), Tail(), WorkFold(me)
    sent: dict[str, list[str]] = {name: [] for name in ("ana", "bob", "eve", "nobody")}
    refused = 0
    for number in range(int(commits)):
        event: Event = StepStarted(id=f"{me}-{number}", at=AT, step=1)
        if number == 0:
            event = RunStarted(id=me, at=AT, workflow="w", workflow_version="1", args=Raw(b"[]"), seed=1)
        fold.apply(event)
        rows, after = chain(me, tail, [event])
        stale = int(number > 0 and chance.random() < 0.1)
        own = Unit(
            (Append(me, tail.version - stale, rows),),
            (fold.row(),),
            tuple(
                _message(store, chance, sent, f"{me}-{number}-{n}")
                for n in range(chance.choice([0, 1, 2, 3]))
            ),
        )
        units = [Unit(posts=(_message(store, chance, sent, f"{me}-{number}-a"),)), own]
        for unit, refusal in zip(units, store.commit(units), strict=True):
            refused += refusal is not None
            for post in unit.posts if refusal is None else ():
                sent[post.run_id].append(decode_event(post.tag, post.state).id)
            if unit is own and refusal is None:
                tail = after
    say(json.dumps({"sent": sent, "refused": refused}))
    store.close()


def _message(store: SQLiteStore, chance: random.Random, sent: dict[str, list[str]], name: str) -> Post:
    """A message for any of them; sometimes only for the inbox as it stands, which others may move."""
    run_id = chance.choice(list(sent))
    expected = store.tail(run_id + INBOX).version if chance.random() < 0.2 else -1
    return sample_post(run_id, name, expected)


# ---- many processes at once --------------------------------------------------------------------


class UnlockedFile(File):
    """Control: makes the tables without taking the write lock first, as a plain `CREATE TABLE` would."""

    def _migrate(self) -> None:
        self._turn_wal_on()
        for statement in self.migration(1):
            self.writer().execute(statement)


class UnlockedStore(SQLiteStore):
    """Control; see `UnlockedFile`."""

    file_class = UnlockedFile


def open_at_once(path: str, count: str, locked: str) -> None:
    """Many processes open a new file at the same moment; says how many could, and why not."""
    kind = SQLiteStore if locked == "locked" else UnlockedStore
    gate_out, gate_in = os.pipe()
    result_out, result_in = os.pipe()

    def child() -> None:
        os.close(gate_in)
        os.read(gate_out, 1)
        try:
            store = kind(path)
            assert store.commit([Unit((sample_append(store, f"run-{os.getpid()}"),))]) == [None]
            answer = "ok"
        except Exception as error:
            answer = str(error)
        os.write(result_in, f"{answer}\n".encode())

    children = [forked(child) for _ in range(int(count))]
    for end in (gate_out, gate_in, result_in):
        os.close(end)
    for pid in children:
        os.waitpid(pid, 0)
    with os.fdopen(result_out) as results:
        say(json.dumps(results.read().splitlines()))


# ---- processes that die -------------------------------------------------------------------------


def commit_for_ever(path: str, acknowledge: Callable[[int], None], early: bool) -> None:
    """Commit to stream `run` and acknowledge each version; `early` (a control) does it before the commit."""
    store = SQLiteStore(path)
    chance = random.Random(os.getpid())
    while True:
        rows = sample_rows("run", chance.choice([1, 2, 3]), store.tail("run"))
        unit = Unit((Append("run", rows[0].version - 1, rows),), (sample_work("run"),))
        if early:
            acknowledge(rows[-1].version)
        assert store.commit([unit]) == [None]
        if not early:
            acknowledge(rows[-1].version)


def kill_at_random(path: str, kills: str, when: str, seed: str) -> None:
    """Kill committing processes by SIGKILL after a random number of acknowledgements; count what was lost."""
    chance = random.Random(int(seed))
    lost = torn = acknowledged = 0
    for _ in range(int(kills)):
        out, into = os.pipe()

        def child(out: int = out, into: int = into) -> None:
            os.close(out)
            commit_for_ever(path, lambda version: _tell(into, version), when == "early")

        pid = forked(child)
        os.close(into)
        with os.fdopen(out) as acks:
            lines = [acks.readline() for _ in range(chance.randint(1, 8))]
            for _ in range(chance.randint(0, 20_000)):  # somewhere into the commit that follows
                pass
            os.kill(pid, signal.SIGKILL)
            lines += acks.readlines()
        os.waitpid(pid, 0)
        store = SQLiteStore(path)
        found = verify(store)
        torn += len(found.problems)
        acknowledged = max(acknowledged, int(lines[-1]))
        lost += max(0, acknowledged - store.tail("run").version)
        store.close()
    say(json.dumps({"lost": lost, "problems": torn, "acknowledged": acknowledged}))


def _tell(pipe: int, version: int) -> None:
    os.write(pipe, f"{version}\n".encode())


def kill_at_statement(path: str, prefix: str) -> None:
    """Die by SIGKILL when SQLite begins a statement that starts with `prefix`, or after the commit."""
    store = SQLiteStore(path)
    store.commit([Unit((sample_append(store, "run", 2),), (sample_work("run", "pending", 1.0),))])

    def on_statement(sql: str) -> None:
        if sql.startswith(prefix):
            os.kill(os.getpid(), signal.SIGKILL)

    store._file.writer().set_trace_callback(on_statement)
    store.commit([Unit((sample_append(store, "run", 40),), (sample_work("run"),), (sample_post("run"),))])
    os.kill(os.getpid(), signal.SIGKILL)


def summary(path: str) -> tuple[int, str, int]:
    """Version of `run`, its state in `work`, and how many problems `verify` finds."""
    store = SQLiteStore(path)
    version = check_chain(store.read("run")).version
    work = store.work("run")
    problems = len(verify(store).problems)
    store.close()
    return version, work.state if work else "", problems


# ---- processes under the shim (tests/events/power) -------------------------------------------------


class CarelessFile(File):
    """Control: does not wait for the disk."""

    synchronous = "OFF"


class CarelessStore(SQLiteStore):
    """Control; see `CarelessFile`."""

    file_class = CarelessFile


def commit_and_acknowledge(path: str, synchronous: str, commits: str) -> None:
    """Commit to several streams, several at once, with checkpoints; acknowledge each in the file ACK."""
    store = SQLiteStore(path) if synchronous == "FULL" else CarelessStore(path)
    store._file.writer().execute("PRAGMA wal_autocheckpoint = 60")
    ack = os.open(Path(path).with_name("ACK"), os.O_CREAT | os.O_WRONLY)
    chance = random.Random(7)
    for _ in range(int(commits)):
        appends = [_bulky(store, name, chance) for name in chance.sample("abcdef", chance.randint(1, 2))]
        units = [Unit((append,), (sample_work(append.stream),)) for append in appends]
        assert store.commit(units) == [None] * len(units)
        lines = [f"{append.stream} {append.rows[-1].version}\n" for append in appends]
        os.write(ack, "".join(lines).encode())


def _bulky(store: SQLiteStore, stream: str, chance: random.Random) -> Append:
    """An append of one to three events of very different sizes."""
    tail = store.tail(stream)
    sizes = [chance.choice([10, 700, 5_000]) for _ in range(chance.choice([1, 1, 2, 3]))]
    events = [
        StepStarted(id=f"{stream}-{n}", at=AT, step=1, by="x" * size)
        for n, size in enumerate(sizes, tail.version + 1)
    ]
    return Append(stream, tail.version, chain(stream, tail, events)[0])


def kill_at_every_call(folder: str) -> None:
    """One commit with its checkpoint, killed at its first system call, its second, … and in mid-write."""
    shim = ctypes.CDLL(None)
    outcomes: list[tuple[int, int, str, int, bool]] = []
    for half in (0, 1):
        for calls in range(1, 1_000):
            path = str(Path(folder) / f"{calls}-{half}.db")
            out, into = os.pipe()

            def child(path: str = path, calls: int = calls, half: int = half, into: int = into) -> None:
                store = SQLiteStore(path)
                store.commit([Unit((sample_append(store, "run", 2),), (sample_work("run", "pending", 1.0),))])
                store._file.writer().execute("PRAGMA wal_autocheckpoint = 1")
                unit = Unit((sample_append(store, "run", 40),), (sample_work("run"),))
                shim.shim_kill_after(calls, half)
                assert store.commit([unit]) == [None]
                shim.shim_kill_after(0, 0)
                _tell(into, 42)

            _, status = os.waitpid(forked(child), 0)
            os.close(into)
            with os.fdopen(out) as acks:
                acknowledged = acks.read() == "42\n"
            outcomes.append((calls, *summary(path), acknowledged))
            if os.WIFEXITED(status):
                break
    say(json.dumps(outcomes))


# ---- processes without rights ---------------------------------------------------------------------


def as_nobody(path: str, action: str) -> None:
    """Read and write as a user who owns nothing."""
    if os.geteuid() == 0:
        os.seteuid(65534)
    try:
        store = SQLiteStore(path)
        say("position", store.position())
        if action == "hold":
            store.hold("nobody")
        else:
            store.commit([Unit((sample_append(store, "run"),))])
    except Exception as error:
        say(type(error).__name__, error)


PROGRAMS: dict[str, Callable[..., None]] = {
    program.__name__: program
    for program in (
        append, as_nobody, block, commit_and_acknowledge, correspond, hold, hold_and_fork, kill_at_every_call,
        kill_at_random, kill_at_statement, open_at_once, use_after_fork,
    )
}  # fmt: skip
ROOT = Path(__file__).parents[2]


def command(name: str, *arguments: object) -> list[str]:
    """The command line that runs one of these; run it with `cwd=ROOT`."""
    return [sys.executable, "-m", "tests.events.programs", name, *map(str, arguments)]


def run(name: str, *arguments: object) -> str:
    """Run one to its end, which may be SIGKILL; what it said."""
    done = subprocess.run(command(name, *arguments), cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode in (0, -9), done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stdout


if __name__ == "__main__":
    PROGRAMS[sys.argv[1]](*sys.argv[2:])
