"""Refold: async functions that survive `kill -9`, because everything they do is an event in a log."""

from typing import TYPE_CHECKING

__all__: list[str] = []
__version__: str
"""Read on first use: `importlib.metadata` costs 47 ms, a fifth of the import budget."""

if not TYPE_CHECKING:  # a `__getattr__` that checkers can see makes every misspelt name a good one

    def __getattr__(name: str) -> str:
        if name == "__version__":
            from importlib.metadata import version

            return version("refold")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
