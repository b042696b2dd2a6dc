"""The few settings of an engine, with their defaults and units."""

import os
from typing import Literal

from msgspec import Struct

from ..events.errors import ConfigurationError


class Settings(Struct, frozen=True, kw_only=True):
    """How an engine executes. Give what differs: `Engine(…, settings=Settings(grace=1.0))`."""

    grace: float = 10.0
    """Seconds that running step bodies get at shutdown before they are interrupted."""
    memory_bytes: int = 64 * 1024 * 1024
    """Budget for suspended handlers kept in memory; above it the cheapest to replay leave first."""
    max_active: int = 1_000
    """Runs that may be busy at once; further ones are stored and wait for their turn."""
    step_threads: int = min(32, (os.cpu_count() or 1) + 4)
    """Worker threads for `def` steps."""
    blocking_limit: float = 1.0
    """Seconds after which a handler that holds up the host loop is named in the log."""
    determinism: Literal["strict", "warn", "off"] = "strict"
    """Clocks and randomness in handlers: `warn` scans at registration; `strict` also refuses them at run
    time (CPython ≥ 3.12)."""
    max_depth: int = 5
    """How deep children of children may go."""
    max_inbox: int = 100_000
    """Messages that may wait for one run; further signals and votes are refused (`InboxFull`)."""
    files: str = ""
    """Folder under which each run gets `artifacts/RUN` and `logs/RUN`; empty: none."""
    projections: bool = True
    """Keep the read models up to date."""

    def __post_init__(self) -> None:
        if self.grace < 0 or self.memory_bytes < 0 or self.max_active < 1 or self.step_threads < 1:
            raise ConfigurationError(
                f"{self}: expected grace >= 0, memory_bytes >= 0, max_active >= 1, step_threads >= 1"
            )
        if self.max_depth < 0 or self.max_inbox < 1:
            raise ConfigurationError(f"{self}: expected max_depth >= 0, max_inbox >= 1")
        if self.determinism not in ("strict", "warn", "off"):
            raise ConfigurationError(f"determinism={self.determinism!r}: expected 'strict', 'warn' or 'off'")
