"""An agent: a model chooses tools until it is done. What is dangerous waits for a person."""

from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct

from refold import Context, GateRejected, Retry, StepFailed, record_cost, step, workflow


class Message(Struct):
    role: str
    text: str


class Reply(Struct):
    """What a model wants: a tool with its argument, or to say something and be done."""

    text: str
    tool: str = ""
    argument: str = ""
    tokens: int = 0
    usd: Decimal = Decimal(0)


class Model(Protocol):
    """A provider. In earnest: its HTTP API, called with the step's idempotency key."""

    name: str

    async def reply(self, messages: list[Message]) -> Reply: ...


class OfflineModel:
    """Stands for one, without a network: it reads the notes of a folder and throws away what is outdated."""

    name = "offline-1"

    async def reply(self, messages: list[Message]) -> Reply:
        tokens = sum(len(message.text.split()) for message in messages)
        reply = self._choose(messages)
        reply.tokens, reply.usd = tokens, Decimal(tokens) / 10_000
        return reply

    def _choose(self, messages: list[Message]) -> Reply:
        done = [message.text for message in messages if message.role == "tool"]
        if not done:
            return Reply("What is there?", "list_notes")
        names = done[0].split()
        if len(done) <= len(names):
            return Reply("What does it say?", "read_note", names[len(done) - 1])
        old = [name for name, text in zip(names, done[1:], strict=False) if "outdated" in text]
        rest = done[1 + len(names) :]
        if len(rest) < len(old):
            return Reply("It is outdated.", "delete_note", old[len(rest)])
        return Reply(f"{len(names)} notes read; " + "; ".join(rest))


model: Model = OfflineModel()

# ---- what the agent can do ---------------------------------------------------------------------------


@step(retry=Retry(max_attempts=4, initial_interval=1.0), timeout=120.0)
async def think(messages: list[Message]) -> Reply:
    """Ask the model. What it cost is in the log even if this process dies in the next moment."""
    reply = await model.reply(messages)
    record_cost(reply.usd, model=model.name, input_tokens=reply.tokens, turns=1)
    print("model:", *filter(None, [reply.text, reply.tool, reply.argument]))
    return reply


@step
def list_notes(argument: str) -> str:
    return " ".join(sorted(path.name for path in Path("notes").iterdir()))


@step
def read_note(argument: str) -> str:
    return (Path("notes") / Path(argument).name).read_text()


@step
def delete_note(argument: str) -> str:
    (Path("notes") / Path(argument).name).unlink(missing_ok=True)
    return f"{argument} deleted"


TOOLS: dict[str, Any] = {"list_notes": list_notes, "read_note": read_note, "delete_note": delete_note}
DANGEROUS = {"delete_note"}

# ---- the loop ----------------------------------------------------------------------------------------


@workflow
async def agent(ctx: Context, task: str, budget: Decimal = Decimal("1.00"), turns: int = 20) -> str:
    messages, spent = [Message("user", task)], Decimal(0)
    for _ in range(turns):
        reply = await think(messages)
        spent += reply.usd
        if not reply.tool:
            return reply.text
        if spent >= budget:
            return f"stopped: {spent} USD spent of {budget}"
        messages.append(Message("model", f"{reply.tool} {reply.argument}"))
        messages.append(Message("tool", await use(ctx, reply)))
    return f"stopped after {turns} turns"


async def use(ctx: Context, reply: Reply) -> str:
    """A tool's answer, an error's text, or what people said: the model reads all of them."""
    tool = TOOLS.get(reply.tool)
    if tool is None:
        return f"there is no tool {reply.tool}"
    if reply.tool in DANGEROUS:
        try:
            await ctx.approval(f"{reply.tool} {reply.argument}? {reply.text}", shown=reply)
        except GateRejected as rejected:
            return f"{reply.argument} kept: {rejected.feedback}"
    try:
        return str(await tool(reply.argument))
    except StepFailed as error:
        return f"{reply.tool} failed: {error.message}"
