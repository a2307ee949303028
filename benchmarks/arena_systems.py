"""Which systems the arena has, of which concepts and training seeds, for benchmarks/arena.py."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from arena_settings import ALL, FORMS, ROBUST

from duo_unlearn.records import ORIGINAL

ERASERS: Final = (
    "duo", "uce", "rece", "hirm", "esd-x", "esd-u", "spm", "eraseflow", "advunlearn", "stereo", "salun",
    "diffusion-dpo", "dcpo",
)  # fmt: skip
VARIANTS: Final = {
    **{
        name: ",".join([eraser, *(f"{key}={value}" for key, value in form.items())])
        for name, (eraser, form) in FORMS.items()
    },
    "meta-unlearning-esd-x": "esd-x,wrap=meta-unlearning",
}
"""Erasers with other options than the recommended ones, or in a wrap: what follows NAME= of their entrant."""
GUARDS: Final = (
    "negative-prompt",
    "inverted-negative",
    "sld",
    "safree",
    "spell",
    "ce-sdwv",
    "prototypes",
    "pno",
    "output-filter",
)
WORDED: Final = (
    "uce", "rece", "hirm", "esd-x", "esd-u", "spm", "eraseflow", "advunlearn", "stereo", "salun"
)  # fmt: skip
"""Erasers that read words: each is asked again as NAME-all, with prompts of every wording, and not attacked again."""
FEW: Final = {"pno": ("direct",)}
"""What costs some 76 images an image is asked these sets and what must stay, in a folder of its own, unattacked."""
BEST: Final = ("duo", "esd-u", "stereo", "salun", ROBUST)
"""What the other runs have: those whose worst case in the first was among the best when they were chosen."""
RUNS: Final = {"sword": (0, 1), "balloon": (0,)}
"""Concept → training seeds."""


def systems_of(concept: str, seed: int) -> list[str]:
    """The systems of a run: all of them of the first one, the best of the others."""
    return every_system() if title_of(concept, seed) == next(iter(RUNS)) else list(BEST)


def title_of(concept: str, seed: int) -> str:
    """A run's name in arena.json and in the tables: that of its concept, and its seed where it is not the first."""
    return concept if seed == RUNS[concept][0] else f"{concept}, training seed {seed}"


def every_system() -> list[str]:
    """The systems of the arena in order: erasers, guards, and erasers that are given every wording."""
    return [*ERASERS, *VARIANTS, ROBUST, *GUARDS, *(name + ALL for name in WORDED)]


def in_order(names: Iterable[str]) -> list[str]:
    """The original, erasers and guards, then other systems by name."""
    usual = [ORIGINAL, *every_system()]
    return sorted(names, key=lambda name: (usual.index(name) if name in usual else len(usual), name))
