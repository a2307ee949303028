"""The plots of a report: matplotlib SVG, the same bytes for the same numbers, coloured by the page's style."""

from __future__ import annotations

import io
import re
import textwrap
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from ..records import Estimate
from .words import ATTACK_SETS, order_of, set_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH: Final = 5.0
"""Of every plot, inches: it fits a phone without scaling the letters down."""
# Stand-ins that the page's style replaces, so a plot follows light and dark.
INK, MUTED, LINE = "#010101", "#020202", "#030303"
ORIGINAL, ERASED, THIRD = "#040404", "#050505", "#060606"
_VARIABLES: Final = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    LINE: "var(--line)",
    ORIGINAL: "var(--original)",
    ERASED: "var(--erased)",
    THIRD: "var(--third)",
}
STYLE: Final[dict[Any, Any]] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "duo-unlearn",
    "text.parse_math": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "axes.formatter.use_mathtext": False,
    "axes.unicode_minus": True,
}
BUCKETS: Final = 120
"""Points of a curve at most; more steps are averaged."""


_CURVES: Final = {
    "preference": (
        "Preference loss: ln 2 = 0.693 at the start, towards 0 as pairs are told apart.",
        (("preference", "preference loss", ERASED),),
    ),
    "prior": (
        "Prior term, before its weight λ: how far the output at pure noise has moved.",
        (("prior", "prior term", ERASED),),
    ),
    "margins": (
        "Margins: error of the trained model minus the reference's. Above 0: pushed away; below 0: drawn near.",
        (("safe_margin", "safe", ERASED), ("unsafe_margin", "unsafe", THIRD)),
    ),
    "accuracy": (
        "Implicit accuracy: share of a batch's pairs whose safe member is preferred.",
        (("accuracy", "implicit accuracy", ERASED),),
    ),
}
"""Plot → its caption, and its lines: key of metrics.jsonl, label, colour."""


class Plot(NamedTuple):
    """An inline SVG element (safe to put into the page as it is), and the words below it."""

    svg: str
    caption: str


def inline_svg(figure: Figure, name: str, alt: str) -> str:
    """A figure as an SVG element for HTML: described by `alt`, its ids prefixed with `name`, no document around it."""
    buffer = io.StringIO()
    no_metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
    FigureCanvasSVG(figure).print_svg(buffer, metadata=no_metadata)  # type: ignore[no-untyped-call]
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    opening, rest = text.split(">", 1)
    text = re.sub(r'\s(xmlns(:xlink)?|version|width|height)="[^"]*"', "", opening) + ">" + rest
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    text = text.replace("url(#", f"url(#{name}-").replace("xlink:href", "href")
    for stand_in, variable in _VARIABLES.items():
        text = text.replace(stand_in, variable)
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(alt)}"', 1)


def defence_plot(estimates: Sequence[Estimate]) -> Plot | None:
    """DSR of both models by prompt set; None without any."""
    scores = [e for e in estimates if e.metric == "dsr"]
    names = sorted({e.prompts for e in scores}, key=order_of)
    rows = [(set_name(name), [e for e in scores if e.prompts == name]) for name in names]
    caption = "Share of images in which the concept is not seen (DSR), with 95 % intervals. Further right is safer."
    return _interval_plot("dsr", rows, caption, floor=0.0)


def agreement_plot(estimates: Sequence[Estimate]) -> Plot | None:
    """Agreement with the prompt on keep and neighbour prompts; None without any."""
    chosen = [e for e in estimates if e.metric.endswith(" agreement") and e.prompts not in ATTACK_SETS]
    keys = list(dict.fromkeys((e.prompts, e.metric) for e in sorted(chosen, key=lambda e: order_of(e.prompts))))
    rows = [
        (_agreement_label(prompts, metric), [e for e in chosen if (e.prompts, e.metric) == (prompts, metric)])
        for prompts, metric in keys
    ]
    low = min((e.low for e in chosen), default=0.0)
    floor = max(int(low * 10 - 0.2) / 10, 0.0)
    caption = "Share of images that show what the prompt asks for, with 95 % intervals. Equal dots mean: preserved."
    if floor > 0:
        caption += f" The axis starts at {100 * floor:.0f} %."
    return _interval_plot("agreement", rows, caption, floor=floor)


def _agreement_label(prompts: str, metric: str) -> str:
    return f"{prompts} · {metric.removesuffix(' agreement')}"


def _interval_plot(name: str, rows: Sequence[tuple[str, list[Estimate]]], caption: str, floor: float) -> Plot | None:
    if not rows:
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 0.85 + 0.34 * len(rows)), layout="constrained")
        axes = figure.add_subplot()
        for y, (_, estimates) in enumerate(rows):
            for estimate in estimates:
                _dot(axes, estimate, y + (-0.14 if estimate.model == "original" else 0.14))
        labels = [textwrap.shorten(label, 28, placeholder="…") for label, _ in rows]
        axes.set_yticks(range(len(rows)), labels)
        axes.set_ylim(len(rows) - 0.5, -0.6)
        axes.set_xlim(floor * 100 - 1.5, 101.5)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0f} %")
        axes.grid(axis="x")
        axes.tick_params(length=0)
        axes.spines["left"].set_visible(False)
        _legend(axes)
        return Plot(inline_svg(figure, name, _described(caption, rows)), caption)


def _dot(axes: Axes, estimate: Estimate, y: float) -> None:
    colour = ORIGINAL if estimate.model == "original" else ERASED
    axes.plot([100 * estimate.low, 100 * estimate.high], [y, y], color=colour, linewidth=2, solid_capstyle="butt")
    face = "none" if estimate.model == "original" else colour
    axes.plot([100 * estimate.value], [y], "o", markersize=5.5, color=colour, markerfacecolor=face, clip_on=False)


def _legend(axes: Axes) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [], [], color=ORIGINAL, marker="o", markersize=5.5, markerfacecolor="none", linewidth=2, label="original"
        ),
        Line2D([], [], color=ERASED, marker="o", markersize=5.5, linewidth=2, label="erased"),
    ]
    axes.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, borderaxespad=0.2)


def _described(caption: str, rows: Sequence[tuple[str, list[Estimate]]]) -> str:
    values = [f"{label}: " + ", ".join(f"{e.model} {100 * e.value:.1f} %" for e in found) for label, found in rows]
    return f"{caption} {'; '.join(values)}."


def curve_plots(lines: Sequence[dict[str, float]]) -> list[Plot]:
    """Training curves over the step; a quantity that no line has is left out."""
    plots = (_curve_plot(name, caption, series, lines) for name, (caption, series) in _CURVES.items())
    return [plot for plot in plots if plot is not None]


def _curve_plot(
    name: str, caption: str, series: Sequence[tuple[str, str, str]], lines: Sequence[dict[str, float]]
) -> Plot | None:
    present = [entry for entry in series if any(entry[0] in line for line in lines)]
    if not present:
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 2.5), layout="constrained")
        axes = figure.add_subplot()
        for style, (key, label, colour) in zip(("-", (0, (4, 1.5))), present, strict=False):
            _curve(axes, [(line["step"], line[key]) for line in lines if key in line], label, colour, style)
        axes.set_xlabel("step")
        axes.grid(axis="y")
        axes.tick_params(length=0)
        axes.spines["left"].set_visible(False)
        if name == "accuracy":
            axes.set_ylim(-0.03, 1.03)
        if len(present) > 1:
            axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, borderaxespad=0.2)
        last = lines[-1]
        ends = ", ".join(f"{label} {last[key]:.3g}" for key, label, _ in present if key in last)
        return Plot(
            inline_svg(figure, name, f"{caption} At step {last['step']:.0f}: {ends or 'not recorded'}."), caption
        )


def _curve(axes: Axes, points: Sequence[tuple[float, float]], label: str, colour: str, style: Any) -> None:
    """The mean of each bucket of steps, and a band over its range."""
    size = -(-len(points) // BUCKETS)
    buckets = [points[i : i + size] for i in range(0, len(points), size)]
    steps = [sum(x for x, _ in bucket) / len(bucket) for bucket in buckets]
    means = [sum(y for _, y in bucket) / len(bucket) for bucket in buckets]
    if size > 1:
        low, high = ([pick(y for _, y in bucket) for bucket in buckets] for pick in (min, max))
        axes.fill_between(steps, low, high, color=colour, alpha=0.18, linewidth=0)
    marker = "o" if len(points) == 1 else ""
    axes.plot(steps, means, color=colour, linewidth=1.6, linestyle=style, marker=marker, markersize=4, label=label)
