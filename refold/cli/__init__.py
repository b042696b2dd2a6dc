"""The command line: `refold …`."""

import io
import os
import sys
from argparse import Namespace
from collections.abc import Sequence
from contextlib import suppress

from ..events.errors import ConfigurationError, RefoldError, RunNotFound, ValueRefused
from .exits import INTERRUPTED, REFUSED, USAGE
from .parser import parse
from .screen import Screen, complain


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code. A user's mistake is a sentence, never a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    command, args = parse(arguments)
    screen = Screen(sys.stdout)
    try:
        _check_run(args)
        code = command(args, screen)
        screen.flush()
    except (ConfigurationError, ValueRefused) as error:
        complain(error)
        return USAGE
    except RefoldError as error:
        complain(error)
        return REFUSED
    except BrokenPipeError:
        _drop_output()
        return REFUSED
    except OSError as error:
        complain(
            f"{error}; look at the disk, at who may write there, and whether the current folder is there"
        )
        _drop_output()
        return REFUSED
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED
    return code


def _check_run(args: Namespace) -> None:
    """Ids are UTF-8 in any locale. Raises `RunNotFound` for bytes that are no text: no run is called so."""
    run = getattr(args, "run", None)
    if isinstance(run, str) and any("\ud800" <= character <= "\udfff" for character in run):
        try:
            args.run = os.fsencode(run).decode()
        except UnicodeError:
            raise RunNotFound(run) from None


def _drop_output() -> None:
    """What could not be written is not tried again at the exit, which would complain once more."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
