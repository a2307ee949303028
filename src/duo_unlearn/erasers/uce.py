"""UCE: Unified Concept Editing (Gandikota et al. 2023, arXiv 2308.14761), a closed form on cross-attention.

For each key and value projection W, with c the text rows to erase, g their guides and p those to keep:

    W* = (λ W + Σ s W g cᵀ + Σ s_p W p pᵀ) (λ I + Σ s c cᵀ + Σ s_p p pᵀ)⁻¹
    W* − W = s W (G − C)ᵀ C M⁻¹,   M the matrix that is inverted, C and G the rows: exactly of low rank

The words are prompts: each unsafe one is guided to its safe one. Images are not used.

Departures. The published list of what is kept is empty (the old script has one empty prompt), and a concept without a
guide is guided to the start token; here the safe prompts' rows are kept, and are the guides. The default row rule is
the old script's, and λ the new one's.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from pydantic import Field

from ..storage.forms import Strict
from .closed_form import Scales, Sums, change, closed_form_eraser
from .text_rows import RowRule
from .words import Wordings

if TYPE_CHECKING:
    from torch import Tensor


class UceSettings(Strict):
    """The options of UCE."""

    rows: RowRule = Field(
        "all",
        description="Text rows that are edited: the last token of the concept (the new script); from it to the end "
        "of the padding (the old script, all); or every row that differs from the same caption with something else "
        "in the concept's place (differing).",
    )
    wordings: Wordings = Field("direct", description="direct: the pairs' prompts; all: every wording of the concept.")
    weight: float = Field(0.5, gt=0, description="λ, how much the weights hold on to what they were (published: 0.5).")
    erase_scale: float = Field(1.0, gt=0, description="s, of the rows to erase (published: 1).")
    keep_scale: float = Field(
        1.0, ge=0, description="s_p, of the rows to keep: those of the safe prompts (published: none are)."
    )


def solve(sums: Sums, _weights: Mapping[str, Tensor], settings: UceSettings) -> Tensor:
    """T − I."""
    return change(sums, Scales(settings.weight, settings.erase_scale, settings.keep_scale))


UCE: Final = closed_form_eraser("uce", "UCE: Unified Concept Editing", UceSettings, solve)
