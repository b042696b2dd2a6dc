"""What other programs read: CloudEvents, Chrome traces, Mermaid, DOT; each held to its documented format."""

import json
import re
from base64 import b64decode
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from msgspec import Raw

from refold import Context, Engine, Retry, RunFailed, current_step, step, workflow
from refold.events import types as t
from refold.events.errors import StoreCorrupt
from refold.events.memory import MemoryStore
from refold.events.stream import Row, Tail, chain
from refold.projections.exports.cloud_events import cloud_event
from refold.projections.exports.graph import COLOURS, dot, graph_of, mermaid
from refold.projections.exports.trace import trace

pytestmark = pytest.mark.anyio

NASTY = 'a "b" \\N <i>%%`c` #1; end'
"""An id of a run with a quote, a backslash, markup, a comment, a character code, a keyword."""


@step
async def load(n: int) -> int:
    return n


@step(name='weigh "it"', retry=Retry(max_attempts=3, initial_interval=0.001))
async def weigh(n: int) -> int:
    if current_step().attempt < 2:
        raise ValueError("too light")
    return n


@step
async def refuse() -> None:
    raise RuntimeError("no")


@workflow
async def below(ctx: Context, n: int) -> int:
    return await load(await load(n))


@workflow
async def fails(ctx: Context) -> None:
    await refuse()


@workflow
async def above(ctx: Context) -> int:
    first = await load(1)
    parts = await ctx.parallel([lambda: load(first), lambda: weigh(first)])
    await ctx.sleep(0.001)
    total = sum(parts) + await ctx.child(below, 3)
    await refuse()
    return int(total)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def engine() -> Any:
    """A failed run with a child, and one that waits."""
    async with Engine(MemoryStore(), workflows=[above, waits]) as engine:
        handle = await engine.start(above, id=NASTY)
        with pytest.raises(RunFailed):
            await handle.result()
        await engine.start(waits, id="open")
        await engine.signal("open", "word", 1)
        while (await engine.get("open")).status()["status"] != "waiting":
            await engine.projections.wait()
        yield engine


@workflow
async def waits(ctx: Context) -> None:
    await ctx.wait_for_event("word")
    await ctx.wait_for_event("another")


# ---- CloudEvents -----------------------------------------------------------------------------------------


async def test_cloud_events_keep_to_version_1_0_of_the_specification(engine: Engine) -> None:
    events = [json.loads(line) for line in engine.export(NASTY, "cloudevents", family=True)]
    assert len(events) == len({(event["source"], event["id"]) for event in events})
    for event in events:
        assert all(re.fullmatch("[a-z0-9_]+", name) for name in event), "attributes are lower case and digits"
        assert event["specversion"] == "1.0"
        for required in ("id", "source", "type"):
            assert isinstance(event[required], str)
            assert event[required]
        assert re.fullmatch(r"[A-Za-z0-9/._~%-]+", event["source"]), "a URI reference"
        assert event["type"].startswith("refold.")
        assert event["subject"] in (NASTY, f"{NASTY}~1")
        assert datetime.fromisoformat(event["time"]).tzinfo is not None
        assert event["datacontenttype"] == "application/json"
        assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-01", event["traceparent"])
        assert event["data"]["id"] == event["id"]
    own = [event for event in events if event["subject"] == NASTY and not event["source"].endswith("/inbox")]
    assert [int(event["sequence"]) for event in own] == list(range(1, len(own) + 1))
    assert own[0]["type"] == "refold.run.started"
    assert len({event["traceparent"][3:35] for event in events}) == 1, "a family is one trace"
    assert sum(1 for _ in engine.export(format="cloudevents")) == engine.store.position()


def test_what_is_no_json_and_what_has_no_id_becomes_a_cloud_event_all_the_same() -> None:
    odd = cloud_event(Row("a", 3, "odd", b"\xff\x00", b""))
    assert (odd["id"], odd["subject"], b64decode(odd["data_base64"])) == ("a@3", "a", b"\xff\x00")
    key = cloud_event(Row("key/k é", 1, "key.taken", b'{"run_id":"a"}', b""))
    assert (key["source"], key["subject"], key["id"]) == ("/refold/key/k%20%C3%A9", "a", "key/k é@1")
    lock = cloud_event(Row("lock//srv/inbox", 2, "lock.refused", b'{"holder":"a"}', b""))
    assert (lock["source"], lock["subject"]) == ("/refold/lock//srv/inbox", "lock//srv/inbox")
    for none in (b"", b"0" * 32, b"F" * 32, b"x"):
        assert "traceparent" not in cloud_event(Row("a", 1, "odd", b'{"trace":"%b"}' % none, b""))


# ---- Chrome traces ---------------------------------------------------------------------------------------


async def test_a_trace_keeps_to_the_trace_event_format(engine: Engine) -> None:
    trace = json.loads("".join(engine.export(NASTY, "trace", family=True)))
    assert set(trace) == {"displayTimeUnit", "otherData", "traceEvents"}
    threads: set[tuple[int, int]] = set()
    flows: dict[int, list[tuple[str, int]]] = {}
    for event in trace["traceEvents"]:
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        match event["ph"]:
            case "M":
                assert event["name"] in (
                    "process_name", "process_sort_index", "thread_name", "thread_sort_index"
                )  # fmt: skip
                threads.add((event["pid"], event["tid"]))
            case "X":
                assert event["ts"] >= 0 <= event["dur"]
                assert event["name"]
                assert event["cat"]
            case "s" | "f":
                flows.setdefault(event["id"], []).append((event["ph"], event["ts"]))
                assert event.get("bp") == ("e" if event["ph"] == "f" else None)
            case other:
                raise AssertionError(f"an event of kind {other!r}")
        assert (event["pid"], event["tid"]) in threads, "named before it is used"
    for arrow in flows.values():
        (begin, left), (end, arrived) = arrow
        assert (begin, end) == ("s", "f")
        assert left <= arrived
    assert len(flows) >= 4


async def test_a_trace_shows_attempts_and_what_came_of_them(engine: Engine) -> None:
    events = json.loads("".join(engine.export(NASTY, "trace")))["traceEvents"]
    names = [event["args"]["name"] for event in events if event["name"] == "process_name"]
    assert names == [f"{NASTY} (above) failed"]
    weighed = [event for event in events if event["name"] == 'weigh "it"#1']
    assert [(event["args"]["what"], event["args"]["attempt"]) for event in weighed] == [
        ("failed", 1),
        ("running", 2),
    ]
    slices = [event["cat"] for event in events if event["ph"] == "X"]
    assert [slices.count(kind) for kind in ("run", "sleep", "child")] == [1, 1, 1]


async def test_what_is_not_over_only_begins(engine: Engine) -> None:
    events = json.loads("".join(engine.export("open", "trace")))["traceEvents"]
    assert [(event["ph"], event["name"]) for event in events if event["ph"] in "XB"] == [
        ("B", "waits"), ("X", "wait for word"), ("B", "wait for another"),
    ]  # fmt: skip


def test_a_run_that_is_damaged_from_its_start_is_named_by_every_drawing() -> None:
    def read(run_id: str) -> list[Row]:
        return [Row(run_id, 1, "run.started", b"\xff", b"", 1)]

    for draw in (trace, mermaid, dot):
        with pytest.raises(StoreCorrupt, match=r"'run\.started' at r@1 does not fit its type"):
            list(draw(["r"], read))


# ---- graphs ------------------------------------------------------------------------------------------------


async def test_the_graph_says_what_depended_on_what(engine: Engine) -> None:
    graph = graph_of(engine.store.read(NASTY))
    labels = {node.number: node.label for node in graph.nodes}
    edges = {(labels[before], labels[after]) for before, after in graph.edges}
    assert {("load", "load#2"), ("load", 'weigh "it"')} <= edges
    assert [labels[number] for number in graph.first()] == ["load"]
    assert graph.leads_to == [(f"{NASTY}~1", "child")]
    assert {node.label: node.status for node in graph.nodes}["refuse"] == "failed"


async def test_a_step_that_was_taken_back_and_called_again_is_one_node() -> None:
    async with Engine(MemoryStore(), workflows=[fails]) as engine:
        handle = await engine.start(fails, id="r")
        with pytest.raises(RunFailed):
            await handle.result()
        await engine.retry("r", keep=False)
        with pytest.raises(RunFailed):
            await handle.result()
        rows = engine.store.read("r")
        assert sum(row.tag == "step.scheduled" for row in rows) > 1  # control
        assert [node.label for node in graph_of(rows).nodes] == ["refuse#2"]


ID = r"r\d+(?:s\d+)?"
TEXT = r'"(?:[^"#\n]|#\d+;)*"'
MERMAID = [
    "flowchart TD", rf"  subgraph {ID}\[{TEXT}\]", rf"    {ID}\(\[{TEXT}\]\):::\w+",
    rf"    {ID}\[{TEXT}\]:::\w+", rf"    {ID} --> {ID}", "  end", rf"  {ID} -\. {TEXT} \.-> {ID}",
    r"  classDef \w+ fill:#[0-9a-f]{6},stroke:#[0-9a-f]{6},color:#[0-9a-f]{6}",
]  # fmt: skip


@pytest.mark.parametrize("runs", [[NASTY], [NASTY, f"{NASTY}~1"], ["open"]])
async def test_a_flowchart_is_mermaid_whatever_names_it_shows(engine: Engine, runs: list[str]) -> None:
    lines = "".join(mermaid(runs, engine.store.read)).splitlines()
    for line in lines:
        assert any(re.fullmatch(form, line) for form in MERMAID), line
        assert not re.search(r"[\x00-\x1f<>`\\\u202e]|%%", line.replace("-->", "").replace(".->", ""))
    assert sum(line.startswith("  subgraph") for line in lines) == sum(line == "  end" for line in lines)
    classes = {line.split()[1] for line in lines if line.startswith("  classDef")}
    assert classes == {line.rpartition(":::")[2] for line in lines if ":::" in line} <= set(COLOURS)
    assert sum("-. " in line for line in lines) == (len(runs) == 2)


def tokens(text: str) -> Iterator[str]:
    """Of the DOT language, as far as it is used."""
    form = re.compile(r'\s*("(?:[^"\\\n]|\\.)*"|->|[A-Za-z_][A-Za-z0-9_]*|[{}\[\];=,])')
    at = 0
    while at < len(text.rstrip()):
        found = form.match(text, at)
        assert found, f"no token at {text[at : at + 40]!r}"
        yield found[1]
        at = found.end()


def statements(words: list[str]) -> int:
    """Parse `digraph ID { … }`; returns the number of statements."""
    assert words.pop(0) == "digraph"
    words.pop(0)
    count = block(words)
    assert not words
    return count


def block(words: list[str]) -> int:
    assert words.pop(0) == "{"
    count = 0
    while words[0] != "}":
        count += 1
        if words[0] == "subgraph":
            del words[:2]
            count += block(words)
            continue
        words.pop(0)
        if words[0] == "=":
            del words[:2]
        while words[0] == "->":
            del words[:2]
        if words[0] == "[":
            attributes = words[1 : words.index("]")]
            assert attributes[1::4] == ["="] * len(attributes[::4])
            del words[: words.index("]") + 1]
        assert words.pop(0) == ";"
    words.pop(0)
    return count


@pytest.mark.parametrize("runs", [[NASTY], [NASTY, f"{NASTY}~1"], ["open"]])
async def test_a_digraph_is_dot_whatever_names_it_shows(engine: Engine, runs: list[str]) -> None:
    text = "".join(dot(runs, engine.store.read))
    assert statements(list(tokens(text))) >= 3
    assert not re.search(r"[\x00-\x09\x0b-\x1f\u202e]", text)
    assert r'"a \"b\" \\N <i>%%`c` #1; end"' in text or runs == ["open"]


def test_what_would_steer_a_terminal_is_written_out() -> None:
    """Of a log that came from elsewhere: the engine admits no such names."""
    started = t.RunStarted(
        id="1",
        at=datetime.now(UTC),
        workflow='x\x1b[2J\u202e\n"',
        workflow_version="1",
        args=Raw(b"[]"),
        seed=1,
    )
    rows, _ = chain("a\x9b", Tail(), [started])
    drawn = "".join([*mermaid(["a"], lambda run_id: rows), *dot(["a"], lambda run_id: rows)])
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", drawn)
    assert r'label="x\\x1b[2J\\u202e\n\" a\\x9b"' in drawn


async def test_the_checks_of_these_tests_notice_what_is_wrong(engine: Engine) -> None:
    """The control."""
    text = "".join(dot(["open"], engine.store.read))
    for wrong in (text.replace("}", "", 1), text.replace('"open"', '"op"en"', 1), text.replace(";", "", 1)):
        with pytest.raises((AssertionError, IndexError)):
            statements(list(tokens(wrong)))
    for line in ('    r1s1["a"b"]:::completed', '    r1s1["a#b"]:::completed', "    r1s1 --> end"):
        assert not any(re.fullmatch(form, line) for form in MERMAID)
