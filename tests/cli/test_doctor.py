"""`refold doctor` says what is wrong and what to do, and fails only when something is broken."""

import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from refold.cli import disk, machine, main
from refold.cli.disk import file_system
from refold.events import types as t
from refold.events.clock import SystemClock
from refold.events.open import open_store
from refold.events.sqlite_file import File
from refold.events.store import Append, Store, Unit
from refold.events.stream import Row, chain
from tests.events.transfers import AT, put, scheduled, started

Capture = pytest.CaptureFixture[str]
Findings = dict[str, dict[str, Any]]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REFOLD_STORE", raising=False)
    return tmp_path


@pytest.fixture
def store(folder: Path) -> Store:
    """With a run that is over and one that is not."""
    store = open_store("refold.db")
    put(store, "over", started(), t.RunFailed(id="e", at=AT, error=t.Failure(type="X", message="no")))
    put(store, "open", started(), scheduled(1))
    return store


def findings(capsys: Capture, *words: str, code: int = 0) -> Findings:
    assert main(["doctor", "--json", *words]) == code
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is (code == 0)
    for check in told["checks"]:
        assert check["found"]
        assert bool(check["advice"]) or check["state"] != "warning", "whoever is warned is told what to do"
    return {check["name"]: check for check in told["checks"]}


def states(found: Findings, *names: str) -> list[str]:
    return [found[name]["state"] for name in names]


def test_everything_is_looked_at(capsys: Capture, store: Store) -> None:
    found = findings(capsys)
    assert list(found) == [
        "python", "packages", "code", "sqlite", "terminal", "store", "writable", "durability", "file system",
        "room", "durable write", "clock", "executed by", "read models", "runs",
    ]  # fmt: skip
    sound = states(found, "python", "packages", "sqlite", "store", "writable", "durability")
    assert sound == ["ok"] * 6
    assert found["durability"]["found"] == "journal_mode=wal, synchronous=FULL"
    assert "msgspec" in found["packages"]["found"]
    assert found["executed by"]["found"] == "nobody, and 1 run is not over"
    assert found["runs"]["found"] == "2 runs, none needs attention"
    store.close()


def test_it_is_read_by_people_too(capsys: Capture, store: Store) -> None:
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    assert "✓ store" in said
    assert "! executed by   nobody, and 1 run is not over" in said
    assert "→ start one: refold worker FILE.py" in said
    assert "nothing is broken, " in said
    store.close()


def test_a_store_that_is_not_there_is_broken_only_when_it_was_asked_for(
    capsys: Capture, folder: Path
) -> None:
    found = findings(capsys)
    assert found["store"]["state"] == "unknown"
    assert "durable write" in found
    assert "no store at" in findings(capsys, "--store", "x.db", code=1)["store"]["found"]
    (folder / "refold.db").write_text("something else")
    assert "not a Refold store" in findings(capsys, code=1)["store"]["found"]
    assert not (folder / "x.db").exists()


def test_a_store_that_does_not_wait_for_the_disk_is_broken(
    capsys: Capture, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What SQLite answers is told, not what was asked of it."""
    monkeypatch.setattr(File, "synchronous", "NORMAL")
    found = findings(capsys, code=1)["durability"]
    assert (found["state"], found["found"]) == ("broken", "journal_mode=wal, synchronous=1")
    store.close()


def test_who_executes_is_told(capsys: Capture, store: Store) -> None:
    store.hold("worker-7")
    assert findings(capsys)["executed by"]["found"].startswith("worker-7 (pid ")
    store.close()


def test_runs_that_need_somebody_are_counted_by_kind(capsys: Capture, store: Store) -> None:
    put(store, "open", t.RunAttention(id="a", at=AT, kind="diverged", reason="x"))
    found = findings(capsys)
    assert found["read models"]["found"] == "5 events behind, brought up to date now"
    assert found["runs"]["found"] == "2 runs; attention: 1 diverged"
    assert "put the code back" in found["runs"]["advice"]
    assert findings(capsys)["read models"]["found"] == "up to date"
    store.close()


def test_events_of_a_newer_refold_are_told(capsys: Capture, store: Store) -> None:
    found = findings(capsys)
    assert states(found, "read models") == ["ok"]

    class Newer(t.RunPaused, frozen=True, kw_only=True):
        TAG = "run.teleported"

    tail = store.tail("open")
    rows, _ = chain("open", tail, [Newer(id="n", at=AT)])
    store.commit([Unit((Append("open", tail.version, rows),))])
    findings(capsys)
    newer = findings(capsys)["read models"]
    assert "of types that this Refold does not know" in newer["found"]
    assert "upgrade" in newer["advice"]
    store.close()


def test_a_store_whose_last_event_is_damaged_is_broken(capsys: Capture, store: Store) -> None:
    row = Row("open", 3, "step.completed", b"\xff", bytes(32))
    store.commit([Unit((Append("open", 2, [row]),))])
    found = findings(capsys, code=1)
    assert "'step.completed' at open@3 does not fit its type" in found["store"]["found"]
    store.close()


def test_an_event_that_could_not_be_folded_is_told(capsys: Capture, store: Store) -> None:
    store.commit([Unit((Append("open", 2, [Row("open", 3, "step.completed", b"\xff", bytes(32))]),))])
    put(store, "later", started())
    findings(capsys)
    found = findings(capsys)["read models"]
    assert found["found"].startswith("up to date; ")
    assert "could not be folded" in found["found"]
    assert "refold rebuild" in found["advice"]
    store.close()


def test_a_clock_that_went_back_is_told(
    capsys: Capture, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(SystemClock, "now", lambda self: (AT - timedelta(hours=1)).timestamp())
    found = findings(capsys)["clock"]
    assert (found["state"], "the last event is 1 h later" in found["found"]) == ("warning", True)
    store.close()


def test_a_second_copy_of_the_code_is_told(
    capsys: Capture, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "old" / "refold").mkdir(parents=True)
    (folder / "old" / "refold" / "__init__.py").touch()
    monkeypatch.setattr(sys, "path", [*sys.path, str(folder / "old")])
    found = findings(capsys)["code"]
    assert found["state"] == "warning"
    assert str(folder / "old" / "refold") in found["found"]


def test_packages_that_do_not_fit_are_broken(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    needed = ["anyio<4", "nowhere-to-be-found>=1", "rich>=13.9; extra == 'x'"]
    monkeypatch.setattr("refold.cli.machine.metadata.requires", lambda name: needed)
    found = findings(capsys, code=1)["packages"]["found"]
    assert found.startswith("anyio ")
    assert "nowhere-to-be-found is missing" in found
    for version, requirement, fits in (
        ("4.9.0", "anyio<5,>=4.9", True), ("4.10.1", "anyio<5,>=4.9", True), ("5.0", "anyio<5,>=4.9", False),
        ("4.8.9", "anyio<5,>=4.9", False), ("0.30.0", "jsonschema-rs>=0.30", True), ("1.2", "x!=1.2", False),
    ):  # fmt: skip
        assert machine.fits(version, requirement) is fits, (version, requirement)


def test_an_old_sqlite_is_broken(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("refold.cli.machine.sqlite3.sqlite_version_info", (3, 31, 1))
    assert "3.35.0 or newer" in findings(capsys, code=1)["sqlite"]["advice"]


MOUNTS = r"""
22 1 8:1 / / rw - ext4 /dev/sda1 rw
30 22 0:40 / /mnt/share rw - nfs4 server:/share rw
31 30 8:2 / /mnt/share/disk rw - xfs /dev/sdb rw
32 22 0:41 / /mnt/my\040share rw - cifs //server/share rw
33 22 0:42 / /mnt/sharer rw - tmpfs tmpfs rw
""".strip()


def test_the_file_system_is_that_of_the_innermost_mount() -> None:
    for place, kind in {
        "/srv": "ext4", "/mnt/share": "nfs4", "/mnt/share/a/b": "nfs4", "/mnt/share/disk/x": "xfs",
        "/mnt/my share/x": "cifs", "/mnt/sharer": "tmpfs", "/": "ext4",
    }.items():  # fmt: skip
        assert file_system(Path(place), MOUNTS) == kind, place
    assert file_system(Path("/srv"), "") == ""


@pytest.mark.parametrize(
    ("kind", "words"), [("nfs", "over a network"), ("tmpfs", "a reboot"), ("overlay", "its container")]
)
def test_file_systems_that_lose_stores_are_told(
    capsys: Capture, folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str, words: str
) -> None:
    mounts = folder / "mounts"
    mounts.write_text(f"22 1 8:1 / / rw - {kind} somewhere rw\n")
    monkeypatch.setattr(disk, "MOUNTS", mounts)
    found = findings(capsys)["file system"]
    assert (found["state"], words in found["found"]) == ("warning", True)


def test_a_slow_disk_a_dishonest_one_and_a_full_one_are_told(
    capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for took, state in ((0.2, "warning"), (1e-6, "warning"), (0.002, "ok")):
        monkeypatch.setattr(disk, "_measured", lambda folder, took=took: took)
        assert findings(capsys)["durable write"]["state"] == state
    monkeypatch.setattr(disk, "TOO_LITTLE_BYTES", 1 << 62)
    assert findings(capsys, code=1)["room"]["state"] == "broken"


def test_looking_leaves_nothing_behind(capsys: Capture, folder: Path) -> None:
    findings(capsys)
    assert list(folder.iterdir()) == []
