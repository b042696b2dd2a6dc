"""Handlers of the model, as people write them. Their histories are golden: change one under a new name."""

from typing import Any

from refold import ChildFailed, Context, GateRejected, Stage, step, workflow
from refold.engine.workflow import Workflow

from .model_programs import below, item


@step
async def unbook(what: str, *, result: str) -> None:
    pass


@step(compensate=unbook)
async def book(what: str) -> str:
    return what


@step
async def tell(whom: str) -> None:
    pass


async def in_any_case(ctx: Context, status: str) -> None:
    await tell(status)


@workflow(always=in_any_case)
async def journey(ctx: Context, fails: bool) -> list[str]:
    """Books, asks, and undoes what it has booked when nobody approves in time, or it shall fail."""
    booked = [await book("flight")]
    ctx.compensate(tell, "the agency")
    booked += await ctx.parallel([book("hotel"), book("car")])
    decision = await ctx.approval("go?", options=["x", "y"], timeout=60, escalation=[Stage(timeout=600)])
    ctx.set("decision", decision.selections)
    if fails:
        raise ValueError("it rains")
    return [*booked, *ctx.get("decision")]


@workflow
async def quarter(ctx: Context, regions: int) -> dict[str, Any]:
    """A child for each region, a map over what they report, a question at the end."""
    reports = await ctx.map(below, range(regions), limit=2, on_error="continue")
    ctx.checkpoint("reports", {"failed": sorted(reports.failures)})
    sums = await ctx.map(item, [report or 0 for report in reports], limit=3)
    late = "no"
    if ctx.condition("complete", not reports.failures, skips=["late report"]):
        try:
            late = str(await ctx.child(below, 99))
        except ChildFailed as failed:
            late = failed.status
    try:
        limit = await ctx.wait_for_input(int, prompt="the limit?", timeout=3_600)
    except (GateRejected, TimeoutError) as error:
        limit = -len(type(error).__name__)
    ctx.set_attributes(limit=limit)
    return {"sums": list(sums), "late": late, "limit": limit, "rounded": ctx.patched("rounding")}


MODEL: dict[str, tuple[Workflow[Any, Any], list[Any]]] = {
    "journey": (journey, [True]),
    "quarter": (quarter, [4]),
}
