"""The columns of `runs`."""

from typing import Annotated

from msgspec import Struct

from .projection import column


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
            "`paused`, `compensating` (it undoes what it did), or how it ended: `completed`, `failed`, "
            "`cancelled`, `terminated`, `continued` (as `continued_to`), `compensated` or "
            "`compensation_failed`.",
            "run_status",
        ),
    ] = "pending"
    blocked_on: Annotated[
        str | None,
        column(
            'What a waiting run waits for: `{"type":"in_doubt","step":1,"key":"pay#1"}`, '
            '`{"type":"approval","gate":4,"name":"approval#1","approvals_needed":2,"due_at":…}` (or `input`; '
            '`due_at` when there is a deadline), `{"type":"event","wait":2,"name":"go","due_at":…}`, '
            '`{"type":"child","child":5,"run_id":…}`, `{"type":"retry","step":1,"due_at":…}` or '
            '`{"type":"timer","timer":3,"due_at":…}`; the first of these kinds that is open. One that is not '
            'to begin yet: `{"type":"timer","timer":0,"due_at":…}`; one that waits for a place in a queue '
            '`{"type":"queue","name":"emails","key":"ana"}`, or for a worker '
            '`{"type":"worker","tag":"gpu"}`. A paused run: `{"type":"paused"}`.',
            "json",
        ),
    ] = None
    blocked_type: Annotated[str, column("The `type` in it, or empty: to filter by.")] = ""
    blocked_since: Annotated[str | None, column("When the handler last came to wait.")] = None
    attention: Annotated[
        str,
        column(
            "`none`, `retrying` (a step failed and will be tried again), `diverged`, `missing_version`, "
            "`no_worker`, `in_doubt` (nobody knows what a step did: a person has to say) or `stuck`: why a "
            "run that is not over does not go on as it should.",
            "attention",
        ),
    ] = "none"
    attention_since: Annotated[str | None, column("Since when.")] = None
    attention_reason: Annotated[str | None, column("In words; for `retrying` the last error.")] = None
    attention_next_at: Annotated[str | None, column("When it will be tried again, if by itself.")] = None
    key: Annotated[str, column("Idempotency key given to `start`, or empty.")] = ""
    trigger: Annotated[
        str,
        column(
            "What started it: `manual`, `api`, `cli`, `webhook`, `schedule`, `event`, `parent`, `hook`, "
            "`retry`, `fork`, `continue_as_new`, or a word of the program's own."
        ),
    ] = ""
    triggered_by: Annotated[
        str | None,
        column(
            'What belongs to it: `{"kind":"webhook","path":"/orders"}`, `{"kind":"schedule","name":"nightly",'
            '"nominal_at":…}`; None: nothing, or another column has it.',
            "json",
        ),
    ] = None
    start_at: Annotated[str | None, column("Not to begin before; None: at once.")] = None
    queue: Annotated[str, column("The queue in which it waits for its place, or empty.")] = ""
    priority: Annotated[int, column("In its queue: the lower the sooner.")] = 0
    queue_key: Annotated[str, column("Whose run it is in its queue, or empty.")] = ""
    run_on: Annotated[str, column("Tag that a worker must have to execute it, or empty.")] = ""
    lock: Annotated[str, column("The concurrency key that it holds until it ends, or empty.")] = ""
    started_by: Annotated[str, column("Who started it.")] = ""
    attributes: Annotated[
        str, column("Labels, as given to `start` and changed since: a JSON object.", "json")
    ] = "{}"
    parent_id: Annotated[str, column("The run that started it as a child, or empty.")] = ""
    root_id: Annotated[str, column("The run at the top of its family: itself when it is no child.")] = ""
    depth: Annotated[int, column("Runs above it.")] = 0
    child: Annotated[int, column("Its number among the parent's commands (`children.child`), or 0.")] = 0
    detached: Annotated[int, column("1: its parent does not wait for it.", "flag")] = 0
    continued_from: Annotated[str, column("The run that it goes on for, or empty.")] = ""
    continued_to: Annotated[str, column("The run that goes on for it, or empty.")] = ""
    forked_from: Annotated[str, column("The run whose history it shares, or empty …")] = ""
    forked_at: Annotated[int, column("… up to this version.")] = 0
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
    ended_by: Annotated[str, column("Who terminated it, or empty.")] = ""
    timeout_s: Annotated[float, column("Limit of the whole run in seconds; 0: none.")] = 0.0
    deadline_at: Annotated[str, column("`started_at` and that, or empty.")] = ""
    run_attempt: Annotated[
        int, column("1, and one more for each time it was retried or reopened after its end.")
    ] = 1
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
    steps_skipped: Annotated[
        int, column("Steps that a person skipped, or that a condition left out (these are not in the total).")
    ] = 0
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
    children_total: Annotated[int, column("Children it has started, detached ones too.")] = 0
    children_running: Annotated[int, column("Of these, waited for now.")] = 0
    children_failed: Annotated[int, column("Of these, ended otherwise than completed or cancelled.")] = 0
    children_usd: Annotated[
        str,
        column(
            "US dollars spent by children and theirs, as far as they have ended; detached ones not.", "money"
        ),
    ] = "0"  # fmt: skip
    children_input_tokens: Annotated[int, column("The same for tokens sent to models …")] = 0
    children_output_tokens: Annotated[int, column("… received …")] = 0
    children_cache_tokens: Annotated[int, column("… and served from a cache, …")] = 0
    children_turns: Annotated[int, column("… and for turns of agents.")] = 0
    total_usd: Annotated[str, column("`cost_usd` and `children_usd`.", "money")] = "0"
    gates_open: Annotated[int, column("Gates that wait for people.")] = 0
    owner: Annotated[str, column("The last owner: who executes it, or did.")] = ""
    generation: Annotated[int, column("How often it was taken up: 1 for the first owner.")] = 0
    trace_id: Annotated[str, column("W3C trace id, 32 hex digits.")] = ""
    runtime: Annotated[
        str, column("Versions of `python`, `anyio`, `refold`, and `code`, a digest: a JSON object.", "json")
    ] = "{}"
    cancel_requested: Annotated[
        str | None, column("Reason of the last request to cancel, or its kind when no reason was given.")
    ] = None
    paused_since: Annotated[str | None, column("Since when it is paused.")] = None
    paused_by: Annotated[str, column("Who paused it, or empty.")] = ""
    dismissed: Annotated[int, column("1: left out of lists, unless asked for.", "flag")] = 0
    patches: Annotated[
        str, column("Changes of its code that it has met, by `ctx.patched`: a JSON array of names.", "json")
    ] = "[]"
    last_checkpoint: Annotated[str, column("Name of the last checkpoint, or empty.")] = ""
    compensation_because: Annotated[
        str, column("Once it undoes what it did: how it had ended, `failed`, `cancelled` or `completed`.")
    ] = ""
    compensation_total: Annotated[int, column("Steps to undo.")] = 0
    compensation_done: Annotated[int, column("Of these, undone.")] = 0
    compensation_failed: Annotated[
        str, column("Keys of the steps that could not be undone: a JSON array.", "json")
    ] = "[]"
    events: Annotated[int, column("Events of the run that are folded into this row.")] = 0
    last_version: Annotated[int, column("Version of the last of them in the run's stream.")] = 0
    open: Annotated[str | None, column("Memory of the fold, not for users; may change.", "hidden")] = None
