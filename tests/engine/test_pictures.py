"""A run shows itself in a notebook: a picture that holds no script and asks nobody for anything."""

import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from msgspec import Raw

from refold import Context, Engine, Handle, RunFailed, step, workflow
from refold.events import types as t
from refold.events.memory import MemoryStore
from refold.projections.picture import LANES, picture, timeline_of
from tests.engine.kit import until
from tests.events.transfers import AT, put, started

pytestmark = pytest.mark.anyio

NAME = """<script>alert(1)</script>"'><img src=x onerror=alert(2)>&"""
EVIL = f"{NAME}\x1b[2J\u202e"


@step(name=f"charge {NAME}")
async def charge(note: str) -> str:
    return note


@step
async def refuse(note: str) -> None:
    raise ValueError(note)


@workflow(name=f"shop {NAME}")
async def shop(ctx: Context, note: str) -> None:
    await charge(note)
    await ctx.wait_for_event(NAME)
    await refuse(note)


PLAIN = set(["div", "span", "b", "svg", "rect", "line", "text", "title", "table", "tr", "td", "th", "code"])


def words(html: str) -> str:
    """What a reader sees, and proof that it is one well-formed piece of markup."""
    root = ElementTree.fromstring(html)
    names = {element.tag for element in root.iter()}
    assert names <= PLAIN
    for element in root.iter():
        assert not [name for name in element.attrib if name.startswith("on") or name in ("src", "href")]
        assert "url(" not in element.attrib.get("style", "")
    return "".join(root.itertext())


async def test_a_run_is_its_timeline_while_it_goes_on_and_afterwards(tmp_path: Path) -> None:
    async with Engine(tmp_path / "x.db", workflows=[shop]) as engine:
        handle = await engine.start(shop, EVIL, id="run<b>1")
        await until(lambda: handle.status()["status"] == "waiting")
        seen = words(handle._repr_html_())
        assert "run<b>1" in seen
        assert "so far" in seen
        assert "wait for <script>alert(1)" in seen  # a text, and nothing else
        await handle.signal(NAME, by=NAME)
        with pytest.raises(RunFailed):
            await handle.result()
        seen = words(handle._repr_html_())
        assert "sent by <script>alert(1)" in seen
        assert "ValueError: <script>" in seen
        assert "1 failed" in seen
        assert "\x1b" not in seen
        assert "\u202e" not in seen
        await engine.projections.wait()
        page = engine.runs.list()
        assert "run<b>1" in words(page._repr_html_())
        assert "StepFailed" in words(page._repr_html_())
        assert "no runs" in words(engine.runs.list(status="paused")._repr_html_())


async def test_the_rules_of_a_picture_find_a_breach(tmp_path: Path) -> None:
    for bad in ("<div><script>x</script></div>", '<div onclick="x"/>', '<div style="background:url(x)"/>'):
        with pytest.raises(AssertionError):
            words(bad)


async def test_more_lanes_than_anybody_reads_are_counted() -> None:
    store = MemoryStore()
    steps = [
        t.StepScheduled(id=f"s{n}", at=AT, step=n, name=f"s{n}", key=f"s{n}#1", args=Raw(b"[]"))
        for n in range(1, LANES + 11)
    ]
    put(store, "r", started(), *steps)
    html = picture(timeline_of(store.read("r")), AT)
    assert "and 10 lanes more" in words(html)
    assert f">s{LANES}<" in html
    assert f">s{LANES + 1}<" not in html


async def test_it_needs_no_style_sheet_and_paints_no_background(tmp_path: Path) -> None:
    async with Engine(tmp_path / "x.db", workflows=[shop]) as engine:
        html = (await engine.start(shop, "x", id="a"))._repr_html_()
        assert "<style" not in html
        assert "http" not in html
        assert "currentColor" in html
        assert not re.search(r"background:#fff|fill=\"(white|black|#000|#fff)", html)


async def test_a_run_that_cannot_be_read_says_so_instead_of_raising(tmp_path: Path) -> None:
    engine = Engine(tmp_path / "x.db", workflows=[shop])
    async with engine:
        handle = await engine.start(shop, "x", id="a")
        nobody: Handle[None] = Handle(engine, "<none>", None)
        assert "a run without events has no timeline" in words(nobody._repr_html_())
    assert "the engine is not open" in words(handle._repr_html_())
