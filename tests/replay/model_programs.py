"""Random handlers of the model: gates, children, branches, maps, data, patches, and all that was there."""

import random
from functools import partial
from typing import Any

from refold import Branch, ChildFailed, Context, GateRejected, step, workflow
from refold.events.errors import GateTimedOut, StepFailed

from .programs import LEAVES as OLD_LEAVES, MANY as OLD_MANY, ONE as OLD_ONE, Boom, Machine, Node, cleanup

LEAVES = [
    *("gate", "gate", "gate", "ask", "child", "child", "unattended", "map", "map", "map_children"),
    *("set", "get", "checkpoint", "attributes", "condition", "patch"),
]
ONE = ["patched", "conditional"]
MANY = ["parallel", "parallel", "some"]


@step
async def item(k: int) -> int:
    return k


@workflow
async def below(ctx: Context, k: int) -> int:
    """Never runs: the world says what it comes to."""
    return k


async def _program(ctx: Context, tree: Node, machine: "ModelMachine") -> list[Any]:
    try:
        result = await machine.run(tree)
    except BaseExceptionGroup as error:
        result = ["group", len(error.exceptions)]
    except (Boom, StepFailed, ChildFailed, GateRejected, GateTimedOut) as error:
        result = ["error", type(error).__name__]
    return [repr(result), machine.trace, machine.steps, ctx.now().isoformat()]


@workflow
async def model_program(ctx: Context, tree: Node) -> list[Any]:
    """Runs one tree."""
    return await _program(ctx, tree, ModelMachine(ctx))


@workflow(name="model_program")
async def before_the_patch(ctx: Context, tree: Node) -> list[Any]:
    """The same before `patched` was put into its code."""
    machine = ModelMachine(ctx)
    machine.patches = False
    return await _program(ctx, tree, machine)


def generate(rng: random.Random, depth: int = 0, budget: list[int] | None = None) -> Node:
    """A random tree of up to some 40 nodes, half of them of the model."""
    budget = budget if budget is not None else [rng.randint(6, 40)]
    budget[0] -= 1
    new = rng.random() < 0.5
    if depth > 5 or budget[0] <= 0 or (depth and rng.random() < 0.2):
        return [rng.choice(LEAVES if new else OLD_LEAVES), rng.randint(0, 3)]
    operation = rng.choice(ONE + MANY if new else OLD_ONE + OLD_MANY)
    children = 1 if operation in ONE + OLD_ONE else rng.randint(2, 4)
    return [operation, rng.randint(0, 3)] + [generate(rng, depth + 1, budget) for _ in range(children)]


class ModelMachine(Machine):
    """Runs one tree of either kind of operations."""

    patches = True

    # ---- people, other runs

    async def do_gate(self, k: int, _: list[Node]) -> Any:
        then = ("reject", "approve", "continue", "fail")[k]
        try:
            decision = await self.ctx.approval(
                f"well {k}?", options=["x", "y"], approvers=1 + k % 2, timeout=(None, 0.8, 3, 30)[k],
                on_timeout=then,  # type: ignore[arg-type]
            )  # fmt: skip
        except (GateRejected, GateTimedOut) as error:
            if k == 2:
                raise
            return type(error).__name__
        self.trace.append([decision.outcome, decision.approvals, decision.selections])
        return decision.by

    async def do_ask(self, k: int, _: list[Node]) -> Any:
        try:
            return await self.ctx.wait_for_input(int, timeout=(None, 1, 5, 60)[k])
        except GateTimedOut:
            return "nobody"

    async def do_child(self, k: int, _: list[Node]) -> Any:
        try:
            return await self.ctx.child(below, k)
        except ChildFailed as failed:
            if k == 3:
                raise
            return failed.status

    async def do_unattended(self, k: int, _: list[Node]) -> Any:
        return await self.ctx.child(below, k, wait=False)

    # ---- several at once

    async def do_map(self, k: int, _: list[Node]) -> Any:
        return list(await self.ctx.map(item, range(k * 2), limit=k or None, when=lambda n: n != 1))

    async def do_map_children(self, k: int, _: list[Node]) -> Any:
        results = await self.ctx.map(below, range(k + 1), limit=2, on_error="continue")
        return [list(results), sorted(results.failures)]

    async def do_parallel(self, k: int, children: list[Node]) -> Any:
        return list(
            await self.ctx.parallel([partial(self.run, child) for child in children], fail_fast=k > 0)
        )

    async def do_some(self, k: int, children: list[Node]) -> Any:
        branches = [Branch(partial(self.run, child), when=n != k) for n, child in enumerate(children)]
        results = await self.ctx.parallel(branches, min_success=0, fail_fast=False)
        return [list(results), sorted(results.failures)]

    # ---- data, decisions

    async def do_set(self, k: int, _: list[Node]) -> Any:
        self.ctx.set("abcd"[k], [k, len(self.trace)])

    async def do_get(self, k: int, _: list[Node]) -> Any:
        return self.ctx.get("abcd"[k], "none")

    async def do_checkpoint(self, k: int, _: list[Node]) -> Any:
        self.ctx.checkpoint(f"c{k}", {"steps": self.steps})

    async def do_attributes(self, k: int, _: list[Node]) -> Any:
        self.ctx.set_attributes(**{"abcd"[k]: k or None})
        return sorted(self.ctx.attributes.items())

    async def do_condition(self, k: int, _: list[Node]) -> Any:
        return self.ctx.condition(f"c{k}", len(self.trace) % 2 == 0, skips=[item], trace=len(self.trace))

    async def do_conditional(self, k: int, children: list[Node]) -> Any:
        if self.ctx.condition(f"large {k}", self.ctx.random.random() < 0.7, skips=["what is below"]):
            return await self.run(children[0])
        return "skipped"

    async def do_patch(self, k: int, _: list[Node]) -> Any:
        return self.patched(k)

    async def do_patched(self, k: int, children: list[Node]) -> Any:
        if self.patched(k):
            await cleanup(k)
        return await self.run(children[0])

    def patched(self, k: int) -> bool:
        return self.patches and self.ctx.patched(f"p{k}")
