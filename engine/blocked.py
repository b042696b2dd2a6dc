"""What can still be asked of a run whose handler cannot be built here, or that goes on as another one."""

from typing import Any

from ..events import types as t
from ..events.clock import new_event_id, to_datetime
from ..events.errors import RefoldError
from ..events.registry import look_at_event
from ..events.store import Append, Post, Unit
from ..events.stream import INBOX, chain
from . import family
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
    posts += family.end_message(run_id, history.started, end, history.spent)
    own = Append(run_id, history.tail.version, rows, history.tail.hash)

    def stored(error: RefoldError | None) -> None:
        if error is None:
            worker.blocked.pop(run_id, None)
            worker.tell_end(run_id, end)
            for post in posts:
                worker.mail_for(post.run_id)

    worker.log.append(Unit((own,), (fold.row(),), tuple(posts)), stored)


def pass_on(worker: Any, run_id: str, seen: int) -> None:
    """A parent asked a run to stop that goes on as another one by now: tell that one."""
    wanted = (t.CancelSent.TAG, t.RequestSent.TAG)
    messages = [row for row in worker.store.read(run_id + INBOX, seen) if row.tag in wanted]
    following = next_run(worker.store, run_id)
    if messages and following:
        posts = tuple(Post(following, row.tag, row.state) for row in messages)
        worker.log.append(Unit(posts=posts), lambda error: worker.mail_for(following))


def next_run(store: Any, run_id: str) -> str:
    """The run that continues this one; empty: none."""
    for row in reversed(store.read(run_id)):
        if row.tag == t.RunContinued.TAG:
            end = look_at_event(row.tag, row.state, row)
            return end.next_run if isinstance(end, t.RunContinued) else ""
    return ""
