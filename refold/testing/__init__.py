"""Tools for testing with Refold, and the conformance suite that any store must pass."""

from .clock import VirtualClock
from .crash import CrashDifference, CrashReport, durable_crash
from .engine import TestEngine
from .mocks import Call, Mock, MockError
from .passing import NothingHappens
from .replay import Replayed, history_files, replay_history
from .schedules import Schedule, schedules
from .store import StoreConformance

__all__ = [
    "Call",
    "CrashDifference",
    "CrashReport",
    "Mock",
    "MockError",
    "NothingHappens",
    "Replayed",
    "Schedule",
    "StoreConformance",
    "TestEngine",
    "VirtualClock",
    "durable_crash",
    "history_files",
    "replay_history",
    "schedules",
]
