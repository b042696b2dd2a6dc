"""Arguments of what operators do to a run: `pause`, `resume`, `terminate`, steps, repairs."""

import argparse
from typing import Any

from .acting import by_option, reason_option, run_argument
from .frame import add, positive


def _pause(commands: Any) -> None:
    parser = add(
        commands, "pause", ".operating:pause", "hold a run: nothing new begins until it is resumed",
        "  refold pause order-42 --reason stocktaking",
    )  # fmt: skip
    run_argument(parser)
    _about(parser)


def _resume(commands: Any) -> None:
    parser = add(
        commands, "resume", ".repairing:resume", "let a paused run go on, or retry one that has failed",
        "  refold resume order-42\n  refold resume --workflow checkout",
    )  # fmt: skip
    parser.add_argument("run", metavar="RUN", nargs="?", help="id of the run")
    parser.add_argument(
        "--workflow", metavar="NAME", help="instead of RUN: the only paused or failed run of this workflow"
    )
    _about(parser)


def _terminate(commands: Any) -> None:
    parser = add(
        commands, "terminate", ".operating:terminate", "end a run at once; its handler is not asked",
        "  refold terminate order-42 --reason 'started by mistake'",
    )  # fmt: skip
    run_argument(parser)
    _about(parser)


def _skip(commands: Any) -> None:
    parser = add(
        commands, "skip", ".operating:skip", "give an open step its result by hand; it does not run any more",
        "  refold skip order-42 charge#1 --result '\"paid in cash\"'",
    )  # fmt: skip
    run_argument(parser)
    _step(parser)
    _result(parser)
    _about(parser)


def _reset(commands: Any) -> None:
    parser = add(
        commands, "reset", ".operating:reset",
        "run a step again that has ended; what it led to is dropped from the run's past",
        "  refold reset order-42 weigh#1 --reason 'the scales were wrong'",
    )  # fmt: skip
    run_argument(parser)
    _step(parser)
    _about(parser)


def _resolve(commands: Any) -> None:
    parser = add(
        commands, "resolve", ".operating:resolve", "say what became of a step in doubt",
        "  refold resolve order-42 pay#1 completed --result '\"receipt 7\"'\n"
        "  refold resolve order-42 pay#1 retry",
    )  # fmt: skip
    run_argument(parser)
    _step(parser)
    parser.add_argument(
        "outcome",
        metavar="OUTCOME",
        choices=("completed", "failed", "retry"),
        help="completed, failed, retry",
    )
    _result(parser)
    _about(parser)


def _retry(commands: Any) -> None:
    parser = add(
        commands, "retry", ".repairing:retry",
        "bring back a run that failed, was cancelled or terminated; what it completed is kept",
        "  refold retry order-42 --reason 'card replaced'\n  refold retry order-42 --at 12",
    )  # fmt: skip
    run_argument(parser)
    parser.add_argument(
        "--at", type=positive, metavar="N", help="go back to this event (default: before what failed)"
    )
    parser.add_argument(
        "--discard", action="store_true", help="from the beginning (or --at), with nothing kept but events"
    )
    _about(parser)


def _compensate(commands: Any) -> None:
    parser = add(
        commands, "compensate", ".repairing:compensate", "undo what a run did, the last of it first",
        "  refold compensate order-42 --reason 'customer withdrew'",
    )  # fmt: skip
    run_argument(parser)
    _about(parser)


def _fork(commands: Any) -> None:
    parser = add(
        commands, "fork", ".repairing:fork", "make a new run that shares a run's past, and goes on by itself",
        "  refold fork order-42\n  refold fork order-42 --at 12 --id order-42-again",
    )  # fmt: skip
    run_argument(parser)
    parser.add_argument(
        "--at", type=positive, metavar="N", help="up to this event (default: all but its end)"
    )
    parser.add_argument("--id", metavar="NEW", help="id of the new run (default: a new one)")
    parser.add_argument("--lock", metavar="KEY", help="concurrency key that it holds (default: none)")
    by_option(parser, "asks")


def _step(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("step", metavar="STEP", help="key of the step, such as charge#1")


def _result(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--result", metavar="JSON", help="what it came to (default: null)")


def _about(parser: argparse.ArgumentParser) -> None:
    reason_option(parser)
    by_option(parser, "asks")


COMMANDS = (_pause, _resume, _terminate, _skip, _reset, _resolve, _retry, _compensate, _fork)
