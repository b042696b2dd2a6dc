"""The columns of `runs`, and what its fold remembers of a run that is not over."""

from typing import Annotated

from msgspec import Struct

from .projection import column


class Open(Struct, omit_defaults=True, gc=False):
    """What the fold must remember of a run that is not over; the hidden column `open`, as JSON.

    Maps, so that an event costs the same however much is open. They are written once per batch of events:
    in batches of 500, an event of 10,000 parallel steps costs 4 % more than one of 1,000 (26 µs for all
    four read models), one of 30,000 twice as much. Bits instead of maps would be linear for longer, but
    could not say how long an attempt ran that a crash has cut off.
    """

    begun: bool = False
    """Somebody has taken the run up."""
    waiting: bool = False
    """Nothing runs, and there is something to wait for."""
    queued: int = 0
    """Steps that wait for an attempt to start: new ones, released or interrupted ones."""
    running: dict[int, str] = {}
    """Step to the start of its attempt."""
    retries: dict[int, str] = {}
    """Step to the time of its next attempt."""
    timers: dict[int, str] = {}
    """Timer to its time."""
    waits: dict[int, str] = {}
    """Wait to the name it waits for."""
    kept: dict[str, int] = {}
    """Names to how many signals came before their wait."""
    alert: str = "none"
    """What the last `run.attention` said; stronger than `retrying`."""
    alert_since: str | None = None
    alert_reason: str = ""
    retrying_since: str | None = None
    retrying_reason: str = ""
    blocked_since: str | None = None


class RunRow(Struct, gc=False):
    """A row of `runs`."""

    run_id: Annotated[str, column("Id of the run; its stream in the log.")]
    workflow: Annotated[str, column("Name of the workflow.")] = ""
    version: Annotated[str, column("Version of the workflow the run is pinned to.")] = ""
    title: Annotated[str, column("For people: the attribute `title` if it is a text, else `workflow`.")] = ""
    status: Annotated[
        str,
        column(
            "`pending` (nobody has taken it up), `running`, `waiting` (nothing runs, see `blocked_on`), "
            "`completed`, `failed` or `cancelled`.",
            "run_status",
        ),
    ] = "pending"
    blocked_on: Annotated[
        str | None,
        column(
            'What a waiting run waits for: `{"type":"event","wait":2,"name":"approve","due_at":…}` (with '
            '`due_at` when there is a deadline), `{"type":"retry","step":1,"due_at":…}` or '
            '`{"type":"timer","timer":3,"due_at":…}`; the first of these kinds that is open.',
            "json",
        ),
    ] = None
    blocked_since: Annotated[str | None, column("When the handler last came to wait.")] = None
    attention: Annotated[
        str,
        column(
            "`none`, `retrying` (a step failed and will be tried again), `diverged`, `missing_version`, "
            "`no_worker`, `in_doubt` or `stuck`: why a run that is not over does not go on as it should.",
            "attention",
        ),
    ] = "none"
    attention_since: Annotated[str | None, column("Since when.")] = None
    attention_reason: Annotated[str | None, column("In words; for `retrying` the last error.")] = None
    attention_next_at: Annotated[str | None, column("When it will be tried again, if by itself.")] = None
    key: Annotated[str, column("Idempotency key given to `start`, or empty.")] = ""
    trigger: Annotated[str, column("What started it: `manual`, …")] = ""
    attributes: Annotated[str, column("Labels given to `start`: a JSON object.", "json")] = "{}"
    args: Annotated[str, column("The handler's arguments: a JSON array.", "json")] = "[]"
    result: Annotated[str | None, column("What the handler returned, once completed: JSON.", "json")] = None
    error_type: Annotated[str | None, column("Class of the error, once failed.")] = None
    error_message: Annotated[str | None, column("Its message; for a cancelled run the reason.")] = None
    error_class: Annotated[
        str | None,
        column(
            "`error`, `non_retryable`, `timed_out`, `interrupted`, `value_refused` or `divergence`; for a "
            "cancelled run who cancelled: `UserRequested`, `Timeout`, `FailFast`, `ParentCancelled`, …"
        ),
    ] = None
    started_at: Annotated[str, column("When it was started.")] = ""
    first_step_at: Annotated[str | None, column("When its first step was started.")] = None
    updated_at: Annotated[str, column("When its last event happened.")] = ""
    ended_at: Annotated[str | None, column("When it ended.")] = None
    wall_s: Annotated[float | None, column("Seconds from `started_at` to `ended_at`, once it ended.")] = None
    active_s: Annotated[
        float,
        column(
            "Seconds that attempts ran, all of them added up: the sum of `steps.duration_s`. Waiting is "
            "not in it, nor is an attempt that still runs or that a crash cut off."
        ),
    ] = 0.0
    steps_total: Annotated[int, column("Steps the handler has called.")] = 0
    steps_completed: Annotated[int, column("Of these, completed.")] = 0
    steps_failed: Annotated[int, column("Of these, failed for good.")] = 0
    steps_cancelled: Annotated[int, column("Of these, given up by the handler.")] = 0
    steps_running: Annotated[int, column("Of these, with an attempt that runs.")] = 0
    attempts: Annotated[int, column("Attempts begun: rows of `steps` with `started_at`.")] = 0
    retries: Annotated[int, column("Attempts that failed and were followed by another one.")] = 0
    recoveries: Annotated[int, column("Attempts interrupted by a crash or a shutdown.")] = 0
    signals: Annotated[int, column("Signals received.")] = 0
    cost_usd: Annotated[
        str, column("US dollars spent by all attempts, failed ones too: exact decimal text.", "money")
    ] = "0"
    input_tokens: Annotated[int, column("Tokens sent to models, by all attempts.")] = 0
    output_tokens: Annotated[int, column("Tokens received from models.")] = 0
    cache_tokens: Annotated[int, column("Tokens served from a cache.")] = 0
    turns: Annotated[int, column("Turns of agents.")] = 0
    owner: Annotated[str, column("The last owner: who executes it, or did.")] = ""
    generation: Annotated[int, column("How often it was taken up: 1 for the first owner.")] = 0
    trace_id: Annotated[str, column("W3C trace id, 32 hex digits.")] = ""
    runtime: Annotated[
        str, column("Versions of `python`, `anyio`, `refold`, and `code`, a digest: a JSON object.", "json")
    ] = "{}"
    cancel_requested: Annotated[
        str | None, column("Reason of the last request to cancel, or its kind when no reason was given.")
    ] = None
    events: Annotated[int, column("Events of the run that are folded into this row.")] = 0
    last_version: Annotated[int, column("Version of the last of them in the run's stream.")] = 0
    open: Annotated[str | None, column("Memory of the fold, not for users; may change.", "hidden")] = None
