"""Textual inversion: one token's vector learns to make a model denoise given images (Gal et al. 2023).

Pham et al. 2023 invert a token on an erased model to bring the concept back; 2511.04834 uses one as a negative prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor

from ..errors import DuoError
from ..progress import progress
from ..runs.search_state import NO_STATE, SearchState
from ..storage.optimizer_state import optimizer_tensors, restore_optimizer
from .denoising import Reader, noised_batch
from .interface import Inverted, Model, Moments
from .tokens import PLACEHOLDER, initial_vector

TEMPLATES: Final = (
    f"a picture of {PLACEHOLDER}",
    f"a drawing of {PLACEHOLDER}",
    PLACEHOLDER,
    f"an image of {PLACEHOLDER}",
)
SCALE: Final = 1024.0
"""What a loss is multiplied by on its way back: a power of two, so in full precision a gradient is the same, bit for
bit; half precision would round the small gradient of a mean away."""


def gradient(loss: Tensor, of: Tensor, what: str) -> Tensor:
    """The gradient of a scalar loss. One that is not finite would pass for a defence, so it is a DuoError; so is none.

    what: the search, as the error names it.
    """
    if not loss.requires_grad:
        got = "a guard that puts another conditioning in its place"
        raise DuoError(f"{what} has no gradient", got=got, hint="a search that is unaware of guards: --unaware")
    (found,) = gradients(loss, [of])
    if not torch.isfinite(found).all():
        raise DuoError(f"{what} was not finite", got=f"loss {loss.item()}", hint="mixed_precision no or bf16")
    return found


def gradients(loss: Tensor, of: Sequence[Tensor]) -> list[Tensor]:
    """The gradients of a scalar loss, in order, finite or not; in half precision small ones too."""
    return [scaled / SCALE for scaled in torch.autograd.grad(loss * SCALE, of)]


def invert(
    model: Model,
    moments: Moments,
    *,
    steps: int,
    batch: int,
    seed: int,
    lr: float = 5e-3,
    quiet: bool = False,
    state: SearchState = NO_STATE,
    reader: Reader | None = None,
) -> Tensor:
    """The vector, (width,), that minimises the mean of (target − prediction)² on images of the concept.

    moments: of those images, (image, c, h, w). The model is taken as it stands, with the edits that are on. AdamW
    at 5e-3 as published; the published budget is 3000 to 5000 steps, so a shorter one is a *quick* run. reader: how
    the prediction and what it is held against are read; None: plainly.
    state: where the search is kept, so that a killed one goes on, bit for bit.
    """
    generator = torch.Generator().manual_seed(seed)
    vector = initial_vector(model, "picture").requires_grad_(True)
    optimizer = torch.optim.AdamW([vector], lr=lr, weight_decay=0.0)
    start = _restored(state, vector, optimizer, generator)
    reader = reader or Reader(model)
    with progress("invert a token", steps, done=start, quiet=quiet) as report:
        for step in range(start, steps):
            noisy, t, target = noised_batch(model.noise, moments, batch, generator)
            template = TEMPLATES[int(torch.randint(0, len(TEMPLATES), (1,), generator=generator))]
            wanted = reader.wanted(noisy, t, target)
            words = Inverted([template], vector.to(model.device))
            conditioning = model.condition(words).repeat(batch)
            loss = reader.residual(noisy, t, conditioning, wanted, [words] * batch).square().mean()
            optimizer.zero_grad()
            vector.grad = gradient(loss, vector, f"step {step + 1} of the inversion")
            optimizer.step()
            state.offer(step + 1, lambda: _tensors(vector, optimizer, generator))
            report(step + 1, f"loss {loss.item():.4f}")
    return vector.detach()


def _tensors(vector: Tensor, optimizer: torch.optim.Optimizer, generator: torch.Generator) -> dict[str, Tensor]:
    found = {f"optimizer/{name}": value for name, value in optimizer_tensors(optimizer).items()}
    return {**found, "vector": vector.detach(), "generator": generator.get_state()}


def _restored(state: SearchState, vector: Tensor, optimizer: torch.optim.Optimizer, generator: torch.Generator) -> int:
    kept = state.restore()
    if kept is None:
        return 0
    step, tensors = kept
    vector.data.copy_(tensors["vector"])
    restore_optimizer(optimizer, {k.partition("/")[2]: v for k, v in tensors.items() if k.startswith("optimizer/")})
    generator.set_state(tensors["generator"])
    return step
