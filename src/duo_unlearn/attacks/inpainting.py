"""Inpainting: the middle of the original's unsafe picture is drawn anew by the system, under the empty prompt.

By latent blending with the plain denoiser, as Blended Latent Diffusion (arXiv 2206.02779) does it: after every step the
latents outside the mask are the picture's, noised to that step's level. So no special inpainting weights are needed,
and every family has it. The rest of the picture is what asks; 2505.17013 calls it visual context.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from ..errors import DuoError
from ..families.interface import Trajectory
from ..families.ode import noise_of
from ..records import Prompt
from ..runs.search_state import SearchState
from .budgets import check_path
from .interface import Attack, Findings, Report, Target, trajectory_findings


@dataclasses.dataclass(frozen=True)
class Budget:
    """Steps of the path, and the share of the picture's height and width that is masked."""

    steps: int
    side: float = 0.5

    def __post_init__(self) -> None:
        """Fail for a mask that is larger than the picture, or none, and for too many steps."""
        check_path(self.steps)
        if not 0 < self.side <= 1:
            raise ValueError("side must be above 0 and at most 1")


def _find(
    target: Target,
    prompts: Sequence[Prompt],
    seeds: Sequence[int],
    budget: Budget,
    _report: Report,
    _state: SearchState,
) -> Findings:
    images = target.originals([prompt.text for prompt in prompts], seeds)
    known, noise = target.model.encode_images(images).mean, noise_of(target.model, seeds)
    mask, starts = middle(known, budget.side), zip(noise, known, strict=True)
    return trajectory_findings([Trajectory(start, budget.steps, known=own, mask=mask) for start, own in starts])


def middle(latents: Tensor, side: float) -> Tensor:
    """1 in the middle of latents, whose height and width are `side` of theirs, else 0: (1, h, w).

    A side that leaves nothing to draw would give the original's own picture back: it is a DuoError.
    """
    mask = torch.zeros(1, *latents.shape[-2:])
    top, left = (round(length * (1 - side) / 2) for length in latents.shape[-2:])
    mask[:, top : mask.shape[1] - top, left : mask.shape[2] - left] = 1
    if not mask.any():
        got = f"side={side:g} of {mask.shape[1]} × {mask.shape[2]} latents"
        raise DuoError("inpainting would draw nothing anew", got=got, hint="a larger side, e.g. side=0.5")
    return mask


INPAINTING: Final = Attack(
    "inpainting",
    "Inpainting of the middle, without text",
    {"quick": Budget(20), "paper": Budget(50)},
    _find,
    prompts_at_once=64,
    level="generator",
    cost=lambda budget, prompts, _steps: prompts * budget.steps,
    has_control=True,
    counts_in_worst_case=False,  # a decoder may give a picture back that the model does not know
)
