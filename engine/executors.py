"""Executors: clusters that run the bodies of `@step(run_in="NAME")`, and what a step needs of them."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from ..events.errors import ConfigurationError
from .names import check_name
from .step import Step

PROCESS = "process"
"""The place that every engine has: its own processes."""


class TaskLost(Exception):
    """An executor raises it when nobody knows what became of a task: the machine it was on is gone, say.

    The attempt counts as cut off, as by a crash: the step's options say whether it is made again.
    """


class Executor(Protocol):
    """Runs functions on other machines."""

    async def run(self, target: Callable[[bytes], bytes], payload: bytes) -> bytes:
        """Call `target(payload)` there, once, and return what it returns.

        `target` is a function at the top of an installed module. When this coroutine is cancelled, the task
        is, as far as the cluster can do that. Raises `TaskLost` when what became of the task is unknown.
        """
        ...


def check_executors(executors: Any) -> dict[str, Executor]:
    """Executors by name. Raises `ConfigurationError`."""
    if not isinstance(executors, Mapping):
        raise ConfigurationError(f"executors={executors!r:.80}: expected a dict, executors={{'dask': …}}")
    for name, executor in executors.items():
        check_name(name, "executor name")
        if name == PROCESS or not callable(getattr(executor, "run", None)):
            raise ConfigurationError(
                f"executors={{{name!r}: {executor!r:.80}}}: expected an object with `async def run(target, "
                "payload)`, under another name than 'process', which every engine has"
            )
    return dict(executors)


def check_place(step: Step[Any, Any], executors: Mapping[str, Executor]) -> None:
    """Raises `ConfigurationError` for a step that is to run where this engine knows no way."""
    place = step.options.run_in
    if place and place != PROCESS and place not in executors:
        known = ", ".join(map(repr, [PROCESS, *executors]))
        raise ConfigurationError(
            f"@step(run_in={place!r}) {step.name}: this engine has {known}; give it the executor: "
            f"Engine(…, executors={{{place!r}: …}})"
        )
