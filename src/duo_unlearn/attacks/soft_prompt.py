"""Soft-prompt inversion (white box): the conditioning itself is free, and learns to bring the concept back.

Concept inversion learns one token's vector in front of a text encoder. Here what the denoiser *reads* is learned, all
text rows and the pooled vector, so no encoder and no tokenizer is asked, and SD3 and FLUX can be attacked too. It is
the strongest search over the text path: whatever an encoder can say is in it. One conditioning stands for the whole
concept, and the prompts differ in their noise alone. The loss is the plain denoising error on images of the concept, as
in textual inversion (arXiv 2208.01618). What is learned is the difference from a plain text's conditioning
(`families.free_conditioning`).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor

from ..families.denoising import noised_batch
from ..families.free_conditioning import FreeConditioning
from ..families.interface import Conditioning
from ..families.inversion import gradient
from ..records import Prompt
from ..runs.search_state import SearchState
from ..storage.files import seed_of
from ..storage.optimizer_state import optimizer_tensors, restore_optimizer
from .interface import Attack, Finding, Findings, Report, Target
from .tensors import conditioning_tensors

NAME: Final = "<soft prompt>"
"""What the conditioning is called where people read a text."""


@dataclasses.dataclass(frozen=True)
class Budget:
    """Steps of AdamW, images a step, and learning rate in units of the conditioning's root mean square."""

    steps: int
    batch: int
    lr: float = 1e-2


def _find(
    target: Target, prompts: Sequence[Prompt], _seeds: Sequence[int], budget: Budget, report: Report, state: SearchState
) -> Findings:
    """One conditioning for all prompts."""
    soft = Soft(target)
    optimizer = torch.optim.AdamW([soft.moved], lr=budget.lr, weight_decay=0.0)
    start, loss = _restored(state, soft.moved, optimizer)
    for step in range(start, budget.steps):
        report(step / budget.steps)
        error = soft.error(torch.Generator().manual_seed(seed_of(target.seed, "soft-prompt", step)), budget.batch)
        loss = float(error.detach())
        soft.moved.grad = gradient(error, soft.moved, f"step {step + 1} of the soft prompt")
        optimizer.step()
        state.offer(step + 1, functools.partial(_tensors, soft.moved, optimizer, loss))
    tensors = conditioning_tensors("soft", soft.conditioning())
    return Findings([Finding(NAME, facts={"loss": loss}, conditioning="soft") for _ in prompts], tensors)


class Soft:
    """A free conditioning of a target. moved: how far it is from a plain text's, flat."""

    def __init__(self, target: Target) -> None:
        self.target, self.moments = target, target.moments()
        self.free = FreeConditioning(target.model)
        self.moved = torch.zeros(self.free.size, device=self.free.base.text.device, requires_grad=True)

    def conditioning(self) -> Conditioning:
        """What the denoiser reads, of one prompt."""
        return self.free.at(self.moved.unsqueeze(0))

    def error(self, generator: torch.Generator, batch: int) -> Tensor:
        """The mean of (target − prediction)² on some images of the concept, a scalar."""
        noisy, t, target = noised_batch(self.target.model.noise, self.moments, batch, generator)
        wanted = self.target.reader.wanted(noisy, t, target)
        residual = self.target.reader.residual(noisy, t, self.conditioning().repeat(batch), wanted)
        return residual.square().mean()


def _tensors(moved: Tensor, optimizer: torch.optim.Optimizer, loss: float) -> dict[str, Tensor]:
    own = {"moved": moved.detach(), "loss": torch.tensor(loss, dtype=torch.float64)}
    return {**optimizer_tensors(optimizer), **own}


def _restored(state: SearchState, moved: Tensor, optimizer: torch.optim.Optimizer) -> tuple[int, float]:
    """The step to go on with, and the last one's loss: a search that was stopped after its last step needs no other."""
    kept = state.restore()
    if kept is None:
        return 0, float("nan")
    step, tensors = kept
    moved.data.copy_(tensors["moved"])
    rest: Mapping[str, Tensor] = {name: value for name, value in tensors.items() if name not in ("moved", "loss")}
    restore_optimizer(optimizer, rest)
    return step, float(tensors.get("loss", float("nan")))  # a state of before has none


SOFT_PROMPT: Final = Attack(
    "soft-prompt",
    "Soft-prompt inversion",
    {"quick": Budget(300, 16), "paper": Budget(3000, 4)},
    _find,
    found_on="model",
    aware_version=2,
    needs=frozenset({"pairs"}),
    level="encoder",
    cost=lambda budget, _prompts, _steps: 3 * budget.steps * budget.batch,
)
