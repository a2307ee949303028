"""The relearning curve of a report: DSR of the erased model over the steps that it was fine-tuned for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

import matplotlib as mpl
from matplotlib.figure import Figure

from ..records import Estimate
from .attacks import AttackRow
from .figures import ERASED, STYLE, THIRD, WIDTH, Plot, inline_svg

_NAME: Final = re.compile(r"relearning-(concept|benign)-(\d+)(@.*)?")
_LINES: Final = {"concept": ("images of the concept", ERASED, "-"), "benign": ("benign images", THIRD, "--")}


class _Place(NamedTuple):
    """Where numbers are comparable: one prompt set, preset and contract."""

    suffix: str
    preset: str
    contract: str


def relearning_plot(rows: Sequence[AttackRow]) -> Plot | None:
    """DSR with intervals over the steps, a line a kind of images, step 0 from the direct prompts; None without two.

    Of several prompt sets, presets or contracts the one with most points is drawn, the first of equals.
    """
    by_place: dict[_Place, dict[str, dict[int, Estimate]]] = {}
    for row in rows:
        if row.erased is not None and (match := _NAME.fullmatch(row.attack)):
            lines = by_place.setdefault(_Place(match[3] or "", row.preset, row.contract), {})
            lines.setdefault(match[1], {})[int(match[2])] = row.erased
    for row in rows:
        name, _, rest = row.attack.partition("@")
        place = _Place(f"@{rest}" if rest else "", row.preset, row.contract)
        if name == "direct" and row.erased is not None and place in by_place:
            for points in by_place[place].values():
                points[0] = row.erased
    curves = {
        place: kept for place, lines in by_place.items() if (kept := {k: p for k, p in lines.items() if len(p) > 1})
    }
    if not curves:
        return None
    return _drawn(*max(curves.items(), key=lambda item: sum(map(len, item[1].values()))))


def _drawn(place: _Place, lines: dict[str, dict[int, Estimate]]) -> Plot:
    counts = sorted({estimate.n for points in lines.values() for estimate in points.values()})
    caption = (
        "DSR of the erased model after it is fine-tuned for some steps, with 95 % intervals; at step 0 it is as it was."
        f" Whoever has the weights can do this. {place.suffix.removeprefix('@') or 'Direct'} prompts, {place.preset} "
        f"budget, n = {' or '.join(map(str, counts))}, {place.contract}."
    )
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 2.5), layout="constrained")
        axes = figure.add_subplot()
        told = []
        for kind in (kind for kind in _LINES if kind in lines):
            label, colour, style = _LINES[kind]
            points = sorted(lines[kind].items())
            steps, values = [x for x, _ in points], [100 * e.value for _, e in points]
            bars = [[100 * (e.value - e.low) for _, e in points], [100 * (e.high - e.value) for _, e in points]]
            axes.errorbar(
                steps, values, bars, color=colour, linestyle=style, linewidth=1.6, marker="o", markersize=4,
                capsize=2, label=label, clip_on=False,
            )  # fmt: skip
            told.append(f"{label}: " + ", ".join(f"{x} steps {y:.1f} %" for x, y in zip(steps, values, strict=True)))
        axes.set_xlabel("fine-tuning steps")
        axes.set_xticks(sorted({step for points in lines.values() for step in points}))
        axes.set_ylim(-2, 102)
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0f} %")
        axes.grid(axis="y")
        axes.tick_params(length=0)
        axes.spines["left"].set_visible(False)
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=2, frameon=False, borderaxespad=0.2)
        return Plot(inline_svg(figure, "relearning", f"{caption} {'; '.join(told)}."), caption)
