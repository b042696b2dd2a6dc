"""Steps whose bodies run in processes of their own: what comes back, what is killed, what is left behind."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from refold import Context, Engine, RunCancelled, RunFailed, Settings, StepFailed, workflow
from refold.engine import remote
from refold.engine.step import Step
from refold.engine.threads import Threads
from refold.errors import StepTimedOut, ValueRefused
from refold.events import codec, types as t
from refold.testing import TestEngine
from tests.engine import far
from tests.engine.kit import engine, of, seen, until

pytestmark = pytest.mark.anyio

PATIENCE_S = 90.0


def gone(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{process}/stat").exists() and " Z " in Path(f"/proc/{process}/stat").read_text()


async def written(file: Path) -> int:
    """The number in a file, once that is there."""
    return await until(lambda: file.exists() and int(file.read_text()), PATIENCE_S)


@workflow
async def travels(ctx: Context, folder: str) -> dict[str, Any]:
    found: dict[str, Any] = {"first": await far.pid()}
    found["point"] = await far.moved(far.Point(1, (2,)), by=3, and_then=4)
    found["told"] = await far.tells("0.25")
    found["tries"] = await far.unlucky(f"{folder}/tries")
    for what in (far.hopeless, far.returns_a_socket):
        try:
            await what()
        except StepFailed as error:
            found[what.name] = [error.type, error.data]
    found["second"] = await far.pid()
    return found


async def test_a_body_in_another_process_is_a_body_like_any_other(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with engine("memory://", travels, step_processes=1) as e:
        handle = await e.start(travels, str(tmp_path), id="r")
        found = await handle.result()
        assert found["first"] == found["second"] != os.getpid(), "one process, used again"
        assert found["point"] == {"x": 4, "y": [2, 4]}
        assert found["told"] == "r/tells#1 1"
        assert found["tries"] == 2
        assert found["hopeless"] == ["Hopeless", {"odds": 13}]
        assert found["returns_a_socket"][0] == "ValueRefused"
        (cost,), (artifact,) = of(handle, t.CostRecorded), of(handle, t.ArtifactRecorded)
        assert (str(cost.usd), cost.input_tokens, cost.detail) == ("0.25", 3, {"a": [1]})
        assert (artifact.name, e.store.blob(artifact.digest)) == ("a.txt", b"abc")
        assert b"travels" in bytes(of(handle, t.DebugRecorded)[0].message)
        refused, hopeless = of(handle, t.StepFailed)[1], of(handle, t.StepFailed)[0]
        assert (hopeless.error.error_class, refused.error.error_class) == ("non_retryable", "value_refused")
        assert "far.py" in hopeless.error.traceback
        assert len(of(handle, t.StepAttemptFailed)) == 2, "what may be tried again was, what may not was not"
        assert e.verify().problems == ()
    said = [(record.name, record.levelname, record.getMessage()) for record in caplog.records]
    assert ("refold.process", "INFO", "printed") in said
    assert ("shop", "WARNING", "logged 0.25") in said
    assert gone(found["first"])


@workflow
async def survives(ctx: Context, folder: str) -> str:
    return await far.dies_once(f"{folder}/died")


@workflow
async def once(ctx: Context, number: int) -> None:
    await far.dies(number)


async def test_a_process_that_dies_fails_the_attempt_and_the_next_one_gets_another(tmp_path: Path) -> None:
    async with engine("memory://", survives, once, step_processes=1) as e:
        handle = await e.start(survives, str(tmp_path))
        assert await handle.result() == "alive"
        (failed,) = of(handle, t.StepAttemptFailed)
        assert failed.error.type == "ProcessDied"
        assert "exit code 7" in failed.error.message
        assert "the last words" in failed.error.traceback
        # What an `at_most_once` step did whose process died, nobody knows.
        doubtful = await e.start(once, signal.SIGSEGV)
        (doubt,) = await seen(doubtful, t.StepInDoubt)
        (cut,) = of(doubtful, t.StepInterrupted)
        assert "SIGSEGV" in cut.reason
        assert doubt.attempt == 1
        assert not of(doubtful, t.StepFailed)


@workflow
async def overdue(ctx: Context, folder: str) -> None:
    await far.spins_too_long(folder)


@workflow
async def endless(ctx: Context, folder: str) -> None:
    await asyncio.gather(far.spins(folder, "one"), far.spins(folder, "two"))


async def test_a_timeout_and_a_cancellation_kill_a_body_that_no_thread_could_stop(tmp_path: Path) -> None:
    async with engine("memory://", overdue, endless, step_processes=2) as e:
        with pytest.raises(RunFailed, match=StepTimedOut.__name__):
            await e.run(overdue, str(tmp_path))
        assert await until(lambda: gone(int((tmp_path / "late").read_text())))
        handle = await e.start(endless, str(tmp_path))
        processes = [await written(tmp_path / name) for name in ("one", "two")]
        assert not any(map(gone, processes))
        await handle.cancel()
        with pytest.raises(RunCancelled):
            await handle.result()
        assert await until(lambda: all(map(gone, processes)))
        assert not of(handle, t.StepLate)


async def test_what_waits_for_a_process_has_not_begun_and_its_time_does_not_run(tmp_path: Path) -> None:
    place = f"sqlite:///{tmp_path / 'runs.db'}"
    async with engine(place, endless, step_processes=1, grace=0.0) as e:
        handle = await e.start(endless, str(tmp_path), id="r")
        process = await written(tmp_path / "one")
        first, second = e.worker.live["r"].flight.bodies.values()
        assert (first.begun, second.begun) == (True, False)
        assert await until(lambda: first.timer is not None)
        assert second.timer is None
    assert gone(process)
    async with engine(place, execute=False) as e:
        handle = await e.get("r")
        assert [(event.step, event.reason) for event in of(handle, t.StepInterrupted)] == [(1, "shutdown")]
        assert [event.step for event in of(handle, t.StepReleased)] == [2]


@workflow
async def crowd(ctx: Context, folder: str, size: int) -> list[int]:
    return list(await asyncio.gather(*[far.meets(folder, me, size) for me in range(size)]))


async def test_as_many_bodies_run_at_once_as_there_may_be_processes(tmp_path: Path) -> None:
    async with engine("memory://", crowd, step_processes=2) as e:
        handle = await e.start(crowd, str(tmp_path), 2)
        assert len(set(await handle.result())) == 2


async def test_a_test_stands_in_for_such_a_step_as_for_any_other() -> None:
    async with TestEngine(workflows=[survives]) as e:
        mock = e.mock(far.dies_once, sequence=[ValueError("once"), "mocked"])
        assert await e.run(survives, "nowhere") == "mocked"
        assert [call.attempt for call in mock.calls] == [1, 2]


async def test_outside_of_a_handler_the_body_just_runs() -> None:
    assert await far.pid() == os.getpid()


def echo(value: Any, *more: Any, **named: Any) -> Any:
    return [value, more, named]


ECHO: Step[Any, Any] = Step(echo, "echo", far.pid.options)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=8,
)


@settings(max_examples=20, deadline=None)
@given(st.lists(VALUES, min_size=1, max_size=3), st.dictionaries(st.sampled_from("abc"), VALUES))
def test_values_come_back_as_they_would_from_a_body_here(args: list[Any], named: dict[str, Any]) -> None:
    try:
        packed, kwargs = codec.encode(tuple(args)), codec.encode(named)
    except ValueRefused:
        return
    call = remote.Call(
        module=__name__, qualname="echo", args=packed, kwargs=kwargs, count=len(args), step="echo",
        key="echo#1", run_id="r", attempt=1, workflow="w", trace="", files="",
    )  # fmt: skip
    reply = remote.decode_reply(remote.execute(remote.encode(call)))
    plain, by_name = ECHO.decode_call(packed, kwargs, len(args))
    assert isinstance(reply.end, remote.Done)
    assert bytes(reply.end.result) == bytes(codec.encode(echo(*plain, **by_name)))


async def test_what_waits_for_a_thread_gets_one_when_the_thread_is_given_up() -> None:
    """A thread cannot be killed: another one takes its place, at once."""
    threads, over = Threads(1), threading.Event()
    hangs = threads.run(over.wait, lambda value, error: None)
    waits = threads.run(lambda: "its turn", lambda value, error: None)
    try:
        await until(lambda: hangs.began)
        threads.give_up(hangs)
        assert await asyncio.wait_for(waits.future, PATIENCE_S) == "its turn"
    finally:
        over.set()
        threads.close()


async def test_threads_that_were_all_busy_before_do_not_make_a_hanging_one_look_free() -> None:
    threads, over = Threads(1), threading.Event()
    try:
        for job in [threads.run(lambda: 1, lambda value, error: None) for _ in range(5)]:
            await job.future
        hangs = threads.run(over.wait, lambda value, error: None)
        await until(lambda: hangs.began)
        threads.give_up(hangs)
        later = threads.run(lambda: "its turn", lambda value, error: None)
        assert await asyncio.wait_for(later.future, PATIENCE_S) == "its turn"
    finally:
        over.set()
        threads.close()


# ---- programs -------------------------------------------------------------------------------------

PROGRAM = """
import asyncio, os, sys
from refold import Context, Engine, step, workflow
from tests.engine.far import spin

@step(run_in="process")
def mine(folder: str) -> None:
    spin(folder, "busy")

@workflow
async def works(ctx: Context, folder: str) -> None:
    await mine(folder)

async def main() -> None:
    async with Engine("memory://", workflows=[works]) as engine:
        await engine.run(works, sys.argv[1])

"""


def program(folder: Path, end: str) -> "subprocess.Popen[str]":
    file = folder / "program.py"
    file.write_text(PROGRAM + end)
    root = str(Path(__file__).parents[2])
    return subprocess.Popen(
        [sys.executable, str(file), str(folder)], stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": root},
    )  # fmt: skip


async def test_a_body_of_the_program_itself_ends_with_the_engine_that_is_killed(tmp_path: Path) -> None:
    with program(tmp_path, 'if __name__ == "__main__":\n    asyncio.run(main())\n') as parent:
        try:
            process = await written(tmp_path / "busy")
            assert not gone(process)
        finally:
            parent.kill()
            parent.communicate()
    assert await until(lambda: gone(process), PATIENCE_S)


@pytest.mark.slow  # the message itself is met in tests/errors
async def test_a_program_that_would_begin_its_work_again_in_the_process_is_told_what_to_do(
    tmp_path: Path,
) -> None:
    with program(tmp_path, "asyncio.run(main())\n") as parent:
        _, errors = await asyncio.to_thread(parent.communicate, timeout=PATIENCE_S)
    assert "makes an engine when it is imported" in errors
    assert "RunFailed" in errors


async def test_an_engine_has_as_many_processes_as_the_machine_has_cores() -> None:
    assert Settings().step_processes == os.cpu_count()
    assert Engine("memory://").settings.step_processes == os.cpu_count()
