"""Arguments of the commands that execute workflows: `demo`, `init`, `run`, `worker`."""

from typing import Any

from .frame import add, positive, span


def _demo(commands: Any) -> None:
    parser = add(
        commands, "demo", "refold.demo.director:demo",
        "run a real workflow that kills its own worker with SIGKILL, and finish it all the same",
        "  refold demo\n  refold demo --yes --folder somewhere", store=False,
    )  # fmt: skip
    parser.add_argument(
        "--folder", default="refold-demo", help="where everything goes (default: %(default)s)"
    )
    parser.add_argument("--yes", action="store_true", help="approve the release without being asked")


def _init(commands: Any) -> None:
    parser = add(
        commands, "init", ".init:init",
        "write a small project to begin with: a workflow, its tests, a README; nothing is overwritten",
        "  refold init shop", store=False,
    )  # fmt: skip
    parser.add_argument(
        "folder", nargs="?", default=".", metavar="FOLDER", help="where to (default: this folder)"
    )


def _run(commands: Any) -> None:
    parser = add(
        commands, "run", ".running:run",
        "execute a workflow of yours; killed and given again with the same --id, it goes on where it was",
        "  refold run app.py:checkout --id order-42 --input '[{\"total\": \"12.50\"}]'",
    )  # fmt: skip
    parser.add_argument(
        "target", metavar="FILE.py:WORKFLOW", help="the file (or module) and the workflow in it"
    )
    parser.add_argument(
        "--input", metavar="JSON", help="an array of the handler's arguments, or the only one; @FILE reads it"
    )
    parser.add_argument("--id", metavar="RUN", help="id of the run (default: a new one)")
    parser.add_argument("--key", help="idempotency key: the same key with the same input is the same run")
    parser.add_argument(
        "--lock",
        metavar="KEY",
        help="concurrency key: while a run that has not ended holds it, no other starts",
    )
    parser.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="attribute of the run; may be repeated",
    )
    parser.add_argument("--queue", metavar="NAME", help="the queue in which it waits for its place")
    parser.add_argument(
        "--priority", type=int, default=0, metavar="N",
        help="among those that wait in the queue: the lower the sooner (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--queue-key", metavar="KEY", help="whose run it is: keys of a queue take turns")
    parser.add_argument(
        "--run-on",
        metavar="TAG",
        help="only a worker with this tag executes it; without --detach: this process",
    )
    parser.add_argument(
        "--delay", type=span, metavar="SECONDS", help="do not begin it before so much time has passed"
    )
    parser.add_argument(
        "--detach", action="store_true",
        help="only store the run and print its id: a `refold worker` of this store executes it",
    )  # fmt: skip


def _worker(commands: Any) -> None:
    parser = add(
        commands, "worker", ".worker:worker",
        "execute all unfinished runs of a store, and those that other processes start, until Ctrl-C",
        "  refold worker app.py\n  refold worker orders.py refunds.py --store shop.db --wait",
    )  # fmt: skip
    parser.add_argument(
        "files", nargs="+", metavar="FILE.py", help="files (or modules) whose workflows are executed"
    )
    parser.add_argument(
        "--concurrency", type=positive, default=1_000, metavar="N",
        help="how many runs may be busy at once (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--grace", type=span, default=10.0, metavar="SECONDS",
        help="how long running steps may take to end when it is told to stop (default: %(default)g)",
    )  # fmt: skip
    parser.add_argument(
        "--tag", action="append", default=[], metavar="TAG",
        help="execute runs that want a worker with this tag, too; may be repeated",
    )  # fmt: skip
    parser.add_argument(
        "--only-tagged", action="store_true", help="leave runs that want no tag to other workers"
    )
    parser.add_argument(
        "--wait", action="store_true", help="when another process executes the store, wait until it is free"
    )


COMMANDS = (_demo, _init, _run, _worker)
