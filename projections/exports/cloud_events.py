"""Events as CloudEvents 1.0: JSON in structured mode, one event a line, for brokers and event stores."""

import re
from base64 import b64encode
from collections.abc import Iterable, Iterator
from hashlib import sha256
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Raw

from ...events.stream import INBOX, NO_RUNS, Row

_encode = msgspec.json.Encoder().encode
_TRACE = re.compile(r"(?!0{32})[0-9a-f]{32}")


class _Head(msgspec.Struct, frozen=True, gc=False):
    """What the envelope takes from the event."""

    id: str = ""
    at: str = ""
    trace: str = ""
    run_id: str = ""


_read_head = msgspec.json.Decoder(_Head).decode


def cloud_events(rows: Iterable[Row]) -> Iterator[str]:
    """Each row as a line of JSON. Large values stay references, as they are in the log."""
    for row in rows:
        yield _encode(cloud_event(row)).decode() + "\n"


def cloud_event(row: Row) -> dict[str, Any]:
    """The envelope; `source` and `id` together name the event, for ever and in every store.

    `traceparent` is that of the Distributed Tracing extension, its parent id made from the event's id;
    `sequence` that of the Sequence extension: the version, which is dense in each source.
    """
    try:
        head, body = _read_head(row.state), {"data": Raw(row.state.replace(b"\n", b" ").replace(b"\r", b" "))}
        msgspec.json.decode(row.state)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):  # of a newer Refold, or a store's own
        head, body = _Head(), {"data_base64": b64encode(row.state).decode()}  # type: ignore[dict-item]
    outside = row.stream.startswith(NO_RUNS)
    event: dict[str, Any] = {
        "specversion": "1.0",
        "id": head.id or f"{row.stream}@{row.version}",
        "source": "/refold/" + quote(row.stream if outside else f"run/{row.stream}", safe="/"),
        "type": f"refold.{row.tag}",
        "subject": (head.run_id or row.stream) if outside else row.stream.removesuffix(INBOX),
    }
    if head.at:
        event["time"] = head.at
    if _TRACE.fullmatch(head.trace):
        event["traceparent"] = f"00-{head.trace}-{_span(event['id'])}-01"
    return event | {"sequence": f"{row.version:010}", "datacontenttype": "application/json", **body}


def _span(id: str) -> str:
    """16 hexadecimal digits, not all zero."""
    digits = sha256(id.encode()).hexdigest()[:16]
    return digits if digits.strip("0") else "1".zfill(16)
