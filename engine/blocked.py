"""What can still be asked of a run whose handler cannot be built here, or that goes on as another one."""

from typing import Any

from ..events import types as t
from ..events.clock import new_event_id, to_datetime
from ..events.errors import RefoldError
from ..events.store import Append, Unit
from ..events.stream import INBOX, chain
from . import family, onward
from .loader import whole_history
from .rewind import still_open


def take_requests(worker: Any, run_id: str) -> None:
    """Terminate the run when somebody asks for that: it needs no handler."""
    work = worker.store.work(run_id)
    if work is None or work.state == "done":
        return
    for row in worker.store.read(run_id + INBOX, work.seen):
        message = row.event()
        if isinstance(message, t.RequestSent) and message.verb == "terminate":
            _terminate(worker, run_id, message, row.version)
            return


def _terminate(worker: Any, run_id: str, request: t.RequestSent, inbox: int) -> None:
    try:
        history = whole_history(worker.store, run_id)
    except RefoldError:
        return  # it cannot even be read; it stays blocked, and says so
    if history.end is not None:
        return
    still = still_open(history.activations)
    numbers = sorted((*still.steps, *still.timers, *still.waits, *still.gates, *still.children))
    at, trace = max(to_datetime(worker.clock.now()), history.last_at), history.started.trace
    end = t.RunTerminated(
        reason=request.reason, open=tuple(numbers), inbox=inbox, id=new_event_id(), at=at, by=request.by,
        cause=request.id, trace=trace,
    )  # fmt: skip
    rows, _ = chain(run_id, history.tail, [end])
    fold = history.work(history.facts())
    fold.apply(end)
    posts = [family.terminate_message(child.run_id, end) for child in still.children.values()]
    posts += family.end_message(run_id, history.started, end, history.untold)
    own = Append(run_id, history.tail.version, rows, history.tail.hash)

    def stored(error: RefoldError | None) -> None:
        if error is None:
            worker.blocked.pop(run_id, None)
            worker.tell_end(run_id, end)
            for post in posts:
                worker.mail_for(post.run_id)

    worker.log.append(Unit((own,), (fold.row(),), tuple(posts)), stored)


def pass_on(worker: Any, run_id: str) -> None:
    """Somebody spoke to a run that had just gone on as another one: tell that one."""
    work = worker.store.work(run_id)
    if work is None or work.status != "continued":
        return
    unit = onward.left_behind(worker.store, worker.clock, work)
    if unit is None:
        return

    def stored(error: RefoldError | None) -> None:
        for post in unit.posts if error is None else ():
            worker.mail_for(post.run_id)

    worker.log.append(unit, stored, retry=False)
