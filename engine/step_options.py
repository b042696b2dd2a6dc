"""What a step promises and asks for: its retries, its limits, and where its body runs."""

import inspect
from collections.abc import Callable
from typing import Any, Literal

from msgspec import Struct

from ..events.errors import ConfigurationError
from .callee import Callee
from .names import check_name, is_number

DEFAULT_TIMEOUT_S = 300.0
LONGEST_S = 1e9
"""30 years: what is longer has no date, and infinity has no JSON form."""


class Retry(Struct, frozen=True, kw_only=True):
    """When and how often a failed attempt is repeated. Without one, a step has a single attempt.

    The pause before attempt n+1 is `initial_interval * backoff**(n-1)` seconds, at most
    `max_interval`, changed by up to ± `jitter` (a fraction). Interrupted attempts do not count.
    """

    max_attempts: int = 3
    """The first one included."""
    initial_interval: float = 1.0
    """Seconds before the second attempt."""
    backoff: float = 2.0
    """Factor from one pause to the next."""
    max_interval: float = 60.0
    """Seconds; no pause is longer."""
    jitter: float = 0.1
    """Fraction by which chance changes each pause."""
    non_retryable: tuple[type[BaseException], ...] = ()
    """Errors that fail the step at once, like `NonRetryable`."""

    def __post_init__(self) -> None:
        numbers = (self.max_attempts, self.initial_interval, self.max_interval, self.backoff, self.jitter)
        if not (all(map(is_number, numbers)) and type(self.max_attempts) is int and self._makes_sense()):
            raise ConfigurationError(
                f"{self}: expected max_attempts >= 1, backoff >= 1, 0 <= jitter < 1, "
                f"intervals of 0 to {LONGEST_S:.0e} seconds"
            )
        kinds: Any = self.non_retryable
        if not (
            isinstance(kinds, tuple)
            and all(inspect.isclass(k) and issubclass(k, BaseException) for k in kinds)
        ):
            raise ConfigurationError(f"non_retryable={kinds!r:.80}: expected a tuple of exception classes")

    def _makes_sense(self) -> bool:
        pauses = 0 <= self.initial_interval < LONGEST_S and 0 <= self.max_interval < LONGEST_S
        return self.max_attempts >= 1 and pauses and self.backoff >= 1 and 0 <= self.jitter < 1

    def pause(self, failures: int, chance: float) -> float:
        """Seconds to wait after that many failures; `chance` is uniform in [0, 1)."""
        try:
            plain = self.initial_interval * self.backoff ** (failures - 1)
        except OverflowError:
            plain = self.max_interval
        return min(plain, self.max_interval) * (1 + self.jitter * (2 * chance - 1))


ONCE = Retry(max_attempts=1)


class StepOptions(Struct, frozen=True, kw_only=True):
    """What a step promises and asks for."""

    retry: Retry = ONCE
    timeout: float | None = DEFAULT_TIMEOUT_S
    """Seconds one attempt may take; None: no limit."""
    execution: Literal["at_least_once", "at_most_once"] = "at_least_once"
    on_unknown: Literal["retry", "fail", "ask"] | None = None
    """After a crash in mid-attempt: run it again, fail with `StepInterrupted`, or have a person say what it
    did. Default: `ask` for `at_most_once` and when a probe could not find it out, else `retry`."""
    pure: bool = False
    """No effect outside: running it again is harmless, so it may start before its intent is durable."""
    total_timeout: float | None = None
    """Seconds all attempts may take together, counted from the first start, restarts included."""
    compensate: Any = None
    """The step that undoes it: a `Step`, or its name in the module of this one."""
    optional: bool = False
    """When it fails for good, the call returns None and the run goes on."""
    on_fail: Any = None
    """A step called with `failed_step`, `failure_reason` and `retry_count` when it fails for good."""
    probe: Callable[..., Any] | None = None
    """Called with the step's arguments after a crash in mid-attempt: did it happen?"""
    run_in: str = ""
    """Where the body runs: `process`, the name of an executor, or empty: in this process."""
    run_on: str = ""
    """Tag that the worker must have on which it runs; empty: that of the run."""

    @property
    def undo_name(self) -> str:
        """Name of the step that undoes it; empty: none."""
        return str(getattr(self.compensate, "name", self.compensate or ""))

    @property
    def unknown(self) -> str:
        """What to do about an attempt with unknown outcome."""
        asks = self.probe is not None or self.execution == "at_most_once"
        return self.on_unknown or ("ask" if asks else "retry")

    def __post_init__(self) -> None:
        if not isinstance(self.retry, Retry):
            raise ConfigurationError(
                f"retry={self.retry!r:.80}: expected Retry(max_attempts=…), or None for one"
            )
        if self.execution not in ("at_least_once", "at_most_once"):
            raise ConfigurationError(
                f"execution={self.execution!r}: expected 'at_least_once' or 'at_most_once'"
            )
        if self.on_unknown not in (None, "retry", "fail", "ask"):
            raise ConfigurationError(f"on_unknown={self.on_unknown!r}: expected 'retry', 'fail' or 'ask'")
        for name, limit in (("timeout", self.timeout), ("total_timeout", self.total_timeout)):
            if limit is not None and not (is_number(limit) and 0 < limit < LONGEST_S):
                raise ConfigurationError(
                    f"{name}={limit!r}: expected 0 to {LONGEST_S:.0e} seconds, or None for no limit"
                )
        if self.execution == "at_most_once" and (self.pure or self.retry.max_attempts > 1):
            raise ConfigurationError("execution='at_most_once' allows neither retry nor pure=True")
        for name, other in (("compensate", self.compensate), ("on_fail", self.on_fail)):
            # A `Step` is a callee; a class of its own would be a circle of imports.
            if not (other is None or isinstance(other, Callee) or (isinstance(other, str) and other)):
                raise ConfigurationError(f"{name}={other!r}: expected a @step, or the name of one")
        if not (self.probe is None or callable(self.probe)):
            raise ConfigurationError(f"probe={self.probe!r}: expected a function, `async` or not")
        for name, place in (("run_in", self.run_in), ("run_on", self.run_on)):
            if place:
                check_name(place, name)
        if self.run_in not in ("", "process") and self.execution == "at_most_once":
            raise ConfigurationError(
                f"run_in={self.run_in!r} with execution='at_most_once': a cluster may repeat by itself what "
                "was on a machine that is gone; use run_in='process'"
            )

    @property
    def repeats_unknown(self) -> bool:
        """Whether an attempt with unknown outcome is run again without asking anybody."""
        return self.unknown == "retry" and self.probe is None
