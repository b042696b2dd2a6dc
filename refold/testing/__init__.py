"""Tools for testing with Refold, and the conformance suite that any store must pass."""

__all__: list[str] = []
