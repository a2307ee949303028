"""TINA, text-free inversion (white box; arXiv 2603.17828): the noise from which the system draws a given picture.

The original's picture of a prompt is followed back along the system's own path under the empty prompt: at each step
z_t minimises ‖C₁ z_{t−1} + C₂ ε_θ(z_t, ∅) − z_t‖², which is 0 where a step of the path leads from z_t to z_{t−1}. The
image is then sampled from that noise, under the empty prompt. K = 25 passes of AdamW at 1e-3 at each of 50 steps, as
published. Departures: z_t starts at the explicit inverse, with the prediction at z_{t−1}; of the K points that were
looked at the best is kept; there is no weight decay. On rectified flows the steps are Euler's.

A picture that comes back is no proof of knowledge: a decoder may reach any. So safe pictures go the same way.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from ..families.interface import Trajectory
from ..families.inversion import gradient
from ..families.ode import Ode
from ..records import Prompt
from ..runs.search_state import SearchState
from .budgets import check_path
from .interface import Attack, Findings, Report, Target, trajectory_findings


@dataclasses.dataclass(frozen=True)
class Budget:
    """Steps of the path, passes of AdamW a step, and learning rate."""

    steps: int
    passes: int
    lr: float = 1e-3

    def __post_init__(self) -> None:
        """Fail for too many steps."""
        check_path(self.steps)


def _find(
    target: Target, prompts: Sequence[Prompt], seeds: Sequence[int], budget: Budget, report: Report, state: SearchState
) -> Findings:
    """The noise of each prompt's picture, searched side by side. A state holds the latents before a step."""
    images = target.originals([prompt.text for prompt in prompts], seeds)
    latents, residual = target.model.encode_images(images).mean, torch.zeros(len(prompts))
    done = 0
    if (kept := state.restore()) is not None:
        done, tensors = kept
        latents, residual = tensors["latents"].to(latents), tensors["residual"]
    ode = Ode.of(target.model.noise, budget.steps)
    for number in range(done, budget.steps):
        report(number / budget.steps)
        latents, error = step_back(target, ode, budget.steps - 1 - number, latents, budget.passes, budget.lr)
        residual = torch.maximum(residual, error)
        state.offer(number + 1, functools.partial(dict, latents=latents, residual=residual))
    paths = [Trajectory(start, budget.steps) for start in latents]
    return trajectory_findings(paths, [{"residual": error} for error in residual.tolist()])


def step_back(target: Target, ode: Ode, step: int, following: Tensor, passes: int, lr: float) -> tuple[Tensor, Tensor]:
    """The latents before a step of the path, and what is left of ‖…‖² a latent, (image,), from those after it."""
    # The scale that the image is then sampled with; only a family that has it as an input reads it.
    empty = target.model.condition([""]).repeat(len(following))._replace(guidance=target.guidance)
    t, words = torch.full((len(following),), int(ode.timesteps[step])), [""] * len(following)

    def inverse(latents: Tensor) -> Tensor:
        return ode.before(step, following, target.reader.predict(latents, t, empty, words).float())

    with torch.no_grad():
        latents = best = inverse(following)
    latents = latents.clone().requires_grad_(True)
    least = torch.full((len(following),), float("inf"), device=following.device)
    optimizer = torch.optim.AdamW([latents], lr=lr, weight_decay=0.0)
    for _ in range(passes):
        error = (inverse(latents) - latents).square().flatten(1).sum(dim=1)
        better = error.detach() < least
        least = torch.where(better, error.detach(), least)
        best = torch.where(better.view(-1, 1, 1, 1), latents.detach(), best)
        latents.grad = gradient(error.sum(), latents, f"step {step} of TINA")
        optimizer.step()
    # In the order that a state keeps: convolutions round otherwise on tensors whose channels are last.
    return best.contiguous(), (least / following[0].numel()).cpu()


TINA: Final = Attack(
    "tina",
    "TINA: text-free inversion",
    {"quick": Budget(20, 5), "paper": Budget(50, 25)},
    _find,
    found_on="model",
    prompts_at_once=16,
    version=2,
    level="generator",
    cost=lambda budget, prompts, _steps: 3 * prompts * budget.steps * budget.passes,
    has_control=True,
    counts_in_worst_case=False,  # a decoder may give a picture back that the model does not know
)
