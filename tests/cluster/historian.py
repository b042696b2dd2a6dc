"""A client of a log that notes what it asks, what it hears, and when."""

import asyncio
import random
from time import monotonic
from typing import Any

import msgspec
from msgspec import Raw

from refold.events import types as t
from refold.events.clock import SystemClock, new_event_id, to_datetime
from refold.events.errors import AppendRefused, RefoldError, StoreError
from refold.events.log import Log
from refold.events.open import open_store
from refold.events.registry import encode_event
from refold.events.store import Append, Post, Store, Unit
from refold.events.stream import INBOX, Tail, chain
from tests.cluster.wire import CUTS, Wire
from tests.crash.scene import Scene

STREAMS = ("one", "two")
PAUSE_S = 0.02


async def write(scene: Scene, url: str, chance: random.Random, turns: int) -> None:
    """So many operations on a few streams; whoever is not heard goes on with the next one."""
    with Wire(url) as wire:
        store = await opened(wire.url)
        client = Client(scene, store, chance)
        for _ in range(turns):
            if chance.random() < 0.2:
                wire.cut(chance.choice(CUTS), chance.randrange(8))
            await client.act()
        wire.whole()
        await client.log.close()
        scene.say("cuts", wire.happened)
        store.close()


async def opened(url: str) -> Store:
    while True:
        try:
            return open_store(url)
        except StoreError:
            await asyncio.sleep(PAUSE_S)


class Client:
    """One process, one operation at a time."""

    def __init__(self, scene: Scene, store: Store, chance: random.Random) -> None:
        self.log, self._store, self._chance = Log(store), store, chance
        self._scene = scene
        self._tails = {stream: Tail() for stream in STREAMS}

    async def act(self) -> None:
        stream = self._chance.choice(STREAMS)
        if self._chance.random() < 0.35:
            self.read(stream)
        elif self._chance.random() < 0.25:
            await self.post(stream)
        else:
            await self.append(stream)

    def note(self, stream: str, **fields: Any) -> None:
        self._scene.say("history", stream, {"seen": [], "answered": None} | fields)

    def read(self, stream: str) -> None:
        asked = monotonic()
        try:
            rows = self._store.read(stream)
        except StoreError:
            return
        self._tails[stream] = Tail(len(rows), rows[-1].hash) if rows else Tail()
        seen = [row.event().id for row in rows]
        self.note(stream, kind="read", asked=asked, answered=monotonic(), seen=seen)

    async def append(self, stream: str) -> None:
        """Where we believe the stream stands; others may have been faster."""
        tail, event = self._tails[stream], message()
        rows, after = chain(stream, tail, [event])
        unit = Unit((Append(stream, tail.version, rows, tail.hash),))
        if await self._said(stream, unit, kind="append", event=event.id, expected=tail.version):
            self._tails[stream] = after
        else:
            self.read(stream)

    async def post(self, stream: str) -> None:
        event = message()
        unit = Unit(posts=(Post(stream, event.TAG, encode_event(event)),))
        await self._said(stream + INBOX, unit, kind="post", event=event.id)

    async def _said(self, stream: str, unit: Unit, **fields: Any) -> bool:
        """Whether it was acknowledged."""
        answer: asyncio.Future[RefoldError | None] = asyncio.get_running_loop().create_future()
        fields["asked"] = monotonic()
        self.log.append(unit, answer.set_result, retry=self._chance.random() < 0.7)
        error = await answer
        if error is None:
            self.note(stream, outcome="ok", answered=monotonic(), **fields)
        elif isinstance(error, AppendRefused):
            self.note(stream, outcome="refused", found=error.found, answered=monotonic(), **fields)
        else:
            self.note(stream, outcome="unknown", **fields)
        return error is None


def message() -> t.SignalSent:
    at = to_datetime(SystemClock().now())
    return t.SignalSent(name="word", payload=Raw(msgspec.json.encode(1)), id=new_event_id(), at=at)
