"""The small project that `refold init` writes: a workflow, its tests, a README; held to by a test."""

APP = '''\
"""Orders: each is charged, waits a moment, is approved by a person, and is shipped."""

import sys

from refold import Context, Retry, step, workflow


@step(retry=Retry(max_attempts=3, initial_interval=0.5), timeout=30.0)
async def charge(order: str) -> str:
    """An effect: written down before it begins, never done again once its result is."""
    print(f"charging for {order}", file=sys.stderr)
    return f"receipt for {order}"


@step
def ship(order: str) -> str:
    """A plain `def` runs in a worker thread; the call is awaited all the same."""
    print(f"shipping {order}", file=sys.stderr)
    return f"{order} is on its way"


@workflow
async def checkout(ctx: Context, order: str) -> str:
    """It only decides: whatever touches the world is a step."""
    receipt = await charge(order)
    await ctx.sleep(2)  # durable: after a crash it goes on with what is left of it
    await ctx.approval(f"Ship {order}?", shown=receipt, timeout=7 * 86_400)  # raises when rejected
    return await ship(order)
'''

TESTS = '''\
"""Tests of app.py: in memory, in virtual time, with a stand-in for the card."""

import asyncio

import pytest
from refold import RunFailed
from refold.testing import TestEngine

from app import charge, checkout


def test_an_approved_order_is_shipped() -> None:
    async def main() -> None:
        async with TestEngine(workflows=[checkout]) as engine:
            charged = engine.mock(charge, returns="receipt 1")
            engine.approve_when_asked(by="ana", after=3 * 86_400)  # three days that take no time
            assert await engine.run(checkout, "tea") == "tea is on its way"
            assert len(charged.calls) == 1

    asyncio.run(main())


def test_a_rejected_order_is_not() -> None:
    async def main() -> None:
        async with TestEngine(workflows=[checkout]) as engine:
            engine.mock(charge, returns="receipt 1")
            engine.reject_when_asked(feedback="out of stock")
            with pytest.raises(RunFailed, match="out of stock"):
                await engine.run(checkout, "tea")

    asyncio.run(main())


def test_after_a_crash_nothing_is_charged_twice() -> None:
    async def main() -> None:
        async with TestEngine(workflows=[checkout]) as engine:
            charged = engine.mock(charge, returns="receipt 1")
            engine.approve_when_asked()
            engine.crash_after(6)  # events: while it sleeps
            assert await engine.run(checkout, "tea") == "tea is on its way"
            assert engine.crashes == 1
            assert len(charged.calls) == 1

    asyncio.run(main())
'''

README = """\
# A durable checkout

`app.py` has a workflow, `test_app.py` its tests. Run it:

```sh
refold run app.py:checkout --id order-1 --input '"tea"'
```

It charges, sleeps two seconds, and waits for somebody to approve. Kill it if you like (`kill -9`), and
give the same command again: it goes on where it was, and nothing is charged twice. From another terminal,
in this folder:

```sh
refold approve order-1     # or: refold reject order-1 --feedback "out of stock"
refold why order-1         # what it waits for, in words
refold show order-1        # its steps, as bars on a timeline
```

Everything is in `refold.db`. `pytest` runs the tests (`pip install pytest`); `refold worker app.py` is a
process that executes whatever other programs start in this store.
"""

IGNORED = """\
__pycache__/
.pytest_cache/
refold.db*
"""

FILES = {"app.py": APP, "test_app.py": TESTS, "README.md": README, ".gitignore": IGNORED}
CODE = ("app.py", "test_app.py")
"""Where one of these is already, nothing is written; the others are only left out."""
