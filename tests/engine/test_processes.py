"""Several processes and one file: one executes, others read and write beside it; the dead and the frozen."""

import signal
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from refold import Context, Engine, step, workflow
from refold.events import types as t
from refold.events.errors import StoreBusy
from tests.engine.children import SETTINGS, WORKFLOWS, child, counts, lines_until, marks
from tests.engine.kit import of, seen, tags

pytestmark = pytest.mark.anyio


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'runs.db'}"


def effects(folder: Path) -> list[str]:
    path = folder / "effects"
    return [line.split()[1] for line in path.read_text().splitlines()] if path.exists() else []


def ended(process: subprocess.Popen[str]) -> str:
    """Everything it still had to say."""
    assert process.stdout is not None and process.stderr is not None  # noqa: PT018 - both are pipes
    # Not communicate(): it does not know of what lines_until() has read ahead.
    output, errors = process.stdout.read(), process.stderr.read()
    assert process.wait(60) == 0, errors
    assert "Traceback" not in errors, errors
    return output


async def test_several_processes_read_and_write_one_file_while_one_executes(url: str) -> None:
    async with Engine(url, workflows=WORKFLOWS, settings=SETTINGS) as e:
        handle = await e.start(counts, 60, id="r")
        with ExitStack() as stack:
            readers = [stack.enter_context(child("read_along", url)) for _ in range(2)]
            for reader in readers:
                lines_until(reader, "reading")
            writers = [stack.enter_context(child("write_along", url, name, 20)) for name in "xyz"]
            result = await handle.result()
            for writer in writers:
                assert ended(writer) == "sent\n"
            for reader in readers:
                assert ended(reader) == f"{sorted(result)}\n"
        assert sorted(result) == sorted(f"{name}{n}" for name in "xyz" for n in range(20))
        for name in "xyz":
            own = [letter for letter in result if letter[0] == name]
            assert own == [f"{name}{n}" for n in range(20)], "each sender's letters in the order it sent them"
        assert {s.by for s in of(handle, t.SignalReceived)} == {"process x", "process y", "process z"}
        assert [s.inbox for s in of(handle, t.SignalReceived)] == list(range(1, 61))
        assert e.verify().problems == ()


async def test_a_second_process_that_wants_to_execute_is_refused_with_the_name_of_the_first(
    url: str, tmp_path: Path
) -> None:
    """D04."""
    with child("execute", url, "single", tmp_path) as process:
        owner = lines_until(process, "owner")[-1].split()[1]
        with pytest.raises(StoreBusy) as refused:
            async with Engine(url, workflows=WORKFLOWS):
                raise AssertionError("two processes execute one file")
        assert owner in str(refused.value)
        assert f"pid {process.pid}" in str(refused.value)
        lines_until(process, "marked")
        async with Engine(url, execute=False, workflows=WORKFLOWS) as outside:
            (tmp_path / "go-a").touch()
            await outside.signal("r", "end", "of it")
            assert await (await outside.get("r")).result() == "a of it"
        assert "result a of it" in ended(process)


async def test_killed_after_two_of_three_branches_only_the_third_runs_again(url: str, tmp_path: Path) -> None:
    """A12, with SIGKILL."""
    with child("execute", url, "marks", tmp_path) as process:
        lines_until(process, "marked", 3)
        (tmp_path / "go-a").touch()
        (tmp_path / "go-c").touch()
        async with Engine(url, execute=False, workflows=WORKFLOWS) as outside:
            await seen(await outside.get("r"), t.StepCompleted, 2)
        process.kill()
        process.wait()
    (tmp_path / "go-b").touch()
    async with Engine(url, workflows=WORKFLOWS, settings=SETTINGS) as e:
        handle = await e.start(marks, str(tmp_path), id="r")
        await handle.signal("end", "!")
        assert await handle.result() == ["a", "b", "c", "!"]
        assert [i.reason for i in of(handle, t.StepInterrupted)] == ["crash"]
        assert [c.generation for c in of(handle, t.RunClaimed)] == [1, 2]
    assert sorted(effects(tmp_path)) == ["a", "b", "b", "c"]


async def test_a_run_is_executed_although_its_process_was_killed_right_after_the_start(
    url: str, tmp_path: Path
) -> None:
    """F13."""
    (tmp_path / "go-a").touch()
    with child("start_and_die", url, tmp_path) as process:
        assert process.wait(60) == -signal.SIGKILL
    async with Engine(url, workflows=WORKFLOWS, settings=SETTINGS) as e:
        handle = await e.get("r")
        await handle.signal("end", "after all")
        assert await handle.result() == "a after all"
    assert 1 <= len(effects(tmp_path)) <= 2


@pytest.mark.parametrize("new_owner", ["goes on", "has finished"])
@pytest.mark.parametrize("name", ["single", "blocks"])
async def test_a_frozen_owner_that_was_replaced_cannot_append_when_it_wakes(
    name: str, new_owner: str, url: str, tmp_path: Path
) -> None:
    """D02: `single` finds out by itself that it was replaced, `blocks` when its append is refused."""
    with child("execute", url, name, tmp_path) as frozen:
        first = lines_until(frozen, "owner")[-1].split()[1]
        lines_until(frozen, "marked")
        frozen.send_signal(signal.SIGSTOP)
        with pytest.raises(StoreBusy, match="remove this file"):
            async with Engine(url, workflows=WORKFLOWS):
                raise AssertionError("it is still held")
        (tmp_path / "runs.db.lock").unlink()
        (tmp_path / "go-a").touch()  # for both: the zombie's body will complete, too
        async with Engine(url, workflows=WORKFLOWS, settings=SETTINGS) as e:
            handle = await e.get("r")
            await seen(handle, t.StepCompleted)
            if new_owner == "has finished":
                await handle.signal("end", "once")
                assert await handle.result() == "a once"
            frozen.send_signal(signal.SIGCONT)
            outcome = lines_until(frozen, ("error", "result"))[-1]
            assert outcome in ("error LeaseLost", "error StoreBusy", "result a once")
            assert new_owner == "has finished" or outcome != "result a once"
            if new_owner == "goes on":
                if name == "blocks":
                    (late,) = await seen(handle, t.StepLate)
                    assert (late.attempt, bytes(late.result or b"")) == (1, b'"a"')
                await handle.signal("end", "once")
                assert await handle.result() == "a once"
            (tmp_path / "go-home").touch()
            assert ended(frozen) == "closed\n"
            assert tags(handle).count("step.completed") == 1
            assert of(handle, t.StepCompleted)[0].attempt == 2
            assert [c.owner for c in of(handle, t.RunClaimed)] == [first, e.worker.owner]
            assert e.verify().problems == ()
    assert len(effects(tmp_path)) == 2, "at least once: the frozen attempt and the new one"


@workflow(name="interrupted")
async def not_interrupted(ctx: Context, where: str) -> str:
    return await mended(where)


@step(name="interrupted_body")
async def mended(where: str) -> str:
    return f"{where}, calm now"


@pytest.mark.parametrize("where", ["handler", "body"])
async def test_a_persons_ctrl_c_stops_the_program_and_marks_nothing_as_failed(where: str, url: str) -> None:
    """It can strike at any line of a handler or a body, and is not the run's fault."""
    with child("ctrl_c", url, where) as process:
        process.communicate(timeout=60)
        assert process.returncode in (-signal.SIGINT, 128 + signal.SIGINT)
    async with Engine(url, workflows=[not_interrupted], settings=SETTINGS) as e:
        handle = await e.get("r")
        assert await handle.result() == f"{where}, calm now"
        assert {"run.failed", "step.failed", "run.cancelled"}.isdisjoint(tags(handle))
        assert e.verify().problems == ()


async def test_a_step_in_a_thread_that_never_ends_does_not_keep_the_process(url: str) -> None:
    with child("never_ends", url) as process:
        assert ended(process).splitlines()[-1] == "closed"
