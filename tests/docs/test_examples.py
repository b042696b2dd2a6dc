"""The examples beyond what their pages show: other outcomes, and deaths at other moments."""

import re
import runpy
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from refold import Engine, RunFailed, Settings
from refold.events.types import GateOpened
from tests.docs.pages import DOCS
from tests.docs.shell import Server, terminal
from tests.engine.kit import seen, tags, until

pytestmark = pytest.mark.anyio
SETTINGS = Settings(projections=False)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def example(name: str) -> SimpleNamespace:
    return SimpleNamespace(**runpy.run_path(str(DOCS / "examples" / name / f"{name}.py")))


def written(path: str) -> str:
    return Path(path).read_text()


def notes(*names: str) -> None:
    Path("notes").mkdir()
    for name in names:
        Path("notes", name).write_text("nothing special")


async def test_an_order_that_arrives_is_not_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    order = example("order")
    async with Engine("memory://", workflows=[order.buy], settings=SETTINGS) as engine:
        got = await engine.run(order.buy, order.Order("tea", 2, 990, "Italy"))
    assert got == {"held": "2 x tea", "paid": "990 cents", "parcel": "parcel to Italy"}
    assert re.findall(r"^\S+ (\w+)", written("ledger.txt"), re.MULTILINE) == ["hold", "charge", "ship"]


async def test_an_order_killed_while_it_is_undone_is_undone_once(server: Server, tmp_path: Path) -> None:
    with terminal(server, tmp_path / "shop") as there:
        (there.folder / "order.py").write_text((DOCS / "examples/order/order.py").read_text())
        atlantis = '{"item": "cup", "count": 1, "cents": 450, "country": "Atlantis"}'
        job = there.start("refold", "run", "order.py:buy", "--id", "o", "--input", atlantis)
        job.until("refund 450 cents")
        job.kill()
        job.wait()
        done = there.run("refold", "run", "order.py:buy", "--id", "o")
        assert done.code == 1
        assert "is compensated" in done.told
        did = re.findall(r"^\S+ (\w+)", written(f"{there.folder}/ledger.txt"), re.MULTILINE)
        assert did == ["hold", "charge", "refund", "release"]


async def test_a_data_job_reads_again_only_what_it_had_not_read(server: Server, tmp_path: Path) -> None:
    with terminal(server, tmp_path / "sales") as there:
        (there.folder / "etl.py").write_text((DOCS / "examples/etl/etl.py").read_text())
        (there.folder / "inbox").mkdir()
        for day in range(20):
            (there.folder / "inbox" / f"{day:02}.csv").write_text(f"product,count\nTea,{day}\n")
        job = there.start("etl.py", "inbox")
        job.until("reading inbox/09.csv")
        job.kill()
        before = re.findall(r"\d\d(?=\.csv)", job.wait().told)
        after = re.findall(r"\d\d(?=\.csv)", there.run("etl.py", "inbox").told)
        assert {*before, *after} == {f"{day:02}" for day in range(20)}
        assert len({*before} & {*after}) <= 4, "more than were under way"
        report = (there.folder / "files/artifacts/sales-inbox/report.csv").read_text()
        assert report == f"tea,{sum(range(20))}\n"


async def test_an_expense_is_escalated_and_small_ones_need_no_finance() -> None:
    approval = example("approval")
    async with Engine("memory://", workflows=[approval.expense], settings=SETTINGS) as engine:
        run = await engine.start(approval.expense, approval.Expense("a chair", 90, 0.3), id="chair")
        await until(lambda: "gate.escalated" in tags(run))
        await run.approve(by="hans")
        assert await run.result() == "transfer of 90 USD"
        run = await engine.start(approval.expense, approval.Expense("a yacht", 90_000), id="yacht", by="fay")
        await seen(run, GateOpened)
        await run.approve(by="mia")
        await seen(run, GateOpened, 2)
        await run.reject(by="flo", feedback="no")
        assert await run.result() == "rejected by flo"


async def test_a_job_that_takes_too_long_is_given_up() -> None:
    polling = example("polling")
    asked: list[str] = []

    def call(method: str, path: str, body: Any = None) -> dict[str, Any]:
        asked.append(f"{method} {path}")
        return {"id": "job-1", "percent": 5, "stopped": 5}

    polling.render.fn.__globals__["call"] = call
    async with Engine("memory://", workflows=[polling.render], settings=SETTINGS) as engine:
        with pytest.raises(RunFailed) as failed:
            await engine.run(polling.render, "holiday.mov", 0.7)
    assert failed.value.type == "TimeoutError"
    assert asked == ["POST /jobs", "GET /jobs/job-1", "GET /jobs/job-1", "DELETE /jobs/job-1"]


async def test_an_agent_stops_at_its_budget_and_survives_bad_tools() -> None:
    agent = example("agent")
    notes("a", "b", "c")
    async with Engine("memory://", workflows=[agent.agent], settings=SETTINGS) as engine:
        run = await engine.start(agent.agent, "look", Decimal("0.0005"))
        assert str(await run.result()).startswith("stopped: 0.0006 USD spent")
        assert run.status()["cost_usd"] == Decimal("0.0006")
        assert (await engine.run(agent.agent, "look")).startswith("3 notes read")

        for tool, answer in (("fly", "there is no tool fly"), ("read_note", "read_note failed")):
            replies = iter([agent.Reply("Try.", tool, "nowhere"), agent.Reply("Enough.")])
            heard: list[str] = []

            async def reply(messages: list[Any], replies: Any = replies, heard: list[str] = heard) -> Any:
                heard += [message.text for message in messages]
                return next(replies)

            agent.agent.fn.__globals__["model"] = SimpleNamespace(name="scripted", reply=reply)
            assert await engine.run(agent.agent, "try") == "Enough."
            assert answer in heard[-1]
