"""Steps on a Dask cluster: `pip install "refold[dask]"`."""

import asyncio
import concurrent.futures
import contextlib
from collections.abc import Callable
from typing import Any

import distributed

from ..engine.executors import TaskLost


class DaskExecutor:
    """Runs the bodies of steps on a cluster: `Engine(executors={"dask": DaskExecutor(client)})`.

    Args:
        client: a `distributed.Client`, asynchronous or not; it stays yours to close.
        options: for every `client.submit`: `resources={"GPU": 1}`, `priority=…`, `workers=…`.
    """

    def __init__(self, client: distributed.Client, **options: Any) -> None:
        self._client: Any = client
        self._options = options

    async def run(self, target: Callable[[bytes], bytes], payload: bytes) -> bytes:
        """Call `target(payload)` on the cluster. Raises `TaskLost`."""
        task = self._client.submit(target, payload, pure=False, retries=0, **self._options)
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        task.add_done_callback(lambda _: _tell(loop, done))
        try:
            await done
        except asyncio.CancelledError:
            await self._cancel(task)
            raise
        if task.status in ("cancelled", "lost"):
            raise TaskLost(f"the cluster has lost the task: it is {task.status}")
        try:
            result = task.result() if self._client.asynchronous else asyncio.to_thread(task.result)
            return bytes(await result)
        except (distributed.KilledWorker, concurrent.futures.CancelledError, OSError) as error:
            raise TaskLost(f"the cluster has lost the task: {error}") from error

    async def _cancel(self, task: Any) -> None:
        """A body that runs on a worker cannot be stopped; one that waits for its turn never begins."""
        await (task.cancel() if self._client.asynchronous else asyncio.to_thread(task.cancel))


def _tell(loop: asyncio.AbstractEventLoop, done: "asyncio.Future[None]") -> None:
    """From the thread in which the client calls back."""
    with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
        loop.call_soon_threadsafe(_wake, done)


def _wake(done: "asyncio.Future[None]") -> None:
    if not done.done():
        done.set_result(None)
