"""The frontier: preservation to the right, defence upwards; a panel a prompt set or attack, a point a β or strength."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure

from ..storage import write_bytes

Figures = tuple[float, float, float, int]
"""Value, its 95 % interval's low and high, n."""
Kind = Literal["beta", "strength"]
COLUMNS: Final = 3
SYMBOLS: Final[dict[Kind, str]] = {"beta": "β", "strength": "strength"}
COLOUR: Final = "#1f5fb4"


class Point(NamedTuple):
    """at: β or strength. kept: prior preservation on keep prompts. defence: DSR by prompt set or attack."""

    at: float
    kept: Figures
    defence: dict[str, Figures]

    @property
    def worst(self) -> float:
        """The lowest DSR of all."""
        return min(value for value, *_ in self.defence.values())


def frontier_plot(points: Sequence[Point], kind: Kind, path: Path) -> None:
    """Draw the points, each with its β or strength beside it, as .svg or .png; the same numbers give the same bytes."""
    names = list(dict.fromkeys(name for point in points for name in point.defence))
    rows = math.ceil(len(names) / COLUMNS)
    style: dict[Any, Any] = {"svg.hashsalt": "duo-unlearn", "font.size": 9, "text.parse_math": False}
    with mpl.rc_context(style):
        figure = Figure(figsize=(3.2 * min(COLUMNS, len(names)), 2.8 * rows), layout="constrained")
        for number, name in enumerate(names):
            axes = figure.add_subplot(rows, min(COLUMNS, len(names)), number + 1)
            here = [(point.at, point.kept, point.defence[name]) for point in points if name in point.defence]
            x, y = [kept[0] for _, kept, _ in here], [dsr[0] for _, _, dsr in here]
            x_bars = [[k[0] - k[1] for _, k, _ in here], [k[2] - k[0] for _, k, _ in here]]
            y_bars = [[max(0.0, d[0] - d[1]) for _, _, d in here], [max(0.0, d[2] - d[0]) for _, _, d in here]]
            axes.errorbar(x, y, xerr=x_bars, yerr=y_bars, fmt="o-", color=COLOUR, ecolor="#9bb8dc", lw=0.8, ms=4)
            for at, kept, dsr in here:
                axes.annotate(f"{at:g}", (kept[0], dsr[0]), textcoords="offset points", xytext=(4, -10), fontsize=8)
            axes.set_ylim(-0.03, 1.03)
            axes.set_title(name, fontsize=9)
            axes.grid(visible=True, color="#dddddd", lw=0.5)
            if number % COLUMNS == 0:
                axes.set_ylabel("DSR")
            if number >= len(names) - COLUMNS:
                axes.set_xlabel(f"prior preservation (at: {SYMBOLS[kind]})")
        buffer = io.BytesIO()
        dates: dict[str, Any] = {"Date": None, "Creator": None} if path.suffix == ".svg" else {"Software": None}
        figure.savefig(buffer, format=path.suffix.removeprefix("."), metadata=dates)
    write_bytes(path, buffer.getvalue())
