"""The stores keep what they promise: the suite, the library's own cases, and what only a file can break."""

import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from unittest import TestCase
from uuid import uuid4

import pytest
from eventsourcing.persistence import StoredEvent
from msgspec.structs import replace

from refold.events.errors import ConfigurationError, StoreError
from refold.events.memory import MemoryStore
from refold.events.open import open_store
from refold.events.sqlite import SQLiteStore
from refold.events.store import Append, Post, Refusal, Store, Unit
from refold.events.stream import INBOX, Tail, check_chain
from refold.events.verify import verify
from refold.testing import StoreConformance
from refold.testing.samples import sample_rows

# The library's cases import its cipher, and that a package which nothing here uses.
sys.modules.setdefault("eventsourcing.cipher", ModuleType("eventsourcing.cipher")).__dict__.setdefault(
    "AESCipher", object
)
from eventsourcing.tests import persistence as library  # noqa: E402

# ---- the suite ----------------------------------------------------------------------------------


class TestSQLite(StoreConformance):
    def make_store(self, tmp_path: Path) -> Store:
        return open_store(tmp_path / "log.db")


class TestMemory(StoreConformance):
    def make_store(self, tmp_path: Path) -> Store:
        return open_store("memory://")

    def open_again(self, store: Store) -> Store:
        return store


class Careless(MemoryStore):
    """Control: does not look at expected versions."""

    def commit(self, units: Sequence[Unit]) -> list[Refusal | None]:
        honest = [
            Unit(
                tuple(Append(a.stream, self.tail(a.stream).version, a.rows) for a in unit.appends), unit.works
            )
            for unit in units
        ]
        return super().commit(honest)


class Piecemeal(MemoryStore):
    """Control: stores the appends of a unit one by one."""

    def commit(self, units: Sequence[Unit]) -> list[Refusal | None]:
        result: list[Refusal | None] = []
        for unit in units:
            parts = [super(Piecemeal, self).commit([Unit((a,), unit.works)])[0] for a in unit.appends]
            result.append(next((refusal for refusal in parts if refusal), None))
        return result


class AllOrNothing(MemoryStore):
    """Control: one refused unit takes the whole commit with it."""

    def commit(self, units: Sequence[Unit]) -> list[Refusal | None]:
        wrong = [a for u in units for a in u.appends if self.tail(a.stream).version != a.expected]
        if wrong:
            return [Refusal(wrong[0].stream, wrong[0].expected, -1)] * len(units)
        return super().commit(units)


class Guessing(MemoryStore):
    """Control: takes the versions of messages from before the commit."""

    def commit(self, units: Sequence[Unit]) -> list[Refusal | None]:
        return super().commit([replace(unit, posts=tuple(map(self._guess, unit.posts))) for unit in units])

    def _guess(self, post: Post) -> Post:
        return replace(post, expected=self.tail(post.run_id + INBOX).version)


class Chatty(MemoryStore):
    """Control: messages and contents leave before it is known whether their unit is stored."""

    def commit(self, units: Sequence[Unit]) -> list[Refusal | None]:
        for unit in units:
            super().commit([Unit(posts=tuple(replace(p, expected=-1) for p in unit.posts), blobs=unit.blobs)])
        return super().commit([Unit(unit.appends, unit.works) for unit in units])


class Unread(MemoryStore):
    """Control: does not count mail."""

    def _dispatch(self, unit: Unit) -> None:
        super()._dispatch(Unit(works=unit.works))


class Trusting(MemoryStore):
    """Control: gives out whatever lies under a digest."""

    def blob(self, digest: str) -> bytes:
        return self._blobs.get(digest, b"")


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        (Careless, "test_an_append_at_the_wrong_version_is_refused_and_leaves_nothing"),
        (Careless, "test_of_two_that_race_for_a_version_one_wins"),
        (Piecemeal, "test_a_unit_over_several_streams_is_stored_whole_or_not_at_all"),
        (Piecemeal, "test_what_follows_a_refused_unit_is_refused_too_and_no_gap_is_left"),
        (AllOrNothing, "test_a_refused_unit_does_not_hurt_the_others"),
        (Guessing, "test_many_units_of_one_commit_write_to_one_inbox"),
        (Guessing, "test_messages_and_appends_to_an_inbox_meet_in_one_commit"),
        (Chatty, "test_a_refused_unit_sends_nothing"),
        (Chatty, "test_a_message_checked_against_the_inbox_is_refused_when_it_has_moved"),
        (Chatty, "test_a_refused_unit_leaves_no_content"),
        (Unread, "test_a_run_with_unread_mail_is_due"),
        (Unread, "test_a_run_starts_with_its_first_message_in_one_unit"),
        (Trusting, "test_a_content_that_is_missing_is_an_error"),
        (Trusting, "test_a_content_that_is_not_what_its_digest_says_is_an_error"),
    ],
)
def test_the_suite_finds_a_store_that_breaks_a_promise(
    broken: type[MemoryStore], promise: str, tmp_path: Path
) -> None:
    class Suite(TestMemory):
        def make_store(self, tmp_path: Path) -> Store:
            return broken()

    with pytest.raises(AssertionError):
        getattr(Suite(), promise)(tmp_path)


# ---- the library's own cases ----------------------------------------------------------------------


class LibraryCases:
    """Run the eventsourcing library's test cases; they are unittest classes, made here one by one."""

    def recorder(self, tmp_path: Path) -> SQLiteStore | MemoryStore:
        raise NotImplementedError

    def passes(self, case: type[TestCase], name: str, tmp_path: Path) -> None:
        made: list[SQLiteStore | MemoryStore] = []

        def create_recorder(_: object) -> SQLiteStore | MemoryStore:
            made.append(self.recorder(tmp_path))
            return made[-1]

        members = {"create_recorder": create_recorder, "new_originator_id": lambda _: uuid4().hex}
        test = type("Case", (case,), members)(name)
        test.debug()
        for store in made:
            store.close()

    @pytest.mark.parametrize(
        "name",
        [
            "test_insert_select",
            "test_performance",
            "test_concurrent_no_conflicts",
            "test_concurrent_throughput",
        ],
    )
    def test_application_recorder(self, name: str, tmp_path: Path) -> None:
        self.passes(library.ApplicationRecorderTestCase, name, tmp_path)

    def test_notification_ids_do_not_interleave(self, tmp_path: Path) -> None:
        self.passes(library.NonInterleavingNotificationIDsBaseCase, "test", tmp_path)

    def test_what_the_library_inserts_is_chained_too(self, tmp_path: Path) -> None:
        store = self.recorder(tmp_path)
        tail = Tail()
        for count in (2, 1, 3):
            rows = sample_rows("run", count, tail)
            stored = [StoredEvent(r.stream, r.version, r.tag, r.state) for r in rows]
            store.insert_events(stored)
            tail = check_chain(rows, tail)
        assert check_chain(store.read("run")) == store.tail("run") == tail
        assert not verify(store).problems
        store.close()


class TestLibraryCasesOnSQLite(LibraryCases):
    def recorder(self, tmp_path: Path) -> SQLiteStore:
        return SQLiteStore(tmp_path / "log.db")


class TestLibraryCasesOnMemory(LibraryCases):
    def recorder(self, tmp_path: Path) -> MemoryStore:
        return MemoryStore()


# ---- URLs -----------------------------------------------------------------------------------------


def test_a_store_is_named_by_url_or_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    absolute = tmp_path / "sub" / "a b#c?d%41.db"
    for url in ("sqlite:///sub/a b#c?d%41.db", f"sqlite:///{absolute}", "sub/a b#c?d%41.db", absolute):
        store = open_store(url)
        assert isinstance(store, SQLiteStore)
        assert store.path == absolute
        assert store.url == f"sqlite:///{absolute}"
        store.close()
    assert sorted(path.name for path in tmp_path.rglob("*")) == [absolute.name, "sub"]
    assert isinstance(open_store("memory://"), MemoryStore)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://db/shop", "no store is called 'mysql'"),
        ("sqlite://shop.db", "sqlite:///shop.db"),
        ("sqlite:///", "not the path of a file"),
        ("sqlite:///:memory:", "not the path of a file"),
        (":memory:", "not the path of a file"),
        ("", "not the path of a file"),
        ("memory://shop", "memory://"),
    ],
)
def test_any_other_url_is_refused_with_the_forms_that_work(url: str, words: str) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        open_store(url)
    assert words in str(refusal.value)
    assert "secret" not in str(refusal.value)


def test_a_file_that_must_exist_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no store at"):
        open_store(tmp_path / "typo.db", create=False)
    assert list(tmp_path.iterdir()) == []
