"""The plots of a run of the benches, as SVG without any library."""

import math
from collections.abc import Callable
from itertools import groupby
from xml.sax.saxutils import escape

from .figures import Card, Figure

FONT = 'font-family="sans-serif" font-size="12"'
INK, GREY = "#222222", "#cccccc"
# Told apart by eyes of all kinds (Okabe and Ito).
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
PANEL = 300
MARGIN = 60
LABELS = 210
ROW = 18
# Batches of requests; what is counted in larger ones (auctions, vectors) would squeeze them together.
MOST_BATCH = 1024


def latency(found: list[Figure]) -> str:
    """Latency by batch on logarithmic scales: a panel for each d and one for what has none, a line for each kernel."""
    lines = [one for one in found if one.batch and one.batch <= MOST_BATCH]
    panels = [(d, [one for one in lines if one.d == d]) for d in sorted({one.d or 0 for one in lines} - {0})]
    panels += [(None, rest)] if (rest := [one for one in lines if not one.d]) else []
    step = PANEL + MARGIN + LABELS
    drawn = [panel(f"d {d}" if d else "any d", ones, index * step) for index, (d, ones) in enumerate(panels)]
    return document(max(len(panels), 1) * step, PANEL + 2 * MARGIN, "".join(drawn))


def panel(title: str, ones: list[Figure], left: int) -> str:
    """The lines of one panel, each with its name at its end."""
    first, last, top, bottom = left + MARGIN, left + MARGIN + PANEL, MARGIN, MARGIN + PANEL
    times = [one.median_ns / 1e3 for one in ones]
    x, y = scale([one.batch for one in ones], first, last), scale(times, bottom, top)
    parts = [text(first, top - 20, f"{title}: latency in us by batch")]
    for batch in sorted({one.batch for one in ones}):
        parts += [line(x(batch), top, x(batch), bottom), text(x(batch), bottom + 18, f"{batch}", "middle")]
    for tick in decades(times):
        parts += [line(first, y(tick), last, y(tick)), text(first - 6, y(tick) + 4, f"{tick:g}", "end")]
    ends = []
    for index, (label, group) in enumerate(groupby(ones, key=lambda one: (one.kernel, one.what))):
        points = [(x(one.batch), y(one.median_ns / 1e3)) for one in group]
        colour = COLOURS[index % len(COLOURS)]
        path = " ".join(f"{px:.1f},{py:.1f}" for px, py in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3" fill="{colour}"/>' for px, py in points]
        ends.append([points[-1][1] + 4, " ".join(filter(None, label)), colour])
    for at, name, colour in apart(ends):
        parts.append(text(last + 8, at, name, colour=colour))
    return "".join(parts)


def apart(ends: list[list]) -> list[list]:
    """Labels moved downwards until none stands on another."""
    ends.sort()
    for above, below in zip(ends, ends[1:], strict=False):
        below[0] = max(below[0], above[0] + 13)
    return ends


def roofline(found: list[Figure], limits: Card | None) -> str:
    """The share of the card's limit that each kernel reaches: a row for each, a dot for each batch."""
    held = [one for one in found if limits and (one.flops or one.bytes)]
    rows = [(label, list(group)) for label, group in groupby(held, key=lambda one: one.label)]
    left, width, bottom = 260, 500, MARGIN + ROW * len(rows)
    most = max((one.share(limits) for one in held), default=0.0)
    full = max(1.0, math.ceil(most * 10) / 10)
    parts = [
        text(left, MARGIN - 30, "Share of the roofline: a dot for each batch, darker where it is larger")
    ]
    for tick in range(0, round(full * 10) + 1, 2):
        at = left + width * tick / 10 / full
        parts += [line(at, MARGIN - 8, at, bottom), text(at, MARGIN - 12, f"{tick * 10} %", "middle")]
    for index, (label, group) in enumerate(rows):
        y = MARGIN + ROW * (index + 0.5)
        parts.append(text(left - 8, y + 4, label, "end"))
        for place, one in enumerate(group, 1):
            at = left + width * one.share(limits) / full
            depth = place / len(group)
            parts.append(
                f'<circle cx="{at:.1f}" cy="{y:.1f}" r="5" fill="{COLOURS[0]}" fill-opacity="{depth:.2f}">'
                f"<title>{escape(label)}, batch {one.batch}: {one.share(limits):.1%}</title></circle>"
            )
    if not rows:
        parts.append(text(left, MARGIN + ROW, "No figure with known limits."))
    return document(left + width + 40, bottom + 20 + ROW, "".join(parts))


def scale(values: list[float], low: float, high: float) -> Callable[[float], float]:
    """From values to places between `low` and `high`, logarithmically."""
    least, most = math.log(min(values)), math.log(max(values))
    return lambda value: (
        low + (high - low) * ((math.log(value) - least) / (most - least) if most > least else 0.5)
    )


def decades(values: list[float]) -> list[float]:
    """The powers of ten among values."""
    first, last = math.ceil(math.log10(min(values))), math.floor(math.log10(max(values)))
    return [10.0**power for power in range(first, last + 1)]


def line(x1: float, y1: float, x2: float, y2: float) -> str:
    """A thin line of a grid."""
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{GREY}"/>'


def text(x: float, y: float, words: str, anchor: str = "start", colour: str = INK) -> str:
    """Words at a place."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" {FONT} fill="{colour}" text-anchor="{anchor}">{escape(words)}</text>'
    )


def document(width: float, height: float, body: str) -> str:
    """An SVG document."""
    size = f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}"'
    paper = '<rect width="100%" height="100%" fill="white"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{paper}{body}</svg>\n'
