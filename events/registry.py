"""The closed table from stored tags to event types; nothing from a row is ever imported."""

from collections.abc import Callable
from typing import Any

import msgspec

from .errors import StoreCorrupt, UnknownEvent
from .types import CAUSES, COMMANDS, FACTS, Event

Upcaster = Callable[[dict[str, Any]], dict[str, Any]]

_encode = msgspec.json.Encoder().encode

TYPES: dict[str, type[Event]] = {kind.TAG: kind for kind in (*CAUSES, *COMMANDS, *FACTS)}
"""Tag of the current version of every event type."""

_decoders: dict[str, msgspec.json.Decoder[Any]] = {
    tag: msgspec.json.Decoder(kind) for tag, kind in TYPES.items()
}
_upcasters: dict[str, tuple[str, Upcaster]] = {}


class Unknown(msgspec.Struct, frozen=True):
    """An event this code does not know, kept and shown as it is; it blocks only its own run."""

    tag: str
    body: dict[str, Any]


def encode_event(event: Event) -> bytes:
    """The event as JSON; its tag is stored beside it, not in it."""
    return _encode(event)


def decode_event(tag: str, state: bytes, where: object = "?") -> Event:
    """The event, lifted to the current version of its type.

    Raises `UnknownEvent` for a tag that is not registered, `StoreCorrupt` for a body that does
    not fit its type. `where` is for the message: a text, or the row itself.
    """
    decoder = _decoders.get(tag)
    try:
        if decoder is not None:
            event: Event = decoder.decode(state)
            return event
        return _upcast(tag, state, where)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise StoreCorrupt(
            f"event {tag!r} at {_place(where)} does not fit its type: {error}; restore a backup"
        ) from error


def look_at_event(tag: str, state: bytes, where: object = "?") -> Event | Unknown:
    """Like `decode_event`, but an unknown type comes back as `Unknown`: for people and folds."""
    try:
        return decode_event(tag, state, where)
    except UnknownEvent:
        return Unknown(tag, _body(tag, state, where))


def _body(tag: str, state: bytes, where: object) -> dict[str, Any]:
    try:
        found: dict[str, Any] = msgspec.json.decode(state, type=dict)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise StoreCorrupt(
            f"event {tag!r} at {_place(where)} does not fit its type: {error}; restore a backup"
        ) from error
    return found


def _place(where: object) -> str:
    stream, version = getattr(where, "stream", None), getattr(where, "version", None)
    return str(where) if stream is None else f"{stream}@{version}"


def _upcast(tag: str, state: bytes, where: object) -> Event:
    if tag not in _upcasters:
        raise UnknownEvent(tag, _place(where))
    body = msgspec.json.decode(state)
    while tag in _upcasters:
        tag, lift = _upcasters[tag]
        body = lift(body)
    # Not `msgspec.convert`: it refuses to make a `Raw`, and most events have one.
    event: Event = _decoders[tag].decode(_encode(body))
    return event


def register_upcaster(old: str, new: str, lift: Upcaster) -> None:
    """Read events stored under tag `old` as `new` (a later version of the same type).

    `lift` gets the stored JSON object and returns that of the next version. Chains are followed.
    """
    if old in TYPES:
        raise ValueError(f"{old!r} is a current tag; only an older version can be lifted")
    _upcasters[old] = (new, lift)
