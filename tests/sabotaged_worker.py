"""Workers of the demo that break a promise: its proofs must notice. First argument: which promise.

`again`: after the kill, the body of a step that is durably completed is run once more.
`alive`: the worker does not kill itself.
`silent`: after the kill, effects belong to attempts of which the log knows nothing.
"""

import contextvars
import sys
from types import SimpleNamespace
from typing import Any

import msgspec

from refold.demo import effects, flow, worker
from refold.engine.bodies import current_step
from refold.events import types as t
from refold.events.open import open_store

FIRST, SECOND = 5, 4
"""Arguments of the worker that is to die, and of the one after it."""

forged: contextvars.ContextVar[Any] = contextvars.ContextVar("forged", default=None)
end_with_parent = worker._end_with_parent


async def run_a_finished_step_again(parent: int) -> None:
    """What recovery would do if it forgot a completion."""
    store = open_store(sys.argv[2])
    events = [row.event() for row in store.read(sys.argv[3])]
    store.close()
    scheduled = {e.step: e for e in events if isinstance(e, t.StepScheduled) and e.name == "stage"}
    finished = next(e for e in events if isinstance(e, t.StepCompleted) and e.step in scheduled)
    call = scheduled[finished.step]
    forged.set(SimpleNamespace(key=call.key, attempt=finished.attempt + 1))
    await flow.stage.fn(*msgspec.json.decode(call.args))
    await end_with_parent(parent)


def note_another_attempt(folder: str, what: str, info: Any) -> None:
    write(folder, what, SimpleNamespace(key=info.key, attempt=info.attempt + 7))  # type: ignore[arg-type]


if __name__ == "__main__":
    how, *arguments = sys.argv[1:]
    write = effects._write
    if how == "again" and len(arguments) == SECOND:
        effects.current_step = lambda: forged.get() or current_step()  # type: ignore[attr-defined]
        worker._end_with_parent = run_a_finished_step_again
    elif how == "silent" and len(arguments) == SECOND:
        effects._write = note_another_attempt
    elif how == "alive":
        arguments = arguments[:SECOND]
    sys.exit(worker.main(arguments))
