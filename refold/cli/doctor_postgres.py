"""What `refold doctor` says of a log on PostgreSQL: whether an acknowledged event can be lost there."""

from collections.abc import Iterator
from typing import Any

from .finding import Finding
from .text import count


def check_server(health: Any) -> Iterator[Finding]:
    """Durability of one server, then what happens when it is lost; of a `postgres_health.Health`."""
    yield _durability(health.settings)
    yield _failover(health)


def _durability(settings: dict[str, str]) -> Finding:
    found = ", ".join(f"{name}={value or repr('')}" for name, value in settings.items())
    forgetful = [name for name in ("fsync", "full_page_writes") if settings[name] == "off"]
    if forgetful:
        advice = f"a crash of the server's machine damages the log: {' and '.join(forgetful)} = on"
        return Finding("durability", "broken", found, advice)
    if settings["synchronous_commit"] in ("off", "local") and settings["synchronous_standby_names"]:
        return Finding("durability", "broken", found, "ALTER ROLE … SET synchronous_commit = on")
    return Finding("durability", "ok", found)


def _failover(health: Any) -> Finding:
    if health.behind is not None:
        found = f"a standby, which heard the last news {health.behind.seconds:.1f} s ago"
        more = count(health.behind.events, "event")
        advice = (
            f"{more} without a position: lists and `verify` see them later" if health.behind.events else ""
        )
        return Finding("failover", "ok", found, advice)
    if not health.settings["synchronous_standby_names"]:
        advice = (
            "the last acknowledged events can be lost with this server, unless what is beneath it is "
            "replicated (Aurora, regional disks): synchronous_standby_names = 'ANY 1 (a, b)', or Patroni's "
            "synchronous_mode"
        )
        return Finding("failover", "warning", "no standby has to confirm a commit", advice)
    if health.copies is None:
        advice = "GRANT pg_monitor to this user, and doctor can tell whether they are there"
        return Finding("failover", "ok", "standbys have to confirm each commit", advice)
    if not health.copies:
        advice = "commits wait until there is one: look at the standbys"
        return Finding(
            "failover", "broken", "standbys have to confirm each commit, and none is there", advice
        )
    return Finding("failover", "ok", f"{count(health.copies, 'standby', 'standbys')} may confirm a commit")
