"""Pictures of a mini model as its card and its judges want them: a seed an image, the folder's own scheduler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from .loop import autocast

STEPS: Final = 20
GUIDANCE: Final = 5.0


@torch.no_grad()
def sample(pipe: Any, prompts: Sequence[str], seeds: Sequence[int]) -> Tensor:
    """One picture a prompt in [−1, 1], (prompt, 3, 64, 64).

    One generator an image, so that a picture does not depend on its batch.
    """
    with autocast(pipe.device):
        images: Tensor = pipe(
            prompt=list(prompts),
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            output_type="pt",
        ).images
    return images.float().mul(2).sub(1)


def sample_all(
    pipe: Any, prompts: Sequence[str], seeds: Sequence[int], batch: int, report: Callable[[int], None]
) -> Tensor:
    """`sample` of any number of prompts, batch by batch, on the CPU. report: gets how many are done."""
    parts = []
    for start in range(0, len(prompts), batch):
        parts.append(sample(pipe, prompts[start : start + batch], seeds[start : start + batch]).cpu())
        report(min(start + batch, len(prompts)))
    return torch.cat(parts)
