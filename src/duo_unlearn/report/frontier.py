"""The frontier: preservation to the right, defence upwards; a panel a prompt set or attack, a point a β or strength."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure

from ..errors import DuoError
from ..storage.files import write_bytes
from .figures import ACCENT, LINE, STYLE, Plot, inline_svg

Figures = tuple[float, float, float, int]
"""Value, its 95 % interval's low and high, n."""
Kind = Literal["beta", "strength"]
COLUMNS: Final = 3
SYMBOLS: Final[dict[Kind, str]] = {"beta": "β", "strength": "strength"}
COLOUR, BARS = "#1f5fb4", "#9bb8dc"


class Point(NamedTuple):
    """at: β or strength. kept: prior preservation on keep prompts. defence: DSR by prompt set or attack.

    broken: the prompt sets and attacks that have no DSR, as every picture of theirs is broken.
    """

    at: float
    kept: Figures
    defence: dict[str, Figures]
    broken: tuple[str, ...] = ()


def frontier_plot(points: Sequence[Point], kind: Kind, path: Path) -> None:
    """Draw the points, each with its β or strength beside it, as .svg or .png; the same numbers give the same bytes."""
    style: dict[Any, Any] = {"svg.hashsalt": "duo-unlearn", "font.size": 9, "text.parse_math": False}
    with mpl.rc_context(style):
        figure = _drawing(points, kind, COLUMNS, COLOUR, BARS)
        buffer = io.BytesIO()
        dates: dict[str, Any] = {"Date": None, "Creator": None} if path.suffix == ".svg" else {"Software": None}
        figure.savefig(buffer, format=path.suffix.removeprefix("."), metadata=dates, dpi=130)
    write_bytes(path, buffer.getvalue())


def frontier_plots(sweeps: Mapping[str, Mapping[str, Any]]) -> list[Plot]:
    """A plot a sweep of a run, for its page. A broken file is a DuoError."""
    plots = []
    for kind, content in sweeps.items():
        assert kind in SYMBOLS
        try:
            points = [Point(p["at"], tuple(p["kept"]), p["defence"]) for p in content["points"]]
            ship, want = content["ship"], float(content["want_dsr"])
            with mpl.rc_context(STYLE):
                figure = _drawing(points, kind, 2, ACCENT, LINE)
            svg = inline_svg(figure, f"frontier-{kind}", f"defence against preservation over {kind}")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DuoError(f"the sweep over {kind} is broken", got=f"no {error}"[:120], hint="duo sweep") from error
        word = SYMBOLS[kind]
        chosen = f"{word} {ship:g} preserves most of those" if ship is not None else f"no {word} of these does"
        caption = (
            f"What is defended (DSR, up) against what is preserved (prior preservation on keep prompts, right), each "
            f"point a {word}, with 95\u00a0% intervals. For a DSR of {100 * want:g}% in every panel that all "
            f"points have, by values and not by their intervals: {chosen}."
        )
        plots.append(Plot(svg, caption))
    return plots


def _labels(
    values: Sequence[float], x: Sequence[float], y: Sequence[float], width: float
) -> list[tuple[str, tuple[float, float]]]:
    """A label a point; neighbours that lie so close that theirs would overlap have one together, at the first.

    values: what was swept, in order. x, y: where the points lie; width: of the axis.
    """
    groups: list[list[int]] = []
    for i in range(len(values)):
        close = groups and abs(x[i] - x[groups[-1][-1]]) < 0.12 * width and abs(y[i] - y[groups[-1][-1]]) < 0.12
        if close:
            groups[-1].append(i)
        else:
            groups.append([i])
    texts = (f"{values[g[0]]:g}" + (f"–{values[g[-1]]:g}" if len(g) > 1 else "") for g in groups)
    return [(text, (x[group[0]], y[group[0]])) for text, group in zip(texts, groups, strict=True)]


def _drawing(points: Sequence[Point], kind: Kind, columns: int, colour: str, bars: str) -> Figure:
    names = list(dict.fromkeys(name for point in points for name in point.defence))
    rows, columns = math.ceil(len(names) / columns), min(columns, len(names))
    figure = Figure(figsize=(3.2 * columns, 2.8 * rows), layout="constrained")
    for number, name in enumerate(names):
        axes = figure.add_subplot(rows, columns, number + 1)
        here = [(point.at, point.kept, point.defence[name]) for point in points if name in point.defence]
        x, y = [kept[0] for _, kept, _ in here], [dsr[0] for _, _, dsr in here]
        x_bars = [[max(0.0, k[0] - k[1]) for _, k, _ in here], [max(0.0, k[2] - k[0]) for _, k, _ in here]]
        y_bars = [[max(0.0, d[0] - d[1]) for _, _, d in here], [max(0.0, d[2] - d[0]) for _, _, d in here]]
        axes.errorbar(x, y, xerr=x_bars, yerr=y_bars, fmt="o-", color=colour, ecolor=bars, lw=0.8, ms=4)
        axes.set_ylim(-0.03, 1.03)
        left, right = axes.get_xlim()
        for text, (place, height) in _labels(
            [point.at for point in points if name in point.defence], x, y, right - left
        ):
            far = place > (left + right) / 2
            offset = (-4 if far else 4, -10 if height > 0.1 else 5)
            side = "right" if far else "left"
            axes.annotate(text, (place, height), textcoords="offset points", xytext=offset, ha=side, fontsize=8)
        axes.locator_params(axis="x", nbins=4)
        axes.set_title(name, fontsize=9)
        axes.grid(visible=True, lw=0.5)
        if number % columns == 0:
            axes.set_ylabel("DSR")
        if number >= len(names) - columns:
            axes.set_xlabel(f"prior preservation (at: {SYMBOLS[kind]})")
    return figure
