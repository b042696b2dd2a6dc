"""Whether a unit may be stored: its streams against where they stand, and the rows its messages become."""

from collections.abc import Callable

from .store import Refusal, Unit
from .stream import Row, Tail, row_hash


def admit(
    unit: Unit, tails: dict[str, Tail], look_up: Callable[[str], Tail], posted: list[Row]
) -> Refusal | None:
    """Compare with the tails as they are after the units before; on success count these rows, too.

    Its posts become rows in `posted`: only here, when nobody else may write, is known where they belong.
    """
    moved: dict[str, Tail] = {}
    for append in unit.appends:
        stream = append.stream
        tail = moved.get(stream) or tails.get(stream) or look_up(stream)
        if tail.version != append.expected or (append.after and tail.hash != append.after):
            return Refusal(stream, append.expected, tail.version)
        if append.rows:
            moved[stream] = Tail(append.rows[-1].version, append.rows[-1].hash)
    for post in unit.posts:
        stream = post.stream
        tail = moved.get(stream) or tails.get(stream) or look_up(stream)
        if post.expected not in (-1, tail.version):
            return Refusal(stream, post.expected, tail.version)
        version = tail.version + 1
        last = row_hash(tail.hash, stream, version, post.tag, post.state)
        moved[stream] = Tail(version, last)
        posted.append(Row(stream, version, post.tag, post.state, last))
    tails.update(moved)
    return None
