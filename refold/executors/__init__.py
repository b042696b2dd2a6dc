"""Clusters that run the bodies of steps: `Engine(executors={"dask": DaskExecutor(client)})`.

`Executor` is what an engine needs of one; `refold.executors.dask` and `refold.executors.ray` are two.
"""

from ..engine.executors import Executor, TaskLost

__all__ = ["Executor", "TaskLost"]
