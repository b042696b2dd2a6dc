"""The few settings of an engine, with their defaults and units."""

import os
from typing import Literal

from msgspec import Struct

from ..events.errors import ConfigurationError
from .names import is_number

_LEAST = {"memory_bytes": 0, "max_active": 1, "step_threads": 1, "max_depth": 0, "max_inbox": 1}
_LEAST["step_processes"] = 1


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
    step_processes: int = os.cpu_count() or 1
    """Processes for the steps with `run_in="process"`; started when they are needed."""
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
    lease_ttl: float = 30.0
    """Seconds after which the runs of a worker that is not heard of may be taken by others (PostgreSQL)."""
    lease_refresh: float = 10.0
    """Seconds between two signs of life of a worker."""
    projections: bool = True
    """Keep the read models up to date."""

    def __post_init__(self) -> None:
        for name, least in _LEAST.items():
            if type(value := getattr(self, name)) is not int or value < least:
                raise ConfigurationError(f"Settings({name}={value!r:.80}): expected an int, {least} or more")
        for name in ("lease_ttl", "lease_refresh"):
            if not (is_number(value := getattr(self, name)) and value > 0):
                raise ConfigurationError(f"Settings({name}={value!r:.80}): expected seconds, more than 0")
        if self.lease_refresh * 2 > self.lease_ttl:
            raise ConfigurationError(
                f"Settings(lease_ttl={self.lease_ttl}, lease_refresh={self.lease_refresh}): expected a "
                "refresh of at most half the ttl, so that one that comes late loses nothing"
            )
        for name in ("grace", "blocking_limit"):
            if not (is_number(value := getattr(self, name)) and value >= 0):
                raise ConfigurationError(f"Settings({name}={value!r:.80}): expected seconds, 0 or more")
        if self.determinism not in ("strict", "warn", "off"):
            raise ConfigurationError(f"determinism={self.determinism!r}: expected 'strict', 'warn' or 'off'")
        if not isinstance(self.files, str | os.PathLike):
            raise ConfigurationError(f"Settings(files={self.files!r:.80}): expected the path of a folder")
