"""Tools for testing with Refold, and the conformance suite that any store must pass."""

from .store import StoreConformance

__all__ = ["StoreConformance"]
