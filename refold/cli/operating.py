"""`refold pause`, `terminate`, `skip`, `reset`, `resolve`: what operators do to a run that goes on."""

import argparse
from typing import Any

from ..engine.engine import Engine
from ..events.errors import ActRefused, RunEnded
from ..events.store import Store
from ..projections.own import fold_steps
from ..projections.why import Standing, Wait
from ..projections.why_of import look
from .given import parse_json
from .screen import Screen
from .speaking import Check, Fate, Say, by, current, report, speak

_OF_STEPS = frozenset({"in_doubt", "retry", "interrupted", "running", "held", "queued"})


def pause(args: argparse.Namespace, screen: Screen) -> int:
    """`refold pause RUN`."""

    def check(store: Store) -> None:
        if will_be_paused(standing := going_on(store, current(store, args.run))):
            raise ActRefused(f"run {standing.run_id} is paused already: refold resume {standing.run_id}")

    async def act(engine: Engine) -> None:
        await engine.pause(args.run, args.reason, by=by(args))

    return _act(args, screen, act, check, "is held: nothing new begins until it is resumed", {})


def terminate(args: argparse.Namespace, screen: Screen) -> int:
    """`refold terminate RUN`."""

    async def act(engine: Engine) -> None:
        await engine.terminate(args.run, args.reason, by=by(args))

    return _act(args, screen, act, None, "is ended without asking its handler", {})


def skip(args: argparse.Namespace, screen: Screen) -> int:
    """`refold skip RUN STEP`."""
    result = _result(args)

    def check(store: Store) -> None:
        _open(store, args)

    async def act(engine: Engine) -> None:
        await engine.skip_step(args.run, args.step, result, reason=args.reason, by=by(args))

    fields = {"step": args.step, "result": result}
    done = f"takes the result given for step {args.step}, which does not run any more"
    return _act(args, screen, act, check, done, fields)


def reset(args: argparse.Namespace, screen: Screen) -> int:
    """`refold reset RUN STEP`."""

    def check(store: Store) -> None:
        standing = going_on(store, args.run)
        if (wait := _find(standing, args.step)) is not None:
            raise ActRefused(
                f"run {standing.run_id}: step {args.step} has not ended ({wait.type}): there is nothing to "
                "reset; refold skip gives it a result"
            )
        keys = [row["key"] for row in fold_steps(store.read(standing.run_id)) if not row["superseded"]]
        if args.step not in keys:
            raise ActRefused(f"run {standing.run_id} has no step {args.step!r}; its steps: {_listed(keys)}")

    async def act(engine: Engine) -> None:
        await engine.reset_step(args.run, args.step, reason=args.reason, by=by(args))

    done = f"goes back to before the end of step {args.step}, and runs it again"
    return _act(args, screen, act, check, done, {"step": args.step})


def resolve(args: argparse.Namespace, screen: Screen) -> int:
    """`refold resolve RUN STEP OUTCOME`."""
    result = _result(args)

    def check(store: Store) -> None:
        wait = _open(store, args)
        if wait.type != "in_doubt":
            raise ActRefused(
                f"run {args.run}: step {args.step} is not in doubt ({wait.type}); "
                "skip it (refold skip) or let it run"
            )

    async def act(engine: Engine) -> None:
        await engine.resolve_step(args.run, args.step, args.outcome, result, reason=args.reason, by=by(args))

    fields = {"step": args.step, "outcome": args.outcome, "result": result}
    done = {"completed": "completed", "failed": "failed", "retry": "to be tried again"}[args.outcome]
    return _act(args, screen, act, check, f"is told that step {args.step} is {done}", fields)


def _act(
    args: argparse.Namespace, screen: Screen, act: Say, check: Check | None, done: str,
    fields: dict[str, Any],
) -> int:  # fmt: skip
    fate = speak(args, act, check)
    words = f"run {fate.run_id} {done}" if fate.taken else asked(args, fate)
    said = {"act": args.command, **fields, "reason": args.reason, "by": by(args)}
    return report(args, screen, fate, words, said)


def asked(args: argparse.Namespace, fate: Fate) -> str:
    """What is stored of a request that its run has not taken yet."""
    step = getattr(args, "step", "")
    about = f"step {step} of run {fate.run_id}" if step else f"run {fate.run_id}"
    return f"the request to {args.command} {about} is stored"


def _result(args: argparse.Namespace) -> Any:
    return parse_json(args.result, "--result") if args.result is not None else None


# ---- what can be told at once, without the process that executes ---------------------------------------


def going_on(store: Store, run_id: str) -> Standing:
    """How a run stands that has not ended. Raises `RunNotFound`, `RunEnded`."""
    standing = look(store, run_id)
    if standing.over:
        raise RunEnded(standing.run_id, standing.status)
    return standing


def will_be_paused(standing: Standing) -> bool:
    """Whether it is paused once it has taken what waits in its inbox."""
    paused = standing.paused is not None
    for mail in standing.mail:
        if mail.what == "request pause":
            paused = True
        elif mail.what in ("request resume", "request cancel", "request compensate"):
            paused = False
    return paused


def _open(store: Store, args: argparse.Namespace) -> Wait:
    """The open step that is meant. Raises `ActRefused`."""
    standing = going_on(store, args.run)
    if (wait := _find(standing, args.step)) is not None:
        return wait
    keys = [wait.name for wait in standing.waits if wait.type in _OF_STEPS]
    raise ActRefused(f"run {standing.run_id} has no open step {args.step!r}; open steps: {_listed(keys)}")


def _find(standing: Standing, key: str) -> Wait | None:
    return next((w for w in standing.waits if w.type in _OF_STEPS and w.name == key), None)


def _listed(keys: list[str]) -> str:
    more = f" and {len(keys) - 10} more" if len(keys) > 10 else ""
    return (", ".join(keys[:10]) or "none") + more
