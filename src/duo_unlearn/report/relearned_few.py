"""How many pictures relearning takes: DSR of every system after it was fine-tuned on few, on all, or on benign ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import matplotlib as mpl
from matplotlib.figure import Figure

from ..records import ORIGINAL, Estimate
from .figures import STYLE, WIDTH, Mark, Plot, inline_svg, legend_above, marks, open_axes
from .read import Contents
from .words import counts, set_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_APART: Final = ("relearning-adapter-100", "relearning-benign-300")
_FEW: Final = ("relearning-concept-100-of-20", "relearning-concept-100-of-50")
_CASES: Final[Mapping[str | None, str]] = {
    None: "as it was",
    _FEW[0]: "20 pictures",
    _FEW[1]: "50 pictures",
    "relearning-concept-100": "all pictures",
    _APART[0]: "adapter",
    _APART[1]: "benign",
}
"""Attack → what stands below it, in order."""
_Lines = dict[str, dict[str | None, Estimate]]
"""System → attack → DSR."""


def few_pictures_plot(contents: Contents) -> Plot | None:
    """A line a system but the original: DSR after 100 steps on few pictures of the concept and on all of them.

    After 100 steps of a new adapter, and after 300 benign ones, a mark stands apart. Of several prompt sets, budgets or
    contracts the one with most points is drawn, the first of equals; None where no system was fine-tuned on few.
    """
    places: dict[tuple[str, str | None, str], _Lines] = {}
    scores = [e for e in contents.estimates if e.metric == "dsr" and e.attack in _CASES and e.system != ORIGINAL]
    for e in scores:
        if e.attack is not None:
            places.setdefault((e.scenario, e.preset, e.contract), {}).setdefault(e.system, {})[e.attack] = e
    places = {
        place: lines for place, lines in places.items() if any(few in line for line in lines.values() for few in _FEW)
    }
    if not places:
        return None
    place, lines = max(places.items(), key=lambda item: sum(map(len, item[1].values())))
    for e in scores:
        if e.attack is None and (e.scenario, e.contract) == (place[0], place[2]) and e.system in lines:
            lines[e.system][None] = e
    names = [system.name for system in contents.systems]
    shown = marks(names)
    return _drawing(place, {name: lines[name] for name in names if name in lines}, shown)


def _drawing(place: tuple[str, str | None, str], lines: _Lines, shown: Mapping[str, Mark]) -> Plot:
    scenario, preset, contract = place
    caption = (
        "DSR of each system after it is fine-tuned for 100 steps on 20 or 50 pictures of the concept or on all that "
        "the pairs have, after 100 steps of a new adapter on all, and after 300 steps on benign ones, with 95 % "
        "intervals. Whoever has the weights can do this. "
        f"{set_name(scenario)}, {preset} budget, n = {counts([e for line in lines.values() for e in line.values()])}, "
        f"{contract}."
    )
    cases = [attack for attack in _CASES if any(attack in line for line in lines.values())]
    words = []
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 2.5), layout="constrained")
        axes = open_axes(figure, "y")
        for i, (name, line) in enumerate(lines.items()):
            aside = 0.08 * (i - (len(lines) - 1) / 2)  # so that no interval hides another
            _points(
                axes, {cases.index(a) + aside: e for a, e in line.items() if a not in _APART}, shown[name], "-", name
            )
            for one in (one for one in _APART if one in line):
                _points(axes, {cases.index(one) + aside: line[one]}, shown[name], "", None)
            told = ", ".join(f"{_CASES[a]} {100 * line[a].value:.1f} %" for a in cases if a in line)
            words.append(f"{name}: {told}")
        axes.set_xticks(range(len(cases)), [_CASES[attack] for attack in cases])
        axes.set_ylim(-2, 102)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0f} %")
        legend_above(axes, 2)
        return Plot(inline_svg(figure, "relearned-few", f"{caption} {'; '.join(words)}."), caption)


def _points(axes: Axes, found: Mapping[float, Estimate], mark: Mark, style: str, label: str | None) -> None:
    """Values over their places, with intervals, whose end may lie a rounding error on the wrong side."""
    ordered: Sequence[tuple[float, Estimate]] = sorted(found.items(), key=lambda item: item[0])
    bars = [
        [max(0.0, 100 * (e.value - e.low)) for _, e in ordered],
        [max(0.0, 100 * (e.high - e.value)) for _, e in ordered],
    ]
    axes.errorbar(
        [x for x, _ in ordered], [100 * e.value for _, e in ordered], bars, color=mark.colour, linestyle=style,
        linewidth=1.6, marker=mark.marker, markerfacecolor=mark.face, markersize=4, capsize=2, label=label,
        clip_on=False,
    )  # fmt: skip
