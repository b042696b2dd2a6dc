"""An expense: the manager decides, or the heads when nobody answers; large ones need two of finance, too."""

from msgspec import Struct

from refold import Context, GateRejected, Stage, record_cost, step, workflow

MANAGERS, HEADS, FINANCE = ["mia"], ["hans", "helga"], ["fay", "finn", "flo"]
LARGE = 5_000


class Expense(Struct):
    what: str
    usd: int
    patience: float = 86_400.0
    """Seconds that each stage gets to answer."""


@step
async def pay(expense: Expense, approved_by: list[str]) -> str:
    print("paying", expense.usd, "USD for", expense.what)
    record_cost(expense.usd, model="expense")
    return f"transfer of {expense.usd} USD"


@step
async def tell(text: str) -> None:
    print("mail:", text)


@workflow
async def expense(ctx: Context, asked: Expense) -> str:
    approved: list[str] = []
    try:
        await tell(f"{', '.join(MANAGERS)}: please decide about {asked.what}")
        decision = await ctx.approval(
            f"Pay {asked.usd} USD for {asked.what}?",
            name="manager",
            shown=asked,
            voters=MANAGERS,
            timeout=asked.patience,
            escalation=[Stage(voters=HEADS, timeout=asked.patience)],  # then it is rejected
        )
        approved += decision.approvals
        if asked.usd > LARGE:
            await tell(f"{', '.join(FINANCE)}: two of you, please")
            decision = await ctx.approval(
                f"Pay {asked.usd} USD for {asked.what}? {', '.join(approved)} said yes.",
                name="finance",
                shown={"expense": asked, "approved_by": approved},
                voters=FINANCE,
                approvers=2,
                self_approval=False,
                timeout=7 * asked.patience,
            )
            approved += decision.approvals
    except GateRejected as rejected:
        await tell(f"not paid: {rejected.feedback or 'nobody answered'}")
        return f"rejected by {rejected.by or 'silence'}"
    paid = await pay(asked, approved)
    await tell(f"paid, after the word of {' and '.join(approved)}")
    return paid
