"""A run as a picture for notebooks and pages: HTML with an inline SVG, without script, style sheet or link.

It takes its text colour from where it stands and paints on nothing, so it is readable on light and on dark;
attributes instead of a style sheet, because notebooks and their exports take style sheets out.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from .bars import KINDS, Axis, cells, stretches
from .lanes import Lane
from .timelines import Timeline, timeline_of
from .words import clip, clock, count, seconds, usd, visible

__all__ = ["COLOURS", "picture", "pill", "runs_table", "safe", "timeline_of"]

LANES = 60
"""More are not drawn, only counted."""
WIDTH, LEFT, RIGHT, ROW, TOP = 960, 190, 250, 22, 30
_BARS = WIDTH - LEFT - RIGHT
TIMES = "\N{MULTIPLICATION SIGN}"
COLOURS = {
    "wait": "#5aa9bd", "retry": "#d29a1c", "paused": "#b58b4a", "child": "#5b86d6", "run": "#2f9e62",
    "undo": "#a561c4", "cancelled": "#949aa1", "failed": "#dc4c3f", "cut": "#d8891b",
}  # fmt: skip
_THIN = {"wait": 4, "retry": 2, "paused": 6}
"""Heights of bars in which nothing runs; of the others 12."""
_STATUS = {
    "completed": "run", "continued": "run", "failed": "failed", "compensation_failed": "failed",
    "compensated": "undo", "compensating": "undo", "cancelled": "cancelled", "terminated": "cancelled",
    "paused": "paused", "waiting": "wait", "running": "child", "pending": "cancelled",
}  # fmt: skip


def picture(found: Timeline, now: datetime) -> str:
    """The run: how it stands, its lanes over time, what the colours mean."""
    end = found.end or now
    lanes = found.lanes[:LANES]
    axis = Axis(found.start, end, _BARS)
    height = TOP + ROW * len(lanes) + 8
    used: dict[str, None] = {}
    drawn = [piece for place, lane in enumerate(lanes) for piece in _lane(lane, place, axis, end, used)]
    svg = [
        f'<svg viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}" role="img" '
        'style="max-width:100%;height:auto;display:block" fill="currentColor" '
        'font-family="system-ui,sans-serif" font-size="12">',
        *_scale(axis, height), *drawn, *_marks(found, axis, height), "</svg>",
    ]  # fmt: skip
    below = [_legend(used), *_more(found, len(lanes)), *_troubles(found.run)]
    return _frame([*_head(found.run, (end - found.start).total_seconds()), *svg, *below])


def safe(text: object) -> str:
    """Any text, so that it stays a text in HTML and in an attribute, and steers nothing."""
    plain = visible(text)
    for character, entity in (("&", "amp"), ("<", "lt"), (">", "gt"), ('"', "quot"), ("'", "#39")):
        plain = plain.replace(character, f"&{entity};")
    return plain


def _frame(pieces: Iterable[str]) -> str:
    style = "font-family:system-ui,sans-serif;font-size:13px;line-height:1.5;color:inherit"
    return f'<div style="{style}">\n' + "\n".join(pieces) + "\n</div>"


def pill(status: str) -> str:
    """A status in its colour."""
    colour = COLOURS[_STATUS.get(status, "cancelled")]
    style = f"background:{colour};color:#fff;border-radius:9px;padding:1px 9px;font-size:12px"
    return f'<span style="{style}">{safe(status.replace("_", " "))}</span>'


def _head(run: Any, took_s: float) -> Iterator[str]:
    about = [
        f"{safe(run.workflow)} version {safe(run.version)}", f"started {clock(run.started_at)} UTC",
        f"took {seconds(took_s)}" if run.ended_at else f"{seconds(took_s)} so far",
        count(run.steps_total, "step"), count(run.attempts, "attempt"), usd(run.total_usd),
    ]  # fmt: skip
    yield f'<div style="margin-bottom:4px"><b>{safe(run.run_id)}</b>&#8194;{pill(str(run.status))}</div>'
    told = " · ".join(piece for piece in about if piece)
    yield f'<div style="opacity:.75;margin-bottom:6px">{told}</div>'


# ---- the drawing -----------------------------------------------------------------------------------------


def _scale(axis: Axis, height: int) -> Iterator[str]:
    """A line every so many seconds."""
    step = _tick(axis.total_s / 6)
    for number in range(int(axis.total_s / step) + 1):
        x = LEFT + number * step / axis.total_s * _BARS
        yield (
            f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{TOP - 6}" y2="{height}" stroke="currentColor" '
            'stroke-opacity=".15"/>'
        )
        label = seconds(number * step).replace(".00 s", " s") if number else "0 s"
        place = f'x="{x:.1f}" y="{TOP - 12}" text-anchor="middle"'
        yield f'<text {place} opacity=".6" font-size="11">{label}</text>'


_TICKS = (
    *(mantissa * 10.0**exponent for exponent in range(-6, 0) for mantissa in (1, 2, 5)),
    1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1_200, 1_800, 3_600, 7_200, 14_400, 21_600, 43_200, 86_400,
)  # fmt: skip


def _tick(about_s: float) -> float:
    """A round number of seconds, at least so many."""
    whole_days = max(round(about_s / 86_400 + 0.5), 1) * 86_400
    return next((size for size in _TICKS if size >= about_s), whole_days)


def _lane(lane: Lane, place: int, axis: Axis, end: datetime, used: dict[str, None]) -> Iterator[str]:
    y = TOP + place * ROW + ROW / 2
    if place % 2 == 0:
        yield f'<rect x="0" y="{y - ROW / 2}" width="{WIDTH}" height="{ROW}" fill-opacity=".04"/>'
    name, outcome = _name(lane), _outcome(lane)
    indent = 8 + 12 * min(lane.depth, 4)
    yield f'<text x="{indent}" y="{y + 4}">{safe(clip(name, 27 - 2 * min(lane.depth, 4)))}' + (
        f"<title>{safe(name)}</title></text>"
    )
    for first, after, kind in stretches(cells(lane, axis, end)):
        used[kind] = None
        high = _THIN.get(kind, 12)
        wide = max(after - first, 2)
        yield (
            f'<rect x="{LEFT + first}" y="{y - high / 2}" width="{wide}" height="{high}" '
            f'rx="{min(2, high / 2):g}" fill="{COLOURS[kind]}"><title>{safe(name)}: {KINDS[kind]}, '
            f"{seconds(wide / _BARS * axis.total_s)}</title></rect>"
        )
    time = seconds(lane.seconds_until(end))
    yield f'<text x="{WIDTH - RIGHT + 66}" y="{y + 4}" text-anchor="end" opacity=".75">{time}</text>'
    money = usd(lane.cost)
    told = " · ".join(piece for piece in (money, outcome) if piece)
    yield (
        f'<text x="{WIDTH - RIGHT + 76}" y="{y + 4}" opacity=".75">{safe(clip(told, 28))}'
        f"<title>{safe(told)}</title></text>"
    )


def _name(lane: Lane) -> str:
    if lane.kind == "child" and lane.run_id:
        return lane.run_id
    return f"{lane.name} {TIMES}{lane.steps:,}" if lane.steps > 1 else lane.name.removesuffix("#1")


def _outcome(lane: Lane) -> str:
    if lane.kind not in ("step", "undo"):
        return f"{lane.name.removeprefix('child ')}: {lane.note}" if lane.kind == "child" else lane.note
    pieces = [count(lane.attempts, "attempt")] if lane.attempts != lane.steps else []
    pieces += [f"{lane.failed:,} failed"] if lane.failed else []
    pieces += [f"{lane.cut:,} cut off"] if lane.cut else []
    return ", ".join([*pieces, lane.note] if lane.note else pieces)


def _marks(found: Timeline, axis: Axis, height: int) -> Iterator[str]:
    for mark in found.marks[-20:]:
        x = LEFT + axis.cell(mark.at)
        yield (
            f'<line x1="{x}" x2="{x}" y1="{TOP - 4}" y2="{height}" stroke="{COLOURS["cut"]}" '
            f'stroke-dasharray="3 3"><title>{safe(mark.label)} at {clock(mark.at)} UTC</title></line>'
        )


# ---- below it --------------------------------------------------------------------------------------------


def _legend(used: Iterable[str]) -> str:
    shown = [kind for kind in KINDS if kind in used]
    swatch = "display:inline-block;vertical-align:middle;width:12px;border-radius:2px;margin-right:5px"
    pieces = [
        f'<span style="{swatch};height:{_THIN.get(kind, 10)}px;background:{COLOURS[kind]}"></span>'
        f"{KINDS[kind]}&#8195;"
        for kind in shown
    ]
    return f'<div style="opacity:.8;font-size:12px;margin-top:4px">{"".join(pieces)}</div>'


def _more(found: Timeline, drawn: int) -> Iterator[str]:
    if len(found.lanes) > drawn:
        yield f'<div style="opacity:.6">and {count(len(found.lanes) - drawn, "lane")} more</div>'


def _troubles(run: Any) -> Iterator[str]:
    if run.attention != "none":
        text = clip(f"{run.attention}: {run.attention_reason or ''}".removesuffix(": "), 400)
        yield f'<div style="color:{COLOURS["cut"]}">{safe(text)}</div>'
    if run.error_type:
        text = clip(f"{run.error_type}: {run.error_message or ''}".removesuffix(": "), 400)
        yield f'<div style="color:{COLOURS["failed"]}">{safe(text)}</div>'


# ---- lists -----------------------------------------------------------------------------------------------


def runs_table(runs: Sequence[dict[str, Any]], more: bool) -> str:
    """A list of runs, as `engine.runs.list` gives it."""
    cell = "padding:2px 14px 2px 0;text-align:left;border:0;background:none"
    names = ("run", "workflow", "status", "started (UTC)", "took", "steps", "cost", "note")
    rows = ["".join(f'<th style="{cell};opacity:.6;font-weight:normal">{name}</th>' for name in names)]
    for run in runs:
        note = run["error_type"] or (run["blocked_on"] or {}).get("type", "")
        if run["attention"] != "none":
            note = run["attention"]
        values = (
            f"<b>{safe(run['run_id'])}</b>", safe(f"{run['workflow']} {run['version']}"), pill(run["status"]),
            clock(run["started_at"]), seconds(run["wall_s"]),
            f"{run['steps_completed']:,}/{run['steps_total']:,}", usd(run["cost_usd"]), safe(note),
        )  # fmt: skip
        rows.append("".join(f'<td style="{cell}">{value}</td>' for value in values))
    table = "\n".join(f"<tr>{row}</tr>" for row in rows)
    last = ['<div style="opacity:.6">and more: ask with <code>cursor</code></div>'] if more else []
    none = ['<div style="opacity:.6">no runs</div>'] if not runs else []
    return _frame(
        [f'<table style="border-collapse:collapse;border:0;font-size:13px">{table}</table>', *none, *last]
    )
