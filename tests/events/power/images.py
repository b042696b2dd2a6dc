"""What a disk may hold after the power went: rebuilt from the record that the shim made.

Synced writes are there. Of the others any may be there or not: none, the first few (a disk that keeps
order), any of their sectors, or sectors full of noise. Removals count as durable at once.
"""

import random
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

SECTOR = 512
_HEAD = struct.Struct("<cHQQ")


class Op(NamedTuple):
    """One thing that a process did to a file."""

    kind: str
    """`W`rite, `T`runcate, `S`ync, `U`nlink, `A`cknowledge."""
    name: str
    offset: int
    data: bytes


def read_record(path: Path) -> list[Op]:
    """The record of a process, in order."""
    record = path.read_bytes()
    ops: list[Op] = []
    place = 0
    while place < len(record):
        kind, name_length, offset, length = _HEAD.unpack_from(record, place)
        place += _HEAD.size
        name = record[place : place + name_length].decode().rpartition("/")[2]
        place += name_length
        data = b""
        if kind in (b"W", b"A"):
            data = record[place : place + length]
            place += length
        ops.append(Op(kind.decode(), name, offset, data))
    return ops


class Image(NamedTuple):
    """The files, and what had been acknowledged by then: version by stream."""

    files: dict[str, bytearray]
    acknowledged: dict[str, int]


def images(ops: list[Op], count: int, seed: int) -> Iterator[Image]:
    """`count` power cuts at random moments of the record, in its order."""
    chance = random.Random(seed)
    cuts = sorted(chance.randrange(1, len(ops) + 1) for _ in range(count))
    disk = _Disk()
    done = 0
    for cut in cuts:
        for op in ops[done:cut]:
            disk.do(op)
        done = cut
        yield Image(disk.after_the_cut(chance), dict(disk.acknowledged))


class _Disk:
    def __init__(self) -> None:
        self.durable: dict[str, bytearray] = {}
        self.pending: dict[str, list[Op]] = {}
        self.acknowledged: dict[str, int] = {}

    def do(self, op: Op) -> None:
        if op.kind == "A":
            for line in op.data.decode().splitlines():
                stream, version = line.split()
                self.acknowledged[stream] = int(version)
        elif op.kind == "U":
            self.durable.pop(op.name, None)
            self.pending.pop(op.name, None)
        elif op.kind == "S":
            for write in self.pending.pop(op.name, []):
                _apply(self.durable[op.name], write)
        else:
            self.durable.setdefault(op.name, bytearray())
            self.pending.setdefault(op.name, []).append(op)

    def after_the_cut(self, chance: random.Random) -> dict[str, bytearray]:
        files = {name: bytearray(data) for name, data in self.durable.items()}
        for name, writes in self.pending.items():
            _apply_some(files[name], writes, chance)
        return files


def _apply(file: bytearray, op: Op) -> None:
    if op.kind == "T":
        del file[op.offset :]
        return
    file.extend(bytes(max(0, op.offset - len(file))))
    file[op.offset : op.offset + len(op.data)] = op.data


def _apply_some(file: bytearray, writes: list[Op], chance: random.Random) -> None:
    mode = chance.choice(["none", "prefix", "subset", "torn"])
    if mode == "none":
        return
    if mode == "prefix":
        writes = writes[: chance.randrange(len(writes) + 1)]
    for op in writes:
        if op.kind == "T":
            if mode != "subset" or chance.random() < 0.5:
                _apply(file, op)
            continue
        for start in range(0, len(op.data), SECTOR):
            sector = op.data[start : start + SECTOR]
            if mode == "subset" and chance.random() < 0.5:
                continue
            if mode == "torn" and chance.random() < 0.15:
                sector = chance.randbytes(len(sector))
            _apply(file, Op("W", op.name, op.offset + start, sector))
