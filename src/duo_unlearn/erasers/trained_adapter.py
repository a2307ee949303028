"""An adapter in training on the denoiser: for erasers whose result is a LoRA."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from torch import Tensor

from ..edits.lora import attach, detach
from ..families.interface import Model
from ..records import Targets


@contextlib.contextmanager
def trained_adapter(
    model: Model, *, rank: int, seed: int, targets: Targets = "self-attention", layers: Sequence[str] | None = None
) -> Iterator[dict[str, Tensor]]:
    """A fresh adapter on the denoiser inside the block: its tensors by their names there, float32, with gradients.

    It begins as the identity. layers: those that get it, in place of the targets'. After the block every adapter is off
    the denoiser.
    """
    attach(model, rank=rank, seed=seed, targets=targets, layers=layers)
    try:
        yield {name: tensor for name, tensor in model.denoiser.named_parameters() if tensor.requires_grad}
    finally:
        detach(model)
