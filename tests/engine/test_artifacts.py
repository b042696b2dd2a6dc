"""Artifacts: files and bytes that steps leave, their folders, and files that were changed meanwhile."""

import asyncio
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from refold import ConfigurationError, Context, RunFailed, ValueRefused, current_step, step, workflow
from refold.engine import artifacts
from refold.engine.artifacts import Artifact
from refold.events import codec, types as t
from refold.events.errors import StoreError
from refold.events.log import Log
from refold.events.memory import MemoryStore
from tests.engine.kit import Place, engine, of, seen, tags, until

pytestmark = pytest.mark.anyio


@step
async def report(text: str) -> Artifact:
    file = current_step().artifacts_dir / "report.txt"
    file.write_text(text)
    return current_step().artifact("report", path="report.txt", media_type="text/plain")


@step
def keeps(content: bytes) -> Artifact:
    return current_step().artifact("content", data=content)


@workflow
async def reports(ctx: Context) -> Any:
    made = await report("all is well")
    return made, str(ctx.artifacts_dir), str(ctx.logs_dir), await ctx.wait_for_event("go")


async def test_a_file_is_recorded_with_its_digest(place: Place, tmp_path: Path) -> None:
    """B10, B11."""
    async with engine(place, reports, files=str(tmp_path / "files")) as e:
        handle = await e.start(reports, id="r")
        await handle.signal("go")
        made, artifacts_dir, logs_dir, _ = await handle.result()
        assert artifacts_dir == str(tmp_path / "files" / "artifacts" / "r")
        assert logs_dir == str(tmp_path / "files" / "logs" / "r")
        assert (tmp_path / "files" / "logs" / "r").is_dir()
        path, digest = f"{artifacts_dir}/report.txt", sha256(b"all is well").hexdigest()
        assert made == {"name": "report", "path": path, "sha256": digest, "size": 11}
        (fact,) = of(handle, t.ArtifactRecorded)
        assert (fact.step, fact.attempt, fact.name, fact.digest, fact.size) == (1, 1, "report", digest, 11)
        assert (fact.path, fact.media_type) == (path, "text/plain")
        assert tags(handle).index("artifact.recorded") < tags(handle).index("step.completed")


async def test_bytes_are_kept_in_the_store(place: Place) -> None:
    """From a body in a thread; the handler gets the same value live and on replay."""

    @workflow
    async def flow(ctx: Context) -> Any:
        made = await keeps(b"\x00\xff")
        empty = await keeps(b"")
        return [isinstance(made, Artifact), made, empty, await ctx.wait_for_event("go")]

    async with engine(place, flow) as e:
        await seen(await e.start(flow, id="r"), t.WaitOpened)
    async with engine(place, flow) as e:
        await e.signal("r", "go")
        typed, made, empty, _ = await (await e.get("r")).result()
        assert typed
        assert made == {"name": "content", "path": "", "sha256": sha256(b"\x00\xff").hexdigest(), "size": 2}
        assert e.store.blob(made["sha256"]) == b"\x00\xff"
        assert e.store.blob(empty["sha256"]) == b""
        assert e.verify().problems == ()
        assert e.verify().blobs == 2


async def test_a_missing_content_is_noticed_by_verify(tmp_path: Path) -> None:
    @workflow
    async def flow(ctx: Context) -> Any:
        return await keeps(b"x")

    store = MemoryStore()
    async with engine(store, flow) as e:
        made: Any = await (await e.start(flow)).result()
        store._blobs.clear()
        assert f"the content {made['sha256']} of a large value is missing" in e.verify().problems[0]


class Faltering(MemoryStore):
    """A disk that fails once, with the outcome of the commit unknown."""

    falters = 0

    def commit(self, units: Any) -> Any:
        if any(unit.blobs for unit in units) and self.falters:
            self.falters -= 1
            raise StoreError("the disk is away")
        return super().commit(units)


async def kept_in(store: Faltering) -> list[str]:
    """Digests in the store after a run that keeps some bytes while the disk fails once."""
    store.falters = 1

    @workflow
    async def flow(ctx: Context) -> Any:
        return await keeps(b"kept")

    async with engine(store, flow) as e:
        await (await e.start(flow)).result()
        assert store.falters == 0
        return store.blobs()


async def test_contents_survive_a_disk_that_fails_for_a_while() -> None:
    assert await kept_in(Faltering()) == [sha256(b"kept").hexdigest()]


async def test_control_contents_that_nobody_looks_for_after_a_failure_are_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    known = Log._stored
    monkeypatch.setattr(Log, "_stored", lambda log, unit, boxes: known(log, replace(unit, blobs=()), boxes))
    assert await kept_in(Faltering()) == []


async def test_what_cannot_be_an_artifact_is_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "MAX_BYTES", 10_000)

    @step
    async def tries() -> list[str]:
        told = []
        for options in (
            {}, {"path": "x", "data": b""}, {"data": "text"}, {"path": "/nowhere/at/all"}, {"path": "/"},
            {"data": bytes(10_001)},
        ):  # fmt: skip
            try:
                current_step().artifact("a", **options)
            except (ConfigurationError, ValueRefused, OSError) as error:
                told.append(f"{type(error).__name__}: {error}")
        with pytest.raises(ConfigurationError, match="artifact name ''"):
            current_step().artifact("", data=b"")
        with pytest.raises(ConfigurationError, match=r"has no artifacts folder.*Settings\(files=FOLDER\)"):
            current_step().artifacts_dir  # noqa: B018 - asking raises
        return told

    @workflow
    async def flow(ctx: Context) -> Any:
        with pytest.raises(ConfigurationError, match="has no logs folder"):
            ctx.logs_dir  # noqa: B018 - asking raises
        return await tries()

    async with engine(place, flow) as e:
        handle = await e.start(flow)
        told = await handle.result()
        assert len(told) == 6
        assert "expected either path= or data=" in told[0]
        assert "expected either path= or data=" in told[1]
        assert "expected bytes, got str" in told[2]
        assert "FileNotFoundError" in told[3]
        assert "IsADirectoryError" in told[4]
        assert "10,001 bytes, the limit is 10,000: write it to a file" in told[5]
        assert not of(handle, t.ArtifactRecorded)


# ---- folders


async def test_folders_that_cannot_be_made_fail_the_run_before_any_step(place: Place, tmp_path: Path) -> None:
    """B11: with the reason in the log; once that is mended the run can be retried."""
    blocked = tmp_path / "files"
    blocked.write_text("a file, not a folder")
    ran: list[int] = []

    @step
    async def runs() -> None:
        ran.append(1)

    @workflow
    async def flow(ctx: Context) -> Any:
        await runs()
        return await ctx.call(lambda: "done")

    async with engine(place, flow, files=str(blocked)) as e:
        handle = await e.start(flow, id="r")
        with pytest.raises(RunFailed, match=r"its folders cannot be made: .*artifacts.*mend that"):
            await handle.result()
        assert tags(handle) == ["run.started", "run.claimed", "run.failed"]
        assert not ran
    blocked.unlink()
    async with engine(place, flow) as e:
        await e.retry("r")
        assert await (await e.get("r")).result() == "done"
    assert (blocked / "logs" / "r").is_dir()


async def test_a_child_has_folders_of_its_own(place: Place, tmp_path: Path) -> None:
    @workflow
    async def below(ctx: Context) -> str:
        return str(ctx.artifacts_dir)

    @workflow
    async def above(ctx: Context) -> str:
        return str(await ctx.child(below))

    async with engine(place, above, files=str(tmp_path)) as e:
        assert await (await e.start(above, id="r")).result() == str(tmp_path / "artifacts" / "r~1")
    assert (tmp_path / "artifacts" / "r~1").is_dir()


@pytest.mark.parametrize(
    "run_id", ["..", ".", "a.b", "日本語" * 60, "x" * 200, "C:\\x", "-", ".hidden", "a\\..\\b"]
)
def test_no_run_id_leads_out_of_the_folder(run_id: str, tmp_path: Path) -> None:
    path = artifacts.folder(str(tmp_path), "artifacts", run_id)
    path.mkdir(parents=True)
    assert path.resolve().parent == tmp_path / "artifacts"
    assert artifacts.folder(str(tmp_path), "artifacts", run_id + "y") != path
    assert not set(path.name) & set('\\/:*?"<>|')


async def test_a_relative_folder_is_the_same_wherever_a_later_process_starts(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    async with engine(place, reports, files="files") as e:
        await seen(await e.start(reports, id="r"), t.WaitOpened)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    async with engine(place, reports, files="files") as e:
        await e.signal("r", "go")
        assert (await (await e.get("r")).result())[1] == str(tmp_path / "files" / "artifacts" / "r")


# ---- files that are changed


async def taken_up(place: Place) -> list[tuple[str, str, str]]:
    """What a new owner says of the run's files."""
    async with engine(place, reports) as e:
        handle = await e.get("r")
        claims = len(of(handle, t.RunClaimed))
        await e.set_attributes("r", {"turn": claims})
        await seen(handle, t.AttributesChanged, claims)
        await until(lambda: len(of(handle, t.RunClaimed)) == claims + 1)
        return [(fact.name, fact.expected, fact.found) for fact in of(handle, t.ArtifactChanged)]


async def test_a_changed_file_is_noted_once_for_each_state(place: Place, tmp_path: Path) -> None:
    """B10."""
    async with engine(place, reports, files=str(tmp_path)) as e:
        await seen(await e.start(reports, id="r"), t.WaitOpened)
    file = tmp_path / "artifacts" / "r" / "report.txt"
    was = sha256(b"all is well").hexdigest()
    assert await taken_up(place) == []
    file.write_text("nothing is well")
    changed = [("report", was, sha256(b"nothing is well").hexdigest())]
    assert await taken_up(place) == changed
    assert await taken_up(place) == changed
    file.unlink()
    changed.append(("report", was, ""))
    assert await taken_up(place) == changed
    file.write_text("all is well")
    assert await taken_up(place) == changed
    async with engine(place, reports) as e:
        await e.signal("r", "go")
        await (await e.get("r")).result()
        assert e.verify("r").problems == ()


async def test_a_file_made_anew_by_a_later_attempt_is_no_change(place: Place, tmp_path: Path) -> None:
    @step
    async def writes(text: str) -> Artifact:
        (tmp_path / "file").write_text(text)
        return current_step().artifact(text, path=tmp_path / "file")

    @workflow
    async def twice(ctx: Context) -> Any:
        await writes("first")
        await writes("second")
        return await ctx.wait_for_event("go")

    async with engine(place, twice) as e:
        await seen(await e.start(twice, id="r"), t.WaitOpened)
    os.utime(tmp_path / "file", (0, 0))
    async with engine(place, twice) as e:
        await e.signal("r", "go")
        handle = await e.get("r")
        await handle.result()
        assert len(of(handle, t.ArtifactRecorded)) == 2
        assert not of(handle, t.ArtifactChanged)


async def test_large_files_are_read_beside_the_host_loop(place: Place, tmp_path: Path) -> None:
    @step
    async def large() -> Artifact:
        (tmp_path / "large").write_bytes(bytes(3_000_000))
        return await asyncio.to_thread(current_step().artifact, "large", path=tmp_path / "large")

    @workflow
    async def flow(ctx: Context) -> Artifact:
        return await large()

    async with engine(place, flow) as e:
        made = await e.run(flow)
        assert made.size == 3_000_000
