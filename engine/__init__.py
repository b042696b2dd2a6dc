"""What makes it happen: the handler loop, the context, the steps and the runs."""

if __name__ != "refold.engine":  # two copies of a layer hold two states
    raise ImportError(f"import refold.engine, not {__name__} (is the repository on sys.path?)")

__all__: list[str] = []
