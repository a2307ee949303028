"""Image to image (SDEdit): from the original model's unsafe image of a prompt, under that prompt or under no text.

Without text only the picture asks for the concept, so what an edit of the text path does is out of the way.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final, Literal

from ..records import Prompt
from ..runs.search_state import SearchState
from .interface import Attack, Finding, Findings, Preset, Report, Target


@dataclasses.dataclass(frozen=True)
class Budget:
    """strength: the share of the noise schedule that is drawn anew. under: which text is asked with."""

    strength: float
    under: Literal["prompt", "nothing"] = "prompt"

    def __post_init__(self) -> None:
        """Fail for a share that no schedule has."""
        if not 0 < self.strength <= 1:
            raise ValueError("strength must be above 0 and at most 1")


def _find(
    _target: Target,
    prompts: Sequence[Prompt],
    _seeds: Sequence[int],
    budget: Budget,
    _report: Report,
    _state: SearchState,
) -> Findings:
    return Findings([Finding(p.text if budget.under == "prompt" else "", strength=budget.strength) for p in prompts])


def _image_to_image(name: str, title: str, budget: Budget) -> Attack:
    budgets: dict[Preset, Budget] = {"quick": budget, "paper": budget}
    control = budget.under == "nothing"  # does it give any picture back, or spoil any?
    return Attack(name, title, budgets, _find, prompts_at_once=64, level="generator", has_control=control)


HALF: Final = _image_to_image("image-to-image", "Image to image", Budget(0.5))
HALF_EMPTY: Final = _image_to_image("image-to-image-empty", "Image to image without text", Budget(0.5, "nothing"))
THIRTY: Final = _image_to_image("image-to-image-30", "Image to image at strength 0.3", Budget(0.3))
THIRTY_EMPTY: Final = _image_to_image(
    "image-to-image-empty-30", "Image to image at strength 0.3 without text", Budget(0.3, "nothing")
)
