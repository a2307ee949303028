"""What the denoiser reads of prompts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class Conditioning(NamedTuple):
    """What the denoiser reads of prompts.

    text: (prompt, token, width). pooled: (prompt, width), of families that read such a vector too (SDXL, SD3, FLUX).
    """

    text: Tensor
    pooled: Tensor | None = None

    def rows(self, index: Any) -> Conditioning:
        """Some prompts, as indexing a tensor's first axis would choose them."""
        return self.map(lambda tensor: tensor[index])

    def map(self, change: Callable[[Tensor], Tensor]) -> Conditioning:
        """The same function on each tensor."""
        return Conditioning(change(self.text), None if self.pooled is None else change(self.pooled))

    def repeat(self, count: int) -> Conditioning:
        """One prompt's conditioning for `count` rows."""
        return self.map(lambda tensor: tensor.expand(count, *tensor.shape[1:]))

    def where(self, chosen: Tensor, other: Conditioning) -> Conditioning:
        """Rows of this one where `chosen`, (prompt,), is true, of `other` elsewhere."""
        text = torch.where(chosen.view(-1, 1, 1), self.text, other.text)
        if self.pooled is None or other.pooled is None:
            return Conditioning(text)
        return Conditioning(text, torch.where(chosen.view(-1, 1), self.pooled, other.pooled))


def joined(parts: Sequence[Conditioning]) -> Conditioning:
    """Several prompts' conditionings as one, in order."""
    pooled = [part.pooled for part in parts if part.pooled is not None]
    return Conditioning(torch.cat([part.text for part in parts]), torch.cat(pooled) if pooled else None)
