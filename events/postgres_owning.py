"""A PostgreSQL server seen as a whole: who has a log for himself, who executes it, how safe it is there."""

from abc import abstractmethod
from typing import Any

import psycopg
from msgspec.structs import asdict

from .errors import ConfigurationError, StoreBusy
from .hold import Holder, this_process
from .postgres_connect import Patient
from .postgres_health import Behind, Health, behind, health
from .postgres_leases import Leases
from .postgres_server import Server


class Owning:
    """What a `PostgresStore` can say and do about the whole log."""

    url: str
    leases: Leases
    _server: Server
    _queries: dict[str, bytes]
    _holding: Patient | None = None

    @abstractmethod
    def _rows(self, query: str, **parameters: Any) -> list[tuple[Any, ...]]:
        """What a query of `sql/postgres.sql` finds."""

    def hold(self, owner: str) -> None:
        """Have the whole log for oneself: a lock of a session of ours, gone with the process.

        Raises `StoreBusy` while anybody executes it.
        """
        server = self._server
        if self._holding is not None:
            raise self._busy(*self._executor())
        try:
            if not server.direct:
                raise ConfigurationError(
                    f"{self.url} leads through a pooler, where nobody can have a log for himself: add "
                    "direct=HOST:PORT, or give the server's own address"
                )
            connection = server.connect_directly()
            try:
                self._hold_with(connection, owner)
            except BaseException:
                connection.close()
                raise
        except psycopg.Error as error:
            raise server.typed(error, "hold") from error
        self._holding = connection

    def _hold_with(self, connection: Patient, owner: str) -> None:
        key = {"key": self._server.address.key("executor")}
        if connection.execute(self._queries["hold"], key).fetchone() != (True,):
            raise self._busy(*self._executor())
        if living := self._rows("living"):
            raise self._busy(*_named(*living[0]))
        connection.execute(self._queries["set_executor"], asdict(this_process(owner)))

    def _busy(self, name: str, holder: Holder) -> StoreBusy:
        return StoreBusy(f"{self.url} is held by {name}: stop that one first", name)

    def _executor(self) -> tuple[str, Holder]:
        found = self._rows("executor")
        return _named(*found[0]) if found else ("another process", Holder())

    def executors(self) -> list[Holder]:
        """Who executes this log now."""
        return [_named(*found)[1] for found in self._rows("living")]

    def holder(self) -> Holder | None:
        """One of them; None: nobody."""
        return next(iter(self.executors()), None)

    def holding(self) -> bool:
        """Whether this object has the whole log for itself."""
        return self._holding is not None and not self._holding.closed

    def release(self) -> None:
        """Stop being an executor, or the only one."""
        connection, self._holding = self._holding, None
        if connection is not None:
            connection.close()
        self.leases.leave()

    def behind(self) -> Behind | None:
        """How old what can be read here may be; None: it is the primary."""
        return behind(self._server)

    def health(self) -> Health:
        """What the server says of how safe the log is there."""
        return health(self._server)


def _named(owner: str, pid: int, host: str, since: str) -> tuple[str, Holder]:
    return f"{owner} (pid {pid} on {host}, since {since})", Holder(owner, pid, host, since)
