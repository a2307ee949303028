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
        self.units = self.base.map(_units)
        self.size = self.base.text.numel() + (0 if self.base.pooled is None else self.base.pooled.numel())

    def at(self, offsets: Tensor) -> Conditioning:
        """The conditionings of some offsets, (conditioning, size); differentiable in them."""
        count, size = len(offsets), self.base.text.numel()
        text = self.base.text + self.units.text * offsets[:, :size].view(count, *self.base.text.shape[1:])
        if self.base.pooled is None or self.units.pooled is None:
            return Conditioning(text)
        return Conditioning(text, self.base.pooled + self.units.pooled * offsets[:, size:])


def _units(base: Tensor) -> Tensor:
    """What an offset is multiplied by, row by row: the tensor's root mean square, and 0 for padding."""
    tokens = base.ne(0).any(dim=-1, keepdim=True)
    return tokens * (base if tokens.all() else base[tokens.expand_as(base)]).square().mean().sqrt()
