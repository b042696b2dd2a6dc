"""Arguments of the commands about a whole store: `rebuild`, `verify`."""

from typing import Any

from .frame import add


def _rebuild(commands: Any) -> None:
    parser = add(
        commands, "rebuild", ".proving:rebuild",
        "build the read models anew from the log and swap them in, or check that they equal it",
        "  refold rebuild\n  refold rebuild --check runs steps",
    )  # fmt: skip
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help="runs, steps, step_edges, costs, work (default: all)"
    )
    parser.add_argument("--check", action="store_true", help="only compare every value; 1 when any differs")


def _verify(commands: Any) -> None:
    parser = add(
        commands, "verify", ".proving:verify",
        "check the hash of every event, that none is missing, and that the read models equal the log",
        "  refold verify\n  refold verify backup/shop.db",
    )  # fmt: skip
    parser.add_argument("store_argument", nargs="?", metavar="STORE", help="the store, also as --store")


COMMANDS = (_rebuild, _verify)
