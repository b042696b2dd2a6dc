"""Refold: async functions that survive `kill -9`, because everything they do is an event in a log."""

__all__: list[str] = []


def __getattr__(name: str) -> str:
    if name == "__version__":  # lazy: importlib.metadata costs 47 ms, a fifth of the import budget
        from importlib.metadata import version

        return version("refold")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
