"""Arguments of the command for shells: `completion`."""

from typing import Any

from .frame import add


def _completion(commands: Any) -> None:
    parser = add(
        commands, "completion", ".completion:completion",
        "print a script that completes commands, options and run ids in your shell",
        '  eval "$(refold completion bash)"\n  refold completion zsh > _refold',
    )  # fmt: skip
    parser.add_argument(
        "shell", metavar="SHELL", nargs="?", choices=("bash", "zsh", "fish"), help="bash, zsh, fish"
    )
    parser.add_argument(
        "--runs",
        metavar="PREFIX",
        help="instead: ids of runs that begin so, a line each; the scripts ask for it",
    )


COMMANDS = (_completion,)
