"""What an engine and its processes for steps say to each other first, and how frames go over their socket."""

import socket
import struct

from msgspec import Struct

LENGTH = struct.Struct(">I")
EXECUTABLE_SAYS = (
    "import sys; sys.path[:] = {path!r}; from refold.engine.process_main import serve; serve({fd}, {parent})"
)
"""What the interpreter of such a process is started with: the same modules must be found there."""


class Prepare(Struct, frozen=True, kw_only=True):
    """The first frame: what a process is to know, and to import before it is ready."""

    module: str
    """Of the first body."""
    main: str
    """The program's main module, by its name …"""
    main_path: str
    """… or by its file."""
    argv: list[str]
    log_level: int


def send(sock: socket.socket, data: bytes) -> None:
    """One frame."""
    sock.sendall(LENGTH.pack(len(data)) + data)
