"""`replay_history`: a recorded run goes on with the code as it is now, or says where it does not."""

from pathlib import Path
from typing import Any

import pytest

from refold import ConfigurationError, Context, NonDeterminismError, RunNotFound, Workflow, step, workflow
from refold.events.transfer import export_log
from refold.testing import TestEngine, history_files, replay_history

from .shop import CARDS, charge, checkout, pack, paid, slow

pytestmark = pytest.mark.anyio


def exported(engine: TestEngine, run_id: str) -> str:
    return "".join(export_log(engine.store, [run_id]))


async def record(file: Path, flow: Workflow[Any, Any], *args: object) -> None:
    """What `refold export` writes of a run."""
    async with TestEngine(workflows=[flow]) as engine:
        engine.mock(charge, returns="paid")
        engine.approve_when_asked(by="ana")
        engine.signal_when_waited_for("address", "Bern")
        await engine.run(flow, *args, id=file.stem)
        file.write_text(exported(engine, file.stem))  # noqa: ASYNC240 - a small file


def changed() -> Workflow[Any, Any]:
    @workflow(name="paid")
    async def other(ctx: Context, card: str) -> str:
        return await pack(card)

    return other


async def test_a_recorded_history_replays_without_running_a_step(tmp_path: Path) -> None:
    file = tmp_path / "order-1.jsonl"
    await record(file, checkout, "visa")
    CARDS.clear()
    replayed = replay_history(checkout, file)
    assert replayed.runs == ("order-1",)
    assert replayed.activations > 5
    assert CARDS == []


async def test_a_changed_handler_is_reported_with_both_sides(tmp_path: Path) -> None:
    """Control: the same history that replays above does not when the code asks for something else."""
    file = tmp_path / "order-2.jsonl"
    await record(file, paid, "visa")
    with pytest.raises(NonDeterminismError, match=r"(?s)log has .*charge.*now asks .*pack.*remedy"):
        replay_history(changed(), file)


async def test_a_result_that_no_longer_fits_is_reported(tmp_path: Path) -> None:
    file = tmp_path / "order-3.jsonl"
    await record(file, paid, "visa")

    @step(name="charge")
    async def charge_in_cents(card: str, cents: int) -> int:
        return cents

    @workflow(name="paid")
    async def other(ctx: Context, card: str) -> int:
        return await charge_in_cents(card, 500)

    with pytest.raises(NonDeterminismError, match="return type changed"):
        replay_history(other, file)


async def test_handles_stores_lines_and_events_are_histories_too() -> None:
    async with TestEngine(workflows=[paid, slow]) as engine:
        handle = await engine.start(paid, "visa", id="a")
        await handle.result()
        await engine.run(slow, id="b")
        await engine.start(slow, id="still sleeping")
        assert replay_history(paid, handle).runs == ("a",)
        assert replay_history([paid, slow], engine.store).runs == ("a", "b", "still sleeping")
        assert replay_history(slow, engine.store).runs == ("b", "still sleeping")
        assert replay_history(slow, engine.store, run="b").runs == ("b",)
        assert replay_history(paid, exported(engine, "a").splitlines(keepends=True)).runs == ("a",)
        assert replay_history(paid, handle.events()).activations == 2
        with pytest.raises(NonDeterminismError):
            replay_history(changed(), handle.events())


async def test_what_cannot_be_compared_is_no_success(tmp_path: Path) -> None:
    file = tmp_path / "order-4.jsonl"
    await record(file, paid, "visa")
    with pytest.raises(ConfigurationError, match=r"expected a run of slow, the history has runs of paid"):
        replay_history(slow, file)
    with pytest.raises(RunNotFound):
        replay_history(paid, file, run="order-5")

    @workflow(name="paid", version="2")
    async def newer(ctx: Context, card: str) -> str:
        return card

    with pytest.raises(ConfigurationError, match="began with version"):
        replay_history(newer, file)
    assert replay_history([newer, paid], file).runs == ("order-4",)
    with pytest.raises(ConfigurationError, match="found no"):
        history_files(tmp_path / "nothing here")
    assert history_files(tmp_path) == [file]
