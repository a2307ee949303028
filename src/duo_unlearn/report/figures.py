"""The style that a report's plots share: matplotlib SVG, the same bytes for the same numbers, coloured by the page."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH: Final = 5.0
"""Width of every plot, inches: it fits a phone without scaling the letters down."""
# Stand-ins that the page's style replaces, so a plot follows light and dark.
INK, MUTED, LINE = "#010101", "#020202", "#030303"
COLOURS: Final = ("#040404", "#050505", "#060606", "#070707", "#080808", "#090909")
"""A colour a system; the first is the original's. They differ in lightness too, and each has a marker of its own."""
ACCENT, CONTRAST = COLOURS[1], COLOURS[2]
_VARIABLES: Final = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    LINE: "var(--line)",
    **{colour: f"var(--system-{i})" for i, colour in enumerate(COLOURS)},
}
_MARKERS: Final = ("o", "o", "s", "D", "^", "v")
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


class Plot(NamedTuple):
    """An inline SVG element (safe to put into the page as it is), and the words below it."""

    svg: str
    caption: str


class Mark(NamedTuple):
    """How a system is drawn. face: what fills the marker, "none" for the original's."""

    colour: str
    marker: str
    face: str


def marks(systems: Sequence[str]) -> dict[str, Mark]:
    """A mark a system, in order; six differ, and further ones repeat them."""
    found = {}
    for i, system in enumerate(systems):
        colour = COLOURS[i % len(COLOURS)]
        found[system] = Mark(colour, _MARKERS[i % len(_MARKERS)], "none" if i == 0 else colour)
    return found


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


def open_axes(figure: Figure, grid: str) -> Axes:
    """The only axes of a figure, with lines of the grid along "x" or "y" and no left edge."""
    axes = figure.add_subplot()
    axes.grid(axis="x" if grid == "x" else "y")
    axes.tick_params(length=0)
    axes.spines["left"].set_visible(False)
    return axes


def legend_above(axes: Axes, columns: int) -> None:
    """The legend of what was drawn with a label, over the whole width of the figure."""
    handles, labels = axes.get_legend_handles_labels()
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.legend(
        handles, labels, loc="outside upper left", ncols=columns, frameon=False, borderpad=0, columnspacing=1.2
    )
