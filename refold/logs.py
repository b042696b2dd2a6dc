"""A logging filter that says which run, step and attempt a record belongs to."""

import logging

from .engine.bodies import body_here
from .engine.loop import running
from .engine.run import Run


class RunFilter(logging.Filter):
    """Puts the run on every record made in a handler or in the body of a step, whoever logs there.

        handler = logging.StreamHandler()
        handler.addFilter(RunFilter())

    Records get `refold_run` (its id), `refold_workflow`, `refold_step` (`charge#1`), `refold_attempt` (from
    1) and `refold_trace` (the run's W3C trace id); elsewhere these are empty and 0. Add it to handlers: a
    filter of a logger sees only what is logged with that very logger.

    Args:
        replayed: also let through what a handler logs while it is replayed, which it said before.
    """

    def __init__(self, *, replayed: bool = False) -> None:
        super().__init__()
        self._replayed = replayed

    def filter(self, record: logging.LogRecord) -> bool:
        """Mark the record; False for what a replaying handler says again."""
        run_id = workflow = step = trace = ""
        attempt = 0
        if (loop := running()) is not None:
            run = loop.owner
            if isinstance(run, Run):
                if run.matching and not self._replayed:
                    return False
                run_id, workflow, trace = run.run_id, run.workflow.name, run.started.trace
        elif (body := body_here()) is not None:
            run_id, workflow, trace = body.run_id, body.owner.workflow, body.owner.trace
            step, attempt = body.key, body.attempt
        else:
            run_id, trace = getattr(record, "refold_run", ""), getattr(record, "refold_trace", "")
        record.refold_run, record.refold_workflow, record.refold_trace = run_id, workflow, trace
        record.refold_step, record.refold_attempt = step, attempt
        return True
