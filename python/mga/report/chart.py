"""The curve of quality against seconds over K, as SVG that stands in a page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 640, 400
LEFT, RIGHT, TOP, BOTTOM = 64, 20, 40, 52  # margins in which the axes are labelled
LEAST = 0.1  # dB on the upright axis, so that what nobody sees does not look large
CLOSE = 20  # between lines of labels, below which one is left out; a phone shows them in larger letters
LETTER = 10.0  # width of one of these


@dataclass(frozen=True)
class Point:
    """``quality`` may be inf, of a picture equal to what it is compared with; it is drawn on the upper edge."""

    label: str
    seconds: float
    quality: float
    kind: str  # "k", "suggested" or "original"


def ticks(low: float, high: float) -> list[float]:
    """About five round numbers (1, 2 or 5 times a power of ten apart) from ``low`` to ``high``."""
    raw = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def curve(points: Sequence[Point], quality: str) -> str:
    """An <svg> with -M's points joined by ascending K, as they are given, and the original beside them.

    ``quality`` names the upright axis. Seconds begin at 0, so that lengths compare; dB has no zero and does not.
    """
    finite = [point.quality for point in points if math.isfinite(point.quality)] or [0.0]
    middle, span = (max(finite) + min(finite)) / 2, max(1.24 * (max(finite) - min(finite)), LEAST)
    low, high = middle - span / 2, middle + span / 2
    longest = max(point.seconds for point in points) * 1.08

    def x(seconds: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * seconds / longest

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (1 - (min(value, high) - low) / (high - low))

    parts = _axes(x, y, ticks(0, longest), ticks(low, high), quality)
    path = " ".join(f"{x(p.seconds):.1f},{y(p.quality):.1f}" for p in points if p.kind != "original")
    parts.append(f'<polyline class="curve" points="{path}"/>')
    for point in points:
        parts += _mark(x(point.seconds), y(point.quality), point)
    parts += _labels([(x(point.seconds), y(point.quality), point) for point in points])
    return "\n".join(
        [
            f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="chart-title">',
            f'<title id="chart-title">{escape(quality)} against seconds; the table below has the same figures</title>',
            *parts,
            "</svg>",
        ]
    )


def _axes(x, y, across: list[float], up: list[float], quality: str) -> list[str]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = []
    for value in up:
        parts.append(f'<line class="grid" x1="{LEFT}" y1="{y(value):.1f}" x2="{right}" y2="{y(value):.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:g}</text>')
    for value in across:
        parts.append(f'<line class="grid" x1="{x(value):.1f}" y1="{TOP}" x2="{x(value):.1f}" y2="{bottom}"/>')
        parts.append(f'<text class="tick" x="{x(value):.1f}" y="{bottom + 18}" text-anchor="middle">{value:g}</text>')
    parts.append(f'<path class="axis" d="M{LEFT},{TOP} V{bottom} H{right}"/>')
    middle = (LEFT + right) / 2
    parts.append(f'<text class="name" x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">seconds for an image</text>')
    parts.append(f'<text class="name" x="8" y="18">{escape(quality)}</text>')
    return parts


def _mark(x: float, y: float, point: Point) -> list[str]:
    value = f"{point.quality:.2f} dB" if math.isfinite(point.quality) else "equal"
    title = f"<title>{escape(point.label)}: {point.seconds:.3f} s, {value}</title>"
    if point.kind == "original":
        d = f"M{x:.1f},{y - 7:.1f} l7,7 l-7,7 l-7,-7 z"
        return [f'<path class="original" d="{d}">{title}</path>']
    ring = [f'<circle class="ring" cx="{x:.1f}" cy="{y:.1f}" r="10"/>'] if point.kind == "suggested" else []
    return [*ring, f'<circle class="point" cx="{x:.1f}" cy="{y:.1f}" r="4.5">{title}</circle>']


def _labels(marks: Sequence[tuple[float, float, Point]]) -> list[str]:
    """Labels around their marks, where nothing else is; the suggested K and the original come first."""
    taken: list[tuple[float, float, float]] = []
    parts = []
    for x, y, point in sorted(marks, key=lambda mark: mark[2].kind == "k"):
        width = LETTER * len(point.label)
        side = width / 2 + 16
        for centre, height in ((x, y + 26), (x, y - 16), (x + side, y + 5), (x - side, y + 5), (x, y + 48)):
            centre = min(max(centre, LEFT + width / 2 + 4), WIDTH - width / 2 - 2)
            clear = all(abs(h - height) > CLOSE or abs(c - centre) > (w + width) / 2 + 4 for c, h, w in taken)
            inside = TOP - 6 < height < HEIGHT - BOTTOM - 2
            covered = any(abs(my + 5 - height) < 12 and abs(mx - centre) < width / 2 + 6 for mx, my, _ in marks)
            if clear and inside and not covered:
                taken.append((centre, height, width))
                parts.append(
                    f'<text class="label {point.kind}" x="{centre:.1f}" y="{height:.1f}" text-anchor="middle">'
                    f"{escape(point.label)}</text>"
                )
                break
    return parts
