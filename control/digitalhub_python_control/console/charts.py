"""Charts as SVG, made on the server. Pure: numbers in, markup out."""

from __future__ import annotations

import math
from collections.abc import Sequence

from markupsafe import Markup

_WIDTH, _HEIGHT, _LEFT, _BELOW = 480, 160, 56, 22


def line(name: str, values: Sequence[float]) -> Markup:
    """A metric over its steps; steps that have no finite number are gaps."""
    finite = [v for v in values if math.isfinite(v)]
    if not finite:
        return Markup("")
    low, high = min(finite), max(finite)
    if low == high:
        low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
    last = max(1, len(values) - 1)

    def point(step: int, value: float) -> str:
        x = _LEFT + (_WIDTH - _LEFT - 8) * step / last
        # Halved first: the difference of two numbers can be more than a number can be.
        share = (value / 2 - low / 2) / (high / 2 - low / 2)
        return f"{x:.1f},{8 + (_HEIGHT - _BELOW - 16) * (1 - share):.1f}"

    pieces: list[list[str]] = [[]]
    for step, value in _thinned(values):
        if math.isfinite(value):
            pieces[-1].append(point(step, value))
        elif pieces[-1]:
            pieces.append([])
    drawn = Markup("").join(_piece(piece) for piece in pieces if piece)
    told = f"{name}: {len(values)} steps, from {finite[0]:.4g} to {finite[-1]:.4g}, lowest {min(finite):.4g}, highest {max(finite):.4g}"
    return Markup(
        '<svg class="chart" viewBox="0 0 {w} {h}" role="img" aria-label="{told}">'
        '<line x1="{x}" x2="{r}" y1="8" y2="8"/><line x1="{x}" x2="{r}" y1="{b}" y2="{b}"/>'
        '<text x="{t}" y="12" text-anchor="end">{high}</text><text x="{t}" y="{b}" text-anchor="end">{low}</text>'
        '<text x="{x}" y="{y}">0</text><text x="{r}" y="{y}" text-anchor="end">step {last}</text>{drawn}</svg>'
    ).format(
        w=_WIDTH, h=_HEIGHT, x=_LEFT, r=_WIDTH - 8, b=_HEIGHT - _BELOW - 8, t=_LEFT - 6, y=_HEIGHT - 6,
        told=told, high=f"{high:.4g}", low=f"{low:.4g}", last=len(values) - 1, drawn=drawn,
    )  # fmt: skip


def bars(name: str, columns: Sequence[tuple[float, str, str]]) -> Markup:
    """Bars for (height, class, what it is), oldest first: the durations of a function's runs."""
    high = max((height for height, _, _ in columns), default=0) or 1
    wide = (_WIDTH - 2) / max(len(columns), 12)
    drawn = Markup("").join(
        Markup(
            '<rect class="{}" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>'
        ).format(
            kind,
            f"{1 + at * wide:.1f}",
            f"{60 - max(3, 56 * height / high):.1f}",
            f"{max(1, wide - 2):.1f}",
            f"{max(3, 56 * height / high):.1f}",
            told,
        )
        for at, (height, kind, told) in enumerate(columns)
    )
    return Markup(
        '<svg class="chart bars" viewBox="0 0 {} 62" role="img" aria-label="{}">{}</svg>'
    ).format(_WIDTH, name, drawn)


def histogram(name: str, bins: Sequence[int], low: str, high: str) -> Markup:
    """How many values are in each part between the lowest and the highest; nothing where there are none."""
    if len(bins) < 2:
        return Markup("")
    most = max(bins) or 1
    drawn = Markup("").join(
        Markup('<rect x="{}" y="{:.1f}" width="7" height="{:.1f}"><title>{}</title></rect>').format(
            1 + 8 * at, 40 - 38 * count / most, 38 * count / most, count
        )
        for at, count in enumerate(bins)
        if count
    )
    told = f"{name}: {len(bins)} equal parts from {low} to {high}; values in each: {', '.join(map(str, bins))}"
    return Markup(
        '<svg class="histogram" width="{w}" height="42" viewBox="0 0 {w} 42" role="img" aria-label="{told}">'
        '<line x1="0" x2="{w}" y1="40.5" y2="40.5"/>{drawn}</svg>'
    ).format(w=2 + 8 * len(bins), told=told, drawn=drawn)


def _piece(points: Sequence[str]) -> Markup:
    if len(points) == 1:
        x, _, y = points[0].partition(",")
        return Markup('<circle cx="{}" cy="{}" r="3"/>').format(x, y)
    return Markup('<polyline points="{}"/>').format(" ".join(points))


def _thinned(values: Sequence[float], most: int = 600) -> list[tuple[int, float]]:
    """(step, value) of at most so many steps and the last one: a screen has no more points."""
    every = max(1, -(-len(values) // most))
    steps = sorted({*range(0, len(values), every), len(values) - 1})
    return [(step, float(values[step])) for step in steps]
