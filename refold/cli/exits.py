"""What the exit codes mean; the same for every command."""

OK = 0
FAILED = 1
"""What was asked about failed: the run failed, `verify` found damage, a proof did not hold."""
USAGE = 2
"""The command line, the file or the value given cannot be used."""
REFUSED = 3
"""The store (or the run) did not allow it: missing, busy, damaged, no such run, already over."""
INTERRUPTED = 130
"""Ctrl-C."""
TERMINATED = 143
"""SIGTERM."""

EPILOG = (
    "exit codes: 0 fine · 1 what was asked about failed · 2 usage · 3 store or run refused · "
    "130 Ctrl-C · 143 SIGTERM"
)
