"""Refold: async functions that survive `kill -9`, because everything they do is an event in a log."""

from typing import TYPE_CHECKING

from .blocking import run
from .engine.artifacts import Artifact
from .engine.bodies import StepInfo, current_step, record_cost
from .engine.context import Context, Operation
from .engine.data import ContextEntry
from .engine.doubt import Happened, NotHappened
from .engine.engine import Engine
from .engine.gates import Decision, Stage
from .engine.handle import Handle
from .engine.parallel import Branch, Results
from .engine.settings import Settings
from .engine.step import Retry, Step, step
from .engine.workflow import Workflow, workflow
from .events.errors import (
    ActRefused,
    ChildFailed,
    ConfigurationError,
    ForbiddenInHandler,
    GateRejected,
    NonDeterminismError,
    NonRetryable,
    RefoldError,
    RunCancelled,
    RunEnded,
    RunFailed,
    RunNotFound,
    StartConflict,
    StepFailed,
    StoreError,
    ValueRefused,
    VoteRefused,
    WaitTimeout,
)

__all__ = [
    "ActRefused",
    "Artifact",
    "Branch",
    "ChildFailed",
    "ConfigurationError",
    "Context",
    "ContextEntry",
    "Decision",
    "Engine",
    "ForbiddenInHandler",
    "GateRejected",
    "Handle",
    "Happened",
    "NonDeterminismError",
    "NonRetryable",
    "NotHappened",
    "Operation",
    "RefoldError",
    "Results",
    "Retry",
    "RunCancelled",
    "RunEnded",
    "RunFailed",
    "RunNotFound",
    "Settings",
    "Stage",
    "StartConflict",
    "Step",
    "StepFailed",
    "StepInfo",
    "StoreError",
    "ValueRefused",
    "VoteRefused",
    "WaitTimeout",
    "Workflow",
    "current_step",
    "record_cost",
    "run",
    "step",
    "workflow",
]
__version__: str
"""Read on first use: `importlib.metadata` costs 47 ms, a fifth of the import budget."""

if not TYPE_CHECKING:  # a `__getattr__` that checkers can see makes every misspelt name a good one

    def __getattr__(name: str) -> str:
        if name == "__version__":
            from importlib.metadata import version

            return version("refold")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
