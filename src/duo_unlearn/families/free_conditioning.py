"""A conditioning that is free: what the denoiser reads is moved itself, and no encoder or tokenizer is asked."""

from __future__ import annotations

from typing import Final

from torch import Tensor

from .interface import Conditioning, Model

START: Final = "a picture"
"""The text whose conditioning is moved; SDXL's of the empty prompt is zeros, which have no scale."""


class FreeConditioning:
    """Conditionings as offsets from that of START: text rows, then the pooled vector, flat.

    An offset is in units of the root mean square of its tensor, so one learning rate fits CLIP's rows and T5's. A row
    of zeros is padding, where a family has such (`families.llm`): it stays, and counts in no mean. size: numbers in an
    offset.
    """

    def __init__(self, model: Model) -> None:
        self.base = model.condition([START]).map(lambda x: x.detach().float())
        self.size = sum(part.numel() for part in self.base if part is not None)

    def at(self, offsets: Tensor) -> Conditioning:
        """The conditionings of some offsets, (conditioning, size); differentiable in them."""
        used = 0

        def part(base: Tensor) -> Tensor:
            nonlocal used
            own = offsets[:, used : used + base.numel()].view(len(offsets), *base.shape[1:])
            used += base.numel()
            tokens = base.ne(0).any(dim=-1, keepdim=True)
            size = (base if tokens.all() else base[tokens.expand_as(base)]).square().mean().sqrt()
            return base + size * own * tokens

        return self.base.map(part)
