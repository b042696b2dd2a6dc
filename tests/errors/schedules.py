"""Messages about schedules, and the tests that meet them."""

_TESTS = {
    "engine/test_schedules.py::test_what_cannot_work_is_refused_before_anything_is_written": (
        "schedule name …: expected at most 150 characters",
        "schedule …: expected a @workflow",
        "a schedule needs one of cron=…",
        "cron=…: …; expected five fields",
        "cron=…: expected text",
        "cron=…: no such day ever comes",
        "timezone=…: no such time zone here",
        "…=…: expected a datetime with a time zone",
        "every=…: expected seconds, 0.1 or more",
        "anchor=… is where an interval is counted from",
        "catch_up=…: expected one of",
        "overlap=…: expected one of",
        "window=…: expected seconds",
        "schedules=[…] expects Schedule(…)",
        "next(…, …): expected how many times, …",
    ),
    "engine/test_schedules.py::test_without_its_library_a_cron_expression_says_what_to_install": (
        "cron=… needs the library cronsim",
    ),
    "engine/test_schedules_by_hand.py::test_code_declares_schedules_and_a_new_process_changes_what_differs": (
        "schedule … exists and does something else",
    ),
    "engine/test_schedules_by_hand.py::test_a_past_span_is_made_up_for_and_what_ran_then_is_left_out": (
        "backfill(…): expected a datetime with a time zone",
        "backfill(…, …): expected a span of the past",
        "schedule …: more than 10000 times between these",
    ),
    "cli/test_schedules.py::test_what_is_asked_for_wrongly_is_said_in_one_sentence": (
        "list takes no name",
        "… which schedule?",
        "backfill from when?",
    ),
}

SCHEDULES: dict[tuple[str, str], str] = {
    ("ActRefused", "schedule …: 100 runs asked for by hand"): (
        "engine/test_schedules.py::test_too_many_runs_asked_for_by_hand_are_refused"
    ),
    ("ScheduleNotFound", "no schedule … in this store"): (
        "engine/test_schedules_by_hand.py::test_a_deleted_schedule_is_not_found_and_its_name_can_be_used_again"
    ),
    **{("ConfigurationError", said): test for test, messages in _TESTS.items() for said in messages},
}
