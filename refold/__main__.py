"""`python -m refold` is `refold`."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
