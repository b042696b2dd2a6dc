"""`refold init [FOLDER]`: write a small project to begin with; never over what is there."""

import argparse
import shlex
from pathlib import Path

from ..events.errors import ConfigurationError
from .exits import OK
from .project import CODE, FILES
from .screen import Screen
from .text import as_json, visible

RUN = "refold run app.py:checkout --id order-1 --input '\"tea\"'"


def init(args: argparse.Namespace, screen: Screen) -> int:
    """`refold init`."""
    folder = Path(args.folder)
    written, kept = _write(folder)
    here = folder.resolve() == Path.cwd().resolve()
    enter = [] if here else [f"cd {shlex.quote(str(folder))}"]
    then = [
        (RUN, "charges, sleeps, and waits for you; kill it and give it again"),
        ("refold approve order-1", "from another terminal: it ships"),
        ("refold show order-1", "what happened"),
        ("pytest", "the project's tests (pip install pytest)"),
    ]
    if args.json:
        commands = [*enter, *(command for command, _ in then)]
        screen.raw(as_json({"folder": str(folder), "written": written, "kept": kept, "next": commands}))
        return OK
    screen.print(
        screen.mark(True), f" wrote {', '.join(written)}" + ("" if here else f" in {visible(folder)}")
    )
    if kept:
        screen.print(f"  left as they are: {', '.join(kept)}")
    screen.print()
    for command in enter:
        screen.print("  ", (visible(command), "bold"))
    width = max(len(command) for command, _ in then)
    for command, what in then:
        screen.print("  ", (f"{command:<{width}}", "bold"), (f"  # {what}", "dim"))
    return OK


def _write(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the files that were written, and of those that were there. Raises `ConfigurationError`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        there = [name for name in FILES if (folder / name).exists() or (folder / name).is_symlink()]
        if taken := [name for name in there if name in CODE]:
            raise ConfigurationError(
                f"{folder}: {' and '.join(taken)} there already, and nothing is ever overwritten; "
                "name another one: refold init FOLDER"
            )
        for name, text in FILES.items():
            if name not in there:
                with open(folder / name, "x", encoding="utf-8") as file:
                    file.write(text)
    except OSError as error:
        raise ConfigurationError(
            f"cannot write a project to {folder}: {error.strerror}; name another one: refold init FOLDER"
        ) from None
    return [name for name in FILES if name not in there], there
