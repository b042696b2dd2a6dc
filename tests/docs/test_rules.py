"""The twelve rules: what the page calls wrong goes wrong as it says, and what it calls right does not."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from refold import Engine, ForbiddenInHandler, NonDeterminismError, RunCancelled, RunFailed, Settings
from refold.errors import HandlerStuck
from tests.docs.pages import DOCS, blocks
from tests.engine.kit import until, waiting

pytestmark = pytest.mark.anyio
PAGE = DOCS / "explanation" / "handlers.md"
SETTINGS = Settings(grace=0, projections=False)
RULES = range(1, 13)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The page's Python, as a file, so that reports can name its lines."""
    path = tmp_path_factory.mktemp("page") / "rules.py"
    path.write_text("\n".join(b.text for b in blocks(PAGE) if b.kind == "python"))
    return str(path)


@pytest.fixture
def page(code: str) -> SimpleNamespace:
    """What the page defines, fresh for each test."""
    return SimpleNamespace(**runpy.run_path(code))


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "rules.db"


async def begin(store: Path, flow: Any) -> None:
    """Start it, and leave when it waits."""
    async with Engine(store, workflows=[flow], settings=SETTINGS) as engine:
        await engine.start(flow, id="r")
        await waiting(engine, "r")


async def finish(store: Path, flow: Any) -> Any:
    """Take it up again, tell it to go, and return its result."""
    async with Engine(store, workflows=[flow], settings=SETTINGS) as engine:
        await engine.signal("r", "go", "gone")
        return await (await engine.get("r")).result(timeout=20)


async def once(store: Path, flow: Any) -> tuple[list[dict[str, Any]], Any]:
    """Its steps and its result."""
    async with Engine(store, workflows=[flow], settings=SETTINGS) as engine:
        run = await engine.start(flow, id="r")
        result = await run.result(timeout=20)
        return run.steps(), result


def test_there_are_twelve_each_with_both_sides(page: SimpleNamespace) -> None:
    assert re.findall(r"^### (\d+)\.", PAGE.read_text(), re.MULTILINE) == [str(n) for n in RULES]
    for number in RULES:
        assert hasattr(page, f"wrong_{number}")
        assert hasattr(page, f"right_{number}")


async def test_rule_1_effects_belong_in_steps(page: SimpleNamespace, store: Path) -> None:
    with pytest.raises(RunFailed, match="step") as failed:
        await once(store, page.wrong_1)
    assert failed.value.type == ForbiddenInHandler.__name__
    assert (await once(store.with_name("right.db"), page.right_1))[1] == "connected"


@pytest.mark.parametrize("number", [2, 3, 4])
async def test_rules_2_to_4_nothing_from_outside_decides(
    number: int, page: SimpleNamespace, code: str, store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    right, wrong = getattr(page, f"right_{number}"), getattr(page, f"wrong_{number}")
    await begin(store, right)
    page.settings["polite"] = False
    assert await finish(store, right) == "gone"

    page.settings["polite"] = True
    other = store.with_name("wrong.db")
    if number == 4:
        begin_elsewhere(code, other)
    elif number == 2 and sys.version_info >= (3, 12):
        with pytest.raises(RunFailed, match=r"random\.random") as failed:
            await once(other, wrong)
        assert failed.value.type == ForbiddenInHandler.__name__
        return
    else:
        await begin(other, wrong)
    page.settings["polite"] = False
    with pytest.raises(NonDeterminismError):
        await finish(other, wrong)
    assert ("random" in caplog.text) == (number == 2)


def begin_elsewhere(code: str, store: Path) -> None:
    """Begin `wrong_4` in a process in which strings hash in some other way: its first name is another one."""
    here = next(iter({"ana", "ben", "cem", "dia", "eve"}))
    program = (
        "import asyncio, runpy, sys\nfrom pathlib import Path\nfrom tests.docs import test_rules\n"
        "page = runpy.run_path(sys.argv[1])\n"
        "asyncio.run(test_rules.begin(Path(sys.argv[2]), page['wrong_4']))\n"
        "print(next(iter({'ana', 'ben', 'cem', 'dia', 'eve'})))\n"
    )
    for seed in range(1, 20):
        environment = {**os.environ, "PYTHONHASHSEED": str(seed)}
        probe = "print(next(iter({'ana', 'ben', 'cem', 'dia', 'eve'})))"
        first = subprocess.run(
            [sys.executable, "-S", "-c", probe], env=environment, capture_output=True, text=True, check=True
        ).stdout.strip()
        if first != here:
            subprocess.run(
                [sys.executable, "-c", program, code, str(store)],
                env=environment, cwd=DOCS.parent, check=True, timeout=60,
            )  # fmt: skip
            return
    raise AssertionError("no seed gives another order")


async def test_rule_5_values_are_json(page: SimpleNamespace, store: Path) -> None:
    with pytest.raises(RunFailed, match=r"\$.*of") as failed:
        await once(store, page.wrong_5)
    assert failed.value.type == "ValueRefused"
    assert (await once(store.with_name("right.db"), page.right_5))[1] == 3


async def test_rule_6_cancelled_error_goes_through(page: SimpleNamespace, store: Path) -> None:
    async def cancelled(flow: Any, place: Path) -> Any:
        async with Engine(place, workflows=[flow], settings=SETTINGS) as engine:
            run = await engine.start(flow, id="r")
            await waiting(engine, "r")
            await run.cancel("enough")
            return await run.result(timeout=20)

    assert await cancelled(page.wrong_6, store) == "done"
    with pytest.raises(RunCancelled, match="enough"):
        await cancelled(page.right_6, store.with_name("right.db"))


async def test_rule_7_finally_runs_when_a_run_leaves_memory(page: SimpleNamespace, store: Path) -> None:
    await begin(store, page.wrong_7)
    assert page.notes == ["it has ended"]
    await finish(store, page.wrong_7)
    assert len(page.notes) == 2

    other = store.with_name("right.db")
    await begin(other, page.right_7)
    async with Engine(other, workflows=[page.right_7], settings=SETTINGS) as engine:
        run = await engine.get("r")
        assert run.steps() == []
        await run.signal("go", "gone")
        await run.result(timeout=20)
        assert [step["args"] for step in run.steps()] == [["whoever reads this: it is completed"]]


async def test_rule_8_wait_for_something(page: SimpleNamespace, store: Path) -> None:
    with pytest.raises(HandlerStuck):
        await once(store, page.wrong_8)
    await begin(store.with_name("right.db"), page.right_8)
    assert await finish(store.with_name("right.db"), page.right_8) == "gone"


async def test_rule_9_leave_no_task_behind(page: SimpleNamespace, store: Path) -> None:
    steps, result = await once(store, page.wrong_9)
    assert result == "False"
    assert [(step["name"], step["status"]) for step in steps if step["name"] == "slow"] == [
        ("slow", "cancelled")
    ]
    assert (await once(store.with_name("right.db"), page.right_9))[1] == "ana"


async def test_rule_10_changed_code_is_patched(page: SimpleNamespace, store: Path) -> None:
    await begin(store, page.before_10)
    with pytest.raises(NonDeterminismError, match="greet"):
        await finish(store, page.wrong_10)
    assert await finish(store, page.right_10) == "gone"


async def test_rule_11_ctx_log_is_silent_on_replay(
    page: SimpleNamespace, store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for flow, times in ((page.wrong_11, 2), (page.right_11, 1)):
        caplog.clear()
        await begin(store, flow)
        await finish(store, flow)
        assert [record.message for record in caplog.records].count("begun") == times
        store = store.with_name("right.db")


async def test_rule_12_the_key_is_passed_on(page: SimpleNamespace, store: Path) -> None:
    for flow, payments in ((page.wrong_12, 2), (page.right_12, 1)):
        page.bank.clear()
        async with Engine(store, workflows=[flow], settings=SETTINGS) as engine:
            await engine.start(flow, id="r")
            await until(lambda: page.bank)
        async with Engine(store, workflows=[flow], settings=SETTINGS) as engine:
            assert await (await engine.get("r")).result(timeout=20) == payments
        store = store.with_name("right.db")


def test_the_page_says_what_each_wrong_side_comes_to() -> None:
    rules = re.split(r"^### \d+\.", PAGE.read_text(), flags=re.MULTILINE)[1:]
    assert [rule[:30] for rule in rules if "\nWrong: " not in rule] == []
