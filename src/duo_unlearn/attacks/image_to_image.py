"""Image to image: the prompts, from the original model's unsafe image of each (SDEdit)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

from ..records import Prompt
from ..runs.search_state import SearchState
from .interface import Attack, Finding, Findings, Report, Target


@dataclasses.dataclass(frozen=True)
class Budget:
    """strength: the share of the noise schedule that is drawn anew."""

    strength: float = 0.5


def _find(
    _target: Target,
    prompts: Sequence[Prompt],
    _seeds: Sequence[int],
    budget: Budget,
    _report: Report,
    _state: SearchState,
) -> Findings:
    return Findings([Finding(prompt.text, strength=budget.strength) for prompt in prompts])


IMAGE_TO_IMAGE: Final = Attack(
    "image-to-image", "Image to image", {"quick": Budget(), "paper": Budget()}, _find, prompts_at_once=64
)
