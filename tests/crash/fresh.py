"""One executing process, started from nothing: `python -m tests.crash.fresh CASE`, with a case as JSON.

It says `open` when it executes and `end` when the run has ended and every check has been made.
"""

import logging
import sys
from pathlib import Path

import msgspec

from tests.crash.case import Case
from tests.crash.scene import Scene
from tests.crash.server import executor


def main() -> None:
    logging.disable(logging.WARNING)
    case = msgspec.json.decode(sys.argv[1], type=Case)
    executor(case, Scene(Path(case.folder)), last=True, opened=lambda: print("open", flush=True))
    print("end", flush=True)


if __name__ == "__main__":
    main()
