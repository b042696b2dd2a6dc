"""Where the bodies of steps run that do not run here: processes of this engine, and executors."""

from typing import Any

from msgspec import Raw

from ..events import types as t
from . import remote
from .executors import PROCESS, Executor, TaskLost, check_place
from .processes import ProcessDied, Processes

__all__ = ["Elsewhere", "ProcessDied", "TaskLost"]


class Elsewhere:
    """The places outside of this process that one engine has."""

    def __init__(self, processes: int) -> None:
        self.processes = Processes(processes)
        self.executors: dict[str, Executor] = {}

    async def run(self, body: Any) -> Raw:
        """Run the body of an attempt where its step is to run. What it returned, encoded.

        Raises `RemoteFailure` for what it raised; `ProcessDied`, `TaskLost`; `ConfigurationError`.
        """
        step = body.command.step
        check_place(step, self.executors)
        if step.options.run_in == PROCESS:
            end = await self._in_process(body, remote.call_of(body, body.owner.files))
        else:
            end = await self._by_executor(body, remote.call_of(body))
        if isinstance(end, remote.Failed):
            raise remote.RemoteFailure(end)
        return end.result

    async def _in_process(self, body: Any, call: remote.Call) -> remote.Done | remote.Failed:
        job = self.processes.run(call, body.begins, lambda said: remote.record_in(body.owner, body, said))
        body.job = job
        try:
            return await job.future
        finally:
            self.processes.give_up(job)

    async def _by_executor(self, body: Any, call: remote.Call) -> remote.Done | remote.Failed:
        executor = self.executors[body.command.step.options.run_in]
        body.begins()
        reply = remote.decode_reply(await executor.run(remote.execute, remote.encode(call)))
        for record in reply.records:
            remote.record_in(body.owner, body, record)
        return reply.end

    def close(self) -> None:
        """End the processes."""
        self.processes.close()


def died(error: ProcessDied) -> t.Failure:
    """What an attempt fails with whose process is gone."""
    notes = getattr(error, "__notes__", ())
    message = " ".join((str(error), *notes))
    return t.Failure(type="ProcessDied", message=message, traceback=error.said[-8_192:])
