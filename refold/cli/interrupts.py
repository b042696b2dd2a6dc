"""Ctrl-C for a program whose handler never waits: asyncio only cancels, and nobody would notice that."""

import asyncio
import os
import signal
import threading
from collections.abc import Coroutine
from types import FrameType
from typing import Any

from .screen import complain

TURN_S = 1.0
"""An event loop that has not turned for so long after a Ctrl-C is held up by something."""


async def heeding(work: Coroutine[Any, Any, int]) -> int:
    """Do the work; when the loop stands still the first Ctrl-C counts as two, and strikes where it is.

    The second is sent by a thread: the main one is busy. What it breaks off is a handler, or a step that was
    declared `async` and blocks; the log has all that was stored before.
    """
    loop = asyncio.get_running_loop()
    before = signal.getsignal(signal.SIGINT)
    if not callable(before):  # of a shell that had it ignored
        return await work
    turned = threading.Event()

    def insist() -> None:
        if not turned.wait(TURN_S):
            complain("the program waits for nothing, so it cannot stop in order: breaking it off")
            os.kill(os.getpid(), signal.SIGINT)

    def struck(number: int, frame: FrameType | None) -> None:
        before(number, frame)
        loop.call_soon_threadsafe(turned.set)
        threading.Thread(target=insist, name="refold-ctrl-c", daemon=True).start()

    signal.signal(signal.SIGINT, struck)
    try:
        return await work
    finally:
        turned.set()
        signal.signal(signal.SIGINT, before)
