"""The runner loses nothing, folds nothing twice, skips nothing in silence."""

import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from msgspec import Raw, structs

from refold.events import registry, types as t
from refold.events.errors import ConfigurationError
from refold.events.memory import MemoryStore
from refold.events.sqlite import SQLiteStore
from refold.events.store import Store
from refold.projections.core import CORE
from refold.projections.projection import Projection, Scope
from refold.projections.rebuild import check, rebuild
from refold.projections.runner import Runner
from refold.projections.runs import RUNS
from refold.projections.views import Standing, Views
from refold.projections.views_sqlite import SqliteViews
from tests.projections.samples import NameRow, Names, append, caught_up, dump, each
from tests.projections.stories import stories, write

ROOT = Path(__file__).parents[2]
AT = datetime(2026, 1, 1, tzinfo=UTC)


def fill(store: Store, seed: int = 1, runs: int = 4, length: int = 40) -> int:
    write(store, stories(seed, runs, length), random.Random(seed))
    return store.position()


def started(**fields: Any) -> t.RunStarted:
    return t.RunStarted(id="1", at=AT, workflow="w", workflow_version="1", args=Raw(b"[]"), seed=1, **fields)


def scheduled(step: int = 1, name: str = "charge") -> t.StepScheduled:
    return t.StepScheduled(id="2", at=AT, step=step, name=name, key=f"{name}#{step}", args=Raw(b"[]"))


# ---- positions and batches ---------------------------------------------------------------------------


def test_it_catches_up_in_slices_and_says_how_far_it_is(store: Store, views: Views) -> None:
    end = fill(store)
    runner = Runner(store, views, CORE)
    assert (runner.position, runner.lag().events) == (0, end)
    assert runner.catch_up(10) == 10
    assert (runner.position, runner.lag().events) == (10, end - 10)
    assert runner.catch_up(10_000, until=15) == 5
    assert runner.catch_up(10_000) == end - 15
    assert runner.catch_up() == 0
    assert check(store, views, CORE) == []


def test_a_projection_that_joins_later_is_brought_up_first(store: Store, views: Views) -> None:
    fill(store)
    before = caught_up(store, views).position
    write(store, {f"{run_id}-b": events for run_id, events in stories(2, 4, 40).items()}, random.Random(2))
    runner = Runner(store, views, (*CORE, Names()))
    assert runner.position == 0
    while runner.catch_up(7):
        pass
    assert runner.position == store.position() > before
    assert check(store, views, (*CORE, Names())) == []


def test_inboxes_and_keys_are_folded_only_for_those_who_ask(store: Store, views: Views) -> None:
    class Mail(Names):
        scope: Scope = "all"
        events = MappingProxyType({"signal.sent": t.SignalSent, "key.taken": t.KeyTaken})

        def keys(self, entry: Any, event: Any) -> Sequence[Any]:
            return ((entry.stream,),)

        def fold(self, rows: list[Any], entry: Any, event: Any) -> Sequence[Any]:
            return (NameRow(entry.stream, (rows[0].calls if rows[0] else 0) + 1),)

    class Deaf(Mail):
        name = "deaf"
        scope: Scope = "runs"
        table = structs.replace(Mail.table, name="deaf")

    append(store, "r", started())
    append(store, "r/inbox", t.SignalSent(id="3", at=AT, name="go", payload=Raw(b"1")))
    append(store, "key/k", t.KeyTaken(id="4", at=AT, run_id="r", digest=""))
    caught_up(store, views, (*CORE, Mail(), Deaf()))
    assert views.query("SELECT * FROM names ORDER BY name") == [("key/k", 1), ("r/inbox", 1)]
    assert views.query("SELECT * FROM deaf") == []
    assert views.query("SELECT run_id, events FROM runs") == [("r", 1)]


def test_two_projections_cannot_share_a_table(views: Views) -> None:
    class Twin(Names):
        name = "twin"

    with pytest.raises(ConfigurationError, match="cannot use the name 'names': it is that of the projection"):
        Runner(MemoryStore(), views, (Names(), Twin()))


# ---- several runners ----------------------------------------------------------------------------------


def program(*words: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "tests.projections.programs", *map(str, words)]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_runners_of_several_processes_fold_each_event_once(tmp_path: Path) -> None:
    log = str(tmp_path / "x.db")
    store = SQLiteStore(log)
    end = fill(store, runs=10, length=60)
    runners = [program("catch_up", log, batch) for batch in (1, 3, 7)]
    for runner in runners:
        assert runner.stdout
        assert runner.stdout.readline() == "ready\n"
    folded = [int(runner.communicate("go\n")[0]) for runner in runners]
    assert sum(folded) == end
    with closing_views(log) as views:
        assert check(store, views, CORE) == []
    store.close()


def test_control_a_runner_that_trusts_an_old_position_folds_twice(store: Store, views: Views) -> None:
    fill(store)
    stale = Runner(store, views, CORE)
    stale.catch_up(10)
    old = views.standings()
    caught_up(store, views)
    stale._find = lambda: dict(old)  # type: ignore[method-assign] # as if read before the lock was taken
    stale.catch_up(10_000)
    assert check(store, views, CORE)


def test_two_runners_that_take_turns_trust_no_rows_of_their_own(store: Store, views: Views) -> None:
    """What a runner keeps in memory between batches is stale once another one has written."""
    fill(store)
    one, other = Runner(store, views, CORE), Runner(store, views, CORE)
    while one.catch_up(3) + other.catch_up(2):
        pass
    assert check(store, views, CORE) == []


def test_a_runner_lets_another_process_finish(tmp_path: Path) -> None:
    log = str(tmp_path / "x.db")
    store = SQLiteStore(log)
    fill(store)
    with closing_views(log, busy_s=0.0) as views, closing_views(log) as other:
        runner = Runner(store, views, CORE)
        assert runner.catch_up(5) == 5
        with other.writing():
            assert runner.catch_up(5) == 0
        assert runner.catch_up(5) == 5
    store.close()


@contextmanager
def closing_views(log: str, busy_s: float = 5.0) -> Iterator[SqliteViews]:
    views = SqliteViews.of(log, busy_s=busy_s)
    try:
        yield views
    finally:
        views.close()


# ---- kill -9 -------------------------------------------------------------------------------------------


def test_a_kill_between_batches_loses_and_repeats_nothing(tmp_path: Path) -> None:
    log = str(tmp_path / "x.db")
    store = SQLiteStore(log)
    fill(store)
    for lines in (1, 4, 9):
        runner = program("report", log)
        assert runner.stdout
        for _ in range(lines):
            assert runner.stdout.readline()
        runner.kill()
        runner.communicate()
        with closing_views(log) as views:
            assert Runner(store, views, CORE).position >= 3 * lines
    with closing_views(log) as views:
        assert check(store, views, CORE) == []
    store.close()


@pytest.mark.parametrize("writes", [1, 2, 7, 12, 23])
def test_a_kill_inside_a_batch_leaves_nothing_of_it(tmp_path: Path, writes: int) -> None:
    assert _killed_in_write(tmp_path, "one", writes) == []


def test_control_a_position_committed_before_its_rows_loses_them(tmp_path: Path) -> None:
    assert _killed_in_write(tmp_path, "two", 1 + 5 * len(CORE))  # that of `runs`, in the sixth batch


def _killed_in_write(tmp_path: Path, kind: str, writes: int) -> list[Any]:
    log = str(tmp_path / "x.db")
    store = SQLiteStore(log)
    fill(store)
    runner = program("die_in_write", log, kind, writes)
    runner.communicate()
    assert runner.returncode == -9
    with closing_views(log) as views:
        differences = check(store, views, CORE)
    store.close()
    return list(differences)


# ---- what cannot be folded -------------------------------------------------------------------------------


class Fragile(Names):
    """Raises for one name, after it has already changed the row."""

    def fold(self, rows: list[Any], entry: Any, event: Any) -> Sequence[Any]:
        row = rows[0] or NameRow(event.name)
        row.calls += 1
        if event.step == 3:
            row.calls = 99
            raise LookupError("no such thing")
        return (row,)


def test_a_poison_event_is_parked_and_reported_and_the_others_go_on(store: Store, views: Views) -> None:
    append(store, "r", started(), *(scheduled(step) for step in range(1, 7)))
    runner = caught_up(store, views, (*CORE, Fragile()))
    (parked,) = runner.parked()
    assert (parked.projection, parked.position, parked.stream, parked.version) == ("names", 4, "r", 4)
    assert parked.error == "LookupError: no such thing"
    assert runner.lag() == type(runner.lag())(events=0, position=7, parked=1, unknown=0)
    assert views.query("SELECT calls FROM names") == [(5,)]  # the row stayed as it was before the event
    assert views.query("SELECT steps_total FROM runs") == [(6,)]
    assert check(store, views, (*CORE, Fragile())) == []
    rebuild(store, views, (Fragile(),))
    assert runner.parked() == [parked]
    rebuild(store, views, (Names(),))  # mended
    assert runner.parked() == []
    assert views.query("SELECT calls FROM names") == [(6,)]


def test_batches_do_not_change_what_a_poison_event_leaves(store: Store, views: Views) -> None:
    append(store, "r", started(), *(scheduled(step) for step in range(1, 7)))
    runner = Runner(store, views, (Fragile(),))
    while runner.catch_up(1):
        pass
    one_by_one = dump(views, (Fragile(),)), runner.parked()
    rebuild(store, views, (Fragile(),))
    assert (dump(views, (Fragile(),)), runner.parked()) == one_by_one


def odd(row: Any) -> Callable[..., Sequence[Any]]:
    return lambda self, rows, entry, event: (row,)


@each(
    "row error",
    (NameRow("charge", {}), "cannot hold {}"),  # type: ignore[arg-type]
    (NameRow("charge", "\ud800"), "surrogates not allowed"),  # type: ignore[arg-type]
    (NameRow("charge", 2**63), "cannot hold 9223372036854775808"),
    (NameRow("charge", None), "cannot hold None"),  # type: ignore[arg-type]
    (NameRow("ship", 1), "fold returned the row ('ship',) for the key ('charge',)"),
    postgres=2,
)
def test_a_row_that_does_not_fit_is_parked(store: Store, views: Views, row: Any, error: str) -> None:
    odd_names = type("Odd", (Names,), {"fold": odd(row)})()
    append(store, "r", started(), scheduled())
    runner = caught_up(store, views, (RUNS, odd_names))
    (parked,) = runner.parked()
    assert error in parked.error
    assert views.query("SELECT run_id FROM runs") == [("r",)]
    assert views.query("SELECT * FROM names") == []


def test_a_fold_that_returns_too_little_is_parked(store: Store, views: Views) -> None:
    short = type("Short", (Names,), {"fold": lambda *_: ()})()
    append(store, "r", started(), scheduled())
    (parked,) = caught_up(store, views, (short,)).parked()
    assert parked.error.startswith("ValueError")


def test_an_event_of_an_older_version_that_cannot_be_lifted_is_parked(
    store: Store, views: Views, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_upcasters", {})
    registry.register_upcaster("step.called", "step.scheduled", lambda body: body)
    append(store, "r", started(), ("step.called", b"{}"), scheduled())
    runner = caught_up(store, views)
    assert {p.projection for p in runner.parked()} == {p.name for p in CORE}
    assert views.query("SELECT steps_total FROM runs") == [(1,)]


@each("body", b"{", b"{}", b'{"at":5}', b"\xff", b"[" * 100_000)
def test_an_event_that_does_not_fit_its_type_is_parked_for_all_who_read_it(
    store: Store, views: Views, body: bytes
) -> None:
    append(store, "r", started(), ("step.scheduled", body), scheduled(2))
    runner = caught_up(store, views)
    assert {p.projection for p in runner.parked()} == {
        "runs", "steps", "step_edges", "fan_outs", "fan_out_items",
    }  # fmt: skip
    assert views.query("SELECT steps_total FROM runs") == [(1,)]


def test_an_event_of_a_run_without_beginning_is_parked(store: Store, views: Views) -> None:
    append(store, "r", t.RunClaimed(id="1", at=AT, owner="me", generation=1))
    (parked,) = caught_up(store, views).parked()
    assert parked.error == "ValueError: run.claimed of a run that has not started"


def test_money_that_is_none_is_parked(store: Store, views: Views) -> None:
    cost = b'{"id":"5","at":"2026-01-01T00:00:00Z","step":0,"attempt":0,"usd":"NaN"}'
    append(store, "r", started(), ("cost.recorded", cost))
    runner = caught_up(store, views)
    assert {p.projection for p in runner.parked()} == {"runs", "costs"}


def test_events_of_unknown_types_are_counted_and_stop_nobody(store: Store, views: Views) -> None:
    append(store, "r", started(), ("step.dreamt", b"{}"), scheduled(), ("step.dreamt", b"[]"))
    append(store, "r/inbox", ("mail.odd", b"{}"))
    runner = caught_up(store, views)
    assert {(u.projection, u.tag, u.events, u.first_position) for u in runner.unknown()} == {
        *((p.name, "step.dreamt", 2, 2) for p in CORE),
        ("children", "mail.odd", 1, 5),
    }
    assert runner.lag().unknown == 2
    assert runner.parked() == []
    assert views.query("SELECT steps_total, events FROM runs") == [(1, 2)]


def test_events_of_an_older_version_are_lifted(
    store: Store, views: Views, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_upcasters", {})
    registry.register_upcaster("step.called", "step.scheduled", lambda body: body | {"key": "old#1"})
    body = b'{"id":"2","at":"2026-01-01T00:00:00Z","step":1,"name":"old","args":[]}'
    append(store, "r", started(), ("step.called", body))
    assert caught_up(store, views, (*CORE, Names())).lag().unknown == 0
    assert views.query("SELECT key FROM steps") == [("old#1",)]
    assert views.query("SELECT name FROM names") == [("old",)]


def test_trouble_with_the_file_is_not_blamed_on_an_event(tmp_path: Path) -> None:
    log = str(tmp_path / "x.db")
    store = SQLiteStore(log)
    fill(store)
    with closing_views(log) as views:
        runner = Runner(store, views, CORE)
        runner.catch_up(10)
        sqlite3.Connection.close(views.connection)
        with pytest.raises(Exception, match="closed"):
            runner.catch_up(10)
    with closing_views(log) as views:
        assert caught_up(store, views).parked() == []
        assert check(store, views, CORE) == []
    store.close()


def test_a_projection_is_a_value_and_needs_no_base_class() -> None:
    mine: Projection = Names()
    assert Projection not in type(mine).__mro__
    assert isinstance(Standing(1, "", 0, b""), Standing)
