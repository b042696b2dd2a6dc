"""A wire between a client and a PostgreSQL server that can be cut at a chosen request.

Where it is cut decides what is true: before the server has it (`request`), after the server has answered it
(`answer`: it is done, and the client never hears so), or while the server is at it (`client`: it may be done
later). A terminated backend cannot be told to be any of these.
"""

import socket
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from types import TracebackType
from typing import Self

NAME = ".s.PGSQL.5432"
CUTS = ("request", "answer", "client")


class Wire:
    """Listens in a folder of its own; `url` is that of the server, by way of here."""

    def __init__(self, url: str) -> None:
        start, _, rest = url.partition("host=")
        server, mark, more = rest.partition("&")
        self._server = f"{server}/{NAME}"
        self.folder = Path(tempfile.mkdtemp(prefix="refold-wire-"))
        self.url = f"{start}host={self.folder}{mark}{more}"
        self.happened = 0
        self._cut, self._pass = "", 0
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(self.folder / NAME))
        self._listener.listen(64)
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Nobody gets through any more."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # closing alone would not wake who waits for a call
        self._listener.close()
        rmtree(self.folder, ignore_errors=True)

    def cut(self, where: str, after: int = 0) -> None:
        """Cut the connection that sends the next request, `after` so many others."""
        self._cut, self._pass = where, after

    def at_least(self, cuts: int) -> bool:
        """Whether so many have happened."""
        return self.happened >= cuts

    def whole(self) -> None:
        """Cut nothing."""
        self._cut = ""

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(self._server)
            except OSError:
                client.close()
                continue
            call = _Call(self, client, server)
            for pump in (call.forward, call.back):
                threading.Thread(target=pump, daemon=True).start()

    def due(self) -> str:
        """Where to cut at this request; empty: not at this one."""
        cut = self._cut
        if cut and self._pass == 0:
            self._cut = ""
            self.happened += 1
            return cut
        self._pass -= bool(cut)
        return ""


class _Call:
    """One connection."""

    def __init__(self, wire: Wire, client: socket.socket, server: socket.socket) -> None:
        self._wire, self._client, self._server = wire, client, server
        self._deaf = False
        """The next answer is not passed on."""

    def forward(self) -> None:
        with suppress(OSError):
            while data := self._client.recv(1 << 16):
                cut = self._wire.due()
                if cut == "request":
                    break
                self._deaf = cut == "answer"
                self._server.sendall(data)
                if cut == "client":
                    _hang_up(self._client)
                    return  # the server goes on with what it has, and notices later
        if not self._deaf:
            self._close()

    def back(self) -> None:
        with suppress(OSError):
            while data := self._server.recv(1 << 16):
                if self._deaf:
                    break
                self._client.sendall(data)
        self._close()

    def _close(self) -> None:
        for end in (self._client, self._server):
            _hang_up(end)


def _hang_up(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
