"""The first handler loops of a process, made in several threads at once."""

import subprocess
import sys

PROGRAM = """
import asyncio
import sys
import threading

from refold.engine.loop import Loop

sys.setswitchinterval(1e-6)
together = threading.Barrier(8)


def first() -> None:
    together.wait()
    Loop(None, 1)


threads = [threading.Thread(target=first) for _ in range(8)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()


async def main() -> int:
    return len(asyncio.all_tasks())


print(asyncio.run(main()))
"""


def test_they_prepare_asyncio_once() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.stdout == "1\n", done.stderr
