"""Logging: nothing is set up by itself, a filter says whose record it is, and a replay is silent."""

import asyncio
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from refold import Context, Engine, Retry, step, workflow
from refold.logs import RunFilter
from tests.engine.kit import waiting

pytestmark = pytest.mark.anyio

log = logging.getLogger("shop")


@step(retry=Retry(max_attempts=2, initial_interval=0.001))
async def charge() -> str:
    log.info("charging")
    tries.append(1)
    if len(tries) == 1:
        raise ConnectionError("no")
    return "receipt"


@step
def ship() -> str:
    log.info("shipping")
    return "parcel"


tries: list[int] = []


@workflow
async def checkout(ctx: Context) -> str:
    ctx.log.info("begins")
    log.info("also begins")
    await charge()
    await ctx.wait_for_event("paid")
    log.info("paid")
    return await ship()


class Records(logging.Handler):
    """Keeps what passes its filters."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[Any] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def said(self) -> list[str]:
        return [record.getMessage() for record in self.records]


@pytest.fixture
def records() -> Iterator[Records]:
    tries.clear()
    handler = Records()
    root, level = logging.getLogger(), logging.getLogger().level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield handler
    root.removeHandler(handler)
    root.setLevel(level)


async def run_in_two_processes(place: Path) -> None:
    """The second engine replays what the first one did."""
    async with Engine(place, workflows=[checkout]) as engine:
        await engine.start(checkout, id="o1", trace_id="ab" * 16)
        await waiting(engine, "o1")
    async with Engine(place, workflows=[checkout]) as engine:
        handle = await engine.get("o1")
        await handle.signal("paid")
        await handle.result()
        log.info("outside")


async def test_a_record_says_run_workflow_step_attempt_and_trace(tmp_path: Path, records: Records) -> None:
    records.addFilter(RunFilter())
    await run_in_two_processes(tmp_path / "a.db")
    trace = "ab" * 16
    assert [
        (r.getMessage(), r.refold_run, r.refold_workflow, r.refold_step, r.refold_attempt, r.refold_trace)
        for r in records.records
    ] == [
        ("begins", "o1", "checkout", "", 0, trace),
        ("also begins", "o1", "checkout", "", 0, trace),
        ("charging", "o1", "checkout", "charge#1", 1, trace),
        ("charging", "o1", "checkout", "charge#1", 2, trace),
        ("paid", "o1", "checkout", "", 0, trace),
        ("shipping", "o1", "checkout", "ship#1", 1, trace),  # in a thread
        ("outside", "", "", "", 0, ""),
    ]


async def test_ctx_log_is_silent_on_replay_also_without_the_filter(tmp_path: Path, records: Records) -> None:
    await run_in_two_processes(tmp_path / "a.db")
    assert records.said().count("begins") == 1
    assert records.said().count("also begins") == 2  # control: it was replayed
    (begins,) = [r for r in records.records if r.getMessage() == "begins"]
    assert (begins.refold_run, begins.refold_trace, begins.name) == ("o1", "ab" * 16, "refold.run")


async def test_the_filter_lets_a_replay_through_when_asked(tmp_path: Path, records: Records) -> None:
    records.addFilter(RunFilter(replayed=True))
    await run_in_two_processes(tmp_path / "a.db")
    assert records.said().count("also begins") == 2


async def test_a_record_about_a_run_keeps_its_run(records: Records) -> None:
    records.addFilter(RunFilter())
    adapter = logging.LoggerAdapter(log, {"refold_run": "r9", "refold_trace": "t9"})
    adapter.info("about another")
    assert records.records[0].refold_run == "r9"


async def test_tasks_of_a_body_belong_to_it(records: Records) -> None:
    @step
    async def several() -> None:
        async def one() -> None:
            log.info("in a task")

        await asyncio.gather(one(), asyncio.to_thread(log.info, "in a thread"))

    @workflow
    async def fan(ctx: Context) -> None:
        await several()

    records.addFilter(RunFilter())
    async with Engine("memory://", workflows=[fan]) as engine:
        await engine.run(fan)
    assert {r.refold_step for r in records.records} == {"several#1"}
    assert len(records.records) == 2


QUIET = """
import logging, threading
threads, handlers = threading.active_count(), dict(vars(logging))
import refold, refold.logs, refold.testing
assert threading.active_count() == threads
root = logging.getLogger()
assert root.handlers == [] and root.level == logging.WARNING
ours = [name for name in logging.Logger.manager.loggerDict]
assert {name.split(".")[0] for name in ours if "refold" in name} == {"refold"}, ours
for name in ours:
    logger = logging.getLogger(name)
    assert not logger.handlers and not logger.filters and logger.level == 0 and logger.propagate, name
assert logging.getLogRecordFactory() is logging.LogRecord
assert logging.getLoggerClass() is logging.Logger
import signal
assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
print("quiet")
"""


def test_importing_starts_no_thread_and_configures_no_logging() -> None:
    done = subprocess.run([sys.executable, "-c", QUIET], capture_output=True, text=True, check=False)
    assert done.stdout == "quiet\n", done.stderr
