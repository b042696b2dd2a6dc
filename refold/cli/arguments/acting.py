"""Arguments of what people say to a run: `signal`, `approve`, `reject`, `answer`, `cancel`."""

import argparse
from typing import Any

from .frame import add


def _signal(commands: Any) -> None:
    parser = add(
        commands, "signal", ".sending:signal", "send a run an event; it is stored when the command ends",
        "  refold signal order-42 approve --payload '{\"by\": \"ana\"}'",
    )  # fmt: skip
    run_argument(parser)
    parser.add_argument("name", metavar="NAME", help="name of the event the handler waits for")
    parser.add_argument("--payload", metavar="JSON", help="its payload (default: null)")
    parser.add_argument("--id", help="given twice, the event is delivered once")
    by_option(parser, "sends it")


def _approve(commands: Any) -> None:
    parser = add(
        commands, "approve", ".voting:approve", "vote for it at a gate of a run that waits for people",
        "  refold approve page-7\n  refold approve page-7 --gate legal --select web --by ana",
    )  # fmt: skip
    _vote(parser)
    parser.add_argument(
        "--select", action="append", default=[], metavar="OPTION",
        help="one of the options that the gate offers; may be repeated",
    )  # fmt: skip
    _shown(parser)


def _reject(commands: Any) -> None:
    parser = add(
        commands, "reject", ".voting:reject", "vote against it: one rejection closes the gate",
        "  refold reject page-7 --feedback 'too early'",
    )  # fmt: skip
    _vote(parser)
    _shown(parser)


def _answer(commands: Any) -> None:
    parser = add(
        commands, "answer", ".voting:answer", "answer a run that waits for input",
        "  refold answer parcel-3 '{\"street\": \"Hauptgasse\", \"number\": 4}'",
    )  # fmt: skip
    run_argument(parser)
    parser.add_argument("value", metavar="JSON", help="the answer")
    _gate(parser)


def _cancel(commands: Any) -> None:
    parser = add(
        commands, "cancel", ".sending:cancel", "ask a run to stop; its handler may clean up first",
        "  refold cancel order-42 --reason 'customer called'",
    )  # fmt: skip
    run_argument(parser)
    reason_option(parser)
    by_option(parser, "asks")


def _vote(parser: argparse.ArgumentParser) -> None:
    run_argument(parser)
    _gate(parser)


def _gate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--gate", metavar="NAME", help="its name, number or token (default: the only one that is open)"
    )
    parser.add_argument("--feedback", default="", metavar="TEXT", help="for whoever reads the decision")
    by_option(parser, "votes")


def _shown(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--digest", default="", help="of what you were shown: refused when the gate shows something else"
    )


def run_argument(parser: argparse.ArgumentParser) -> None:
    """`RUN`."""
    parser.add_argument("run", metavar="RUN", help="id of the run")


def reason_option(parser: argparse.ArgumentParser) -> None:
    """`--reason`."""
    parser.add_argument("--reason", default="", metavar="TEXT", help="why, for the history")


def by_option(parser: argparse.ArgumentParser, who: str) -> None:
    """`--by`."""
    parser.add_argument("--by", metavar="WHO", help=f"who {who} (default: user:$USER)")


COMMANDS = (_signal, _approve, _reject, _answer, _cancel)
