"""Where a log on PostgreSQL is: the URL, and the statements with the name of its schema."""

import re
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, quote, urlencode, urlsplit, urlunsplit

from .errors import ConfigurationError

DEFAULT_SCHEMA = "refold"
PATIENCE_S = 10.0
"""How long a server may be silent before its connection is given up."""
LIBPQ = {
    "connect_timeout": "5", "tcp_user_timeout": "10000", "keepalives_idle": "10", "keepalives_interval": "5",
    "keepalives_count": "2",
}  # fmt: skip
"""Unless the URL says otherwise: a host that has vanished is noticed, also by who only listens."""

SQL = Path(__file__).with_name("sql")


_SECRET = ("password", "passfile", "sslkey", "sslpassword")
_STRAY = re.compile("%(?![0-9a-fA-F]{2})")
"""A % that begins no code."""
_PORT = re.compile(r"(^|^[^:\[\]]+|^\[[0-9a-fA-F:.%]+\])(:[0-9]*)?$")
"""A host, perhaps none, and perhaps its port."""


class Address:
    """Where a log is: what libpq is told, and which schema. Shown without the password."""

    def __init__(self, url: str) -> None:
        parts, options = _parts(url)
        self.schema = options.pop("schema", DEFAULT_SCHEMA)
        if not (self.schema.isidentifier() and self.schema.isascii() and len(self.schema) <= 56):
            raise ConfigurationError(
                f"schema={self.schema!r} in the URL: expected a name of ASCII letters, digits and underscores"
            )
        prepare = options.pop("prepare", "yes")
        if prepare not in ("yes", "no"):
            raise ConfigurationError(f"prepare={prepare!r} in the URL: expected yes or no")
        self.prepare = prepare == "yes"
        """No: behind a pooler that gives each transaction another connection."""
        self.patience_s = _seconds("patience", options.pop("patience", f"{PATIENCE_S:g}"))
        direct = options.pop("direct", "")
        user, _, hosts = parts.netloc.rpartition("@")
        if "," in hosts + options.get("host", "") + direct:
            options.setdefault("target_session_attrs", "read-write")
        given = {**LIBPQ, **options}
        rest = urlencode(given, quote_via=quote)
        self.dsn = urlunsplit(("postgresql", parts.netloc, parts.path, rest, ""))
        folder = direct if direct.startswith("/") else ""  # of a socket
        past = f"{user}@{direct.removeprefix(folder)}" if user else direct.removeprefix(folder)
        way = urlencode({**given, "host": folder}, quote_via=quote) if folder else rest
        self.direct = urlunsplit(("postgresql", past, parts.path, way, "")) if direct else ""
        """Past the pooler, for what needs a connection of its own; empty: there is no such way."""
        shown = f"{user.partition(':')[0]}@{hosts}" if user else hosts
        kept = {key: value for key, value in options.items() if key not in _SECRET}
        kept |= {"schema": self.schema} if self.schema != DEFAULT_SCHEMA else {}
        self.url = urlunsplit(("postgresql", shown, parts.path, urlencode(kept, quote_via=quote), ""))

    def key(self, what: str) -> int:
        """A number for an advisory lock of this schema."""
        return int.from_bytes(
            sha256(f"refold/{self.schema}/{what}".encode()).digest()[:8], "big", signed=True
        )


def _parts(url: str) -> tuple[SplitResult, dict[str, str]]:
    """The URL taken apart. One that is wrong is not told: where its password ends is not clear."""
    with suppress(ValueError):
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        hosts = parts.netloc.rpartition("@")[2]
        clear = not parts.fragment and "@" not in parts.path and parts.netloc.count("@") <= 1
        clear = clear and all(name.isidentifier() for name in options) and not _STRAY.search(url)
        if clear and all(_PORT.search(host) for host in hosts.split(",")):
            return parts, options
    raise ConfigurationError(
        "the URL of the server cannot be read: expected postgresql://USER:PASSWORD@HOST:PORT/DATABASE, "
        "perhaps with ?OPTION=…, and every @ : / ? # [ ] and % in a name or a password percent-encoded "
        "(%40 for @, %25 for %)"
    )


def _seconds(name: str, text: str) -> float | None:
    """Seconds that an option in the URL says; None for 0: without end."""
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found < 1e6:
        raise ConfigurationError(f"{name}={text!r} in the URL: expected seconds, or 0 for no end")
    return found or None


def named_queries(schema: str) -> dict[str, bytes]:
    """The statements of `sql/postgres.sql` by name, for this schema."""
    blocks = (block.split("\n", 1) for block in (SQL / "postgres.sql").read_text().split("-- name: ")[1:])
    return {name.strip(): in_schema(body, schema) for name, body in blocks}


def in_schema(sql: str, schema: str) -> bytes:
    """The SQL without comments, its tables in this schema."""
    lines = (line.strip() for line in sql.splitlines() if not line.lstrip().startswith("--"))
    return "\n".join(line for line in lines if line).replace("refold.", f'"{schema}".').encode()
