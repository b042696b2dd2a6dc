"""What it adds up to: runs, steps, edges and costs, folded from the log."""

if __name__ != "refold.projections":  # two copies of a layer hold two states
    raise ImportError(f"import refold.projections, not {__name__} (is the repository on sys.path?)")

__all__: list[str] = []
