"""Arguments of the commands that move a log, or ask about it: `export`, `import`, `sql`, `doctor`."""

from typing import Any

from .frame import add

FORMATS = ("jsonl", "cloudevents", "trace", "mermaid", "dot")


def _export(commands: Any) -> None:
    parser = add(
        commands, "export", ".exporting:export",
        "write the log, or single runs, for another store or another program",
        "  refold export --output backup.jsonl\n  refold export order-42 --format trace --output trace.json",
    )  # fmt: skip
    parser.add_argument("runs", nargs="*", metavar="RUN", help="ids of runs (default: the whole store)")
    parser.add_argument("--all", action="store_true", help="the whole store, also as a graph")
    parser.add_argument(
        "--family", action="store_true", help="their children, too, and the runs that they went on as"
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="jsonl",
        help="jsonl (the log, for `refold import`), cloudevents, trace (for Perfetto), mermaid, dot",
    )
    parser.add_argument(
        "--output", metavar="FILE", help="write this file, whole or not at all (default: print)"
    )


def _import(commands: Any) -> None:
    parser = add(
        commands, "import", ".importing:import_",
        "bring what `refold export` wrote into a store, verified, whole or not at all",
        "  refold import backup.jsonl --store new.db",
    )  # fmt: skip
    parser.add_argument("file", metavar="FILE", help="what `refold export` wrote; - reads it from a pipe")


def _sql(commands: Any) -> None:
    parser = add(
        commands, "sql", ".sql:sql", "ask the read models and the log in SQL; nothing can be changed",
        "  refold sql\n  refold sql 'select status, count(*) from runs group by status'",
    )  # fmt: skip
    parser.add_argument(
        "query",
        nargs="?",
        metavar="QUERY",
        help="one SELECT, or the name of a table (default: list the tables)",
    )
    parser.add_argument("--csv", action="store_true", help="print CSV, for spreadsheets")


def _doctor(commands: Any) -> None:
    add(
        commands, "doctor", ".doctor:doctor",
        "check this machine, this installation and a store; say what is wrong and what to do",
        "  refold doctor\n  refold doctor --store shop.db --json",
    )  # fmt: skip


COMMANDS = (_export, _import, _sql, _doctor)
