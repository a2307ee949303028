"""The arena's figure: preservation to the right, defence upwards; a panel a prompt set or attack, a mark a system."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..records import Kind
from .arena_labels import FONT, grouped, in_points, places, size_of
from .figures import COLOURS, STYLE, inline_svg

COLUMNS: Final = 3
CONTROL_SIZE: Final = 11
"""How long the line of a control is, points."""
PANEL: Final = (3.1, 2.6)
"""Width and height of a panel, inches."""
KINDS: Final[dict[Kind, tuple[str, str, str]]] = {
    "original": ("the original", "o", "#7d6128"),
    "duo": ("DUO", "D", "#1f62b0"),
    "eraser": ("another eraser", "s", "#b8461a"),
    "guard": ("with a guard", "^", "#00735c"),
}
"""Kind of system → its words, its marker, and its colour on paper."""
HOLLOW: Final = "a hollow mark has more than one picture in ten broken or without a verdict, which are in no DSR"
LETTERS: Final = dict(zip(KINDS, "●◆■▲", strict=True))
"""Kind of system → its marker as a letter."""
NAMES_A_ROW: Final = 5
"""Names of systems in a row below the figure that is a file."""
Bounds = tuple[float, float, float]
"""A share, and its 95 % interval's low and high."""


class Mark(NamedTuple):
    """A system in a panel. number: as the table has it. kept, dsr: value, low, high.

    control: of a probe, how often safe items come back. Drawn at the height that the DSR would have if the concept came
    back as often. cracked: many of its pictures show nothing recognisable or have no verdict, and are in no DSR; the
    mark is hollow.
    """

    number: int
    system: str
    kind: Kind
    kept: Bounds
    dsr: Bounds
    control: float | None = None
    cracked: bool = False


class Panel(NamedTuple):
    """A prompt set or an attack, and every system that was measured under it. across: what the axis across is of.

    stays: the same in the words of a sentence.
    """

    title: str
    marks: list[Mark]
    across: str = "preservation, %"
    stays: str = "what keep and neighbour prompts ask for"


class Figures(NamedTuple):
    """The page's figure: an SVG element a panel, the words above them, and what the marks mean.

    legend: (letter, colour, words) of each kind of system.
    """

    panels: list[str]
    caption: str
    legend: list[tuple[str, str, str]]


def figures(panels: Sequence[Panel]) -> Figures:
    """The figure for the page, a drawing a panel, so that a phone shows one beside or below another."""
    colours = dict(zip(KINDS, COLOURS, strict=False))
    stays = next((panel.stays for panel in panels), "")
    caption = (
        f"What is defended (DSR, up) against what stays ({stays}, right), with "
        "95\u00a0% intervals. The numbers are those of the table; systems that lie close together share one label, "
        "and DUO has one of its own."
    )
    if _has_control(panels):
        caption += (
            " A line across is a probe's control, no defence: a mark on it means that the concept comes back as often "
            "as safe items do."
        )
    if _has_cracked(panels):
        caption += f" {HOLLOW[0].upper()}{HOLLOW[1:]}."
    left, drawn = _left(panels), []
    with mpl.rc_context(STYLE):
        for number, panel in enumerate(panels):
            figure = Figure(figsize=(PANEL[0] + 0.4, PANEL[1] + 0.2), layout="constrained")
            _draw_panel(figure.add_subplot(), panel, colours, left)
            figure.axes[0].set(xlabel=panel.across, ylabel="DSR, %")
            _lay_out(figure)
            _label(figure.axes[0], panel.marks, colours)
            drawn.append(inline_svg(figure, f"arena-{number}", _words(panel)))
    there = _kinds(panels)
    legend = [(LETTERS[k], f"var(--system-{i})", KINDS[k][0]) for i, k in enumerate(KINDS) if k in there]
    return Figures(drawn, caption, legend)


def pictures(panels: Sequence[Panel], *suffixes: str) -> dict[str, bytes]:
    """The figure as files, by their suffixes "svg" or "png", with colours of its own, and the systems' names below it.

    The same numbers give the same bytes.
    """
    found = {}
    style: dict[Any, Any] = {"svg.hashsalt": "duo-unlearn", "font.size": 9, "text.parse_math": False}
    with mpl.rc_context(style):
        figure = _drawing(panels, {kind: entry[2] for kind, entry in KINDS.items()})
        for suffix in suffixes:
            buffer = io.BytesIO()
            dates: dict[str, Any] = {"Date": None, "Creator": None} if suffix == "svg" else {"Software": None}
            figure.savefig(buffer, format=suffix, metadata=dates, dpi=130)
            found[suffix] = buffer.getvalue()
    return found


def _drawing(panels: Sequence[Panel], colours: Mapping[Kind, str]) -> Figure:
    rows = max(1, math.ceil(len(panels) / COLUMNS))
    names = {mark.number: f"{mark.number} {mark.system}" for panel in panels for mark in panel.marks}
    lines = math.ceil(len(names) / NAMES_A_ROW)
    heights = [PANEL[1]] * rows + [0.17 * lines + 0.1]
    figure = Figure(figsize=(PANEL[0] * COLUMNS, sum(heights) + 0.4), layout="constrained")
    grid = figure.add_gridspec(rows + 1, COLUMNS, height_ratios=heights)
    left, drawn = _left(panels), []
    for number, panel in enumerate(panels):
        axes = figure.add_subplot(grid[divmod(number, COLUMNS)])
        drawn.append(axes)
        _draw_panel(axes, panel, colours, left)
        if number % COLUMNS == 0:
            axes.set_ylabel("DSR, %")
        if number >= len(panels) - COLUMNS:
            axes.set_xlabel(panel.across)
    _write_names(figure.add_subplot(grid[rows, :]), [names[number] for number in sorted(names)], lines)
    there = _kinds(panels)
    for kind, (words, marker, _) in KINDS.items():
        if kind in there:
            figure.axes[0].plot([], [], linestyle="none", marker=marker, color=colours[kind], label=words)
    if _has_control(panels):
        figure.axes[0].plot(
            [], [], linestyle="none", marker="_", markersize=CONTROL_SIZE, markeredgewidth=1.8, color="grey",
            label="control of a probe",
        )  # fmt: skip
    if _has_cracked(panels):
        figure.axes[0].plot([], [], linestyle="none", marker="s", color="grey", fillstyle="none", label="broken > 10 %")
    if there:
        handles, labels = figure.axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=len(labels), frameon=False)
    _lay_out(figure)
    for axes, panel in zip(drawn, panels, strict=True):
        _label(axes, panel.marks, colours)
    return figure


def _lay_out(figure: Figure) -> None:
    """Place the axes once and for all: labels are put beside marks by where these are."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")


def _write_names(axes: Axes, names: Sequence[str], lines: int) -> None:
    """What the numbers beside the marks stand for, in columns."""
    axes.axis("off")
    for place, name in enumerate(names):
        column, line = divmod(place, lines)
        axes.text(column / NAMES_A_ROW, 1 - line / lines, name, fontsize=8, va="top", transform=axes.transAxes)


def _draw_panel(axes: Axes, panel: Panel, colours: Mapping[Kind, str], left: float) -> None:
    _marks(axes, panel.marks, colours)
    axes.set_xlim(100 * max(left - 0.03, -0.02), 103)
    axes.set_ylim(-5, 108)
    axes.set_title(panel.title, fontsize=9)
    axes.grid(visible=True, lw=0.5)
    axes.locator_params(axis="x", nbins=4)


def _left(panels: Sequence[Panel]) -> float:
    """The lowest preservation of all panels, with its interval."""
    return min((mark.kept[1] for panel in panels for mark in panel.marks), default=0.0)


def _kinds(panels: Sequence[Panel]) -> set[Kind]:
    return {mark.kind for panel in panels for mark in panel.marks}


def _has_control(panels: Sequence[Panel]) -> bool:
    return any(mark.control is not None for panel in panels for mark in panel.marks)


def _has_cracked(panels: Sequence[Panel]) -> bool:
    return any(mark.cracked for panel in panels for mark in panel.marks)


def _marks(axes: Axes, marks: Sequence[Mark], colours: Mapping[Kind, str]) -> None:
    for mark in marks:
        x, y = 100 * mark.kept[0], 100 * mark.dsr[0]
        colour = colours[mark.kind]
        axes.plot([x, x], [100 * mark.dsr[1], 100 * mark.dsr[2]], color=colour, lw=0.8, alpha=0.5)
        axes.plot([100 * mark.kept[1], 100 * mark.kept[2]], [y, y], color=colour, lw=0.8, alpha=0.5)
        shape: dict[str, Any] = {"marker": KINDS[mark.kind][1], "fillstyle": "none" if mark.cracked else "full"}
        axes.plot([x], [y], linestyle="none", color=colour, markersize=4.5, clip_on=False, **shape)
        if mark.control is not None:
            height = 100 * (1 - mark.control)
            style: dict[str, Any] = {"marker": "_", "markersize": CONTROL_SIZE, "markeredgewidth": 1.8}
            axes.plot([x], [height], linestyle="none", color=colour, alpha=0.7, **style)


def _label(axes: Axes, marks: Sequence[Mark], colours: Mapping[Kind, str]) -> None:
    """Number the marks of a panel whose figure has been laid out. DUO's label is its own."""
    data = [(100 * mark.kept[0], 100 * mark.dsr[0]) for mark in marks]
    points, bounds = in_points(axes, data)
    groups = grouped(points, [mark.kind == "duo" for mark in marks])
    texts = [number_words([marks[i].number for i in group]) for group in groups]
    chosen = places(groups, [size_of(text) for text in texts], points, bounds)
    for group, text, place in zip(groups, texts, chosen, strict=True):
        anchor = points[group[0]]
        led = {"arrowstyle": "-", "lw": 0.6, "color": colours[marks[group[0]].kind], "shrinkA": 0, "shrinkB": 3}
        label = axes.annotate(
            text, data[group[0]], textcoords="offset points",
            xytext=(place.centre.x - anchor.x, place.centre.y - anchor.y), ha="center", va="center", fontsize=FONT,
            fontweight="bold" if marks[group[0]].kind == "duo" else "normal", annotation_clip=False,
            arrowprops=led if place.is_led else None,
        )  # fmt: skip
        label.set_in_layout(False)


def number_words(numbers: Sequence[int]) -> str:
    """Numbers in order, runs of three or more as one: 1, 2, 3, 7 → "1–3, 7"."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    words = []
    for run in runs:
        words += [f"{run[0]}–{run[-1]}"] if len(run) > 2 else [str(number) for number in run]
    return ", ".join(words)


def _mark_words(mark: Mark) -> str:
    control = "" if mark.control is None else f" (control: {100 * mark.control:.0f} % of safe items come back)"
    broken = ", more than one picture in ten broken or without a verdict" if mark.cracked else ""
    return f"{mark.system} {100 * mark.dsr[0]:.0f} %{control}{broken}"


def _words(panel: Panel) -> str:
    return f"{panel.title}: {', '.join(map(_mark_words, panel.marks))}."
