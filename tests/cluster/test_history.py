"""Clients' recorded histories are linearizable, through cut connections, lost answers and restarts."""

from functools import partial
from math import inf
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from refold.events.postgres import PostgresStore
from refold.events.verify import verify
from tests import pg
from tests.cluster.history import Op, by_search, problems, recorded
from tests.cluster.kit import Office, until
from tests.crash.scene import Scene

# ---- the criterion itself -----------------------------------------------------------------------


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[Op], list[str]]:
    """A handful of overlapping operations on one stream, answered truly for the most part."""
    count = draw(st.integers(1, 6))
    times = draw(st.permutations(range(2 * count)))
    spans = [tuple(sorted(times[2 * n : 2 * n + 2])) for n in range(count)]
    order = sorted(range(count), key=lambda n: draw(st.floats(*map(float, spans[n]))))
    log, history = list[str](), list[Op]()
    for n in order:
        history.append(answered(draw, n, spans[n], log))
    if draw(st.booleans()):
        changed = draw(st.integers(0, count - 1))
        history[changed] = draw(st.sampled_from(lies(history[changed], log)))
    return draw(st.permutations(history)), log


def answered(draw: st.DrawFn, number: int, span: tuple[int, ...], log: list[str]) -> Op:
    times: dict[str, Any] = {"asked": span[0], "answered": span[1]}
    kind = draw(st.sampled_from(["append", "append", "post", "read"]))
    if kind == "read":
        return Op(kind=kind, seen=tuple(log), **times)
    event = f"e{number}"
    expected = len(log) + draw(st.sampled_from([0, 0, 0, -1, 1])) if kind == "append" else 0
    heard, found = draw(st.integers(0, 3)) > 0, len(log)
    fits = kind == "post" or expected == found
    if not heard and draw(st.booleans()):
        return Op(kind=kind, event=event, expected=expected, outcome="unknown", asked=span[0])
    if fits:
        log.append(event)
    outcome = "unknown" if not heard else "ok" if fits else "refused"
    return Op(
        kind=kind, event=event, expected=expected, outcome=outcome, found=0 if fits else found,
        asked=span[0], answered=span[1] if heard else inf,
    )  # fmt: skip


def lies(op: Op, log: list[str]) -> list[Op]:
    """The same operation, with another answer or other times."""
    fields = {name: getattr(op, name) for name in Op.__struct_fields__}
    heard = op.answered < inf
    other: list[dict[str, Any]] = [
        {"asked": op.asked + change, "answered": op.asked + change + 10 if heard else inf}
        for change in (-20, 20)
    ]
    if op.kind == "read":
        other += [{"seen": tuple(log[:n])} for n in range(len(log) + 1)] + [{"seen": ("stranger",)}]
    elif heard:
        other += [{"outcome": "ok"}, {"expected": op.expected + 1}]
        other += [{"outcome": "refused", "found": n} for n in range(3) if op.kind == "append"]
    return [Op(**fields | change) for change in other]


@settings(max_examples=40, deadline=None)
@given(histories())
def test_the_criterion_agrees_with_a_search_of_all_orders(made: tuple[list[Op], list[str]]) -> None:
    history, log = made
    assert (problems(history, log) == []) == by_search(history, log)


def test_a_lost_update_and_a_stale_read_are_noticed() -> None:
    both = [Op(kind="append", event=name, expected=0, asked=0, answered=1) for name in ("a", "b")]
    assert "a lost update" in problems(both, ["b"])[0]
    assert "it was to be version 1 and is 2" in problems(both, ["b", "a"])[0]
    stale = Op(kind="read", seen=(), asked=2, answered=3)
    assert "which comes before it" in problems([both[0], stale], ["a"])[0]


# ---- histories of real clients ------------------------------------------------------------------


def played(
    postgres: str, folder: Path, clients: int, turns: int, *, cheat: str = "", server: str = ""
) -> list[str]:
    """What is wrong with the histories of so many processes; their wires are cut, the server is restarted."""
    with Office(folder / "office", postgres) as office:
        PostgresStore(postgres).close()
        members = [office.hire("writes_history", seed, turns, cheat=cheat) for seed in range(clients)]
        for part in (3, 6) if server else ():
            until(partial(noted, office.scene, part * clients * turns // 10))
            pg.restart(server, "immediate")
        for member in members:
            office.wait(member)
        assert [line[0] for line in office.scene.heard("errors")] == []
        assert sum(line[0] for line in office.scene.heard("cuts")) > clients
    store = PostgresStore(postgres)
    try:
        found: list[str] = list(verify(store).problems)
        for stream, history in recorded(office.scene).items():
            found += problems(history, [row.event().id for row in store.read(stream)])
        return found
    finally:
        store.close()


def noted(scene: Scene, count: int) -> bool:
    return len(scene.heard("history")) >= count


def test_clients_of_one_stream_see_one_order_and_lose_no_update(
    postgres: str, postgres_server: str, tmp_path: Path
) -> None:
    assert played(postgres, tmp_path, clients=4, turns=40, server=postgres_server) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cheat", "problem"),
    [
        ("reads_what_was", "which comes before it"),
        ("loses_updates", "a lost update"),
        ("without_the_fence", "it was to be version"),
        ("tries_again_blindly", "an own write reported as a conflict"),
    ],
)
def test_control_histories_tell_what_is_broken(
    postgres: str, tmp_path: Path, cheat: str, problem: str
) -> None:
    found = played(postgres, tmp_path, clients=4, turns=80, cheat=cheat)
    assert any(problem in each for each in found)


@pytest.mark.slow
def test_long_histories_of_many_clients(postgres: str, postgres_server: str, tmp_path: Path) -> None:
    assert played(postgres, tmp_path, clients=8, turns=400, server=postgres_server) == []
