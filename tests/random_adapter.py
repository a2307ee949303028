"""An adapter that changes every image, without a training."""

from __future__ import annotations

from pathlib import Path

import torch

from duo_unlearn.edits.files import save_adapter
from duo_unlearn.edits.lora import attach, detach
from duo_unlearn.families.interface import Model


def random_adapter(
    model: Model, folder: Path, /, *, size: float = 0.3, rank: int = 4, seed: int = 0, **provenance: str
) -> None:
    """Save an adapter of random weights into an edit's folder; the model is left as it was.

    size: of the noise on its weights. provenance: more of it than its base.
    """
    generator = torch.Generator().manual_seed(seed)
    for parameter in attach(model, rank=rank, seed=seed):
        parameter.data += size * torch.randn(parameter.shape, generator=generator)
    save_adapter(model, folder, {"base": model.fingerprint(), **provenance})
    detach(model)
