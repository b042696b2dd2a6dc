"""Arguments of the commands that look: `runs`, `show`, `events`, `workers`, `locks`."""

from typing import Any

from .frame import add, natural, positive

RUN_STATUSES = (
    "pending", "running", "waiting", "paused", "completed", "continued", "failed", "cancelled", "terminated",
    "compensating", "compensated", "compensation_failed",
)  # fmt: skip
BLOCKED = (
    "approval", "input", "event", "child", "timer", "retry", "in_doubt", "paused", "queue", "worker",
)  # fmt: skip
ATTENTIONS = ("any", "none", "retrying", "no_worker", "diverged", "missing_version", "in_doubt", "stuck")


def _runs(commands: Any) -> None:
    parser = add(
        commands, "runs", ".listing:runs", "list the runs of a store, those started last first",
        "  refold runs --status failed --status cancelled --since 2d\n  refold runs --attention any --json",
    )  # fmt: skip
    parser.add_argument(
        "--status", action="append", choices=RUN_STATUSES, metavar="STATUS",
        help=f"only runs that stand so: {', '.join(RUN_STATUSES)}; may be repeated",
    )  # fmt: skip
    parser.add_argument("--workflow", metavar="NAME", help="only runs of this workflow")
    parser.add_argument(
        "--attention", choices=ATTENTIONS, help="only runs that need it for this reason, or for any"
    )
    parser.add_argument("--blocked", choices=BLOCKED, help="only runs that wait for this")
    parser.add_argument(
        "--label", action="append", metavar="NAME=VALUE",
        help="only runs with this label (NAME:=JSON for a value that is no text); may be repeated",
    )  # fmt: skip
    parser.add_argument("--parent", metavar="RUN", help="only the children of this run")
    parser.add_argument("--family", metavar="RUN", help="this run and all below it")
    parser.add_argument("--trigger", metavar="WORD", help="only runs started by this: webhook, schedule …")
    parser.add_argument(
        "--lock", metavar="KEY", help="only runs that hold, or have held, this concurrency key"
    )
    parser.add_argument(
        "--since", metavar="TIME", help="only runs started since: 2026-01-31T12:00 (UTC), or 90s, 30m, 2h, 7d"
    )
    parser.add_argument("--before", metavar="TIME", help="only runs started before: the same")
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--all", action="store_true", help="those that were dismissed, too")
    group.add_argument("--dismissed", action="store_true", help="only those that were dismissed")
    parser.add_argument(
        "--limit", type=positive, default=50, metavar="N", help="at most so many (default: %(default)s)"
    )
    parser.add_argument("--cursor", help="go on after the page that ended with this")


def _workers(commands: Any) -> None:
    add(
        commands, "workers", ".workers:workers", "tell which process executes a store now, and what it holds",
        "  refold workers\n  refold workers --json | jq '.workers[].pid'",
    )  # fmt: skip


def _show(commands: Any) -> None:
    parser = add(
        commands, "show", ".showing:show",
        "show one run: status, steps with their attempts, waits, cost, timeline",
        "  refold show order-42\n  refold show order-42 --follow",
    )  # fmt: skip
    parser.add_argument("run", metavar="RUN", help="id of the run")
    parser.add_argument("--all", action="store_true", help="a row for every step, however many there are")
    parser.add_argument(
        "--follow", action="store_true",
        help="go on until the run ends (Ctrl-C: 130): live on a terminal, in a pipe a line for each event",
    )  # fmt: skip


def _events(commands: Any) -> None:
    parser = add(
        commands, "events", ".reading:events", "print the history of a run, event by event",
        "  refold events order-42\n  refold events order-42 --json | jq -r '.[].tag'",
    )  # fmt: skip
    parser.add_argument("run", metavar="RUN", help="id of the run")
    parser.add_argument(
        "--after", type=natural, default=0, metavar="N", help="only events after this version"
    )
    parser.add_argument("--limit", type=positive, metavar="N", help="at most so many")
    parser.add_argument("--inbox", action="store_true", help="what others have sent to the run instead")


def _locks(commands: Any) -> None:
    parser = add(
        commands, "locks", ".locks:locks", "list the concurrency keys that runs hold now, and since when",
        "  refold locks\n  refold locks /srv/data --json | jq -r '.locks[].holder'",
    )  # fmt: skip
    parser.add_argument("key", nargs="?", metavar="KEY", help="only this one")


COMMANDS = (_runs, _show, _events, _workers, _locks)
