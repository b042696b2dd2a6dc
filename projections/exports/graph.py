"""What depended on what in a run, as a Mermaid flowchart or for Graphviz.

A node for each step, an arrow from a step to those that were called when the handler had its result (the
read model `step_edges`); dotted arrows to the runs that it started. All labels are escaped.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec
from msgspec import Struct

from ...events.stream import Row
from ..edges import STEP_EDGES
from ..own import fold_rows
from ..reading import RunContinued
from ..reading_waits import ChildStarted
from ..runs import RUNS
from ..steps import STEPS

Read = Callable[[str], Iterable[Row]]

COLOURS = {
    "completed": "#d9ead3", "continued": "#d9ead3", "running": "#cfe2f3", "compensating": "#cfe2f3",
    "scheduled": "#ffffff", "pending": "#ffffff", "waiting": "#e8e8e8", "paused": "#e8e8e8",
    "retrying": "#fff2cc", "interrupted": "#fff2cc", "unknown": "#fff2cc", "failed": "#f4cccc",
    "timed_out": "#f4cccc", "compensation_failed": "#f4cccc", "terminated": "#f4cccc", "cancelled": "#eeeeee",
    "skipped": "#eeeeee", "compensated": "#ead1dc",
}  # fmt: skip
"""Of a status, as a fill that black text can be read on."""


class Node(Struct, frozen=True, order=True):
    """A step."""

    number: int
    label: str
    status: str


class Graph(Struct, frozen=True):
    """One run."""

    run_id: str
    label: str
    status: str
    nodes: list[Node]
    edges: list[tuple[int, int]]
    """From and to, by the numbers of steps."""
    leads_to: list[tuple[str, str]]
    """Runs that it started, and what they are to it."""

    def first(self) -> list[int]:
        """Steps that follow upon no other."""
        later = {after for _, after in self.edges}
        return [node.number for node in self.nodes if node.number not in later]


def graph_of(rows: Sequence[Row]) -> Graph:
    """The graph of a run from its events, without what a rewind has taken back."""
    (run,), attempts, edges = fold_rows(rows, RUNS, STEPS, STEP_EDGES)
    steps = [row for row in attempts if not row.rewound and row.superseded == 0]
    nodes = sorted(Node(row.step, row.key.removesuffix("#1"), row.status) for row in steps)
    known = {node.number for node in nodes}
    pairs = sorted((edge.from_step, edge.to_step) for edge in edges)
    return Graph(
        run.run_id, f"{run.workflow} {run.run_id}", run.status, nodes,
        [pair for pair in pairs if known.issuperset(pair)], list(_leads_to(rows)),
    )  # fmt: skip


def _leads_to(rows: Sequence[Row]) -> Iterator[tuple[str, str]]:
    for row in rows:
        if row.tag == "child.started":
            yield msgspec.json.decode(row.state, type=ChildStarted).run_id, "child"
        elif row.tag == "run.continued":
            yield msgspec.json.decode(row.state, type=RunContinued).next_run, "continued as"


# ---- Mermaid ---------------------------------------------------------------------------------------------


def mermaid(runs: Sequence[str], read: Read) -> Iterator[str]:
    """A flowchart; a subgraph for each run. Renderers refuse very large ones: use `dot` for those."""
    yield "flowchart TD\n"
    places = {run_id: f"r{number}" for number, run_id in enumerate(runs, 1)}
    used: set[str] = set()
    links: list[str] = []
    for run_id, place in places.items():
        graph = graph_of(list(read(run_id)))
        used |= {graph.status, *(node.status for node in graph.nodes)}
        yield f'  subgraph {place}["{_mermaid(graph.label)}"]\n'
        yield f'    {place}s0(["{_mermaid(graph.status)}"]):::{graph.status}\n'
        for node in graph.nodes:
            yield f'    {place}s{node.number}["{_mermaid(node.label)}"]:::{node.status}\n'
        for before, after in [*((0, first) for first in graph.first()), *graph.edges]:
            yield f"    {place}s{before} --> {place}s{after}\n"
        yield "  end\n"
        links += [
            f'  {place}s0 -. "{_mermaid(what)}" .-> {places[other]}s0\n'
            for other, what in graph.leads_to if other in places
        ]  # fmt: skip
    yield from links
    for status in sorted(used):
        yield f"  classDef {status} fill:{COLOURS.get(status, '#ffffff')},stroke:#555555,color:#000000\n"


def _mermaid(text: str) -> str:
    """Anything but letters, digits and a few marks as a character code, which Mermaid writes `#35;`."""
    return "".join(
        c if c.isalnum() or c in " _.:,/-" else f"#{ord(c)};" if c.isprintable() else _mermaid(ascii(c)[1:-1])
        for c in text
    )


# ---- Graphviz --------------------------------------------------------------------------------------------


def dot(runs: Sequence[str], read: Read) -> Iterator[str]:
    """A digraph; a cluster for each run. Ids are `RUN` and `RUN/step`, as quoted strings."""
    yield "digraph refold {\n"
    yield '  node [shape=box, style="rounded,filled", fillcolor="#ffffff", fontname="sans-serif"];\n'
    known = set(runs)
    links: list[str] = []
    for place, run_id in enumerate(runs, 1):
        graph = graph_of(list(read(run_id)))
        own = _quoted(run_id)
        yield f"  subgraph cluster_{place} {{\n"
        yield f"    label={_quoted(graph.label)};\n"
        yield f"    {own} [label={_quoted(graph.status)}, shape=oval, {_fill(graph.status)}];\n"
        for node in graph.nodes:
            label = _quoted(f"{node.label}\n{node.status}")
            yield f"    {_quoted(f'{run_id}/{node.number}')} [label={label}, {_fill(node.status)}];\n"
        for first in graph.first():
            yield f"    {own} -> {_quoted(f'{run_id}/{first}')};\n"
        for before, after in graph.edges:
            yield f"    {_quoted(f'{run_id}/{before}')} -> {_quoted(f'{run_id}/{after}')};\n"
        yield "  }\n"
        links += [
            f"  {own} -> {_quoted(other)} [style=dotted, label={_quoted(what)}];\n"
            for other, what in graph.leads_to if other in known
        ]  # fmt: skip
    yield from links
    yield "}\n"


def _fill(status: str) -> str:
    return f'fillcolor="{COLOURS.get(status, "#ffffff")}"'


def _quoted(text: str) -> str:
    r"""A string of the DOT language. In labels a backslash begins `\N`, `\G` …, so each is doubled."""
    lines = ("".join(c if c.isprintable() else ascii(c)[1:-1] for c in line) for line in text.split("\n"))
    return '"' + "\\n".join(line.replace("\\", "\\\\").replace('"', '\\"') for line in lines) + '"'
