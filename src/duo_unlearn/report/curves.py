"""The training curves of a report: loss, prior term, margins and accuracy over the step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import matplotlib as mpl
from matplotlib.figure import Figure

from ..erasers.step_adapters import HELD_OUT, best_step
from .figures import ACCENT, CONTRAST, STYLE, WIDTH, Plot, inline_svg, legend_above, open_axes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BUCKETS: Final = 120
"""How many points a curve has at most; more steps are averaged."""
_CURVES: Final = {
    "preference": (
        "Preference loss: ln 2 = 0.693 at the start, towards 0 as pairs are told apart.",
        (("preference", "preference loss", ACCENT), (HELD_OUT, "on held-out pairs", CONTRAST)),
    ),
    "prior": (
        "Prior term, before its weight λ: how far the output at pure noise has moved.",
        (("prior", "prior term", ACCENT),),
    ),
    "margins": (
        "Margins: error of the trained model minus the reference's. Above 0: pushed away; below 0: drawn near.",
        (("safe_margin", "safe", ACCENT), ("unsafe_margin", "unsafe", CONTRAST)),
    ),
    "accuracy": (
        "Implicit accuracy: share of a batch's pairs whose safe member is preferred.",
        (("accuracy", "implicit accuracy", ACCENT), ("held_out_accuracy", "of held-out pairs", CONTRAST)),
    ),
}
"""Plot → its caption, and its lines: key of metrics.jsonl, label, colour."""


def curve_plots(lines: Sequence[dict[str, float]], prefix: str) -> list[Plot]:
    """Training curves over the step; a quantity that no line has is left out. prefix: sets the plots' ids apart."""
    plots = (_curve_plot(f"{prefix}-{name}", name, lines) for name in _CURVES)
    return [plot for plot in plots if plot is not None]


def held_out_note(lines: Sequence[dict[str, float]]) -> str | None:
    """What the held-out pairs say of a training's steps, a sentence; None where none were looked at."""
    best, looks = best_step(lines), [line for line in lines if HELD_OUT in line]
    if best is None:
        return None
    losses = {int(line["step"]): line[HELD_OUT] for line in looks}
    last = int(looks[-1]["step"])
    text = f"On pairs that did not train, the preference loss was lowest after step {best} ({losses[best]:.3g})"
    if best == last:
        return f"{text}, the last one."
    return f"{text}; after step {last} it was {losses[last]:.3g}."


def _curve_plot(identity: str, name: str, lines: Sequence[dict[str, float]]) -> Plot | None:
    caption, series = _CURVES[name]
    present = [entry for entry in series if any(entry[0] in line for line in lines)]
    if not present:
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 2.5), layout="constrained")
        axes = open_axes(figure, "y")
        for style, (key, label, colour) in zip(("-", (0, (4, 1.5))), present, strict=False):
            _curve(axes, [(line["step"], line[key]) for line in lines if key in line], label, colour, style)
        axes.set_xlabel("step")
        if name == "accuracy":
            axes.set_ylim(-0.03, 1.03)
        if len(present) > 1:
            legend_above(axes, 2)
        last = lines[-1]
        ends = ", ".join(f"{label} {last[key]:.3g}" for key, label, _ in present if key in last)
        alt = f"{caption} At step {last['step']:.0f}: {ends or 'not recorded'}."
        return Plot(inline_svg(figure, identity, alt), caption)


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
