"""What a store does with messages for runs: the part of the suite about posts and unread mail."""

from pathlib import Path

from ..events.store import Append, Refusal, Unit
from ..events.stream import INBOX, check_chain
from .samples import sample_append, sample_post, sample_rows, sample_work
from .suite import Suite, close, in_threads, put

_INBOX = "run" + INBOX


class MailConformance(Suite):
    """Posts go behind whatever is there, and their runs become due."""

    def test_a_message_goes_behind_whatever_is_there(self, tmp_path: Path) -> None:
        store = self.make_store(tmp_path)
        for name in ("one", "two"):
            assert store.commit([Unit(posts=(sample_post("run", name),))]) == [None]
        assert store.commit([Unit((sample_append(store, _INBOX, 2),))]) == [None]
        assert store.commit([Unit(posts=(sample_post("run", "three"),))]) == [None]
        rows = store.read(_INBOX)
        assert check_chain(rows) == store.tail(_INBOX)
        sent = [sample_post("run", name) for name in ("one", "two", "three")]
        assert [(rows[place].tag, rows[place].state) for place in (0, 1, 4)] == [
            (post.tag, post.state) for post in sent
        ]
        assert [row.position for row in rows] == [1, 2, 3, 4, 5]
        put(store, sample_work("run", "waiting"))
        assert store.commit([Unit((sample_append(store, _INBOX, 2),))]) == [None]
        assert store.all_work()[0][1] == 7, "mail is where the inbox stands, whoever moved it"
        store.close()

    def test_what_is_said_about_a_lock_goes_to_the_streams_of_locks_whatever_they_are_called(
        self, tmp_path: Path
    ) -> None:
        store = self.make_store(tmp_path)
        put(store, sample_work("run", "waiting"))
        for name in ("lock/k", "lock//srv/inbox", "lock/" + INBOX):
            units = [Unit(posts=(sample_post(name, "one", 0),)), Unit(posts=(sample_post(name, "two", 0),))]
            assert store.commit(units) == [None, Refusal(name, 0, 1)]
            assert store.commit([Unit(posts=(sample_post(name, "three"),))]) == [None]
            rows = store.read(name)
            assert [row.state for row in rows] == [sample_post(name, n).state for n in ("one", "three")]
            assert check_chain(rows) == store.tail(name)
            assert store.read(name + INBOX) == []
        assert [(work.run_id, mail) for work, mail in store.all_work()] == [("run", 0)]
        store.close()

    def test_many_units_of_one_commit_write_to_one_inbox(self, tmp_path: Path) -> None:
        store = self.make_store(tmp_path)
        put(store, *(sample_work(run_id, "waiting") for run_id in ("run", "other")))
        for count in (2, 40):  # few and many tails are looked up in different ways
            units = [
                Unit(posts=(sample_post("run", f"{n}"), sample_post("other", f"{n}"))) for n in range(count)
            ]
            assert store.commit(units) == [None] * count
            for run_id in ("run", "other"):
                rows = store.read(run_id + INBOX)[-count:]
                assert [row.state for row in rows] == [
                    sample_post(run_id, f"{n}").state for n in range(count)
                ]
        for run_id in ("run", "other"):
            assert check_chain(store.read(run_id + INBOX)).version == 42
        assert [mail for _, mail in store.all_work()] == [42, 42]
        store.close()

    def test_messages_and_appends_to_an_inbox_meet_in_one_commit(self, tmp_path: Path) -> None:
        store = self.make_store(tmp_path)
        put(store, sample_work("run", "waiting"))
        rows = sample_rows(_INBOX, 2)
        late = Append(_INBOX, 2, sample_rows(_INBOX, 1, store.tail(_INBOX)))
        units = [
            Unit((Append(_INBOX, 0, rows),), posts=(sample_post("run", "one"), sample_post("run", "two"))),
            Unit((late,)),
            Unit(posts=(sample_post("run", "three"),)),
        ]
        assert store.commit(units) == [None, Refusal(_INBOX, 2, 4), None]
        assert check_chain(store.read(_INBOX)).version == 5
        assert store.all_work() == [(sample_work("run", "waiting"), 5)]
        store.close()

    def test_a_message_checked_against_the_inbox_is_refused_when_it_has_moved(self, tmp_path: Path) -> None:
        store = self.make_store(tmp_path)
        put(store, sample_work("run", "waiting"))
        units = [
            Unit(posts=(sample_post("run", "first", 0),)),
            Unit((sample_append(store, "a"),), (sample_work("a"),), (sample_post("run", "late", 0),)),
            Unit(posts=(sample_post("run", "second", 1), sample_post("run", "third", 2))),
            Unit(posts=(sample_post("run", "any"), sample_post("run", "late", 3))),
            Unit(posts=(sample_post("nobody", "late", 7),)),
        ]
        assert store.commit(units) == [
            None, Refusal(_INBOX, 0, 1), None, Refusal(_INBOX, 3, 4), Refusal("nobody" + INBOX, 7, 0),
        ]  # fmt: skip
        assert check_chain(store.read(_INBOX)).version == 3
        assert store.read("a") == store.read("nobody" + INBOX) == []
        assert store.all_work() == [(sample_work("run", "waiting"), 3)]
        store.close()

    def test_a_refused_unit_sends_nothing(self, tmp_path: Path) -> None:
        store = self.make_store(tmp_path)
        put(store, sample_work("run", "waiting"))
        late = Append("a", 1, sample_rows("a", 1))
        units = [
            Unit((late,), posts=(sample_post("run", "lost"),)),
            Unit(posts=(sample_post("run", "stays"),)),
        ]
        assert store.commit(units) == [Refusal("a", 1, 0), None]
        assert [row.state for row in store.read(_INBOX)] == [sample_post("run", "stays").state]
        assert store.all_work()[0][1] == 1
        store.close()

    def test_correspondents_never_meet_a_refusal(self, tmp_path: Path) -> None:
        store = self.make_store(tmp_path)
        handles = [store, self.open_again(store)]
        put(store, sample_work("run", "waiting"))

        def write(who: int) -> None:
            for number in range(40):
                post = Unit(posts=(sample_post("run", f"{who}-{number}"),))
                assert handles[who].commit([post]) == [None]

        in_threads(lambda: write(0), lambda: write(1))
        rows = store.read(_INBOX)
        assert check_chain(rows).version == 80
        assert {row.state for row in rows} == {
            sample_post("run", f"{who}-{n}").state for who in (0, 1) for n in range(40)
        }
        assert store.all_work()[0][1] == 80
        close(handles)

    def test_a_run_starts_with_its_first_message_in_one_unit(self, tmp_path: Path) -> None:
        store = self.make_store(tmp_path)
        works = (sample_work("parent", "waiting"), sample_work("child", "waiting"))
        appends = (sample_append(store, "parent"), sample_append(store, "child"))
        unit = Unit(appends, works, (sample_post("child"), sample_post("parent")))
        assert store.commit([unit, Unit(posts=(sample_post("child", "more"),))]) == [None, None]
        assert store.all_work() == [(works[1], 2), (works[0], 1)]
        assert store.due(0.0) == ["child", "parent"]
        store.close()

    def test_a_run_with_unread_mail_is_due(self, tmp_path: Path) -> None:
        store = self.make_store(tmp_path)
        put(store, *(sample_work(run_id, "waiting") for run_id in "abcd"))
        for run_id in "bca":
            assert store.commit([Unit(posts=(sample_post(run_id),) * 2)]) == [None]
        put(store, sample_work("b", "waiting", seen=2), sample_work("c", "running", seen=1))
        assert store.due(0.0) == ["a", "c"]
        assert store.due(0.0, 1) == ["a"]
        put(store, sample_work("a", "done"), sample_work("c", "running", seen=2))
        assert store.due(0.0) == []
        assert dict((work.run_id, mail) for work, mail in store.all_work()) == {
            "a": 2,
            "b": 2,
            "c": 2,
            "d": 0,
        }
        store.close()

    def test_mail_that_came_before_the_run_is_not_forgotten(self, tmp_path: Path) -> None:
        store = self.make_store(tmp_path)
        store.commit([Unit(posts=(sample_post("run"),) * 3)])
        assert store.due(0.0) == []
        put(store, sample_work("run", "waiting"))
        assert store.all_work()[0][1] == 3
        assert store.due(0.0) == ["run"]
        store.close()

    def test_a_run_that_is_due_and_has_mail_is_listed_once(self, tmp_path: Path) -> None:
        store = self.make_store(tmp_path)
        store.commit([Unit((), (sample_work("run", "waiting", 1.0),), (sample_post("run"),))])
        assert store.due(2.0) == ["run"]
        store.close()
