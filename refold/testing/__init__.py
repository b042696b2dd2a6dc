"""Tools for testing with Refold, and the conformance suite that any store must pass."""

from .clock import VirtualClock
from .engine import TestEngine
from .mocks import Call, Mock, MockError
from .passing import NothingHappens
from .store import StoreConformance

__all__ = [
    "Call",
    "Mock",
    "MockError",
    "NothingHappens",
    "StoreConformance",
    "TestEngine",
    "VirtualClock",
]
