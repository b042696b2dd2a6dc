"""Arguments of the commands that say something to a run: `signal`, `cancel`."""

from typing import Any

from .frame import add


def _signal(commands: Any) -> None:
    parser = add(
        commands, "signal", ".sending:signal", "send a run an event; it is stored when the command ends",
        "  refold signal order-42 approve --payload '{\"by\": \"ana\"}'",
    )  # fmt: skip
    parser.add_argument("run", metavar="RUN", help="id of the run")
    parser.add_argument("name", metavar="NAME", help="name of the event the handler waits for")
    parser.add_argument("--payload", metavar="JSON", help="its payload (default: null)")
    parser.add_argument("--id", help="given twice, the event is delivered once")
    parser.add_argument("--by", help="who sends it (default: user:$USER)")


def _cancel(commands: Any) -> None:
    parser = add(
        commands, "cancel", ".sending:cancel", "ask a run to stop; its handler may clean up first",
        "  refold cancel order-42 --reason 'customer called'",
    )  # fmt: skip
    parser.add_argument("run", metavar="RUN", help="id of the run")
    parser.add_argument("--reason", default="", help="why, for the history")
    parser.add_argument("--by", help="who asks (default: user:$USER)")


COMMANDS = (_signal, _cancel)
