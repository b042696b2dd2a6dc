"""From a URL to a store."""

import os

from .errors import ConfigurationError
from .store import Reading, Store

FORMS = "memory://, sqlite:///relative.db, sqlite:////absolute/path.db, postgresql://…, or just a path"


def open_store(url: str | os.PathLike[str], *, create: bool = True) -> Store:
    """The store that a URL or a path names; a file that does not exist is made unless `create` is False.

    Raises `ConfigurationError` for any other form, a `StoreError` when the file cannot be used.
    """
    text = os.fspath(url)
    path = _sqlite_path(text)
    if path is None:
        return _other(text, create)
    # Not at the top: sqlite3 and the library's recorders cost 0.1 s, and importing refold should not.
    from .sqlite import SQLiteStore

    return SQLiteStore(path, create=create)


def open_reader(url: str | os.PathLike[str]) -> Reading:
    """The store that a URL or a path names, only to look at it: for commands that should be quick.

    Raises what `open_store` does; a file that does not exist is not made.
    """
    text = os.fspath(url)
    path = _sqlite_path(text)
    if path is None:
        return _other(text, create=False, reading=True)
    from .sqlite_reader import SQLiteReader

    return SQLiteReader(path)


def _sqlite_path(text: str) -> str | None:
    """Path of the file; None for a URL of another kind."""
    scheme, separator, rest = text.partition("://")
    if separator and scheme != "sqlite":
        return None
    if separator and not rest.startswith("/"):
        raise ConfigurationError(f"{text!r}: three slashes, please, as in sqlite:///{rest or 'refold.db'}")
    path = rest[1:] if separator else text
    if not path or path.startswith(":memory:") or path.startswith("file:"):
        raise ConfigurationError(f"{text!r} is not the path of a file; use {FORMS}")
    return path


def _other(text: str, create: bool, *, reading: bool = False) -> Store:
    scheme, _, rest = text.partition("://")
    if scheme == "memory":
        if rest:
            raise ConfigurationError(f"{text!r}: a memory store has no name; write memory://")
        from .memory import MemoryStore

        return MemoryStore()
    if scheme.partition("+")[0] in ("postgresql", "postgres"):
        return _postgres(text, create, reading)
    raise ConfigurationError(f"{_shown(text)}: no store is called {scheme!r}; use {FORMS}")


def _postgres(url: str, create: bool, reading: bool) -> Store:
    try:
        from .postgres import PostgresStore
    except ImportError as error:
        raise ConfigurationError(
            f"{_shown(url)}: the driver is missing ({error}): pip install 'refold[postgres]'"
        ) from error
    return PostgresStore(url, create=create, reading=reading)


def _shown(url: str) -> str:
    """The URL without what may be a password."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"
