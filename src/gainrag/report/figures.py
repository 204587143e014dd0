"""Plots as SVG text to put into a page: drawn by matplotlib, coloured by the page.

A plot is drawn in stand-in colours that become the page's CSS variables, so that it follows light and dark; text stays
text in the page's font. The same data make the same bytes. Labels are plain text: no dollar sign starts a formula.
"""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from html import escape
from itertools import cycle, pairwise
from typing import Any

# CSS variable of the page -> the colour that stands for it while drawing; no other colour is used.
_COLOURS = {
    "ink": "#010203",
    "muted": "#040506",
    "grid": "#070809",
    "accent": "#0a0b0c",
    "base": "#0d0e0f",
    "paper": "#101112",
}
_RC: dict[str, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "axes.formatter.use_mathtext": False,
    "axes.unicode_minus": False,
    "font.size": 10,
    "font.family": ["DejaVu Sans"],
}
# Inches; at 72 units an inch about as wide as a phone, so that text is not shrunk there.
_WIDTH = 4.7

# A value, low, high; nothing where there is no interval.
Interval = tuple[float, float | None, float | None]


class _Plot:
    """A figure of one pair of axes under way."""

    def __init__(self, height: float) -> None:
        from matplotlib.figure import Figure

        self.figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        self.figure.patch.set_visible(False)
        self.axes: Any = self.figure.add_subplot()
        self.axes.set_facecolor("none")
        for side in ("top", "right", "left"):
            self.axes.spines[side].set_visible(False)
        self.axes.spines["bottom"].set_color(_COLOURS["grid"])
        self.axes.tick_params(colors=_COLOURS["ink"], length=0)
        self.svg = ""


@contextmanager
def _plot(name: str, title: str, height: float, x: str = "", y: str = "", grid: str = "x") -> Iterator[_Plot]:
    """A plot to draw into; its `svg` is there when the block is done."""
    from matplotlib import rc_context

    # Each plot has its own salt: ids are unique on the page.
    with rc_context({**_RC, "svg.hashsalt": name}):
        plot = _Plot(height)
        plot.axes.set_xlabel(x, color=_COLOURS["muted"])
        plot.axes.set_ylabel(y, color=_COLOURS["muted"])
        plot.axes.grid(axis=grid, color=_COLOURS["grid"], linewidth=0.7)
        plot.axes.set_axisbelow(True)
        yield plot
        buffer = io.StringIO()
        plot.figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    plot.svg = _for_page(buffer.getvalue(), name, title)


def _for_page(svg: str, name: str, title: str) -> str:
    """The bare <svg> with a title, its own ids, and the page's colours and font."""
    svg = svg[svg.index("<svg") :]
    # Its style sheet would be the whole page's.
    svg = re.sub(r"<(metadata|style)\b.*?</\1>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\bid="', f'id="{name}-', svg)
    svg = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", svg)
    for variable, colour in _COLOURS.items():
        svg = svg.replace(colour, f"var(--{variable})")
    svg = re.sub(r"font-family: [^;\"]*", "font-family: inherit", svg)
    head = re.match(r"<svg[^>]*>", svg)
    assert head is not None
    box = re.search(r'viewBox="[^"]*"', head.group())
    assert box is not None
    opened = f'<svg {box.group()} role="img" aria-labelledby="{name}-title" xmlns="http://www.w3.org/2000/svg" '
    opened += 'xmlns:xlink="http://www.w3.org/1999/xlink">'
    return f'{opened}<title id="{name}-title">{escape(title)}</title>{svg[head.end() :]}'.strip()


def _wrapped(labels: Iterable[str]) -> dict[str, str]:
    """By label, how it is written: on two lines where it is long, cut where it is longer."""
    return {label: "\n".join(textwrap.wrap(label, 26, max_lines=2, placeholder=" …")) for label in labels}


def intervals(
    name: str, title: str, rows: Sequence[tuple[str, Interval]], x: str, accent: Sequence[str] = ()
) -> str:
    """Points with their intervals, one row each, first on top; where values are of both signs, with a line at 0.

    Args:
        rows: label and interval.
        x: what the values are.
        accent: labels to draw in the accent colour.
    """
    written = _wrapped(label for label, _ in rows)
    room = 0.34 if any("\n" in text for text in written.values()) else 0.27
    with _plot(name, title, 0.75 + room * len(rows), x=x) as plot:
        places = range(len(rows), 0, -1)
        for place, (label, (value, low, high)) in zip(places, rows, strict=True):
            colour = _COLOURS["accent" if label in accent else "base"]
            if low is not None and high is not None:
                plot.axes.plot([low, high], [place, place], color=colour, linewidth=2, solid_capstyle="round")
            plot.axes.plot([value], [place], "o", color=colour, markersize=6)
        plot.axes.set_yticks(list(places), [written[label] for label, _ in rows], linespacing=1.0, fontsize=9)
        plot.axes.set_ylim(0.4, len(rows) + 0.6)
        edges = [edge for _, row in rows for edge in row if edge is not None]
        if min(edges) <= 0 <= max(edges):
            plot.axes.axvline(0, color=_COLOURS["muted"], linewidth=1)
    return plot.svg


def shares(name: str, title: str, rows: Mapping[str, tuple[float | None, int]], parts: tuple[str, str]) -> str:
    """Bars of two parts that make 100%, one row each.

    Args:
        rows: by label, the first part (0 to 1; None where there is none) and the number of questions.
        parts: what the two parts are.
    """
    with _plot(name, title, 1.15 + 0.36 * len(rows), x="percent of questions") as plot:
        places = range(len(rows), 0, -1)
        for place, (value, _) in zip(places, rows.values(), strict=True):
            if value is None:
                plot.axes.text(1, place, "no such questions", va="center", color=_COLOURS["muted"])
                continue
            plot.axes.barh(place, 100 * value, height=0.6, color=_COLOURS["accent"])
            plot.axes.barh(place, 100 * (1 - value), left=100 * value, height=0.6, color=_COLOURS["grid"])
            plot.axes.text(101.5, place, f"{100 * value:.0f}%", va="center", color=_COLOURS["ink"])
        plot.axes.set_yticks(list(places), [f"{label} (n={n})" for label, (_, n) in rows.items()])
        plot.axes.set_xlim(0, 110)
        plot.axes.set_xticks(range(0, 101, 20))
        handles = [
            plot.axes.barh(0, 0, color=_COLOURS[colour], label=part)
            for colour, part in zip(("accent", "grid"), parts, strict=True)
        ]
        plot.axes.set_ylim(0.4, len(rows) + 0.6)
        _legend(plot, len(handles))
    return plot.svg


# The parts of a stacked bar: colour and how opaque, such that the number in it can be read in the colour of all text.
_STACKED = [("accent", 0.6), ("accent", 0.25), ("base", 0.5), ("ink", 0.4), ("grid", 0.8)]


def stacked(name: str, title: str, rows: Mapping[str, Sequence[float]], parts: Sequence[str], x: str) -> str:
    """Bars of up to five parts that make 100%, one row each, first on top; parts of some size with their percent.

    Args:
        rows: by label, the parts as shares (0 to 1).
        parts: what they are.
        x: what all of them are shares of.
    """
    written = _wrapped(rows)
    with _plot(name, title, 1.75 + 0.36 * len(rows), x=x) as plot:
        plot.axes.grid(False)  # it would show through the bars
        places = range(len(rows), 0, -1)
        for place, shares in zip(places, rows.values(), strict=True):
            left = 0.0
            for share, (colour, opaque) in zip(shares, _STACKED, strict=False):
                bar = {"left": 100 * left, "height": 0.72, "color": _COLOURS[colour], "alpha": opaque}
                plot.axes.barh(place, 100 * share, **bar, linewidth=0)
                if share >= 0.05:
                    style: dict[str, Any] = {"ha": "center", "va": "center", "fontsize": 8, "color": _COLOURS["ink"]}
                    plot.axes.text(100 * (left + share / 2), place, f"{100 * share:.0f}", **style)
                left += share
        for part, (colour, opaque) in zip(parts, _STACKED, strict=False):
            plot.axes.barh(0, 0, color=_COLOURS[colour], alpha=opaque, label=part)
        plot.axes.set_yticks(list(places), [written[label] for label in rows], linespacing=1.0, fontsize=9)
        plot.axes.set_xlim(0, 100)
        plot.axes.set_ylim(0.4, len(rows) + 0.6)
        _legend(plot, 2)
    return plot.svg


def labelled_points(
    name: str, title: str, points: Mapping[str, tuple[float, float]], x: str, y: str, accent: Sequence[str] = ()
) -> str:
    """Points in the plane, their labels in a column at the right, each tied to its point by a thin line.

    Args:
        points: by label, x and y.
        x, y: what they are.
        accent: labels to draw in the accent colour.
    """
    written = _wrapped(points)
    room = 0.36 if any("\n" in text for text in written.values()) else 0.3
    with _plot(name, title, max(3.0, 0.9 + room * len(points)), x=x, y=y, grid="both") as plot:
        xs, ys = [p[0] for p in points.values()], [p[1] for p in points.values()]
        right, wide = max(xs), (max(xs) - min(xs)) or 1.0
        tall = (max(ys) - min(ys)) or 1.0
        order = sorted(points, key=lambda label: points[label][1])
        heights = _apart([points[label][1] for label in order], tall / max(1, len(points) - 1) * 0.95)
        for label, height in zip(order, heights, strict=True):
            colour = _COLOURS["accent" if label in accent else "base"]
            at = points[label]
            column = right + 0.12 * wide
            plot.axes.plot([at[0], column], [at[1], height], color=_COLOURS["muted"], linewidth=0.5, clip_on=False)
            plot.axes.plot(*at, "o", color=colour, markersize=7)
            style: dict[str, Any] = {"va": "center", "color": _COLOURS["ink"], "fontsize": 9, "linespacing": 1.0}
            plot.axes.text(column + 0.02 * wide, height, written[label], **style)
        plot.axes.set_xlim(min(xs) - 0.08 * wide, right + 0.08 * wide)
    return plot.svg


def _apart(values: Sequence[float], gap: float) -> list[float]:
    """Rising values moved as little as needs be so that neighbours are at least `gap` apart, as a whole in the middle.

    >>> _apart([0.0, 0.0, 5.0], 1.0)
    [-0.5, 0.5, 4.5]
    """
    moved: list[float] = []
    for value in values:
        moved.append(value if not moved else max(value, moved[-1] + gap))
    pushed = moved[-1] - values[-1]
    overlap = moved[1] - values[1] if len(moved) > 1 else 0.0
    return [value - max(pushed, overlap) / 2 for value in moved]


def lines(
    name: str,
    title: str,
    series: Mapping[str, Sequence[tuple[float, Interval]]],
    x: str,
    y: str,
    *,
    log: bool = False,
) -> str:
    """One line with points for each series, by its label; the first in the accent colour.

    Args:
        series: by label, x and the value there with its interval, by rising x.
        log: x doubles from one place to the next as far, so that small numbers have room.
    """
    styles = [("accent", "o", "-"), ("base", "s", "-"), ("muted", "^", "--"), ("ink", "D", ":")]
    with _plot(name, title, 3.2, x=x, y=y, grid="both") as plot:
        for (label, points), (colour, marker, style) in zip(series.items(), cycle(styles), strict=False):
            xs, ys = [at for at, _ in points], [value for _, (value, _, _) in points]
            plot.axes.plot(xs, ys, marker=marker, linestyle=style, color=_COLOURS[colour], label=label, markersize=5)
            for at, (_, low, high) in points:
                if low is not None and high is not None:
                    plot.axes.plot([at, at], [low, high], color=_COLOURS[colour], linewidth=1)
        if log:
            plot.axes.set_xscale("log")
            plot.axes.minorticks_off()
        ticks = sorted({point[0] for points in series.values() for point in points})
        plot.axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        _legend(plot, len(series))
    return plot.svg


def histogram(name: str, title: str, edges: Sequence[float], counts: Sequence[int], x: str, mean: float | None) -> str:
    """Counts in bins, with a line at the mean."""
    with _plot(name, title, 2.7, x=x, y="questions", grid="y") as plot:
        widths = [b - a for a, b in pairwise(edges)]
        plot.axes.bar(
            edges[:-1], counts, width=[w * 0.94 for w in widths], align="edge", color=_COLOURS["accent"], linewidth=0
        )
        if mean is not None:
            plot.axes.axvline(mean, color=_COLOURS["ink"], linewidth=1.2, linestyle="--", label=f"mean {mean:.2f}")
            _legend(plot, 1)
    return plot.svg


def calibration(name: str, title: str, points: Sequence[tuple[float, float, int]], x: str, y: str) -> str:
    """Mean of one share against that of another, a point a bin, the diagonal being agreement.

    Args:
        points: x, y, and how many are in the bin, which is written beside it.
    """
    with _plot(name, title, 3.6, x=x, y=y, grid="both") as plot:
        plot.axes.plot([0, 1], [0, 1], color=_COLOURS["muted"], linewidth=1, linestyle="--", label="agreement")
        plot.axes.plot(
            [p[0] for p in points], [p[1] for p in points], "o-", color=_COLOURS["accent"], label="candidates, in bins"
        )
        for px, py, n in points:
            plot.axes.annotate(
                f"{n:,}", (px, py), (6, -10), textcoords="offset points", color=_COLOURS["muted"], fontsize=8
            )
        plot.axes.set_xlim(0, 1.02)
        plot.axes.set_ylim(0, 1.02)
        _legend(plot, 2)
    return plot.svg


def _legend(plot: _Plot, columns: int) -> None:
    """Above the axes, where it covers nothing."""
    legend = plot.figure.legend(
        loc="outside upper left", ncols=min(columns, 2), frameon=False, fontsize=9, borderpad=0, handlelength=1.4
    )
    for text in legend.get_texts():
        text.set_color(_COLOURS["ink"])
