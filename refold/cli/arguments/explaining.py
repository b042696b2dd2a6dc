"""Arguments of the command that explains a run: `why`."""

from typing import Any

from .frame import add


def _why(commands: Any) -> None:
    parser = add(
        commands, "why", ".why:why",
        "tell in words why a run stands where it stands: what it waits for, who executes it, what comes next",
        "  refold why order-42\n  refold why order-42 --json | jq -r '.said[]'",
    )  # fmt: skip
    parser.add_argument("run", metavar="RUN", help="id of the run")


COMMANDS = (_why,)
