"""What the mini model must reach before it ships."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ..model.judge_net import JUDGES
from .quality import Figure

THRESHOLDS: Final = {
    **{
        f"{judge}/{source} {name}": 0.98
        for judge in JUDGES for source in ("drawn", "decoded") for name in ("item", "subject", "colour", "place")
    },
    **{f"{judge}/{source}": 0.96 for judge in JUDGES for source in ("sampled item", "sampled subject", "broken")},
    "vae/psnr": 28.0,
    "vae/psnr of the mean error": 28.0,
    "clip/zero-shot item": 0.85,
    "samples/figures, subject": 0.97,
    "samples/figures, colour": 0.95,
    "samples/figures, item": 0.92,
    **{
        f"samples/sword, {wording}": 0.90
        for wording in ("direct", "synonym", "description", "german", "spanish")
    },
    "samples/sword, implicit": 0.70,
}  # fmt: skip
"""What a model must reach before it ships: figure → least value."""


def has_bar(group: str) -> bool:
    """Whether any figure of a group of samples has to reach something."""
    return any(name == f"samples/{group}" or name.startswith(f"samples/{group}, ") for name in THRESHOLDS)


def failed_bars(figures: Mapping[str, Figure]) -> list[str]:
    """One line for each bar that the figures miss by their point value; a figure that is absent misses its bar."""
    failed = []
    for name, least in THRESHOLDS.items():
        figure = figures.get(name)
        if figure is None:
            failed.append(f"{name}: not measured, should be {shown(name, least)} or more")
        elif not figure.value >= least:  # so that NaN fails
            failed.append(f"{name}: {shown(name, figure.value)}, should be {shown(name, least)} or more")
    return failed


def shown(name: str, value: float) -> str:
    """A figure's value as the card prints it: dB, or per cent."""
    return f"{value:.2f} dB" if "psnr" in name else f"{100 * value:.1f} %"
