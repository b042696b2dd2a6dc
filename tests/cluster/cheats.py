"""Sabotage: each breaks one mechanism in the process it is called in; the checks must notice."""

from collections.abc import Callable, Sequence

from msgspec import structs

from refold.events import postgres, postgres_address
from refold.events.log import Log
from refold.events.postgres import PostgresStore
from refold.events.store import Append, Refusal, Unit
from refold.events.stream import Row, Tail, row_hash

BY_NAME: dict[str, Callable[[], None]] = {}


def cheat(fn: Callable[[], None]) -> Callable[[], None]:
    BY_NAME[fn.__name__] = fn
    return fn


class Unfenced(PostgresStore):
    """Appends go behind whatever is there, at whichever version that is."""

    def commit(self, units: Sequence[Unit]) -> list[Refusal | None]:
        for _ in range(20):
            refusals = super().commit(self._behind(units))
            if not any(refusals):  # else somebody was there in between
                break
        return refusals

    def _behind(self, units: Sequence[Unit]) -> list[Unit]:
        tails: dict[str, Tail] = {}
        return [
            structs.replace(unit, appends=tuple(self._moved(append, tails) for append in unit.appends))
            for unit in units
        ]

    def _moved(self, append: Append, tails: dict[str, Tail]) -> Append:
        start = tail = tails.get(append.stream) or self.tail(append.stream)
        rows: list[Row] = []
        for row in append.rows:
            version = tail.version + 1
            digest = row_hash(tail.hash, append.stream, version, row.tag, row.state)
            rows.append(Row(append.stream, version, row.tag, row.state, digest))
            tail = tails[append.stream] = Tail(version, digest)
        return Append(append.stream, start.version, rows, start.hash)


@cheat
def without_the_fence() -> None:
    """No append is checked against the version, or the hash, it was meant to follow."""
    postgres.PostgresStore = Unfenced  # type: ignore[misc]


@cheat
def loses_updates() -> None:
    """What was refused is acknowledged."""
    commit = PostgresStore.commit

    def hopeful(self: PostgresStore, units: Sequence[Unit]) -> list[Refusal | None]:
        return [None for _ in commit(self, units)]

    PostgresStore.commit = hopeful  # type: ignore[method-assign]


@cheat
def reads_what_was() -> None:
    """Every other read of a stream gives what the one before gave, as a standby that is behind does."""
    read, before = PostgresStore.read, dict[tuple[str, int, int | None], list[Row]]()

    def stale(self: PostgresStore, stream: str, after: int = 0, limit: int | None = None) -> list[Row]:
        kept = before.pop((stream, after, limit), None)
        if kept is None:
            kept = before[stream, after, limit] = read(self, stream, after, limit)
        return kept

    PostgresStore.read = stale  # type: ignore[assignment,method-assign]


@cheat
def tries_again_blindly() -> None:
    """What became of a commit whose answer was lost is not looked up."""
    Log._stored = lambda self, unit, inboxes: False  # type: ignore[method-assign]


@cheat
def ignores_leases() -> None:
    """Whoever has a run, it is taken."""
    named = postgres_address.named_queries

    def queries(schema: str) -> dict[str, bytes]:
        lives = b"AND until > clock_timestamp()"
        assert lives in named(schema)["take"]
        return {name: query.replace(lives, b"AND FALSE") for name, query in named(schema).items()}

    postgres.named_queries = queries  # type: ignore[attr-defined]


@cheat
def keeps_nobody_apart() -> None:
    """Neither leases nor the fence."""
    without_the_fence()
    ignores_leases()
