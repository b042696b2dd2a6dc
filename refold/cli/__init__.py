"""The command line: `refold …`."""

import io
import os
import sys
from collections.abc import Sequence

from ..events.errors import ConfigurationError, RefoldError
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
        code = command(args, screen)
        screen.flush()
    except ConfigurationError as error:
        complain(error)
        return USAGE
    except RefoldError as error:
        complain(error)
        return REFUSED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or the exit would complain again
        return REFUSED
    except KeyboardInterrupt:
        complain("interrupted")
        return INTERRUPTED
    return code
