"""Arguments of the command about queues: `queues`."""

import argparse
from typing import Any

from .acting import by_option
from .frame import add, natural, positive


def _queues(commands: Any) -> None:
    parser = add(
        commands, "queues", ".queueing:queues",
        "list the queues of a store with their limits, or set the limits of one",
        "  refold queues\n  refold queues set emails --concurrency 4 --per-key 2 --rate 10/60",
    )  # fmt: skip
    parser.add_argument(
        "verb", nargs="?", choices=("list", "set"), default="list", metavar="ACTION",
        help="list, or set (default: list)",
    )  # fmt: skip
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="of the queue: to show only this one, or to set"
    )
    parser.add_argument(
        "--concurrency", type=natural, metavar="N",
        help="how many of its runs may have begun and not ended; 0 holds the queue (default: any number)",
    )  # fmt: skip
    parser.add_argument(
        "--per-key", type=positive, metavar="N",
        help="the same for the runs of one queue key (default: any number)",
    )  # fmt: skip
    parser.add_argument(
        "--rate", type=_rate, metavar="N/SECONDS",
        help="how many may begin in a time: 10/60 is ten a minute (default: any number)",
    )  # fmt: skip
    by_option(parser, "sets them")


def _rate(text: str) -> tuple[int, float]:
    count, _, seconds = text.partition("/")
    try:
        return int(count), float(seconds)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected N/SECONDS, 10/60 for one, got {text}") from None


COMMANDS = (_queues,)
