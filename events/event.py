"""What every event has, and the values that several of them carry."""

from datetime import datetime
from decimal import Decimal
from typing import ClassVar

import msgspec
from msgspec import Raw, Struct


class Event(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What every event carries."""

    TAG: ClassVar[str] = ""
    id: str
    """Unique over all events, made by the process that appended it."""
    at: datetime
    """When, UTC, to the microsecond; never goes back within a stream."""
    by: str = "engine"
    """Who or what did it: `engine`, `handler`, or a principal such as `user:ana`."""
    cause: str = ""
    """Id of the event that led to this one; empty for the first of a run."""
    trace: str = ""
    """Trace id of the run (W3C, 32 hex digits)."""


class Failure(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An error as the log keeps it: text, never an object to import."""

    type: str
    """Class name of the exception."""
    message: str
    error_class: str = "error"
    """`error`, `non_retryable`, `timed_out`, `interrupted`, `value_refused` or `divergence`."""
    traceback: str = ""
    """Formatted, cut to 8 KiB."""
    data: Raw = msgspec.field(default_factory=lambda: Raw(b"null"))
    """JSON of the exception's `data` attribute."""


class Spent(Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Money and tokens, added up."""

    usd: Decimal = Decimal(0)
    """US dollars, exact."""
    input_tokens: int = 0
    output_tokens: int = 0
    cache_tokens: int = 0
    turns: int = 0

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(
            usd=self.usd + other.usd,
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cache_tokens=self.cache_tokens + other.cache_tokens,
            turns=self.turns + other.turns,
        )

    def __sub__(self, other: "Spent") -> "Spent":
        return Spent(
            usd=self.usd - other.usd,
            input_tokens=self.input_tokens - other.input_tokens,
            output_tokens=self.output_tokens - other.output_tokens,
            cache_tokens=self.cache_tokens - other.cache_tokens,
            turns=self.turns - other.turns,
        )


def null() -> Raw:
    """The default of a value that may be missing: msgspec writes `Raw | None` and cannot read it back."""
    return Raw(b"null")
