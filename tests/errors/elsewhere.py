"""Messages that take more than a few lines to meet, and the tests that do; file under `tests`, function."""

from tests.errors.catalogue import Entry, entries
from tests.errors.schedules import SCHEDULES

_REPAIRS = "engine/test_rewound_again.py"
_OUTAGES = "ha/test_outages.py"
_UNDO = "engine/test_undo_again.py"

_TESTS: dict[tuple[str, str], str] = {
    ("ActRefused", "run … was rewound before that event"): (
        f"{_REPAIRS}::test_a_second_repair_remembers_what_the_first_one_used_up"
    ),
    ("ActRefused", "run …: event … is in a part that was rewound"): (
        f"{_REPAIRS}::test_nobody_goes_back_to_an_end_or_into_what_was_rewound"
    ),
    ("ActRefused", "run …: its handler ended with the event"): (
        f"{_REPAIRS}::test_nobody_goes_back_to_an_end_or_into_what_was_rewound"
    ),
    ("ActRefused", "run … waits for its child …, which is undone"): (
        f"{_REPAIRS}::test_a_parent_does_not_wait_for_a_child_that_is_undone"
    ),
    ("ActRefused", "run …: something it did has been undone"): (
        f"{_UNDO}::test_a_run_does_not_go_back_to_before_what_has_been_undone"
    ),
    ("ActRefused", "run …: … has been undone, and a fork"): (
        f"{_UNDO}::test_a_fork_does_not_take_for_done_what_has_been_undone"
    ),
    ("ConfigurationError", "the probe of step … returned …"): (
        "engine/test_probes.py::test_what_the_probe_cannot_tell_a_person_has_to"
    ),
    ("ConfigurationError", "durable_crash(kill=True): …"): (
        "testing/test_crash.py::test_what_cannot_be_compared_is_no_success"
    ),
    ("StoreError", "cannot write …: … waits for a standby"): (
        f"{_OUTAGES}::test_a_commit_that_no_standby_confirms_is_not_acknowledged_and_leaves_one_process_behind"
    ),
    ("StoreError", "…: … does not have event … of …"): (
        f"{_OUTAGES}::test_a_server_without_what_was_acknowledged_is_not_believed"
    ),
    ("StoreReadOnly", "…: … is a standby, which only follows"): (
        "ha/test_standby.py::test_a_copy_can_be_looked_at_and_says_how_far_behind_it_is"
    ),
    ("SchemaMismatch", "… has schema version …, this Refold expects …, and a standby"): (
        "ha/test_standby.py::test_a_copy_of_an_older_schema_says_what_to_do"
    ),
    ("StoreError", "the test crashed this process"): (
        "testing/test_engine.py::test_what_a_crash_cuts_off_is_told_and_what_was_not_stored_has_not_been"
    ),
    ("StoreCorrupt", "…, line …: the log ends without the content"): (
        "events/test_lines.py::test_a_reference_without_its_content_is_refused"
    ),
    ("StoreReadOnly", "… has schema version … and must be brought to"): (
        "events/test_upgrade.py::test_an_old_file_that_may_only_be_read_says_what_to_do"
    ),
    **SCHEDULES,
}

ELSEWHERE: dict[Entry, str] = {
    entry: test
    for entry in entries()
    for (kind, beginning), test in _TESTS.items()
    if entry[0] == kind and entry[1].startswith(beginning.rstrip("…"))
}
