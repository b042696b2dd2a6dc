"""What a gate admits, compared with a model that keeps nothing but the list of votes it has seen."""

from datetime import timedelta
from typing import Any

import msgspec
from hypothesis import given, settings, strategies as st
from msgspec import Raw, Struct

from refold.events import types as t
from refold.events.clock import to_datetime
from refold.events.gate import Ballot, Gate, answer_problem, check_schema, shown_digest
from refold.events.types import Event

PEOPLE = ("ana", "ben", "cem", "dan")
OPTIONS = ("a", "b")
START = to_datetime(1_800_000_000.0)
DIGEST = shown_digest("?", OPTIONS, Raw(b"null"))


class Said(Struct, frozen=True):
    """One thing that happens at a gate, so many seconds after its opening."""

    at: int
    what: str
    by: str = "ana"
    selections: tuple[str, ...] = ()
    digest: str = ""
    answer: Raw = Raw(b"null")


class Stage(Struct, frozen=True):
    voters: tuple[str, ...]
    approvers: int
    until: int | None


class Question(Struct, frozen=True):
    kind: str
    excluded: tuple[str, ...]
    stages: tuple[Stage, ...]


voters = st.lists(st.sampled_from(PEOPLE), unique=True, max_size=3).map(tuple)
stage = st.builds(Stage, voters, st.integers(1, 3), st.none() | st.integers(1, 30))
questions = st.builds(
    Question,
    st.sampled_from(["approval", "approval", "input"]),
    st.lists(st.sampled_from(PEOPLE), max_size=1).map(tuple),
    st.lists(stage, min_size=1, max_size=3).map(tuple),
)
happenings = st.lists(
    st.builds(
        Said,
        st.integers(0, 30),
        st.sampled_from(["approve", "approve", "approve", "reject", "answer", "escalate", "close"]),
        st.sampled_from([*PEOPLE, "eve"]),
        st.lists(st.sampled_from([*OPTIONS, "c"]), max_size=2).map(tuple),
        st.sampled_from(["", "", DIGEST, "0" * 64]),
        st.sampled_from([Raw(b"1"), Raw(b'"one"'), Raw(b"null")]),
    ),
    max_size=14,
).map(lambda said: sorted(said, key=lambda one: one.at))


def head(said: Said) -> dict[str, Any]:
    return {"id": "", "at": START + timedelta(seconds=said.at), "by": said.by}


class Real:
    """`Gate`, used as the engine does: asked first, told after."""

    def __init__(self, question: Question) -> None:
        first = question.stages[0]
        schema = Raw(b'{"type":"integer"}') if question.kind == "input" else Raw(b"null")
        opened = t.GateOpened(
            id="", at=START, gate=1, kind=question.kind, name="g#1", prompt="?", options=OPTIONS,
            digest=DIGEST, approvers=first.approvers, voters=first.voters, excluded=question.excluded,
            due_at=moment(first.until), schema=schema,
        )  # fmt: skip
        self.gate, self.question = Gate(opened), question

    def say(self, said: Said) -> bool:
        event: Event
        if said.what == "escalate":
            place = self.gate.stage + 1
            if self.gate.closed or place >= len(self.question.stages):
                return False
            stage = self.question.stages[place]
            event = t.GateEscalated(
                gate=1, stage=place, voters=stage.voters, approvers=stage.approvers,
                due_at=moment(stage.until), **head(said),
            )  # fmt: skip
        elif said.what == "close":
            event = t.GateClosed(gate=1, outcome="cancelled", **head(said))
        else:
            ballot = Ballot(
                vote=said.what, by=said.by, selections=said.selections, digest=said.digest, answer=said.answer
            )
            if self.gate.refusal(ballot, head(said)["at"]):
                return False
            event = t.GateVoted(gate=1, vote=said.what, decides=self.gate.decides(said.what), **head(said))
        self.gate.apply(event)
        return True


def moment(seconds: int | None) -> Any:
    return None if seconds is None else START + timedelta(seconds=seconds)


class Naive:
    """The same from the list of everything that was admitted, read anew each time."""

    def __init__(self, question: Question) -> None:
        self.question, self.admitted = question, list[Said]()

    @property
    def stage(self) -> int:
        return sum(said.what == "escalate" for said in self.admitted)

    @property
    def closed(self) -> str:
        """How it stands after everything admitted; the requirement of the moment of each approval counts."""
        stage = approvals = 0
        for said in self.admitted:
            if said.what == "escalate":
                stage += 1
            elif said.what == "close":
                return "cancelled"
            elif said.what == "reject":
                return "rejected"
            elif said.what == "answer":
                return "answered"
            else:
                approvals += 1
                if approvals >= self.question.stages[stage].approvers:
                    return "approved"
        return ""

    def say(self, said: Said) -> bool:
        admitted = self.admits(said)
        if admitted:
            self.admitted.append(said)
        return admitted

    def admits(self, said: Said) -> bool:
        if said.what == "close":
            return True
        if self.closed:
            return False
        if said.what == "escalate":
            return self.stage + 1 < len(self.question.stages)
        now = self.question.stages[self.stage]
        votes = [before for before in self.admitted if before.what in ("approve", "reject", "answer")]
        return (
            (now.until is None or said.at < now.until)
            and (said.what == "answer") == (self.question.kind == "input")
            and (not now.voters or said.by in now.voters)
            and said.by not in self.question.excluded
            and all(vote.by != said.by for vote in votes)
            and set(said.selections) <= set(OPTIONS)
            and said.digest in ("", DIGEST)
            and (said.what != "answer" or said.answer == Raw(b"1"))
        )


@settings(max_examples=400, deadline=None)
@given(questions, happenings)
def test_a_gate_admits_and_decides_what_the_model_does(question: Question, said: list[Said]) -> None:
    real, naive = Real(question), Naive(question)
    for one in said:
        before = naive.closed
        assert real.say(one) == naive.say(one), one
        assert real.gate.closed == (naive.closed if not before or one.what != "close" else "cancelled")
        if before and one.what == "close":
            return


def test_a_gate_that_forgot_who_voted_is_noticed() -> None:
    """The control."""
    question = Question("approval", (), (Stage((), 2, None),))
    real, naive = Real(question), Naive(question)
    twice = [Said(1, "approve"), Said(2, "approve")]
    assert real.say(twice[0]) == naive.say(twice[0])
    real.gate.voted.clear()
    assert real.say(twice[1]) != naive.say(twice[1])


def test_an_answer_is_held_against_its_schema_with_the_place_in_the_message() -> None:
    schema = Raw(
        msgspec.json.encode(
            {"type": "object", "properties": {"n": {"type": "array", "items": {"type": "integer"}}}}
        )
    )
    assert answer_problem(schema, Raw(b'{"n":[1,2]}')) == ""
    assert answer_problem(schema, Raw(b'{"n":[1,"x"]}')).startswith("the answer does not fit at $.n[1]: ")
    assert answer_problem(Raw(b"null"), Raw(b'"anything"')) == ""


def test_what_a_schema_says_of_dates_and_the_like_counts() -> None:
    schema = Raw(b'{"type":"string","format":"date"}')
    assert answer_problem(schema, Raw(b'"2026-11-21"')) == ""
    assert "date" in answer_problem(schema, Raw(b'"tomorrow"'))


def test_what_is_no_schema_or_needs_another_file_is_refused() -> None:
    check_schema(Raw(b'{"$defs":{"n":{"type":"integer"}},"$ref":"#/$defs/n"}'))
    for schema in (
        b'{"type":"intt"}',
        b'{"type":5}',
        b'{"$ref":"#/nowhere"}',
        b'{"$ref":"https://example.com/schema.json"}',
        b'{"properties":{"a":{"$ref":"other.json"}}}',
    ):
        try:
            check_schema(Raw(schema))
        except ValueError:
            continue
        raise AssertionError(f"accepted: {schema!r}")
