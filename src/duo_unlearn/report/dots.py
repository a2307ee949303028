"""The dot plots of a report: a row a prompt set or attack, and in it a dot with its 95 % interval a system."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure

from ..records import ORIGINAL, Estimate
from .attacks import AttackRow, AttackTable
from .figures import STYLE, WIDTH, Plot, inline_svg, legend_above, marks, open_axes
from .read import Contents
from .selection import falls
from .words import set_name, set_order, title_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FALLS: Final = 5
"""How many of the largest falls of an agreement are plotted beside those of keep prompts."""
FEW: Final = 4
"""So few further rows are not worth folding."""
LETTERS: Final = 26
"""How many letters a line of a row's label has at most; it has two."""
LINE_LETTERS: Final = 56
"""How many letters of names, with room for their marks, fit in a line of the legend."""
MARK_LETTERS: Final = 6
"""How many letters a mark and its space take."""


class _DotRow(NamedTuple):
    """A row of dots, one a system that has an estimate."""

    label: str
    estimates: list[Estimate]


def defence_plot(contents: Contents) -> Plot | None:
    """DSR of every system by prompt set, without an attack; None without any."""
    scores = [e for e in contents.primary if e.metric == "dsr" and e.attack is None]
    names = sorted({e.scenario for e in scores}, key=set_order)
    rows = [_DotRow(set_name(name), [e for e in scores if e.scenario == name]) for name in names]
    caption = "Share of images in which the concept is not seen (DSR), with 95 % intervals. Further right is safer."
    return _dot_plot("dsr", contents, rows, caption)


def agreement_plots(contents: Contents) -> tuple[Plot | None, Plot | None]:
    """Agreement with the prompt on prompts that must go on working: keep and the largest falls, and all the rest.

    The falls are those of any system. Where the original was not measured nobody knows them, and nothing is folded.
    """
    chosen = [e for e in contents.primary if e.metric.endswith(" agreement") and e.attack is None]
    keys = list(dict.fromkeys((e.scenario, e.metric) for e in sorted(chosen, key=lambda e: set_order(e.scenario))))
    keep = [key for key in keys if key[0] == "keep"]
    fallen = [key for key in _fallen(contents) if key not in keep]
    first = [*keep, *fallen[:FALLS]]
    rest = [key for key in keys if key not in first]
    if len(rest) <= FEW or not any(e.system == ORIGINAL for e in chosen):
        first, rest = keys, []
    low = min((e.low for e in chosen), default=0.0)
    floor = max(int(low * 10 - 0.2) / 10, 0.0)
    caption = "Share of images that show what the prompt asks for, with 95 % intervals. Equal dots mean: preserved."
    if rest:
        caption += f" Of {len(keys) - len(keep)} beside keep prompts {len(fallen)} fell in some system; "
        caption += f"{min(len(fallen), FALLS)} that fell most are here, and the others are folded below."
    if floor > 0:
        caption += f" The axis starts at {100 * floor:.0f} %."

    def plot(name: str, keys: Sequence[tuple[str, str]], caption: str) -> Plot | None:
        rows = [
            _DotRow(
                f"{scenario} · {metric.removesuffix(' agreement')}",
                [e for e in chosen if (e.scenario, e.metric) == (scenario, metric)],
            )
            for scenario, metric in keys
        ]
        return _dot_plot(name, contents, rows, caption, floor=floor)

    return plot("agreement", first, caption), plot("agreement-rest", rest, "The other agreements, with 95 % intervals.")


def _fallen(contents: Contents) -> list[tuple[str, str]]:
    """The prompt sets and agreements that fell in any system, the largest fall first."""
    systems = [system.name for system in contents.systems if system.name != ORIGINAL]
    found = [fall for name in systems for fall in falls(contents.primary, name) if fall.points > 0]
    found.sort(key=lambda fall: -fall.points)
    return list(dict.fromkeys((fall.after.scenario, fall.after.metric) for fall in found))


def attack_plot(contents: Contents, tables: Sequence[AttackTable]) -> Plot | None:
    """DSR of every system under each attack, of the prompt set and budget with most attacks; None without any."""
    if not tables:
        return None
    chosen = max(tables, key=lambda table: len(table.rows))
    main = contents.main.name if contents.main is not None else ""
    rows = [_DotRow(_attack_label(row), _page_scores(contents, row)) for row in chosen.rows]
    rows.sort(key=lambda row: next((e.value for e in row.estimates if e.system == main), 2.0))
    caption = (
        f"DSR under each attack on {set_name(chosen.scenario).lower()}, {chosen.preset} budget, with 95 % intervals, "
        f"that under which “{main}” is weakest first. Further right is safer."
    )
    if any(row.search is not None for row in chosen.rows):
        caption += " Unaware, aware: whether the search saw the guard of a system that has one."
    return _dot_plot("attacks", contents, [row for row in rows if row.estimates], caption)


def _attack_label(row: AttackRow) -> str:
    return title_of(row.attack) + (f" ({row.search})" if row.search is not None else "")


def _page_scores(contents: Contents, row: AttackRow) -> list[Estimate]:
    return [cell.dsr for cell in row.cells if cell.dsr is not None and cell.dsr.contract == contents.contract]


def _dot_plot(name: str, contents: Contents, rows: Sequence[_DotRow], caption: str, floor: float = 0.0) -> Plot | None:
    if not rows:
        return None
    there = {e.system for row in rows for e in row.estimates}
    systems = [system.name for system in contents.systems]
    columns = _legend_columns([system for system in systems if system in there])
    lines = -(-len(there) // columns)
    height = 0.45 + 0.2 * lines + (0.14 + 0.12 * max(len(there), 2)) * len(rows)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = open_axes(figure, "x")
        _dots(axes, [system for system in systems if system in there], systems, rows)
        axes.set_yticks(range(len(rows)), [_two_lines(row.label) for row in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(floor * 100 - 1.5, 101.5)
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0f} %")
        legend_above(axes, columns)
        return Plot(inline_svg(figure, name, _description(caption, rows)), caption)


def _legend_columns(names: Sequence[str]) -> int:
    """How many names stand in a line of the legend: all, or as many as fit if each were the longest."""
    if sum(len(name) + MARK_LETTERS for name in names) <= LINE_LETTERS:
        return len(names)
    return max(1, LINE_LETTERS // (max(map(len, names)) + MARK_LETTERS))


def _dots(axes: Axes, there: Sequence[str], systems: Sequence[str], rows: Sequence[_DotRow]) -> None:
    """Each system's dots with their intervals, beside one another in every row."""
    spread = 0.72 / max(len(there), 2)
    for i, system in enumerate(there):
        mark = marks(systems)[system]
        points = [(y, e) for y, row in enumerate(rows) for e in row.estimates if e.system == system]
        heights = [y + spread * (i - (len(there) - 1) / 2) for y, _ in points]
        values = [100 * e.value for _, e in points]
        for height, (_, e) in zip(heights, points, strict=True):
            axes.plot([100 * e.low, 100 * e.high], [height] * 2, color=mark.colour, linewidth=2, solid_capstyle="butt")
        axes.plot(
            values, heights, linestyle="none", marker=mark.marker, markersize=5.5, color=mark.colour,
            markerfacecolor=mark.face, clip_on=False, label=_cut(system, LINE_LETTERS),
        )  # fmt: skip


def _two_lines(text: str) -> str:
    """A label in two lines at most."""
    first, *rest = textwrap.wrap(text, LETTERS, break_on_hyphens=False) or [""]
    return "\n".join([_cut(first, LETTERS), *([_cut(" ".join(rest), LETTERS)] if rest else [])])


def _cut(text: str, letters: int) -> str:
    """A text that fits. matplotlib leaves labels out that begin with "_"."""
    text = f" {text}" if text.startswith("_") else text
    return text if len(text) <= letters else f"{text[: letters - 1]}…"


def _description(caption: str, rows: Sequence[_DotRow]) -> str:
    values = [f"{row.label}: " + ", ".join(f"{e.system} {100 * e.value:.1f} %" for e in row.estimates) for row in rows]
    return f"{caption} {'; '.join(values)}."
