"""The command line: `refold …`."""

import sys


def main() -> int:
    """Entry point of the console script; the commands are still to come."""
    print("refold: no commands yet", file=sys.stderr)
    return 2
