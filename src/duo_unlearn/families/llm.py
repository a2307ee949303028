"""Prompts that a language model reads: rows of a length of their own, as one tensor whose rows of zeros are padding.

Pipelines keep such rows in a list (Z-Image), or padded with zeros beside a mask (Qwen-Image). Here zeros are the mask
as well, so conditionings are stacked, stored, searched over and changed row by row as everywhere. No language model
gives a row of zeros, and padding gets no gradient. torch is imported inside the functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


def padded(rows: Sequence[Tensor], length: int) -> Tensor:
    """Rows of several prompts, each (token, width), as (prompt, length, width)."""
    import torch

    return torch.stack([torch.nn.functional.pad(one, (0, 0, 0, length - len(one))) for one in rows])


def is_token(text: Tensor) -> Tensor:
    """Which rows are tokens, (prompt, token), of text (prompt, token, width)."""
    return (text != 0).any(dim=-1)


def rows_of(text: Tensor) -> list[Tensor]:
    """`padded` undone: the tokens of each prompt, (token, width)."""
    return [one[here] for one, here in zip(text, is_token(text), strict=True)]


def trimmed(text: Tensor) -> tuple[Tensor, Tensor]:
    """Text without the padding that all prompts share, and which of its rows are tokens, (prompt, token)."""
    here = is_token(text)
    longest = int(here.any(dim=0).nonzero().max()) + 1
    return text[:, :longest], here[:, :longest]
