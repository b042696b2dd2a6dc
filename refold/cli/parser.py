"""The commands with their options, examples and help; what they do is loaded only when they are called."""

import argparse
import importlib
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from .exits import EPILOG, USAGE
from .screen import Screen, complain

Command = Callable[[argparse.Namespace, Screen], int]

RUN_STATUSES = (
    "pending", "running", "waiting", "paused", "completed", "continued", "failed", "cancelled", "terminated",
    "compensating", "compensated", "compensation_failed",
)  # fmt: skip
ATTENTIONS = ("any", "none", "retrying", "no_worker", "diverged", "missing_version", "in_doubt", "stuck")


class Parser(argparse.ArgumentParser):
    """Complains like everything else here, and in one place."""

    def error(self, message: str) -> NoReturn:
        complain(f"{message}\n{self.format_usage().rstrip()}\ntry {self.prog} --help")
        self.exit(USAGE)


def parse(arguments: Sequence[str] | None) -> tuple[Command, argparse.Namespace]:
    """The function of the command and its arguments. Exits with 2 for a command line that cannot be read."""
    parser = build()
    args = parser.parse_args(arguments)
    if args.command is None:
        parser.print_help()
        parser.exit(USAGE)
    module, _, function = args.does.partition(":")
    command: Command = getattr(importlib.import_module(module, __package__), function)
    return command, args


def build() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = Parser(
        prog="refold",
        description="Durable execution that you embed: runs survive kill -9, and the log tells everything.",
        epilog=f"try: refold demo\n{EPILOG}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    for add in (_demo, _run, _runs, _show, _events, _signal, _cancel, _rebuild, _verify):
        add(commands)
    return parser


class _Version(argparse.Action):
    """`--version`, looked up only when asked for: `importlib.metadata` costs 47 ms."""

    def __init__(self, option_strings: Sequence[str], dest: str) -> None:
        super().__init__(option_strings, dest, nargs=0, help="print the version and exit")

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        from .. import __version__

        print(f"refold {__version__}")
        parser.exit()


def _add(
    commands: Any, name: str, does: str, help: str, example: str, *, store: bool = True
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=help,
        description=help[0].upper() + help[1:] + ".",
        epilog=f"example:\n{example}\n\n{EPILOG}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(does=does)
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    if store:
        parser.add_argument(
            "--store",
            metavar="STORE",
            help="path or URL of the store (default: $REFOLD_STORE, else refold.db)",
        )
    return parser


def _demo(commands: Any) -> None:
    parser = _add(
        commands, "demo", "refold.demo.director:demo",
        "run a real workflow that kills its own worker with SIGKILL, and finish it all the same",
        "  refold demo\n  refold demo --yes --folder somewhere", store=False,
    )  # fmt: skip
    parser.add_argument(
        "--folder", default="refold-demo", help="where everything goes (default: %(default)s)"
    )
    parser.add_argument("--yes", action="store_true", help="approve the release without being asked")


def _run(commands: Any) -> None:
    parser = _add(
        commands, "run", ".running:run",
        "execute a workflow of yours; killed and given again with the same --id, it goes on where it was",
        "  refold run app.py:checkout --id order-42 --input '[{\"total\": \"12.50\"}]'",
    )  # fmt: skip
    parser.add_argument(
        "target", metavar="FILE.py:WORKFLOW", help="the file (or module) and the workflow in it"
    )
    parser.add_argument(
        "--input", metavar="JSON", help="an array of the handler's arguments, or the only one; @FILE reads it"
    )
    parser.add_argument("--id", metavar="RUN", help="id of the run (default: a new one)")
    parser.add_argument("--key", help="idempotency key: the same key with the same input is the same run")
    parser.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="attribute of the run; may be repeated",
    )


def _runs(commands: Any) -> None:
    parser = _add(
        commands, "runs", ".reading:runs", "list the runs of a store, those started last first",
        "  refold runs --status waiting\n  refold runs --attention any --json",
    )  # fmt: skip
    parser.add_argument("--status", choices=RUN_STATUSES, help="only these")
    parser.add_argument("--workflow", metavar="NAME", help="only runs of this workflow")
    parser.add_argument(
        "--attention", choices=ATTENTIONS, help="only runs that need it for this reason, or for any"
    )
    parser.add_argument(
        "--limit", type=positive, default=50, metavar="N", help="at most so many (default: %(default)s)"
    )
    parser.add_argument("--cursor", help="go on after the page that ended with this")


def _show(commands: Any) -> None:
    parser = _add(
        commands, "show", ".reading:show",
        "show one run: status, steps with their attempts, waits, cost, timeline",
        "  refold show order-42\n  refold show order-42 --json | jq .run.status",
    )  # fmt: skip
    parser.add_argument("run", metavar="RUN", help="id of the run")
    parser.add_argument("--all", action="store_true", help="a row for every step, however many there are")


def _events(commands: Any) -> None:
    parser = _add(
        commands, "events", ".reading:events", "print the history of a run, event by event",
        "  refold events order-42\n  refold events order-42 --json | jq -r '.[].tag'",
    )  # fmt: skip
    parser.add_argument("run", metavar="RUN", help="id of the run")
    parser.add_argument(
        "--after", type=natural, default=0, metavar="N", help="only events after this version"
    )
    parser.add_argument("--limit", type=positive, metavar="N", help="at most so many")
    parser.add_argument("--inbox", action="store_true", help="what others have sent to the run instead")


def _signal(commands: Any) -> None:
    parser = _add(
        commands, "signal", ".sending:signal", "send a run an event; it is stored when the command ends",
        "  refold signal order-42 approve --payload '{\"by\": \"ana\"}'",
    )  # fmt: skip
    parser.add_argument("run", metavar="RUN", help="id of the run")
    parser.add_argument("name", metavar="NAME", help="name of the event the handler waits for")
    parser.add_argument("--payload", metavar="JSON", help="its payload (default: null)")
    parser.add_argument("--id", help="given twice, the event is delivered once")
    parser.add_argument("--by", help="who sends it (default: user:$USER)")


def _cancel(commands: Any) -> None:
    parser = _add(
        commands, "cancel", ".sending:cancel", "ask a run to stop; its handler may clean up first",
        "  refold cancel order-42 --reason 'customer called'",
    )  # fmt: skip
    parser.add_argument("run", metavar="RUN", help="id of the run")
    parser.add_argument("--reason", default="", help="why, for the history")
    parser.add_argument("--by", help="who asks (default: user:$USER)")


def _rebuild(commands: Any) -> None:
    parser = _add(
        commands, "rebuild", ".proving:rebuild",
        "build the read models anew from the log and swap them in, or check that they equal it",
        "  refold rebuild\n  refold rebuild --check runs steps",
    )  # fmt: skip
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="runs, steps, step_edges, costs, work (default: all)"
    )
    parser.add_argument("--check", action="store_true", help="only compare every value; 1 when any differs")


def _verify(commands: Any) -> None:
    parser = _add(
        commands, "verify", ".proving:verify",
        "check the hash of every event, that none is missing, and that the read models equal the log",
        "  refold verify\n  refold verify backup/shop.db",
    )  # fmt: skip
    parser.add_argument("store_argument", nargs="?", metavar="STORE", help="the store, also as --store")


def natural(text: str) -> int:
    """An integer from 0."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"expected 0 or more, got {value}")
    return value


def positive(text: str) -> int:
    """An integer from 1."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"expected 1 or more, got {value}")
    return value
