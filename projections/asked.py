"""What may be asked for: known words, times, sizes of pages; anything else is refused, with what may."""

from collections.abc import Collection, Iterable
from datetime import UTC, datetime

from ..events.errors import ValueRefused
from .reading import utc


def one_of(name: str, value: str | None, known: Iterable[str]) -> None:
    """Raises `ValueRefused` for a word that can never be found: an empty list would hide the slip."""
    if value is not None and value not in (words := [str(word) for word in known]):
        raise ValueRefused(f"{name}: there is no {value!r}; there are {', '.join(words)}")


def some_of(name: str, values: str | Collection[str] | None, known: Iterable[str]) -> tuple[str, ...]:
    """The words asked for, each once; none when all are wanted."""
    if values is None:
        return ()
    found = tuple(dict.fromkeys([values] if isinstance(values, str) else values))
    if not found:
        raise ValueRefused(f"{name}: none is asked for; leave it out for all, or name some")
    words = tuple(known)
    for value in found:
        one_of(name, value, words)
    return tuple(map(str, found))


def page_size(limit: object) -> None:
    """Raises `ValueRefused` unless it is a whole number from 1."""
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise ValueRefused(f"limit: expected a whole number from 1, got {limit!r}")


def moment_asked(name: str, at: str | datetime | None) -> str | None:
    """A time as the tables have it; one that names no zone is of UTC."""
    if at is None:
        return None
    try:
        found = at if isinstance(at, datetime) else datetime.fromisoformat(at)
    except (ValueError, TypeError) as error:
        raise ValueRefused(
            f"{name}: {at!r} is no time; expected one such as 2026-01-31 or 2026-01-31T12:00:00Z"
        ) from error
    aware = found if found.tzinfo is not None else found.replace(tzinfo=UTC)
    return utc(aware.isoformat(timespec="microseconds"))
