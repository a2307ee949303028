r"""The search behind the text encoders: conditionings under which the policy still draws the concept.

Some are kept from step to step, as offsets δ from a plain text's (`families.free_conditioning`) that start at random.
When one is drawn, a few steps of Adam first lower

    J(δ) = mean (θ(x⁻_t, t, c(δ)) − ε)²

on the noised unsafe latents of whichever pair the step has: the loss of the attack soft-prompt inversion. No tokenizer
limits it, and families that do not read CLIP have it too.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...families.free_conditioning import FreeConditioning
from ...families.interface import Conditioning, Model
from ...families.inversion import gradient
from .search import Aim, drawn, put
from .settings import FreeSettings


class Conditionings:
    """Conditionings that are kept from step to step.

    memory: holds their offsets, "free", (conditioning, number), so that a checkpoint has them.
    """

    def __init__(
        self, model: Model, settings: FreeSettings, memory: dict[str, Tensor], generator: torch.Generator
    ) -> None:
        self.model, self.settings, self.memory = model, settings, memory
        self.base = FreeConditioning(model)
        memory["free"] = self.fresh(settings.conditionings, generator)

    def fresh(self, count: int, generator: torch.Generator) -> Tensor:
        """Offsets that lie around the plain text at random, (conditioning, number)."""
        return self.settings.spread * (2 * torch.rand((count, self.base.size), generator=generator) - 1)

    def draw(self, count: int, generator: torch.Generator) -> list[int]:
        """Some of them by number, none twice while there are enough; a few start again at random."""
        chosen, renewed = drawn(self.settings.conditionings, count, self.settings.renew, generator)
        put(self.memory["free"], [chosen[place] for place in renewed], self.fresh(len(renewed), generator))
        return chosen

    def move(self, chosen: Sequence[int], aim: Aim) -> None:
        """Take the steps of the search from where the chosen ones are."""
        offsets = self.memory["free"][list(chosen)].to(self.model.device).requires_grad_(True)
        optimizer = torch.optim.Adam([offsets], lr=self.settings.lr)
        for step in range(self.settings.steps):
            error = self.distance(offsets, aim).sum()
            offsets.grad = gradient(error, offsets, f"step {step + 1} of the training's search behind the encoders")
            optimizer.step()
        put(self.memory["free"], chosen, offsets.detach().cpu())

    def distance(self, offsets: Tensor, aim: Aim) -> Tensor:
        """J of each conditioning, (conditioning,)."""
        return aim.distance(self.model, self.base.at(offsets))

    def read(self, chosen: Sequence[int]) -> Conditioning:
        """The chosen conditionings as they are now, without gradient, float32, on the CPU."""
        offsets = self.memory["free"][list(chosen)].to(self.model.device)
        return self.base.at(offsets).map(lambda x: x.cpu())
