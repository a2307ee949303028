"""RECE: Reliable and Efficient Concept Erasure (Gong et al. 2024, arXiv 2407.12383), closed forms in rounds.

It starts from UCE's edit. Each round finds the text rows c* that the edited projections map to what the original ones
W_φ made of the concept's rows c, over all key and value projections together, and then edits these as UCE does:

    c* = (λ_r I + Σ Wᵀ W)⁻¹ (Σ Wᵀ W_φ) c

W = W_φ T with one T for all layers, so Σ Wᵀ W = Tᵀ S T and Σ Wᵀ W_φ = Tᵀ S, S = Σ W_φᵀ W_φ being summed up once. And
c* = A c with one A for all rows, so a round works on (width, width) matrices alone.

Departures from the authors' script:

* A fixed number of rounds is run. The script keeps the round with the fewest detections on validation prompts, which is
  a choice by a detector.
* Guides and rows to keep go to what the original weights make of them. The script takes the current weights, which
  drift.
* The rows are those from the concept on, guided to the safe prompt's. The script edits all rows, the start token's too,
  which every prompt has, and guides them to a blank.

Rounds oscillate and need not converge. A round knows nothing of the rows that were erased before it. Where rows are few
beside the encoder's width, as published, their edits hardly meet. Where the rows of many prompts fill a narrow encoder,
a round undoes what came before: on the mini model one round gives every sword back. `accumulate` (ours) erases those
rows in each round once more.
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


class ReceSettings(Strict):
    """The options of RECE."""

    rows: RowRule = Field(
        "all",
        description="Text rows that are edited: the last token of the concept; from it to the end of the padding "
        "(all); or every row that differs from the same caption with something else in the concept's place "
        "(differing).",
    )
    wordings: Wordings = Field("direct", description="direct: the pairs' prompts; all: every wording of the concept.")
    rounds: int = Field(3, ge=1, description="Rounds after UCE's edit (published: 3 for nudity, 1 for most objects).")
    weight: float = Field(0.1, gt=0, description="λ₁, how much the weights hold on to what they were (published: 0.1).")
    keep_scale: float = Field(0.1, ge=0, description="λ₂, of the rows to keep: the safe prompts' (published: 0.1).")
    ridge: float = Field(
        0.1, gt=0, description="λ_r, how small c* is held (published: 0.1; 0.001 for styles and hard objects)."
    )
    accumulate: bool = Field(
        False, description="Whether a round erases what was erased before it once more (published: no)."
    )


def revival(now: Tensor, gram: Tensor, ridge: float) -> Tensor:
    """A, (width, width), float64: A c is what the edited projections map to the concept again.

    now: T. gram: S. Both are (width, width), float64.
    """
    import torch

    asked = now.T @ gram
    found: Tensor = torch.linalg.solve(ridge * torch.eye(len(now), dtype=torch.float64) + asked @ now, asked)
    return found


def solve(sums: Sums, weights: Mapping[str, Tensor], settings: ReceSettings) -> Tensor:
    """T − I after all rounds."""
    import torch

    scales = Scales(settings.weight, 1.0, settings.keep_scale)
    each = [w.double() for w in weights.values()]
    gram = torch.stack([w.T @ w for w in each]).sum(dim=0)
    eye = torch.eye(len(gram), dtype=torch.float64)
    moved, rows = change(sums, scales), sums
    for _ in range(settings.rounds):
        now = eye + moved
        again = revival(now, gram, settings.ridge)
        found = Sums(again @ sums.erase @ again.T, sums.guide @ again.T, sums.keep)
        if settings.accumulate:
            found = Sums(rows.erase + found.erase, rows.guide + found.guide, sums.keep)
        rows, moved = found, moved + change(found, scales, now)
    return moved


RECE: Final = closed_form_eraser("rece", "RECE: closed forms in rounds", ReceSettings, solve)
