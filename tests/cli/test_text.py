"""Words for values, whatever is in them."""

import io
import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, strategies as st

from refold.cli import timeline
from refold.cli.screen import Screen
from refold.cli.text import as_json, count, seconds, usd, visible
from refold.projections.bars import Axis
from refold.projections.lanes import Lane, Mark, Segment

ANY_TEXT = st.text(st.characters(codec=None))


@given(ANY_TEXT)
def test_everything_shown_is_printable(text: str) -> None:
    assert visible(text).isprintable()
    assert not text.isprintable() or visible(text) == text


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers(-9, 9) | st.text(),
        lambda v: st.lists(v) | st.dictionaries(st.text(), v),
    )
)
def test_json_means_the_same_with_its_controls_escaped(value: Any) -> None:
    for indent in (None, 2):
        text = as_json(value, indent=indent)
        assert json.loads(text) == value
        assert text.replace("\n", "").isprintable()


@given(st.floats(0, 1e9))
def test_a_duration_is_never_shown_as_sixty_of_anything(value: float) -> None:
    words = seconds(value).split()
    assert len(words) in (2, 4)
    assert "60" not in words or words[1] in ("ms", "d")


@pytest.mark.parametrize(
    ("amount", "text"), [("0", ""), ("0.10", "$0.10"), ("1000", "$1000.00"), ("0.0001", "$0.0001")]
)
def test_money_is_exact(amount: str, text: str) -> None:
    assert usd(Decimal(amount)) == text
    assert count(1_000, "event") == "1,000 events"


START = datetime(2026, 1, 1, tzinfo=UTC)


def at(second: float) -> datetime:
    return START + timedelta(seconds=second)


@given(st.floats(-10, 20), st.integers(1, 200))
def test_every_moment_has_a_cell(second: float, width: int) -> None:
    assert 0 <= Axis(START, at(10), width).cell(at(second)) < width


def test_bars_show_when_what_was_and_marks_point_at_it() -> None:
    out = io.StringIO()
    lanes = [
        Lane("charge#1", "step", attempts=2, failed=1, status="completed", active_s=6.0, cost=Decimal("0.5"),
             segments=[Segment(at(0), at(1.9), "failed"), Segment(at(5), at(9.9), "run")]),
        Lane("wait for paid", "wait", status="waiting", segments=[Segment(at(8), None, "wait")]),
    ]  # fmt: skip
    timeline.draw(Screen(out), lanes, at(0), at(10), [Mark(at(4), "owner 2")])
    header, charge, wait, legend = out.getvalue().splitlines()
    assert header.split()[-4:] == ["▼", "owner", "2", "10.00"] or "▼ owner 2" in header
    bar = charge[charge.index("▓") :]
    assert bar.count("▓") == pytest.approx(bar.count("█") * 2 / 5, abs=2)
    assert charge.index("┊") == header.index("▼")
    assert "2 (1 failed)" in charge
    assert "$0.50" in charge
    assert "2.00 s" in wait
    assert wait.rstrip().endswith("·")
    assert legend.split() == ["·", "waiting", "█", "running", "▓", "failed"]


def test_a_run_without_a_duration_can_be_drawn() -> None:
    out = io.StringIO()
    timeline.draw(Screen(out), [Lane("a#1", "step", segments=[Segment(START, START, "run")])], START, START)
    assert "█" in out.getvalue()
