"""`refold verify` and `refold rebuild`: whether the log is unchanged, and the read models equal to it."""

import argparse
import shlex
from collections.abc import Callable
from typing import Any

from ..engine.read_models import ReadModels
from ..events.dispatch import rebuild_work, work_differences
from ..events.errors import ConfigurationError, StoreBusy, StoreCorrupt, StoreReadOnly
from ..events.store import Store
from ..events.verify import Verified, verify as verify_log
from ..projections.core import CORE
from ..projections.rebuild import Difference
from .exits import FAILED, OK
from .screen import LiveLine, Screen
from .stores import existing, proving, store_url
from .text import as_json, count, visible

WORK = "work"
ALL = [*(projection.name for projection in CORE), WORK]
"""Every table that is a fold of the log."""
SHOWN = 20
"""Problems printed; `--json` has all."""


def verify(args: argparse.Namespace, screen: Screen) -> int:
    """`refold verify [STORE]`."""
    if args.store_argument and args.store and args.store_argument != args.store:
        raise ConfigurationError(f"two stores: {args.store_argument} and --store {args.store}; give one")
    try:
        with proving(args.store_argument or args.store) as store:
            url, found = store.url, _verify_with_progress(store, screen)
            differences, skipped = (
                _compare(store, screen) if not found.problems else ([], "the log is damaged")
            )
    except StoreCorrupt as error:  # it cannot even be opened
        url = store_url(args.store_argument or args.store)
        found, differences, skipped = Verified(0, 0, (str(error),)), [], "the log is damaged"
    fine = not found.problems and not differences
    if args.json:
        screen.raw(as_json({
            "store": url, "events": found.events, "streams": found.streams, "problems": found.problems,
            "read_models": "not checked" if skipped else "different" if differences else "equal",
            "differences": differences, "ok": fine,
        }))  # fmt: skip
    else:
        _print_verified(screen, url, found, differences, skipped)
    return OK if fine else FAILED


def _verify_with_progress(store: Store, screen: Screen) -> Verified:
    with screen.live() as live:
        try:
            return verify_log(store, _progress(live, "verifying the hash of every event"))
        except StoreCorrupt as error:  # not even readable: that is an answer, not a failure of the command
            return Verified(0, 0, (str(error),))


def _compare(store: Store, screen: Screen) -> tuple[list[str], str]:
    """Differences, and why nothing was compared (empty when it was)."""
    try:
        models = ReadModels(store)
    except StoreCorrupt as error:
        return [str(error)], ""
    except StoreReadOnly as error:
        return [], str(error)
    try:
        models.catch_up()
        with screen.live() as live:
            found = _all_differences(models, None, _progress(live, "comparing the read models with the log"))
            return [str(difference) for difference in found], ""
    except StoreCorrupt as error:
        return [str(error)], ""
    except StoreReadOnly as error:
        return [], str(error)
    finally:
        models.close()


def _progress(live: LiveLine, what: str) -> Callable[[int, int], None]:
    def show(done: int, total: int) -> None:
        live.update((f"{what} … {done:,} of {total:,}", "dim"))

    return show


def _print_verified(screen: Screen, url: str, found: Verified, differences: list[str], skipped: str) -> None:
    screen.print((visible(url), "bold"))
    if found.problems:
        screen.print(
            "  ", screen.mark(False), f" the log is damaged: {count(len(found.problems), 'problem')}"
        )
        screen.block([visible(text) for text in found.problems[:SHOWN]], "red", indent=4)
        _more(screen, len(found.problems))
        screen.print(
            "  restore the file from a backup; what is here can still be read with ",
            ("refold events", "bold"),
        )
        return
    events, streams = count(found.events, "event"), count(found.streams, "stream")
    screen.print("  ", screen.mark(True), f" hash chain: {events} in {streams}, none changed, none missing")
    if skipped:
        screen.print("  -  read models not compared: ", visible(skipped))
    elif differences:
        screen.print(
            "  ", screen.mark(False), f" read models: {count(len(differences), 'value')} not as the log says"
        )
        screen.block([visible(text) for text in differences[:SHOWN]], "red", indent=4)
        _more(screen, len(differences))
        command = f"refold rebuild --store {shlex.quote(url)}"
        screen.print("  build them again: ", (visible(command), "bold"))
    else:
        names = ", ".join(ALL)
        screen.print("  ", screen.mark(True), f" read models equal the log: {names}")


def _more(screen: Screen, number: int) -> None:
    if number > SHOWN:
        screen.print(f"    and {number - SHOWN} more (--json has all)")


def rebuild(args: argparse.Namespace, screen: Screen) -> int:
    """`refold rebuild [--check] [NAME …]`."""
    names: list[str] | None = args.names or None
    with existing(args.store) as store:
        models = ReadModels(store)
        try:
            return (_check if args.check else _rebuild)(models, names, screen, args.json)
        finally:
            models.close()


def _check(models: ReadModels, names: list[str] | None, screen: Screen, json: bool) -> int:
    with screen.live() as live:
        differences = _all_differences(models, names, _progress(live, "comparing with the log"))
    shown = ", ".join(names or ALL)
    if json:
        equal = not differences
        screen.raw(
            as_json(
                {
                    "checked": shown.split(", "),
                    "equal": equal,
                    "differences": [_plain(d) for d in differences],
                }
            )
        )
    elif differences:
        screen.print(screen.mark(False), f" {count(len(differences), 'value')} not as the log says")
        screen.block([visible(str(difference)) for difference in differences[:SHOWN]], "red")
        _more(screen, len(differences))
    else:
        screen.print(screen.mark(True), f" equal to the log: {shown}")
    return FAILED if differences else OK


def _all_differences(
    models: ReadModels, names: list[str] | None, progress: Callable[[int, int], None] | None
) -> list[Difference]:
    """Those of the read models, and of the dispatch table, which is a fold of the log like them."""
    tables = None if names is None else [name for name in names if name != WORK]
    found = models.check(tables, progress) if tables != [] else []
    if names is None or WORK in names:
        found += [
            Difference(WORK, (d.run_id,), d.column, _value(d.live), _value(d.log))
            for d in work_differences(models.store)
        ]
    return found


def _value(value: object) -> int | float | str | None:
    return value if value is None or isinstance(value, int | float | str) else str(value)


def _plain(difference: Difference) -> dict[str, Any]:
    return {name: getattr(difference, name) for name in difference.__struct_fields__}


def _rebuild(models: ReadModels, names: list[str] | None, screen: Screen, json: bool) -> int:
    with screen.live() as live:
        tables = None if names is None else [name for name in names if name != WORK]
        events = models.rebuild(tables, _progress(live, "rebuilding")) if tables != [] else 0
    shown, note = list(names or ALL), ""
    if WORK in shown:
        try:
            rebuild_work(models.store)
        except StoreBusy as busy:
            if names is not None:
                raise
            shown.remove(WORK)
            note = f"; {WORK} is left alone while {busy.holder or 'another process'} executes"
    if json:
        screen.raw(as_json({"rebuilt": shown, "events": events}))
    else:
        screen.print(
            screen.mark(True), f" rebuilt from {count(events, 'event')}: {', '.join(shown)}{visible(note)}"
        )
    return OK
