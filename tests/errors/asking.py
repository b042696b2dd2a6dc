"""Lists that are asked for something that cannot be: a word there is not, a page of another list."""

from collections.abc import Callable
from typing import Any

from refold import Context, Engine, workflow
from tests.engine.kit import engine
from tests.errors.cases import meets


@workflow
async def one(ctx: Context) -> int:
    return 1


ASKED: dict[tuple[str, str], Callable[[Engine], object]] = {
    ("ConfigurationError", "there is no projection …; there are …"): lambda e: e.projections.rebuild(["run"]),
    ("ConfigurationError", "… has no column …; it has …"): lambda e: e.projections.query(
        "runs", colour="red"
    ),
    ("ValueRefused", "… is no cursor: pass the `cursor` of …"): lambda e: e.runs.list(cursor="next"),
    ("ValueRefused", "… is no cursor: pass the one that …"): lambda e: e.runs.gates(cursor="next"),
    ("ValueRefused", "… is of another list: …"): lambda e: e.runs.list(cursor="@7/2026/r"),
    ("ValueRefused", "runs are not counted by …; by …"): lambda e: e.runs.count("colour"),
    ("ValueRefused", "costs cannot be added up by …"): lambda e: e.projections.costs(by="colour"),
    ("ValueRefused", "…: there is no …; there are …"): lambda e: e.runs.list(status="finished"),
    ("ValueRefused", "…: none is asked for; …"): lambda e: e.runs.list(status=[]),
    ("ValueRefused", "limit: expected a whole number …"): lambda e: e.runs.list(limit="all"),  # type: ignore[arg-type]
    ("ValueRefused", "…: … is no time; expected one such as …"): lambda e: e.runs.list(
        started_after="yesterday"
    ),
}


async def asked(ask: Callable[[Engine], Any]) -> None:
    async with engine("memory://", one, projections=True) as e:
        for _ in range(2):
            await e.run(one)
        await e.projections.wait()
        ask(e)


for (_kind, _message), _ask in ASKED.items():
    meets(_kind, _message)(lambda folder, ask=_ask: asked(ask))
