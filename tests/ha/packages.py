"""Programs that a test brings along from Debian's packages."""

import os
import shutil
import subprocess
from functools import cache

import pytest

PLACES = "/usr/bin:/bin:/usr/sbin:/sbin:/usr/local/bin"


@cache
def program(name: str, *packages: str) -> str:
    """Path of a program, installed with apt-get when it is not there. Else skips loudly."""
    if found := shutil.which(name, path=PLACES):
        return found
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        pytest.skip(f"LOUD: no {name}: apt-get install {' '.join(packages)}")
    install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages]
    # At this run level Debian's packages do not start what they install.
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for command in (install, ["apt-get", "update", "-qq"], install):
        done = subprocess.run(command, env=quiet, check=False, capture_output=True, timeout=600)
        if found := shutil.which(name, path=PLACES):
            return found
    pytest.skip(f"LOUD: apt-get install {' '.join(packages)} failed: {done.stderr.decode()[-300:]}")
