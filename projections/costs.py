"""`costs`: money and tokens by run, step, model and day."""

from collections.abc import Sequence
from types import MappingProxyType
from typing import Annotated

from msgspec import Struct

from ..events.stream import Row as Entry
from . import money, reading as r
from .projection import Events, Index, Key, Scope, Table, column, table
from .reading import utc


class CostRow(Struct, gc=False):
    """A row of `costs`."""

    run_id: Annotated[str, column("The run.")]
    step: Annotated[int, column("Number of the step; 0: spent outside of any.")]
    model: Annotated[str, column("The model, or empty.")]
    day: Annotated[str, column("The day it was spent on, UTC: `2026-01-31`.")]
    usd: Annotated[
        str, column("US dollars, all attempts added up: exact decimal text. `SUM(usd)` is inexact.", "money")
    ] = "0"
    input_tokens: Annotated[int, column("Tokens sent to the model.")] = 0
    output_tokens: Annotated[int, column("Tokens received from it.")] = 0
    cache_tokens: Annotated[int, column("Tokens served from a cache.")] = 0
    turns: Annotated[int, column("Turns of agents.")] = 0
    entries: Annotated[int, column("Costs recorded: `cost.recorded` events.")] = 0


class Costs:
    """`costs`: what failed and repeated attempts spent is in it too."""

    name = "costs"
    version = 1
    scope: Scope = "runs"
    creates: frozenset[str] = frozenset()
    events: Events = MappingProxyType({"cost.recorded": r.CostRecorded})
    table: Table = table(
        "costs",
        CostRow,
        key=("run_id", "step", "model", "day"),
        indexes=(Index(("day", "model")),),
        narrow=True,
    )

    def keys(self, entry: Entry, event: r.CostRecorded) -> Sequence[Key]:
        return ((entry.stream, event.step, event.model, utc(event.at)[:10]),)

    def fold(self, rows: list[CostRow | None], entry: Entry, event: r.CostRecorded) -> Sequence[CostRow]:
        row = rows[0]
        if row is None:
            row = CostRow(entry.stream, event.step, event.model, utc(event.at)[:10])
        row.usd = money.add(row.usd, event.usd)
        row.input_tokens += event.input_tokens
        row.output_tokens += event.output_tokens
        row.cache_tokens += event.cache_tokens
        row.turns += event.turns
        row.entries += 1
        return (row,)


COSTS = Costs()
