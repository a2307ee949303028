"""What closed forms on cross-attention share: the solve, and an eraser made of it.

With c the text rows to erase, g their guides and p those to keep, every key and value projection W becomes W T, where

    T = (λ T₀ + s Σ g cᵀ + s_p Σ p pᵀ) M⁻¹,   M = λ I + s Σ c cᵀ + s_p Σ p pᵀ

and T₀ is what T was, at first I. T is one matrix for all layers, so it is solved once, from three sums over the rows.
What guides and kept rows should give is what the original weights give, however many edits follow one another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from .interface import Eraser, EraserContext, State
from .text_rows import TextRows, text_rows
from .words import contrasts

if TYPE_CHECKING:
    from torch import Tensor

    from ..edits.weights import LowRank
    from ..families.family import Family
    from ..families.interface import Model
    from ..storage.forms import Strict

Solve = Callable[["Sums", Mapping[str, "Tensor"], Any], "Tensor"]
"""(sums over rows, projections by name, settings) → T − I, (width, width), float64."""
NOTHING = 1e-12
"""A singular value below this share of the largest one is the solve's rounding."""


class Scales(NamedTuple):
    """How much the sides of an edit weigh. hold: λ. erase: s. keep: s_p."""

    hold: float
    erase: float
    keep: float


class Sums(NamedTuple):
    """What of the rows counts, each (width, width), float64. erase: Σ c cᵀ. guide: Σ g cᵀ. keep: Σ p pᵀ."""

    erase: Tensor
    guide: Tensor
    keep: Tensor


def sums_of(rows: TextRows) -> Sums:
    """The sums over rows."""
    c, g, p = (side.double() for side in rows)
    return Sums(c.T @ c, g.T @ c, p.T @ p)


def change(sums: Sums, scales: Scales, before: Tensor | None = None) -> Tensor:
    """T − T₀, (width, width), float64. before: T₀; None: I. It is 0 exactly where guides are the rows themselves."""
    import torch

    eye = torch.eye(len(sums.erase), dtype=torch.float64)
    now = eye if before is None else before
    inner = scales.hold * eye + scales.erase * sums.erase + scales.keep * sums.keep
    wanted = scales.erase * (sums.guide - now @ sums.erase) + scales.keep * (eye - now) @ sums.keep
    moved: Tensor = torch.linalg.solve(inner, wanted.T).T
    return moved


def low_rank(weights: Mapping[str, Tensor], moved: Tensor) -> dict[str, LowRank]:
    """W (T − I) of each projection, (out, width), in factors. moved: T − I."""
    import torch

    from ..edits.weights import LowRank

    left, values, right = torch.linalg.svd(moved)
    rank = max(1, int((values > NOTHING * values[0]).sum()))
    left, right = left[:, :rank] * values[:rank], right[:rank]
    return {name: LowRank((w.double() @ left).float(), right.float().clone()) for name, w in weights.items()}


def projections(model: Model) -> dict[str, Tensor]:
    """The key and value projections of cross-attention, "PART.PARAMETER" → (out, width), on the CPU, float32."""
    return {
        f"{model.denoiser_name}.{layer}.weight": module.weight.detach().float().cpu()
        for layer, module in model.denoiser.named_modules()
        if layer.endswith(("attn2.to_k", "attn2.to_v"))
    }


def closed_form_eraser(name: str, title: str, settings: type[Strict], solve: Solve) -> Eraser:
    """The eraser of a solve. Its settings have rows, wordings and keep_scale."""

    def erase(context: EraserContext, edit: str) -> State:
        return _erase(context, edit, solve)

    return Eraser(name, title, settings, "prompts", _why_not, erase, makes="low-rank")


def _why_not(family: Family) -> str | None:
    return None if family.denoiser == "unet" else f"{family.title} has no cross-attention that reads the text alone"


def _erase(context: EraserContext, name: str, solve: Solve) -> State:
    """Write the edit, unless it is there under the same key and of the same pairs."""
    from ..edits.files import write_changes
    from ..edits.provenance import CHANGES, edit_hash, read_provenance
    from ..storage.files import digest

    settings, model, folder = context.options, context.model, context.run.edit(name)
    texts = contrasts(context, settings.wordings)
    # As a training has them: a closed form takes no step, and asks the denoiser nothing.
    described = {"settings": settings.model_dump(mode="json"), "steps": 0, "passes": 0, "prompts": len(texts)}
    key = digest([described, texts, model.fingerprint(), model.variant])
    # Prompts decide the weights, and several pairs may share them: the key alone would name pairs that were dropped.
    pairs = [[pair.unsafe_sha256, pair.safe_sha256] for pair in context.pairs]
    known = read_provenance(folder)
    if (folder / CHANGES).exists() and (known.get("key"), known.get("pairs")) == (key, pairs):
        edit_hash(folder)
        return "already done"
    weights = projections(model)
    rows = text_rows(model, texts, settings.rows, keep=settings.keep_scale > 0)
    changes = low_rank(weights, solve(sums_of(rows), weights, settings))
    write_changes(folder, changes, {**context.provenance, **described, "pairs": pairs, "key": key})
    return "done"
