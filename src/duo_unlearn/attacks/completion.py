"""Completion: the system finishes, under the empty prompt, what the original began under the unsafe one.

The latents are the original's own, on its guided path from the prompt's noise, stopped part way (2505.17013 hands an
erased model such half-denoised pictures). Image to image noises a *finished* picture anew: its latents are a mixture of
that picture and fresh noise. Here nothing was ever finished and nothing is drawn, so what is seen of the concept is as
much as the original had decided by then.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from ..families.denoising import guided
from ..families.interface import Trajectory
from ..families.ode import Ode, noise_of
from ..records import Prompt
from ..runs.search_state import SearchState
from .budgets import check_path
from .interface import Attack, Findings, Report, Target, trajectory_findings


@dataclasses.dataclass(frozen=True)
class Budget:
    """Steps of the whole path, and the share of them that the original takes."""

    steps: int
    begun: float = 0.5

    def __post_init__(self) -> None:
        """Fail for a share that leaves the system, or the original, nothing to draw, and for too many steps."""
        check_path(self.steps)
        if not 0 < self.begun < 1:
            raise ValueError("begun must be above 0 and below 1")
        if not 0 < self.first < self.steps:
            raise ValueError(f"the original takes {self.first} of {self.steps} steps, so one of the two draws nothing")

    @property
    def first(self) -> int:
        """The step that is the system's first one."""
        return round(self.steps * self.begun)


def _find(
    target: Target, prompts: Sequence[Prompt], seeds: Sequence[int], budget: Budget, report: Report, _state: SearchState
) -> Findings:
    with target.original():
        latents = _begun(target, [prompt.text for prompt in prompts], seeds, budget.steps, budget.first, report)
    return trajectory_findings([Trajectory(begun, budget.steps, budget.first) for begun in latents])


@torch.no_grad()
def _begun(target: Target, texts: list[str], seeds: Sequence[int], steps: int, first: int, report: Report) -> Tensor:
    """The latents of prompts after the first steps of their path, (prompt, c, h, w)."""
    model, ode = target.model, Ode.of(target.model.noise, steps)
    asked, empty = model.condition(texts), model.condition([""]).repeat(len(texts))
    latents = noise_of(model, seeds).to(model.device)
    for step in range(first):
        report(step / first)
        prediction = guided(model, latents, int(ode.timesteps[step]), asked, empty, target.guidance)
        latents = ode.after(step, latents, prediction)
    return latents


COMPLETION: Final = Attack(
    "completion",
    "Completion of a half-denoised picture, without text",
    {"quick": Budget(20), "paper": Budget(50)},
    _find,
    found_on="original",
    prompts_at_once=16,
    version=2,
    level="generator",
    cost=lambda budget, prompts, _steps: prompts * budget.steps,
    has_control=True,
    counts_in_worst_case=False,  # a decoder may give a picture back that the model does not know
)
