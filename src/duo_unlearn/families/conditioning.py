"""What the denoiser reads of prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Conditioning(NamedTuple):
    """What the denoiser reads of prompts.

    text: (prompt, token, width). pooled: (prompt, width), of families that read such a vector too (SDXL, SD3, FLUX).
    guidance: the scale of all rows, of families that have it as an input (FLUX dev); None: the one of their training.
    """

    text: Tensor
    pooled: Tensor | None = None
    guidance: float | None = None

    def rows(self, index: Any) -> Conditioning:
        """Some prompts, as indexing a tensor's first axis would choose them."""
        return self.map(lambda tensor: tensor[index])

    def map(self, change: Callable[[Tensor], Tensor]) -> Conditioning:
        """The same function on each tensor."""
        pooled = None if self.pooled is None else change(self.pooled)
        return Conditioning(change(self.text), pooled, self.guidance)

    def repeat(self, count: int) -> Conditioning:
        """One prompt's conditioning for `count` rows."""
        return self.map(lambda tensor: tensor.expand(count, *tensor.shape[1:]))

    def where(self, chosen: Tensor, other: Conditioning) -> Conditioning:
        """Rows of this one where `chosen`, (prompt,), is true, of `other` elsewhere."""
        text = torch.where(chosen.view(-1, 1, 1), self.text, other.text)
        if self.pooled is None or other.pooled is None:
            return Conditioning(text, guidance=self.guidance)
        return Conditioning(text, torch.where(chosen.view(-1, 1), self.pooled, other.pooled), self.guidance)


def joined(parts: Sequence[Conditioning]) -> Conditioning:
    """Several prompts' conditionings of one guidance as one, in order."""
    pooled = [part.pooled for part in parts if part.pooled is not None]
    text = torch.cat([part.text for part in parts])
    return Conditioning(text, torch.cat(pooled) if pooled else None, parts[0].guidance)
