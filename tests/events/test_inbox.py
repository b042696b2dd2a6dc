"""Messages from everybody to one inbox: dense versions, a whole chain, none lost, mail as the log says."""

import json
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Barrier, Thread
from typing import TypedDict

import anyio
import pytest
from hypothesis import given, settings, strategies as st

from refold.events import log as log_module
from refold.events.dispatch import WorkDifference, rebuild_work, work_differences
from refold.events.errors import RefoldError, StoreError
from refold.events.log import Log
from refold.events.memory import MemoryStore
from refold.events.sqlite import SQLiteStore
from refold.events.sqlite_file import File
from refold.events.store import Append, Refusal, Store, Unit
from refold.events.stream import INBOX, Row, Tail, check_chain, row_hash
from refold.events.verify import verify
from refold.testing.samples import sample_post, sample_rows, sample_work
from tests.events import programs

pytestmark = pytest.mark.anyio

# ---- several processes ----------------------------------------------------------------------------------

NAMES = ["ana", "bob", "eve"]


def ids(rows: Sequence[Row]) -> list[str]:
    return [row.event().id for row in rows]


def test_processes_that_write_to_each_others_inboxes_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log.db"
    children = [
        subprocess.Popen(
            programs.command("correspond", path, name, 120),
            cwd=programs.ROOT,
            text=True,
            stdout=subprocess.PIPE,
        )
        for name in NAMES
    ]
    told = [json.loads(child.communicate(timeout=100)[0]) for child in children]
    store = SQLiteStore(path)
    for name in (*NAMES, "nobody"):
        rows = store.read(name + INBOX)
        assert check_chain(rows) == store.tail(name + INBOX), "dense versions, a whole chain"
        acknowledged = [message for one in told for message in one["sent"][name]]
        assert sorted(ids(rows)) == sorted(acknowledged), "none lost, none twice, none that was refused"
        for one in told:
            assert [i for i in ids(rows) if i in set(one["sent"][name])] == one["sent"][name], "in order"
    assert sum(one["refused"] for one in told) > 0, "stale units were among them"
    assert {work.run_id: mail for work, mail in store.all_work()} == {
        name: store.tail(name + INBOX).version for name in NAMES
    }
    assert not verify(store).problems
    assert work_differences(store) == []
    store.close()


class Guessing(SQLiteStore):
    """Control: a message's version is what the inbox seemed to be at before the transaction."""

    together: Barrier | None = None

    def commit(self, units: Sequence[Unit]) -> list[Refusal | None]:
        guessed = [Unit(unit.appends, unit.works, (), unit.blobs) for unit in units]
        for place, unit in enumerate(units):
            for post in unit.posts:
                stream, tail = post.run_id + INBOX, self.tail(post.run_id + INBOX)
                last = row_hash(tail.hash, stream, tail.version + 1, post.tag, post.state)
                row = Row(stream, tail.version + 1, post.tag, post.state, last)
                guessed[place] = Unit(
                    (*guessed[place].appends, Append(stream, tail.version, [row])), unit.works
                )
        if self.together is not None:
            self.together.wait(30)
        return super().commit(guessed)


@pytest.mark.parametrize(("kind", "stored"), [(SQLiteStore, 2), (Guessing, 1)])
def test_of_two_who_write_at_once_both_are_heard_unless_versions_are_guessed(
    kind: type[SQLiteStore], stored: int, tmp_path: Path
) -> None:
    Guessing.together = Barrier(2)
    stores = [kind(tmp_path / "log.db"), kind(tmp_path / "log.db")]
    answers: list[Refusal | None] = []

    def send(who: int) -> None:
        answers.extend(stores[who].commit([Unit(posts=(sample_post("run", f"{who}"),))]))

    threads = [Thread(target=send, args=(who,)) for who in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert answers.count(None) == stored
    assert check_chain(stores[0].read("run" + INBOX)).version == stored
    for store in stores:
        store.close()


def test_messages_of_one_commit_collide_when_versions_are_guessed(tmp_path: Path) -> None:
    """A control, too: in one commit nobody else is needed for that."""
    Guessing.together = None
    units = [Unit(posts=(sample_post("run", f"{n}"),)) for n in range(3)]
    honest, guessing = SQLiteStore(tmp_path / "honest.db"), Guessing(tmp_path / "guessing.db")
    assert honest.commit(units) == [None, None, None]
    assert guessing.commit(units) == [None, Refusal("run" + INBOX, 0, 1), Refusal("run" + INBOX, 0, 1)]
    honest.close()
    guessing.close()


# ---- any units -------------------------------------------------------------------------------------------


class QuickFile(File):
    """Many stores are made here, and none is pulled the plug."""

    synchronous = "OFF"


class QuickStore(SQLiteStore):
    file_class = QuickFile


class Shape(TypedDict):
    appends: list[tuple[str, int]]
    posts: list[tuple[str, int]]
    works: list[str]
    stale: int


STREAMS = ["a", "b", "a" + INBOX, "b" + INBOX]
PLANS = st.lists(
    st.lists(
        st.fixed_dictionaries(
            {
                "appends": st.lists(st.tuples(st.sampled_from(STREAMS), st.integers(0, 2)), max_size=2),
                "posts": st.lists(st.tuples(st.sampled_from("ab"), st.integers(-3, 1)), max_size=3),
                "works": st.lists(st.sampled_from("ab"), max_size=2),
                "stale": st.sampled_from([0, 0, 0, 1]),
            }
        ),
        max_size=9,
    ),
    max_size=5,
)


def made(plan: list[Shape], tails: dict[str, Tail]) -> list[Unit]:
    """Units as somebody makes them who knows the tails before the commit, and guesses those in it."""
    units: list[Unit] = []
    for number, shape in enumerate(plan):
        appends: list[Append] = []
        for stream, count in shape["appends"]:
            tail = tails.get(stream, Tail())
            rows = sample_rows(stream, count, tail)
            appends.append(Append(stream, tail.version - shape["stale"], rows, tail.hash))
            if rows:
                tails[stream] = Tail(rows[-1].version, rows[-1].hash)
        posts = [
            sample_post(
                run_id, f"{number}-{n}", tails.get(run_id + INBOX, Tail()).version if ahead > 0 else -1
            )
            for n, (run_id, ahead) in enumerate(shape["posts"])
        ]
        units.append(
            Unit(tuple(appends), tuple(sample_work(r, "waiting") for r in shape["works"]), tuple(posts))
        )
    return units


@given(PLANS)
@settings(max_examples=60, deadline=None)
def test_both_stores_do_the_same_with_any_units(
    tmp_path_factory: pytest.TempPathFactory, plans: list[list[Shape]]
) -> None:
    memory, file = MemoryStore(), QuickStore(tmp_path_factory.mktemp("any") / "log.db")
    for plan in plans:
        units = made(plan, {stream: memory.tail(stream) for stream in STREAMS})
        assert memory.commit(units) == file.commit(units)
    assert memory.scan(0, 10_000) == file.scan(0, 10_000)
    assert memory.all_work() == file.all_work()
    for run_id in "ab":
        check_chain(file.read(run_id + INBOX))
    assert all(mail == file.tail(work.run_id + INBOX).version for work, mail in file.all_work())
    file.close()


# ---- a proof of mail ---------------------------------------------------------------------------------------


def test_mail_that_the_log_does_not_confirm_is_named_and_built_again(tmp_path: Path) -> None:
    programs.run("correspond", tmp_path / "log.db", "ana", 20)
    store = SQLiteStore(tmp_path / "log.db")
    right = store.tail("ana" + INBOX).version
    assert work_differences(store) == []
    with store._file.writing() as connection:
        connection.execute("UPDATE work SET mail = mail + 1 WHERE run_id = 'ana'")
    assert work_differences(store) == [WorkDifference("ana", "mail", right + 1, right)]
    assert rebuild_work(store) == 1
    assert work_differences(store) == []
    store.close()


# ---- messages whose outcome is not known --------------------------------------------------------------


class Flaky(MemoryStore):
    """Says that nothing was stored, `faults` times; then it was so, or was not."""

    stored = False
    faults = 1

    def commit(self, units: Sequence[Unit]) -> list[Refusal | None]:
        if not self.faults:
            return super().commit(units)
        self.faults -= 1
        if self.stored:
            super().commit(units)
            super().commit([Unit(posts=(sample_post("run", f"stranger-{n}"),)) for n in range(3)])
        raise StoreError("the answer was lost")


async def sent(store: Store, names: Sequence[str]) -> tuple[list[RefoldError | None], list[str]]:
    """Send messages through a log; what their senders were told, and whose are in the inbox."""
    log = Log(store)
    told: list[RefoldError | None] = []
    for name in names:
        log.append(Unit(posts=(sample_post("run", name),)), told.append)
    while len(told) < len(names):
        with suppress(StoreError):
            await log.flush()
        await anyio.sleep(0.01)
    await log.close()
    return told, [
        name for row in store.read("run" + INBOX) if not (name := ids([row])[0]).startswith("run-stranger")
    ]


@pytest.mark.parametrize("stored", [True, False])
async def test_a_message_of_unknown_outcome_is_stored_once(stored: bool) -> None:
    store = Flaky()
    store.stored = stored
    assert await sent(store, ["one", "two"]) == ([None, None], ["run-one", "run-two"])


async def test_without_looking_back_a_message_of_unknown_outcome_is_stored_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The control of the test above."""
    monkeypatch.setattr(log_module, "LOOK_BACK", 3)
    store = Flaky()
    store.stored = True
    assert await sent(store, ["one"]) == ([None], ["run-one", "run-one"])
