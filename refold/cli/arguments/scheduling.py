"""Arguments of `refold schedules`: what starts runs by itself."""

from typing import Any

from .acting import by_option
from .frame import add, positive

ACTIONS = ("list", "show", "next", "pause", "resume", "trigger", "backfill", "delete")


def _schedules(commands: Any) -> None:
    parser = add(
        commands, "schedules", ".scheduling:schedules",
        "list the schedules of a store, look at one, pause, resume, trigger, backfill or delete it",
        "  refold schedules\n  refold schedules next nightly --count 3\n"
        "  refold schedules pause nightly --note stocktaking",
    )  # fmt: skip
    parser.add_argument(
        "action", metavar="ACTION", nargs="?", default="list", choices=ACTIONS,
        help=f"{', '.join(ACTIONS)} (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("name", metavar="NAME", nargs="?", help="of the schedule; all but list need it")
    parser.add_argument(
        "--count", type=positive, default=5, metavar="N", help="so many times ahead (default: %(default)s)"
    )
    parser.add_argument("--note", default="", metavar="TEXT", help="why, for pause, resume and delete")
    parser.add_argument(
        "--from", dest="first", metavar="TIME",
        help="where a backfill begins: 2026-01-31T12:00 (UTC), or how long ago: 30m, 2h, 7d",
    )  # fmt: skip
    parser.add_argument("--to", dest="last", metavar="TIME", help="where it ends: the same (default: now)")
    parser.add_argument("--all", action="store_true", help="list those that were deleted, too")
    by_option(parser, "asks")


COMMANDS = (_schedules,)
