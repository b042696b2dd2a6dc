"""What others send to a run: each letter by whoever it is from, as often as it takes to be acknowledged."""

from collections.abc import Awaitable, Callable
from contextlib import suppress

from refold import ActRefused, Engine, RunEnded, RunNotFound, VoteRefused
from refold.events import types as t
from refold.events.errors import AppendRefused
from refold.events.store import Store
from tests.crash.model import MENDED
from tests.crash.scene import RUN, Scene

Letter = Callable[[Engine, Scene], Awaitable[bool]]
"""Sends it and notes the acknowledgement; False: not now, try again. True also when it comes too late."""


def word(number: int, times: int = 2) -> Letter:
    """An event under an id of its own, sent twice: whoever is not sure asks again."""

    async def send(engine: Engine, scene: Scene) -> bool:
        for _ in range(times):
            run_id = tip(engine.store)
            with suppress(RunEnded):
                await engine.signal(run_id, "word", {"number": number}, id=f"word-{number}")
                scene.say("acks", "signal", "word", f"word-{number}")
        return True

    return send


def vote(run_id: str, by: str) -> Letter:
    """An approval, sent twice: the second one must be refused."""

    async def send(engine: Engine, scene: Scene) -> bool:
        try:
            await engine.approve(run_id, "approval#1", selections=["now"], by=by)
        except RunNotFound:
            return False
        except VoteRefused as refused:
            return "has no gate" not in str(refused)
        scene.say("acks", "vote", run_id, by)
        with suppress(VoteRefused, RunEnded):
            await engine.approve(run_id, "approval#1", selections=["now"], by=by)
            scene.say("violations", f"a second vote by {by} was admitted")
        return True

    return send


def answer(run_id: str, number: int) -> Letter:
    """An answer to a question."""

    async def send(engine: Engine, scene: Scene) -> bool:
        try:
            await engine.answer(run_id, number, "count#1", by="cleo")
        except RunNotFound:
            return False
        except VoteRefused as refused:
            return "has no gate" not in str(refused)
        scene.say("acks", "vote", run_id, "cleo")
        return True

    return send


def act(verb: str) -> Letter:
    """An operator's act on the run."""

    async def send(engine: Engine, scene: Scene) -> bool:
        try:
            await getattr(engine, verb)(RUN, "enough")
        except RunNotFound:
            return False
        except RunEnded:
            return True
        except ActRefused:  # nothing to resume: the run had ended before it could be paused
            return engine.store.work(RUN).state == "done"  # type: ignore[union-attr]
        scene.say("acks", "act", verb)
        return True

    return send


async def mend(engine: Engine, scene: Scene) -> bool:
    """Repair what was broken, and have the run retried."""
    work = engine.store.work(RUN)
    if work is None or work.status != "failed":
        return work is not None and work.state == "done"
    scene.say(MENDED, "now")
    try:
        await engine.retry(RUN)
    except (ActRefused, AppendRefused):
        return False
    scene.say("acks", "act", "retry")
    return True


def tip(store: Store) -> str:
    """The run that goes on for the one under test."""
    run_id = RUN
    while (work := store.work(run_id)) is not None and work.status == "continued":
        (end,) = [e for row in store.read(run_id) if isinstance(e := row.event(), t.RunContinued)]
        run_id = end.next_run
    return run_id


AGENDA = f"{RUN}~1~1"
LETTERS: dict[str, tuple[Letter, ...]] = {
    "listener": (word(1), word(2)),
    "relay": (word(1, 1), word(2, 1), word(3, 1)),
    "board": (vote(AGENDA, "ana"), vote(AGENDA, "bob"), answer(AGENDA, 5)),
    "steady": (act("pause"), act("resume")),
    "doomed": (act("terminate"),),
    "cancelled": (act("cancel"),),
    "mended": (mend,),
}
"""By workflow, or by the name of a case."""
