"""An order: hold the stock, charge the card, ship. When it cannot be shipped, all of that is undone."""

import time
from pathlib import Path

from msgspec import Struct

from refold import Context, NonRetryable, Retry, current_step, step, workflow

patient = Retry(max_attempts=5, initial_interval=0.5)


class Order(Struct):
    item: str
    count: int
    cents: int
    country: str


# ---- the world outside: three services, which remember in a file what they did ------------------------


def service(text: str) -> None:
    """Do something once for each idempotency key, as a good service does, however often it is called."""
    print(text)
    time.sleep(0.7)
    ledger = Path("ledger.txt")
    known = ledger.read_text() if ledger.exists() else ""
    if current_step().idempotency_key not in known:
        ledger.write_text(f"{known}{current_step().idempotency_key} {text}\n")


# ---- steps, each with the step that undoes it ---------------------------------------------------------


@step(retry=patient)
def release(order: Order, *, result: str) -> None:
    service(f"release {result}")


@step(retry=patient, compensate=release)
def hold(order: Order) -> str:
    service(f"hold {order.count} x {order.item}")
    return f"{order.count} x {order.item}"


@step(retry=patient)
def refund(order: Order, *, result: str) -> None:
    service(f"refund {result}")


@step(retry=patient, compensate=refund)
def charge(order: Order) -> str:
    service(f"charge {order.cents} cents")
    return f"{order.cents} cents"


@step(retry=patient)
def ship(order: Order) -> str:
    if order.country == "Atlantis":
        raise NonRetryable("nobody delivers to Atlantis")
    service(f"ship to {order.country}")
    return f"parcel to {order.country}"


# ---- the decisions -----------------------------------------------------------------------------------


@workflow
async def buy(ctx: Context, order: Order) -> dict[str, str]:
    held = await hold(order)
    paid = await charge(order)
    return {"held": held, "paid": paid, "parcel": await ship(order)}
