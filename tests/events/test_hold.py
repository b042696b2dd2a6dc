"""One process at a time executes a store, the others learn which, and a dead one holds nothing."""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from refold.events.errors import StoreBusy
from refold.events.sqlite import SQLiteStore
from refold.events.store import Unit
from refold.testing.samples import sample_append
from tests.events import programs


@contextmanager
def process(name: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    child = subprocess.Popen(
        programs.command(name, *arguments), cwd=programs.ROOT, stdin=pipe, stdout=pipe, text=True
    )
    with child:
        try:
            yield child
        finally:
            with suppress(ProcessLookupError):
                child.kill()


def first_line(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    return child.stdout.readline().strip()


def test_a_second_executor_learns_who_the_first_is_and_kill_9_frees_the_store(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "log.db")
    with process("hold", store.path, "engine-7@shop") as child:
        assert first_line(child) == "held"
        with pytest.raises(StoreBusy, match="stop that one first") as refusal:
            store.hold("me")
        for words in ("engine-7@shop", f"pid {child.pid} on {os.uname().nodename}", "since 20"):
            assert words in refusal.value.holder
            assert words in str(refusal.value)
        assert store.commit([Unit((sample_append(store, "run/inbox"),))]) == [None], "appending needs no hold"
        found = store.holder()
        assert found is not None
        assert (found.owner, found.pid, found.host) == ("engine-7@shop", child.pid, os.uname().nodename)
        child.send_signal(signal.SIGKILL)
        child.wait(30)
        assert "engine-7@shop" in Path(f"{store.path}.lock").read_text()  # control: its note is still there
        assert store.holder() is None
        store.hold("me")
        assert (found := store.holder()) is not None
        assert found.owner == "me"
    store.close()
    assert store.holder() is None


def test_two_engines_of_one_process_conflict_too(tmp_path: Path) -> None:
    """The control: without our own register the second POSIX lock of a process just succeeds."""
    one, two = SQLiteStore(tmp_path / "log.db"), SQLiteStore(tmp_path / "log.db")
    one.hold("one")
    with pytest.raises(StoreBusy, match="held by one"):
        two.hold("two")
    assert two.holder() == one.holder() is not None
    two.close()
    with process("hold", one.path, "three") as child:
        assert first_line(child) == "", "closing the second store must not have dropped the lock of the first"
    one.close()


def test_the_lock_is_not_inherited_by_a_forked_child(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "log.db")
    with process("hold_and_fork", store.path) as parent:
        word, pid = first_line(parent).split()
        assert word == "child"
        parent.wait(30)
        os.kill(int(pid), 0)  # it lives
        store.hold("me")
        assert parent.stdin is not None
        parent.stdin.close()
    store.close()


def test_removing_the_lock_file_takes_over_from_a_holder_that_hangs(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "log.db")
    with process("hold", store.path, "hung") as child:
        assert first_line(child) == "held"
        child.send_signal(signal.SIGSTOP)
        with pytest.raises(StoreBusy, match="remove this file"):
            store.hold("me")
        Path(f"{store.path}.lock").unlink()
        store.hold("me")
        assert store.holding()
    with process("hold", store.path, "third") as child:
        assert first_line(child) == ""
    store.close()


def test_a_process_that_writes_for_too_long_is_told_as_busy(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "log.db")
    append = sample_append(store, "run")
    with process("block", store.path) as child:
        assert first_line(child) == "blocking"
        store._file.writer().execute("PRAGMA busy_timeout = 20")
        with pytest.raises(StoreBusy, match="another process has been writing"):
            store.commit([Unit((append,))])
        assert store.scan() == [], "readers are not held up"
        assert child.stdin is not None
        child.stdin.close()
        child.wait(30)
    assert store.commit([Unit((append,))]) == [None]
    store.close()
