"""The relearning curves of a report: DSR of a system over the steps that it was fine-tuned for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure

from ..records import ORIGINAL, Awareness, Estimate
from .figures import ACCENT, CONTRAST, STYLE, WIDTH, Plot, inline_svg, legend_above, open_axes
from .read import Contents
from .words import awareness, counts, set_name

_NAME: Final = re.compile(r"relearning-(concept|benign)-(\d+)")
_LINES: Final = {"concept": ("images of the concept", ACCENT, "-"), "benign": ("benign images", CONTRAST, "--")}
_Lines = dict[str, dict[int, Estimate]]
"""What was trained on → steps → DSR."""


class _Place(NamedTuple):
    """Where numbers are comparable: one system, prompt set, budget, contract, and what the search saw."""

    system: str
    scenario: str
    preset: str | None
    contract: str
    search: Awareness | None


def relearning_plots(contents: Contents) -> list[Plot]:
    """A plot a system that has two points of a line: DSR over the steps, a line a kind of images.

    Step 0 is the number without an attack on the same prompts. Of several prompt sets, budgets or contracts the one
    with most points is drawn, the first of equals.
    """
    plots = []
    for i, system in enumerate(contents.systems):
        if system.name == ORIGINAL:
            continue
        curves = _curves([e for e in contents.estimates if e.metric == "dsr" and e.system == system.name])
        if curves:
            place, lines = max(curves.items(), key=lambda item: sum(map(len, item[1].values())))
            plots.append(_drawing(place, lines, f"relearning-{i}"))
    return plots


def _curves(scores: Sequence[Estimate]) -> dict[_Place, _Lines]:
    """The lines of each place that have two points at least."""
    by_place: dict[_Place, _Lines] = {}
    for e in scores:
        if e.attack is not None and (match := _NAME.fullmatch(e.attack)):
            place = _Place(e.system, e.scenario, e.preset, e.contract, e.search)
            by_place.setdefault(place, {}).setdefault(match[1], {})[int(match[2])] = e
    for place, lines in by_place.items():
        key = (None, place.scenario, place.contract)
        start = next((e for e in scores if (e.attack, e.scenario, e.contract) == key), None)
        if start is not None:
            for points in lines.values():
                points[0] = start
    long = {place: {k: p for k, p in lines.items() if len(p) > 1} for place, lines in by_place.items()}
    return {place: lines for place, lines in long.items() if lines}


def _drawing(place: _Place, lines: _Lines, identity: str) -> Plot:
    search = f", {awareness(place.search)}" if place.search is not None else ""
    caption = (
        f"DSR of “{place.system}” after it is fine-tuned for some steps, with 95 % intervals; at step 0 it is as it "
        f"was. Whoever has the weights can do this. {set_name(place.scenario)}, {place.preset} budget{search}, "
        f"n = {counts([e for points in lines.values() for e in points.values()])}, {place.contract}."
    )
    words = []
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 2.5), layout="constrained")
        axes = open_axes(figure, "y")
        for kind in (kind for kind in _LINES if kind in lines):
            label, colour, style = _LINES[kind]
            points = sorted(lines[kind].items())
            steps, values = [x for x, _ in points], [100 * e.value for _, e in points]
            # An interval's end may lie a rounding error on the wrong side of its value.
            bars = [[max(0.0, 100 * (e.value - e.low)) for _, e in points]]
            bars.append([max(0.0, 100 * (e.high - e.value)) for _, e in points])
            axes.errorbar(
                steps, values, bars, color=colour, linestyle=style, linewidth=1.6, marker="o", markersize=4,
                capsize=2, label=label, clip_on=False,
            )  # fmt: skip
            words.append(f"{label}: " + ", ".join(f"{x} steps {y:.1f} %" for x, y in zip(steps, values, strict=True)))
        axes.set_xlabel("fine-tuning steps")
        axes.set_xticks(sorted({step for points in lines.values() for step in points}))
        axes.set_ylim(-2, 102)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0f} %")
        legend_above(axes, 2)
        return Plot(inline_svg(figure, identity, f"{caption} {'; '.join(words)}."), caption)
