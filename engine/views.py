"""The read models as an engine keeps them: caught up in slices on its loop, and asked through it."""

from typing import Any

from ..events.store import Store


class Views:
    """Placeholder until the runner is here."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def follow(self) -> None:
        """Catch up as the log grows."""

    def fold_run(self, run_id: str) -> dict[str, Any]:
        raise NotImplementedError

    def fold_steps(self, run_id: str) -> list[dict[str, Any]]:
        raise NotImplementedError

    def close(self) -> None:
        """Stop."""
