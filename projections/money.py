"""Exact money: decimal text in rows, sums that refuse to round.

10,000 times 0.0001 is 1.0000 here; as binary floats it is 0.9999999999999062.
"""

from decimal import Context, Decimal, Inexact, InvalidOperation, Overflow

_EXACT = Context(prec=100, traps=[Inexact, InvalidOperation, Overflow])
"""A sum that does not fit 100 digits raises `decimal.Inexact`: better parked than rounded."""


def add(total: str, amount: Decimal) -> str:
    """`total` and `amount`, as plain digits (never `1E+3`). Raises for NaN, infinities and inexact sums."""
    if not amount.is_finite():
        raise ValueError(f"{amount} is not an amount of money")
    return format(_EXACT.add(Decimal(total), amount), "f")
