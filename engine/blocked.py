"""What can still be asked of a run whose handler cannot be built here, or that goes on as another one."""

from typing import Any

from ..events import types as t
from ..events.clock import new_event_id, to_datetime
from ..events.errors import AppendRefused, RefoldError
from ..events.stream import INBOX
from . import family, onward, unbegun
from .loader import History, whole_history
from .rewind import still_open


def take_requests(worker: Any, run_id: str) -> None:
    """Terminate the run when somebody asks for that: it needs no handler."""
    work = worker.store.work(run_id)
    if work is None or work.state == "done" or worker.closing:
        return
    if work.state == "pending":
        _take_all(worker, run_id)
        worker.look_again()  # it may have come back to its queue, and there may be a place
        return
    asked = [row for row in worker.store.read(run_id + INBOX, work.seen) if row.tag == t.RequestSent.TAG]
    if not asked:
        return
    try:
        history = whole_history(worker.store, run_id)
    except RefoldError:
        return  # it cannot even be read; it stays blocked, and says so
    if history.end is not None:
        return
    for row in asked:
        message = row.event()
        assert isinstance(message, t.RequestSent)
        if message.verb == "terminate" and row.version > history.stale_mail:
            _terminate(worker, history, message, row.version)
            return


def _take_all(worker: Any, run_id: str) -> None:
    """Of a run that has not begun: its handler has nothing to say to anything."""
    try:
        history = whole_history(worker.store, run_id)
    except RefoldError:
        return  # it cannot even be read; it stays as it is, and says so
    if history.end is None:
        unbegun.attend(worker, history)


def _terminate(worker: Any, history: History, request: t.RequestSent, inbox: int) -> None:
    run_id = history.run_id
    still = still_open(history.activations)
    numbers = sorted((*still.steps, *still.timers, *still.waits, *still.gates, *still.children))
    at, trace = max(to_datetime(worker.clock.now()), history.last_at), history.started.trace
    end = t.RunTerminated(
        reason=request.reason, open=tuple(numbers), inbox=inbox, id=new_event_id(), at=at, by=request.by,
        cause=request.id, trace=trace,
    )  # fmt: skip
    children = [child.run_id for child in still.children.values()]
    posts = family.last_words(run_id, history.started, end, history.untold, children)

    def stored(error: RefoldError | None) -> None:
        if error is None:
            worker.blocked.pop(run_id, None)
            worker.ends.tell(run_id, end)
            for post in posts:
                worker.mail_for(post.run_id)
        elif isinstance(error, AppendRefused):  # a note that it is blocked was under way
            take_requests(worker, run_id)

    worker.log.append(history.unit([end], posts), stored)


def pass_on(worker: Any, run_id: str) -> None:
    """Somebody spoke to a run that had just gone on as another one: tell that one."""
    work = worker.store.work(run_id)
    if work is None or work.status != "continued":
        return
    unit = onward.left_behind(worker.store, worker.clock, work)
    if unit is None:
        return

    def stored(error: RefoldError | None) -> None:
        if error is not None and not worker.closing:  # somebody appended meanwhile: look again
            worker.mail_for(run_id)
        for post in unit.posts if error is None else ():
            worker.mail_for(post.run_id)

    worker.log.append(unit, stored)
