"""`refold export` and `refold import`: a store comes out of a file as it went in, whole or not at all."""

import io
import json
import os
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
from msgspec import Raw

from refold.cli import main
from refold.events import types as t
from refold.events.lines import Header, read_log
from refold.events.memory import MemoryStore
from refold.events.open import open_store
from refold.events.stream import Row
from refold.events.transfer import export_log, import_log
from tests.cli.shell import REFOLD
from tests.events.transfers import AT, exported, put, sample, scheduled, started

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with a store in it, and we are there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REFOLD_STORE", raising=False)
    store = open_store("refold.db")
    import_log(store, exported(sample()))
    store.close()
    return tmp_path


def refold(*words: str) -> int:
    return main([*words])


def test_a_store_goes_through_a_file_into_another_one(folder: Path, capsys: Capture) -> None:
    assert refold("export", "--output", "log.jsonl") == 0
    assert "log.jsonl: 11 lines" in capsys.readouterr().out
    assert refold("import", "log.jsonl", "--store", "new.db") == 0
    said = capsys.readouterr().out
    assert "imported 2 new runs, 8 events, 1 large value" in said
    assert "every hash of the store verified" in said
    assert "2 runs go on as soon as somebody executes this store" in said
    assert refold("export", "--store", "new.db", "--output", "again.jsonl", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (folder / "again.jsonl").read_bytes() == (folder / "log.jsonl").read_bytes()
    assert told == {
        "file": "again.jsonl", "format": "jsonl", "lines": 11, "bytes": (folder / "log.jsonl").stat().st_size
    }  # fmt: skip
    assert refold("import", "log.jsonl", "--store", "new.db", "--json") == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["runs"], again["there"], again["events"], again["open_runs"]) == (0, 2, 0, 2)
    assert refold("verify", "new.db") == 0
    assert refold("rebuild", "--check", "--store", "new.db") == 0


def test_into_a_pipe_come_the_bytes_of_the_log(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert refold("export") == 0
    lines = capfdbinary.readouterr().out.splitlines(keepends=True)
    assert lines == exported(sample())
    assert refold("export", "b") == 0
    header, *rows, _ = read_log(capfdbinary.readouterr().out.splitlines(keepends=True))
    assert isinstance(header, Header)
    assert header.runs == ("b",)
    assert {row.stream for row in rows if isinstance(row, Row)} == {"b"}


def test_a_store_that_was_there_stays_when_an_import_is_refused(folder: Path, capsys: Capture) -> None:
    open_store("new.db").close()
    (folder / "cut.jsonl").write_bytes(b"".join(exported(sample())[:5]))
    assert refold("import", "cut.jsonl", "--store", "new.db") == 3
    assert (folder / "new.db").exists()
    assert "line 6" in capsys.readouterr().err


def test_children_that_stayed_behind_are_told(capsys: Capture) -> None:
    assert refold("export", "a", "--output", "alone.jsonl") == 0
    assert refold("export", "a", "--family", "--output", "family.jsonl") == 0
    capsys.readouterr()
    assert refold("import", "alone.jsonl", "--store", "new.db") == 0
    assert "a waits for its child b, which is not here" in capsys.readouterr().out
    assert refold("import", "alone.jsonl", "--store", "new.db", "--json") == 0
    assert json.loads(capsys.readouterr().out)["left_behind"] == [{"run": "a", "child": "b"}]
    assert refold("import", "family.jsonl", "--store", "new.db") == 0
    assert "is not here" not in capsys.readouterr().out


def test_import_reads_a_pipe(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    pipe = SimpleNamespace(buffer=io.BytesIO(b"".join(exported(sample()))))
    monkeypatch.setattr("sys.stdin", pipe)
    assert refold("import", "-", "--store", "new.db") == 0
    assert "2 new runs" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ("export nobody", 3, "no run 'nobody'"),
        ("export a --all", 2, "either single runs or --all"),
        ("export --format dot", 2, "a graph of what?"),
        ("export --json", 2, "give --output"),
        ("export --output nowhere/x.jsonl", 3, "cannot write nowhere/x.jsonl: No such file or directory"),
        ("export --store other.db", 3, "no store at"),
        ("import nowhere.jsonl", 2, "there is no file nowhere.jsonl"),
        ("import refold.db --store new.db", 3, "refold.db, line 1: expected the header"),
        ("import cut.jsonl --store new.db", 3, "cut.jsonl, line 6: there is nothing"),
        ("import log.jsonl --store other-life.db", 3, "run 'a' has another history here"),
        ("import log.jsonl --store memory://", 2, "would end with this command"),
    ],
)
def test_a_mistake_is_a_sentence(folder: Path, capsys: Capture, words: str, code: int, said: str) -> None:
    lines = exported(sample())
    (folder / "log.jsonl").write_bytes(b"".join(lines))
    (folder / "cut.jsonl").write_bytes(b"".join(lines[:5]))
    store = open_store("other-life.db")
    put(store, "a", started("another"))
    store.close()
    assert refold(*words.split()) == code
    found = capsys.readouterr()
    assert said in found.err
    assert found.err.startswith("refold: ")
    assert found.err.count("\n") == 1
    assert "Traceback" not in found.err
    assert list(folder.glob(".*")) == list(folder.glob("new.db*")) == [], "nothing half-written lies about"


@pytest.mark.parametrize("format", ["cloudevents", "trace", "mermaid", "dot"])
def test_other_programs_get_their_formats(folder: Path, capsys: Capture, format: str) -> None:
    assert refold("export", "a", "--family", "--format", format, "--output", "out") == 0
    assert "out: " in capsys.readouterr().out
    text = (folder / "out").read_text()
    assert "a" in text
    assert refold("export", "--all", "--format", format) == 0
    assert capsys.readouterr().out.count("\n") == text.count("\n")


def test_on_a_terminal_what_would_steer_it_is_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store("odd.db")
    put(store, "a", scheduled(1, '["\x9b2J \u202e"]'.encode()))
    store.close()
    screen = io.StringIO()
    monkeypatch.setattr(screen, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setenv("NO_COLOR", "1")
    assert refold("export", "--store", "odd.db") == 0
    assert '["\\u009b2J \\u202e"]' in screen.getvalue()
    assert "\x9b" not in screen.getvalue()


def test_an_export_that_fails_leaves_the_file_that_was_there(folder: Path, capsys: Capture) -> None:
    (folder / "log.jsonl").write_text("yesterday's")
    store = open_store("refold.db")
    with store._file.writing() as connection:  # type: ignore[attr-defined]
        connection.execute("UPDATE stored_events SET hash = zeroblob(32) WHERE rowid = 8")
    store.close()
    assert refold("export", "--output", "log.jsonl") == 3
    assert "does not match its hash" in capsys.readouterr().err
    assert (folder / "log.jsonl").read_text() == "yesterday's"
    assert not list(folder.glob(".log*"))


def test_killed_in_the_middle_of_an_import_nothing_is_there_and_given_again_all_of_it(folder: Path) -> None:
    source = MemoryStore()
    value = b'"' + b"x" * 300 + b'"'
    for run in range(40):
        steps = [t.StepCompleted(id=f"{run}-{n}", at=AT, step=n, result=Raw(value)) for n in range(1, 150)]
        put(source, f"run-{run}", started(f"s{run}"), *steps)
    log = "".join(export_log(source)).encode()
    process = subprocess.Popen(
        [*REFOLD, "import", "-", "--store", "new.db"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    )
    assert process.stdin is not None
    # A pipe holds 64 KiB: when all this is written, the process has read, and handed to SQLite, most of it.
    process.stdin.write(log[: len(log) * 3 // 4])
    process.stdin.flush()
    assert os.path.getsize("new.db-wal") > 0
    os.kill(process.pid, signal.SIGKILL)
    process.wait(60)
    process.stdin.close()
    store = open_store("new.db")
    assert (store.position(), store.all_work()) == (0, [])
    assert import_log(store, io.BytesIO(log)).runs == 40
    assert "".join(export_log(store)).encode() == log
    assert store.all_work() == source.all_work()
    store.close()
