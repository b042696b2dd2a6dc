"""What the processes of cluster tests do."""

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress

from refold import ActRefused, Engine, RunEnded, Settings
from refold.events.errors import StoreError
from tests.cluster import historian, mortal
from tests.cluster.flows import ALL, hears, job, run_id
from tests.crash.scene import Scene

SETTINGS = Settings(lease_ttl=2.5, lease_refresh=0.8, grace=0.2, max_active=16, determinism="off")
PAUSE_S = 0.05
"""Before a client says again what may not have been heard."""

Role = Callable[..., None]
BY_NAME: dict[str, Role] = {"mortal": mortal.execute}


def role(fn: Callable[..., Awaitable[None]]) -> Role:
    def play(scene: Scene, *arguments: str) -> None:
        async def main() -> None:
            await fn(scene, *arguments)

        asyncio.run(main())

    return BY_NAME.setdefault(fn.__name__, play)


@role
async def worker(scene: Scene, url: str) -> None:
    """Execute for ever."""
    while True:
        try:
            async with Engine(url, workflows=ALL, settings=SETTINGS):
                scene.say("ready")
                await asyncio.Event().wait()
        except StoreError:  # the server is not there: whoever keeps workers alive starts them again
            await asyncio.sleep(PAUSE_S)


@role
async def resumes(scene: Scene, url: str, times: str) -> None:
    """Execute, and ask so many times at once for the run to be resumed."""

    async def ask(engine: Engine) -> None:
        scene.say("asked")
        with suppress(ActRefused, RunEnded):
            await engine.resume("run")

    async with Engine(url, workflows=ALL, settings=SETTINGS) as engine:
        await asyncio.gather(*(ask(engine) for _ in range(int(times))))
        while engine.store.work("run").state != "done":  # type: ignore[union-attr] # noqa: ASYNC110
            await asyncio.sleep(PAUSE_S)
        scene.say("ready")


@role
async def client(scene: Scene, url: str, first: str, after: str, every: str) -> None:
    """Start jobs, and give a word to those who wait for one; each until it is acknowledged."""
    numbers = range(int(first), int(after), int(every))
    for number in numbers:
        await until_heard(url, scene, "start", number)
        if hears(number):
            await until_heard(url, scene, "signal", number)
    scene.say("ready")


async def until_heard(url: str, scene: Scene, what: str, number: int) -> None:
    """Say it again under the same id until it is acknowledged."""
    while True:
        try:
            engine = await connected(url)
            if what == "start":
                await engine.start(job, number, id=run_id(number))
            else:
                await engine.signal(run_id(number), "word", number, id=f"word-{number}")
        except RunEnded:  # it was heard the first time
            pass
        except StoreError:
            await disconnect()
            await asyncio.sleep(PAUSE_S)
            continue
        scene.say("acks", what, number)
        return


@role
async def starts_runs(scene: Scene, url: str, name: str, count: str) -> None:
    """Start so many runs and speak to each; 0: until killed."""
    async with Engine(url, execute=False) as engine:
        for number in range(int(count)) if int(count) else itertools.count():
            run = f"{name}-{number}"
            await engine.start(job, number, id=run)
            scene.say("acks", "start", run)
            await engine.signal(run, "word", number)
    scene.say("ready")


@role
async def writes_history(scene: Scene, url: str, seed: str, turns: str) -> None:
    """Append, post and read, through a wire that is cut now and then; note what was asked and heard."""
    await historian.write(scene, url, random.Random(seed), int(turns))
    scene.say("ready")


_connection: list[Engine] = []


async def connected(url: str) -> Engine:
    """The engine of this client, opened anew when the server was gone."""
    if not _connection:
        engine = Engine(url, execute=False)
        await engine.__aenter__()
        _connection.append(engine)
    return _connection[0]


async def disconnect() -> None:
    while _connection:
        await _connection.pop().close()
