"""A job at a service that takes its time: order it once, then look again and again, less and less often."""

import asyncio
import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from refold import Context, Retry, current_step, step, workflow

steady = Retry(max_attempts=6, initial_interval=0.2, max_interval=30.0)


def call(method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """One request, for the bodies of steps: a handler may not touch the network."""
    request = urllib.request.Request(
        Path("service.url").read_text() + path,  # read when needed: settings are for steps, too
        method=method,
        data=json.dumps(body).encode() if body is not None else None,
        headers={"Idempotency-Key": current_step().idempotency_key, "Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as response:
            answer: dict[str, Any] = json.load(response)
            return answer
    except urllib.error.HTTPError as error:
        with error:  # an answer, too, and open
            raise ConnectionError(f"{method} {path}: {error.code} {error.reason}") from None


@step(retry=steady, timeout=60.0)
def order(video: str) -> str:
    """A `def` body runs in a thread, so it may block. The key keeps the service from starting two jobs."""
    job = call("POST", "/jobs", {"video": video})
    print("ordered", job["id"])
    return str(job["id"])


@step(retry=steady, timeout=60.0)
def look(job: str) -> dict[str, Any]:
    state = call("GET", f"/jobs/{job}")
    print("progress", state["percent"])
    return state


@step
def give_up(job: str) -> None:
    call("DELETE", f"/jobs/{job}")
    print("gave up", job)


@workflow
async def render(ctx: Context, video: str, patience: float = 3_600.0) -> str:
    job = await order(video)
    pause = 0.5
    try:
        async with asyncio.timeout(patience):  # in the log: a restart does not start it anew
            while (state := await look(job))["percent"] < 100:
                await ctx.sleep(pause)
                pause = min(pause * 1.5, 60.0)
    except TimeoutError:
        await give_up(job)
        raise
    return str(state["url"])
