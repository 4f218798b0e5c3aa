"""Drawings as SVG that stands inside a page: no script, colours from the page's style sheet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

# Of about a phone's width, so that the letters are as large there as they are here.
_WIDTH, _HEIGHT = 360, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 14, 40
_MARGIN, _ROW = 18, 34
"""Of a dot plot: beside the axis, and from row to row."""
_NAME = 52
"""Characters of a row's name that fit."""


@dataclass(frozen=True)
class Series:
    """One set of bars."""

    name: str
    counts: Sequence[int]
    is_outline: bool = False
    """A line without bars: it differs from the bars without colours."""


@dataclass(frozen=True)
class Dots:
    """One line of a dot plot."""

    name: str
    mean: float
    low: float
    high: float
    """Of the interval around the mean."""
    values: Sequence[float] = ()
    """What the mean is of, where that is few enough to be shown."""


@dataclass(frozen=True)
class Point:
    """One place of a line."""

    x: float
    mean: float
    deviation: float
    """Of the values; 0 where there is one."""
    values: Sequence[float] = ()
    """What the mean is of, where that is more than one."""


def histogram_svg(
    title: str,
    edges: Sequence[float],
    series: Sequence[Series],
    *,
    x_label: str,
    y_label: str,
    marks: Sequence[tuple[float, str]] = (),
) -> str:
    """Return a histogram: of one series in counts, of several in per cent of each.

    Args:
        title: what a screen reader says in its place.
        marks: places on the x axis that get a line, and its words.
    """
    shares = [_heights(one.counts, in_percent=len(series) > 1) for one in series]
    ticks = round_ticks(0, max([1e-9, *(height for heights in shares for height in heights)]))
    top, left, right = ticks[-1], edges[0], edges[-1]

    def x(value: float) -> float:
        return _LEFT + (value - left) / (right - left) * (_WIDTH - _LEFT - _RIGHT)

    def y(height: float) -> float:
        return _HEIGHT - _BOTTOM - height / top * (_HEIGHT - _TOP - _BOTTOM)

    floor_y = y(0)
    parts = [
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
        f'<text class="tick" x="{_LEFT - 5}" y="{y(tick) + 3.5:.1f}" text-anchor="end">{tick:,g}</text>'
        for tick in ticks
    ]
    for number, (one, heights) in enumerate(zip(series, shares, strict=True)):
        if one.is_outline:
            parts.append(_outline(number, [x(edge) for edge in edges], [y(height) for height in heights], floor_y))
            continue
        for low, high, count, height in zip(edges[:-1], edges[1:], one.counts, heights, strict=True):
            if count:
                parts.append(
                    f'<rect class="s{number}" x="{x(low) + 0.5:.1f}" y="{y(height):.1f}" '
                    f'width="{max(x(high) - x(low) - 1, 0.5):.1f}" height="{floor_y - y(height):.1f}">'
                    f"<title>{low:g} to {high:g}: {count:,} {escape(one.name)}</title></rect>"
                )
    parts += [
        f'<text class="tick" x="{x(tick):.1f}" y="{floor_y + 14:.1f}" text-anchor="middle">{tick:,g}</text>'
        for tick in round_ticks(left, right)
        if left <= tick <= right
    ]
    for value, words in marks:
        if left <= value <= right:
            side = "end" if value > (left + right) / 2 else "start"
            shift = -4 if side == "end" else 4
            parts.append(
                f'<line class="mark" x1="{x(value):.1f}" x2="{x(value):.1f}" y1="{_TOP - 6}" y2="{floor_y:.1f}"/>'
                f'<text class="mark" x="{x(value) + shift:.1f}" y="{_TOP}" text-anchor="{side}">{escape(words)}</text>'
            )
    parts.append(_axes(x_label, y_label))
    return f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">' + "".join(parts) + "</svg>"


def dots_svg(title: str, rows: Sequence[Dots], *, x_label: str, mark: float | None = None) -> str:
    """Return means with their intervals, one below the other.

    Args:
        title: what a screen reader says in its place.
        mark: a place on the x axis that gets a line down all rows.
    """
    every = [value for row in rows for value in (row.mean, row.low, row.high, *row.values)]
    low, high = min(every), max(every)
    ticks = round_ticks(low, high if high > low else low + 1e-3)
    left, right = ticks[0], ticks[-1]
    bottom = _TOP + len(rows) * _ROW

    def x(value: float) -> float:
        return _MARGIN + (value - left) / (right - left) * (_WIDTH - 2 * _MARGIN)

    parts = [
        f'<line class="grid" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{_TOP}" y2="{bottom}"/>'
        f'<text class="tick" x="{x(tick):.1f}" y="{bottom + 14}" text-anchor="middle">{tick:,g}</text>'
        for tick in ticks
    ]
    if mark is not None:
        parts.append(f'<line class="mark" x1="{x(mark):.1f}" x2="{x(mark):.1f}" y1="{_TOP}" y2="{bottom}"/>')
    for number, row in enumerate(rows):
        y = _TOP + number * _ROW + _ROW * 0.68
        parts.append(
            f"<g><title>{escape(row.name)}: {row.mean:.4f} ({row.low:.4f} to {row.high:.4f})</title>"
            f'<text class="row" x="{_MARGIN}" y="{y - 9:.1f}">{escape(row.name[:_NAME])}</text>'
            f'<line class="interval" x1="{x(row.low):.1f}" x2="{x(row.high):.1f}" y1="{y:.1f}" y2="{y:.1f}"/>'
            + "".join(f'<circle class="seed" cx="{x(value):.1f}" cy="{y:.1f}" r="3"/>' for value in row.values)
            + f'<circle class="dot" cx="{x(row.mean):.1f}" cy="{y:.1f}" r="4.5"/></g>'
        )
    parts.append(f'<text class="axis" x="{_WIDTH / 2}" y="{bottom + 30}" text-anchor="middle">{escape(x_label)}</text>')
    drawing = f'<svg viewBox="0 0 {_WIDTH} {bottom + 36}" role="img" aria-label="{escape(title)}">'
    return drawing + "".join(parts) + "</svg>"


def line_svg(title: str, points: Sequence[Point], *, x_label: str, y_label: str, mark: float | None = None) -> str:
    """Return a line through means, with a band of one standard deviation and the values themselves.

    Args:
        title: what a screen reader says in its place.
        points: two at least, by ascending x.
        mark: a height that gets a dashed line.
    """
    heights = [height for point in points for height in (point.mean - point.deviation, point.mean + point.deviation)]
    heights += [value for point in points for value in point.values] + ([] if mark is None else [mark])
    ticks = round_ticks(min(heights), max(max(heights), min(heights) + 1e-3))
    places = round_ticks(points[0].x, points[-1].x)

    def x(value: float) -> float:
        return _LEFT + (value - places[0]) / (places[-1] - places[0]) * (_WIDTH - _LEFT - _RIGHT - _MARGIN)

    def y(height: float) -> float:
        return _HEIGHT - _BOTTOM - (height - ticks[0]) / (ticks[-1] - ticks[0]) * (_HEIGHT - _TOP - _BOTTOM)

    def path(heights: Sequence[float], points: Sequence[Point]) -> str:
        return " ".join(f"{x(point.x):.1f},{y(height):.1f}" for point, height in zip(points, heights, strict=True))

    parts = [
        f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
        f'<text class="tick" x="{_LEFT - 5}" y="{y(tick) + 3.5:.1f}" text-anchor="end">{tick:,g}</text>'
        for tick in ticks
    ]
    parts += [
        f'<text class="tick" x="{x(tick):.1f}" y="{_HEIGHT - _BOTTOM + 14}" text-anchor="middle">{tick:,g}</text>'
        for tick in places
    ]
    if any(point.deviation for point in points):
        back = points[::-1]
        upper, lower = [p.mean + p.deviation for p in points], [p.mean - p.deviation for p in back]
        parts.append(f'<polygon class="band" points="{path(upper, points)} {path(lower, back)}"/>')
    if mark is not None:
        parts.append(f'<line class="mark" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(mark):.1f}" y2="{y(mark):.1f}"/>')
    parts.append(f'<polyline class="line" points="{path([point.mean for point in points], points)}"/>')
    for point in points:
        parts.append(
            f"<g><title>{escape(x_label)} {point.x:g}: {point.mean:.4f} ± {point.deviation:.4f}</title>"
            + "".join(f'<circle class="seed" cx="{x(point.x):.1f}" cy="{y(v):.1f}" r="3"/>' for v in point.values)
            + f'<circle class="dot" cx="{x(point.x):.1f}" cy="{y(point.mean):.1f}" r="4"/></g>'
        )
    parts.append(_axes(x_label, y_label))
    drawing = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(title)}">'
    return drawing + "".join(parts) + "</svg>"


def round_ticks(low: float, high: float, *, about: int = 4) -> list[float]:
    """Return round numbers from `low` or below to `high` or above.

    >>> round_ticks(0, 37), round_ticks(0.1, 0.44)
    ([0, 10, 20, 30, 40], [0.1, 0.2, 0.3, 0.4, 0.5])
    """
    rough = (high - low) / about
    power = 10.0 ** floor(log10(rough))
    step = min((factor * power for factor in (1, 2, 2.5, 5, 10)), key=lambda step: abs(step - rough))
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    ticks = [round(number * step, 12) for number in range(first, last + 1)]
    return [int(tick) if tick == int(tick) else tick for tick in ticks]


def _axes(x_label: str, y_label: str) -> str:
    """Return the names of both axes."""
    return (
        f'<text class="axis" x="{(_LEFT + _WIDTH - _RIGHT) / 2}" y="{_HEIGHT - 6}" text-anchor="middle">'
        f"{escape(x_label)}</text>"
        f'<text class="axis" transform="translate(10 {(_TOP + _HEIGHT - _BOTTOM) / 2}) rotate(-90)" '
        f'text-anchor="middle">{escape(y_label)}</text>'
    )


def _heights(counts: Sequence[int], *, in_percent: bool) -> list[float]:
    """Return the height of each bar."""
    return [100 * count / max(sum(counts), 1) if in_percent else float(count) for count in counts]


def _outline(number: int, xs: list[float], ys: list[float], floor_y: float) -> str:
    """Return the outline of bars as one line."""
    path = f"M{xs[0]:.1f} {floor_y:.1f}"
    for right, height in zip(xs[1:], ys, strict=True):
        path += f"V{height:.1f}H{right:.1f}"
    return f'<path class="s{number} outline" d="{path}V{floor_y:.1f}"/>'
