"""Every error Refold raises, in one tree; each message says what, where and what to do next.

RefoldError
├── ConfigurationError            a workflow, step or setting that cannot work
│   └── NotRegistered             this engine does not know that workflow
├── ValueRefused                  a value that JSON cannot carry, or that does not fit its annotation
├── StoreError                    the log cannot be read or written
│   ├── StoreBusy                 another process writes or executes
│   ├── StoreFull                 no room left
│   ├── StoreReadOnly
│   ├── StoreCorrupt              the file is damaged, or its hash chain is broken
│   └── SchemaMismatch            written by a newer Refold, or not by Refold at all
├── AppendRefused                 somebody else appended first
│   └── LeaseLost                 … because another owner took the run over
├── UnknownEvent                  an event type this code does not know
├── RunNotFound
├── ScheduleNotFound
├── RunEnded                      the run is over: nothing can be sent to it
├── StartConflict                 same id or key, other workflow or input
│   └── Locked                    another run holds the concurrency key
├── ActRefused                    what was asked of a run is not possible as it stands
│   ├── VoteRefused               … of a gate: who votes, what for, or when
│   └── InboxFull                 … because too much has been sent to it already
├── RunFailed                     result() of a run that failed
├── RunCancelled                  result() of a run that was cancelled
├── StepFailed                    what a handler sees when a step has failed for good
│   ├── StepTimedOut
│   └── StepInterrupted           its outcome is unknown: the process died in the middle of it
├── ChildFailed                   what a handler sees when a child did not complete
├── GateRejected                  … when people rejected, or did not decide in time
├── NonRetryable                  raise it in a step: do not try again
├── WaitTimeout                   wait_for_event() waited too long
│   └── GateTimedOut              … and so did a gate with on_timeout="fail"
└── HandlerError                  the handler broke a rule
    ├── NonDeterminismError       it asked for something else than the log says it did
    ├── ForbiddenInHandler        I/O, threads, clocks or randomness outside a step
    └── HandlerStuck              it never became idle
"""

from typing import Any, Self


class RefoldError(Exception):
    """Root of all errors that Refold raises on purpose."""


class ConfigurationError(RefoldError):
    """A workflow, a step or a setting that cannot work; raised where it is declared."""


class NotRegistered(ConfigurationError):
    """The engine was not given this workflow."""


class ValueRefused(RefoldError):
    """A value cannot be stored as JSON, or a stored value does not fit the annotation.

    `path` is the place inside the value, in JSONPath form (`$.items[3].price`).
    """

    def __init__(self, message: str, path: str = "$") -> None:
        super().__init__(message)
        self.path = path


class StoreError(RefoldError):
    """The log cannot be read or written. Nothing of the refused append was stored."""

    passing = False
    """Whether it may be gone by itself in a moment: a server that is away, or another one taking over."""

    def soon(self) -> Self:
        """This error, as one that may be gone by itself."""
        self.passing = True
        return self


class StoreBusy(StoreError):
    """Another process holds the store; `holder` names it when it is known."""

    def __init__(self, message: str, holder: str = "") -> None:
        super().__init__(message)
        self.holder = holder


class StoreFull(StoreError):
    """No room left on the device, or the database reached its size limit."""


class StoreReadOnly(StoreError):
    """The store may be read, not written."""


class StoreCorrupt(StoreError):
    """The file is damaged, or an event does not match its hash."""


class SchemaMismatch(StoreError):
    """The store was written by a newer Refold, or is not a Refold store."""


class AppendRefused(RefoldError):
    """The stream was not at the expected version; nothing of the unit was stored.

    `stream`, `expected` and `found` (versions) say where.
    """

    def __init__(self, stream: str, expected: int, found: int) -> None:
        super().__init__(
            f"append to {stream!r} refused: expected version {expected}, found {found}; "
            "somebody else appended first: read the stream again and decide anew"
        )
        self.stream, self.expected, self.found = stream, expected, found


class LeaseLost(AppendRefused):
    """Another owner has taken this run over; what this one still had in hand was not written."""


class UnknownEvent(RefoldError):
    """An event of a type (or of a version) this code does not know; only its own run is blocked."""

    def __init__(self, tag: str, where: str) -> None:
        super().__init__(
            f"unknown event type {tag!r} at {where}: it was written by a newer Refold; "
            "upgrade this process to work on that run"
        )
        self.tag = tag


class RunNotFound(RefoldError):
    """No run has this id."""

    def __init__(self, run_id: str) -> None:
        told = f"no run {run_id!r:.300} in this store; `refold runs` lists them"
        if not isinstance(run_id, str):
            told = (
                f"a run is found by its id, which is text, not by {run_id!r:.80}; pass `handle.id`, for one"
            )
        super().__init__(told)
        self.run_id = run_id


class ScheduleNotFound(RefoldError):
    """No schedule has this name."""

    def __init__(self, name: object) -> None:
        super().__init__(f"no schedule {name!r:.300} in this store; `refold schedules` lists them")
        self.name = name


class RunEnded(RefoldError):
    """The run is over, the request was refused and changed nothing."""

    def __init__(self, run_id: str, status: str) -> None:
        super().__init__(
            f"run {run_id!r} is {status}: nothing can be sent to it any more; fork it, or start a new one"
        )
        self.run_id, self.status = run_id, status


class StartConflict(RefoldError):
    """The id or key is taken by a run of another workflow or with other input; `run_id` names it."""

    def __init__(self, message: str, run_id: str) -> None:
        super().__init__(message)
        self.run_id = run_id


class Locked(StartConflict):
    """A concurrency key (`start(…, lock=…)`) is held by another run; `run_id` names it, `key` the key."""

    def __init__(self, key: str, run_id: str, since: str) -> None:
        super().__init__(
            f"lock {key!r} is held by run {run_id!r} since {since}: wait until that run has ended, or cancel "
            "it; runs that are to wait for their turn belong in a queue",
            run_id,
        )
        self.key = key


class RunFailed(RefoldError):
    """`result()` of a run that failed; `type` and `message` are those of the handler's error.

    `status` is `failed`, or `compensated` or `compensation_failed` when it was undone after that.
    """

    def __init__(self, run_id: str, type: str, message: str, status: str = "failed") -> None:
        told = "failed" if status == "failed" else f"is {status.replace('_', ' ')}"
        super().__init__(f"run {run_id!r} {told}" + (f": {type}: {message}" if type else ""))
        self.run_id, self.type, self.message, self.status = run_id, type, message, status


class RunCancelled(RefoldError):
    """`result()` of a run that was cancelled; `reason` says why. `status`: `cancelled` or `terminated`."""

    def __init__(self, run_id: str, reason: str, status: str = "cancelled") -> None:
        super().__init__(f"run {run_id!r} was {status}: {reason or 'no reason given'}")
        self.run_id, self.reason, self.status = run_id, reason, status


class ActRefused(RefoldError):
    """What was asked of a run is not possible as it stands; nothing was written."""


class VoteRefused(ActRefused):
    """A vote, or an answer, that its gate does not admit; the gate stays as it was."""


class InboxFull(ActRefused):
    """A run has too many messages that it has not received yet (`Settings.max_inbox`)."""


class ChildFailed(RefoldError):
    """A child did not complete. `run_id` is the child's, `status` how it ended, `type` and `message` why."""

    def __init__(self, run_id: str, status: str, type: str, message: str) -> None:
        super().__init__(f"child {run_id} is {status}: {type}: {message}")
        self.run_id, self.status, self.type, self.message = run_id, status, type, message


class GateRejected(RefoldError):
    """People rejected, or did not decide in time. `by` (empty after a timeout) and `feedback` say more."""

    def __init__(self, gate: str, by: str, feedback: str) -> None:
        super().__init__(
            f"gate {gate} was rejected by {by or 'its deadline'}: {feedback or 'no reason given'}"
        )
        self.gate, self.by, self.feedback = gate, by, feedback


class StepFailed(RefoldError):
    """A step has failed for good: the same live and on replay.

    `step` is its readable key (`charge#2`), `type` and `message` are those of the error its body
    raised, `data` is the JSON value of the error's `data` attribute, if it had one; `attempt` is the
    number of the last attempt.
    """

    def __init__(self, step: str, type: str, message: str, data: Any = None, attempt: int = 1) -> None:
        super().__init__(f"step {step} failed: {type}: {message}")
        self.step, self.type, self.message, self.data, self.attempt = step, type, message, data, attempt


class StepTimedOut(StepFailed):
    """The last attempt ran longer than the step's timeout."""


class StepInterrupted(StepFailed):
    """The process died in mid-effect and the step may not be repeated: its outcome is unknown."""


class NonRetryable(RefoldError):
    """Raise it in a step to fail at once, whatever the retry policy says.

    `data` (any JSON value) reaches the handler as `StepFailed.data`.
    """

    def __init__(self, message: str = "", data: Any = None) -> None:
        super().__init__(message)
        self.data = data


class WaitTimeout(RefoldError, TimeoutError):
    """`wait_for_event(…, timeout=…)`: nothing came in time."""


class GateTimedOut(WaitTimeout):
    """Nobody decided, or answered, in time."""

    def __init__(self, gate: str) -> None:
        super().__init__(f"gate {gate}: nobody decided in time")
        self.gate = gate


class HandlerError(RefoldError):
    """A handler broke one of the rules for handlers."""


class NonDeterminismError(HandlerError):
    """Replay diverged: the handler asked for something else than the log says it did.

    `key` is the place in the command sequence, `expected` what the log holds, `found` what the
    handler asks for now; the message is the whole report with call sites and what to do.
    """

    def __init__(self, message: str, *, key: str = "", expected: str = "", found: str = "") -> None:
        super().__init__(message)
        self.key, self.expected, self.found = key, expected, found


class ForbiddenInHandler(HandlerError, RuntimeError):
    """I/O, threads, processes, clocks or randomness in a handler: they belong in a step."""


class HandlerStuck(HandlerError):
    """The handler ran too many callbacks without ever waiting for anything."""
