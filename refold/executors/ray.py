"""Steps on a Ray cluster: `pip install "refold[ray]"`."""
# pyright: reportAttributeAccessIssue=false
# Where Ray is not installed, pyright takes `import ray` for this very file.

import asyncio
from collections.abc import Callable
from typing import Any

import ray
from ray import exceptions

from ..engine.executors import TaskLost

LOST = (
    exceptions.NodeDiedError,
    exceptions.ObjectLostError,
    exceptions.OutOfMemoryError,
    exceptions.RaySystemError,
    exceptions.TaskCancelledError,
    exceptions.WorkerCrashedError,
)
"""What says of a task only that nobody knows what became of it."""


class RayExecutor:
    """Runs the bodies of steps on the cluster that this process is connected to (`ray.init`).

    Args:
        options: for every task: `num_gpus=1`, `num_cpus=…`, `resources={…}`.
    """

    def __init__(self, **options: Any) -> None:
        # Who tries again is for the step to say.
        self._options: dict[str, Any] = {**options, "max_retries": 0}

    async def run(self, target: Callable[[bytes], bytes], payload: bytes) -> bytes:
        """Call `target(payload)` on the cluster. Raises `TaskLost`."""
        task = ray.remote(target).options(**self._options).remote(payload)
        try:
            result: bytes = await asyncio.wrap_future(task.future())
            return result
        except asyncio.CancelledError:
            ray.cancel(task, force=True)  # its worker process is ended
            raise
        except LOST as error:
            raise TaskLost(f"the cluster has lost the task: {error}") from error
