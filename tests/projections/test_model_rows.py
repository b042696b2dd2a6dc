"""What the acceptance table asks of the rows: repairs, people, children, data, each told by hand."""

from decimal import Decimal
from typing import Any

from msgspec import Raw

from refold.events import types as t
from refold.events.types import Spent
from refold.projections import queries
from refold.projections.core import CORE
from refold.projections.projection import Table
from refold.projections.views import Views
from tests.projections import naive
from tests.projections.test_folds import Plot, folded

RUN = "order-42"


def statuses(views: Views) -> dict[str, str]:
    return {row["key"]: str(row["status"]) for row in queries.list_steps(views, RUN, all_attempts=False)}


def test_a_branch_left_out_is_skipped_and_no_success() -> None:
    """A13."""
    plot = Plot()
    plot.done(plot.call("a"))
    plot.tell(t.BranchSkipped, step=plot.number(), name="b", key="b#1", reason="the sum is small")
    views, row = plot.views(), plot.row()
    assert statuses(views) == {"a#1": "completed", "b#1": "skipped"}
    assert (row["steps_total"], row["steps_completed"], row["steps_skipped"]) == (1, 1, 1)
    assert queries.list_steps(views, RUN)[1]["reason"] == "the sum is small"


def gate(plot: Plot, **fields: Any) -> int:
    number = plot.number()
    base: dict[str, Any] = {"kind": "approval", "name": f"approval#{number}", "prompt": "ship it?"}
    plot.tell(t.GateOpened, gate=number, **(base | fields))
    return number


def test_a_decision_keeps_selections_and_feedback_apart() -> None:
    """A17: options as stored at the opening; what was selected; what was said."""
    plot = Plot()
    number = gate(
        plot, options=("today", "tomorrow"), voters=("user:ana", "user:bo"), approvers=2, token="t-1"
    )
    (row,), _ = queries.list_gates(plot.views(), voter="user:ana")
    assert (row["options"], row["approvals"], row["approvals_needed"]) == (["today", "tomorrow"], 0, 2)
    plot.tell(t.GateVoted, gate=number, vote="approve", selections=("today",), by="user:ana")
    views = plot.views()
    assert queries.list_gates(views, voter="user:ana") == ([], None)  # has voted
    assert queries.list_gates(views, voter="user:cy") == ([], None)  # may not
    assert len(queries.list_gates(views, voter="user:bo")[0]) == 1
    assert plot.row()["blocked_on"] == {
        "type": "approval", "gate": number, "name": "approval#1", "approvals_needed": 2,
    }  # fmt: skip
    last = {"vote": "approve", "selections": ("tomorrow",), "feedback": "ok", "decides": "approved"}
    plot.tell(t.GateVoted, gate=number, by="user:bo", **last)
    views = plot.views()
    assert queries.list_gates(views) == ([], None)
    found = queries.find_gate(views, "t-1")
    assert found is not None
    assert (found["selections"], found["feedback"]) == (["tomorrow"], "ok")
    assert (found["status"], found["decided_by"], found["approvals"]) == ("approved", "user:bo", 2)
    assert [vote["by"] for vote in found["votes"]] == ["user:ana", "user:bo"]
    row = plot.row()
    assert (row["status"], row["blocked_on"], row["gates_open"]) == ("running", None, 0)


def test_gates_come_in_pages_and_by_deadline() -> None:
    plot = Plot()
    for day in (5, 3, 4):
        gate(plot, due_at=plot.now.replace(year=2030, day=day))
    gate(plot)
    views = plot.views()
    first, cursor = queries.list_gates(views, limit=3)
    rest, end = queries.list_gates(views, limit=3, cursor=cursor)
    assert ([row["gate"] for row in first + rest], end) == ([1, 2, 3, 4], None)
    due, _ = queries.list_gates(views, due_before="2030-01-05")
    assert [row["gate"] for row in due] == [2, 3]


def test_what_a_run_has_spent_counts_its_children_once() -> None:
    """B06: before and after a rewind that copies the child's end once more."""
    plot = Plot()
    step, child = plot.call("a"), plot.number()
    plot.tell(t.CostRecorded, step=step, attempt=1, usd=Decimal("0.10"))
    plot.tell(t.ChildStarted, child=child, run_id="kid", workflow="k", version="1", args=Raw(b"[]"))
    to = len(plot.events)
    plot.done(step)
    assert plot.row()["blocked_on"] == {"type": "child", "child": child, "run_id": "kid"}
    ended = {
        "child": child,
        "run_id": "kid",
        "status": "completed",
        "spent": Spent(usd=Decimal("0.25"), turns=2),
    }
    plot.tell(t.ChildEnded, inbox=1, **ended)
    plot.tell(t.RunFailed, error=t.Failure(type="Boom", message="no"))
    assert plot.row()["total_usd"] == Decimal("0.35")
    plot.tell(t.RunRewound, to=to, steps=(step,), children=(child,), by="user:ana")
    row = plot.row()
    assert (row["status"], row["error_type"], row["ended_at"], row["run_attempt"]) == (
        "running",
        None,
        None,
        2,
    )
    plot.tell(t.ChildEnded, inbox=1, **ended)
    row = plot.row()
    assert (row["cost_usd"], row["children_usd"], row["total_usd"]) == (
        Decimal("0.10"), Decimal("0.25"), Decimal("0.35"),
    )  # fmt: skip
    assert (row["children_turns"], row["children_total"], row["children_running"]) == (2, 1, 0)


def test_the_cost_of_a_family_has_what_is_not_over_and_not_what_is_detached() -> None:
    def run(run_id: str, usd: str, *above: str, detached: bool = False) -> list[t.Event]:
        ancestors = tuple(t.Ancestor(one, "w") for one in above)
        at = Plot().now
        begin = t.RunStarted(
            id="1", at=at, workflow="w", workflow_version="1", args=Raw(b"[]"), seed=1, ancestors=ancestors,
            child=1 if above else 0, detached=detached,
        )  # fmt: skip
        return [begin, t.CostRecorded(id="2", at=at, step=0, attempt=0, usd=Decimal(usd))]

    views = folded(
        {
            "top": run("top", "1"),
            "kid": run("kid", "0.1", "top"),
            "grandkid": run("grandkid", "0.01", "top", "kid"),
            "gone": run("gone", "100", "top", detached=True),
        }
    )
    assert queries.tree_cost(views, "top").usd == Decimal("1.11")
    assert queries.tree_cost(views, "kid").usd == Decimal("0.11")
    assert queries.tree_cost(views, "top").runs == 3
    family = queries.list_runs(views, root="top").runs
    assert {run["run_id"] for run in family} == {"top", "kid", "grandkid", "gone"}
    assert [run["depth"] for run in queries.list_runs(views, parent="kid").runs] == [2]


def test_an_operators_acts_are_seen_with_their_author() -> None:
    """C11: skipped, resolved and taken back by hand."""
    plot = Plot()
    first, second = plot.call("a"), plot.call("b")
    plot.tell(t.StepInterrupted, step=first, attempt=1)
    plot.tell(t.StepInDoubt, step=first, attempt=1, reason="the process died while it ran")
    plot.tell(t.StepSkipped, step=second, result=Raw(b"9"), reason="done by phone", by="user:bo")
    row = plot.row()
    assert (row["attention"], row["blocked_on"]) == (
        "in_doubt",
        {"type": "in_doubt", "step": first, "key": "a#1"},
    )
    assert row["attention_reason"] == "the process died while it ran"
    plot.tell(t.StepCompleted, step=first, attempt=1, result=Raw(b"7"), by="user:ana")
    assert plot.row()["attention"] == "none"
    a, b = queries.list_steps(plot.views(), RUN)
    assert (a["status"], a["result"], a["resolved_by"]) == ("completed", 7, "user:ana")
    assert (b["status"], b["result"], b["skipped_by"], b["reason"]) == (
        "skipped",
        9,
        "user:bo",
        "done by phone",
    )
    plot.tell(t.RunRewound, to=4, verb="reset", dropped=(second,), steps=(first,), by="user:ana")
    views = plot.views()
    assert statuses(views) == {"a#1": "scheduled"}
    kept = queries.list_steps(views, RUN, rewound=True)
    assert [(row["key"], row["attempt"], row["rewound"]) for row in kept] == [
        ("a#1", 1, False), ("a#1", 0, False), ("b#1", 1, True),
    ]  # fmt: skip


def test_a_paused_run_says_since_when_and_by_whom() -> None:
    plot = Plot()
    plot.tell(t.WaitOpened, wait=plot.number(), name="go")
    plot.tell(t.RunPaused, by="user:ana")
    row = plot.row()
    since = naive.iso(plot.now)
    assert (row["status"], row["paused_by"], row["paused_since"]) == ("paused", "user:ana", since)
    assert (row["blocked_on"], row["blocked_since"]) == ({"type": "paused"}, since)
    plot.tell(t.RunResumed, by="user:ana")
    row = plot.row()
    assert (row["status"], row["paused_since"], row["blocked_type"]) == ("waiting", None, "event")


def test_parallel_writers_of_different_keys_never_meet() -> None:
    """E03, B09: both survive; of one key the last by the log stands, the conflict is recorded."""
    plot = Plot()
    plot.tell(t.ContextSet, key="a", value=Raw(b"1"), task="m/1")
    plot.tell(t.ContextSet, key="b", value=Raw(b"2"), task="m/2")
    plot.tell(t.ContextSet, key="a", value=Raw(b"3"), task="m/2", conflict="m/1")
    plot.tell(t.ContextSet, key="a", value=Raw(b"4"), task="m/2", refused="too many keys")
    views = plot.views()
    assert queries.get_context(views, RUN) == {"a": 3, "b": 2}
    assert [row["value"] for row in queries.context_history(views, RUN)] == [1, 2, 3]
    (row,) = queries.read_table(views, _table("context"), key="a", superseded=0)
    assert (row["conflict"], row["conflicts"], row["writer"]) == ("m/1", 1, "m/2")
    assert (row["refused"], row["refusals"]) == ("too many keys", 1)


def test_who_a_run_is_for_is_found_by_label() -> None:
    """E09: as given at the start, changed by the handler, changed from outside."""
    plot = Plot()
    plot.tell(t.AttributesSet, attributes={"user": "u-1", "workspace": "w-1"})
    plot.tell(t.AttributesChanged, attributes={"user": "u-2", "workspace": None}, by="user:ana")
    views = plot.views()
    assert queries.list_runs(views, attributes={"user": "u-1"}).runs == []
    assert queries.list_runs(views, attributes={"workspace": "w-1"}).runs == []
    (run,) = queries.list_runs(views, attributes={"user": "u-2"}).runs
    assert run["attributes"] == {"user": "u-2"}


def test_a_dismissed_run_is_hidden_and_not_deleted() -> None:
    """B14."""
    plot = Plot()
    plot.tell(t.RunCompleted, result=Raw(b"1"))
    plot.tell(t.RunDismissed, by="user:ana")
    views = plot.views()
    assert queries.list_runs(views).runs == []
    assert queries.count_runs(views) == {}
    (run,) = queries.list_runs(views, dismissed=True).runs
    assert run["dismissed"] is True
    plot.tell(t.RunDismissed, dismissed=False, by="user:ana")
    assert len(queries.list_runs(plot.views()).runs) == 1


def _table(name: str) -> Table:
    return next(p.table for p in CORE if p.name == name)
