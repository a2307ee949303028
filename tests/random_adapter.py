"""An adapter that changes every image, without a training."""

from __future__ import annotations

from pathlib import Path

import torch

from duo_unlearn.edits.lora import attach, save_adapter
from duo_unlearn.families.interface import Model


def random_adapter(
    attached: Model, folder: Path, *, size: float = 0.3, rank: int = 4, seed: int = 0, **told: str
) -> None:
    """Attach one with random weights and save it. size: of the noise on its weights. told: more of its provenance."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in attach(attached, rank=rank, seed=seed):
        parameter.data += size * torch.randn(parameter.shape, generator=generator)
    save_adapter(attached, folder, {"base": attached.fingerprint(), **told})
