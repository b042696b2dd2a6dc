"""What happened: the event types, and the log that keeps them."""

if __name__ != "refold.events":  # two copies of an event type are two types
    raise ImportError(f"import refold.events, not {__name__} (is the repository on sys.path?)")

__all__: list[str] = []
