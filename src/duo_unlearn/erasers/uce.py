"""UCE: Unified Concept Editing (Gandikota et al. 2023, arXiv 2308.14761), a closed form on cross-attention.

For each key and value projection W, with c the text rows to erase, g their guides and p those to keep:

    W* = (λ W + Σ s W g cᵀ + Σ s_p W p pᵀ) (λ I + Σ s c cᵀ + Σ s_p p pᵀ)⁻¹
    W* − W = s W (G − C)ᵀ C M⁻¹,   M the matrix that is inverted, C and G the rows: exactly of low rank

The words are the pairs' own prompts: each unsafe one is guided to its safe one. Images are not used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import Field

from ..storage.forms import Strict
from .interface import Eraser, EraserContext, State

if TYPE_CHECKING:
    from torch import Tensor

    from ..edits.weights import LowRank
    from ..families.family import Family
    from ..families.interface import Model


class UceSettings(Strict):
    """The options of UCE."""

    rows: Literal["last", "all"] = Field(
        "all",
        description="Text rows that are edited: the last token of the concept (the new script), or from it to the end "
        "of the padding (the old script).",
    )
    weight: float = Field(0.5, gt=0, description="λ, how much the weights hold on to what they were (published: 0.5).")
    erase_scale: float = Field(1.0, gt=0, description="s, of the rows to erase (published: 1).")
    keep_scale: float = Field(1.0, ge=0, description="s_p, of the rows to keep: those of the pairs' safe prompts.")


def closed_form(weight: Tensor, erase: Tensor, guide: Tensor, keep: Tensor, settings: UceSettings) -> LowRank:
    """W* − W of one projection. weight: (out, in); erase, guide: (row, in); keep: (row, in), rows may be none."""
    import torch

    from ..edits.weights import LowRank

    c, g, p, w = (x.double() for x in (erase, guide, keep, weight))
    eye = torch.eye(w.shape[1], dtype=torch.float64)
    inner = settings.weight * eye + settings.erase_scale * c.T @ c + settings.keep_scale * p.T @ p
    moved = settings.erase_scale * (g - c)
    if len(c) <= w.shape[1]:
        return LowRank((w @ moved.T).float(), torch.linalg.solve(inner, c.T).T.float())
    return LowRank((w @ (moved.T @ c)).float(), torch.linalg.inv(inner).float())


def concept_rows(ids: Sequence[int], guide: Sequence[int]) -> tuple[int, int]:
    """Where the concept ends in a prompt's tokens, and its guide's counterpart in theirs: the last ones that differ.

    ids, guide: tokens without padding.
    """
    same = 0
    while same < min(len(ids), len(guide)) and ids[-1 - same] == guide[-1 - same]:
        same += 1
    return max(len(ids) - same - 1, 0), max(len(guide) - same - 1, 0)


def _text_rows(model: Model, unsafe: str, safe: str, settings: UceSettings) -> tuple[Tensor, Tensor]:
    """The rows to erase of an unsafe prompt and their guides in its safe one, each (row, width)."""
    tokenizer = model.pipe.tokenizer
    at, other = concept_rows(*(tokenizer(text, truncation=True).input_ids for text in (unsafe, safe)))
    c, g = (model.condition([text]).text[0].float().cpu() for text in (unsafe, safe))
    if settings.rows == "last":
        return c[at : at + 1], g[other : other + 1]
    count = len(c) - max(at, other)  # aligned from there on, up to where one of them ends
    return c[at : at + count], g[other : other + count]


def _why_not(family: Family) -> str | None:
    return None if family.denoiser == "unet" else f"{family.title} has no cross-attention that reads the text alone"


def _erase(context: EraserContext, name: str) -> State:
    """Write the edit, unless it is there under the same key."""
    import torch

    from ..edits.files import write_changes
    from ..edits.provenance import CHANGES, edit_hash, read_provenance
    from ..storage.files import digest

    settings, model, folder = context.options, context.model, context.run.edit(name)
    prompts = sorted({(p.unsafe_prompt, p.safe_prompt) for p in context.pairs if p.unsafe_prompt and p.safe_prompt})
    if not prompts:
        raise _no_words()
    described: dict[str, Any] = {"settings": settings.model_dump(mode="json"), "prompts": len(prompts)}
    key = digest([described, prompts, context.provenance["base"]])
    if (folder / CHANGES).exists() and read_provenance(folder).get("key") == key:
        edit_hash(folder)
        return "already done"
    rows = [_text_rows(model, str(unsafe), str(safe), settings) for unsafe, safe in prompts]
    erase, guide = (torch.cat(side) for side in zip(*rows, strict=True))
    texts = sorted({str(safe) for _, safe in prompts}) if settings.keep_scale else []
    keep = torch.cat([model.condition([t]).text[0].float().cpu() for t in texts] or [erase[:0]])
    changes = {
        f"{model.denoiser_name}.{layer}.weight": closed_form(module.weight.float().cpu(), erase, guide, keep, settings)
        for layer, module in model.denoiser.named_modules()
        if layer.endswith(("attn2.to_k", "attn2.to_v"))
    }
    write_changes(folder, changes, {**context.provenance, **described, "key": key})
    return "done"


def _no_words() -> Exception:
    from ..errors import DuoError

    hint = "pairs that `duo pairs` makes have prompts; a manifest may give them for your own"
    return DuoError("UCE edits what prompts say, and the pairs have none", hint=hint)


UCE: Final = Eraser("uce", "UCE: Unified Concept Editing", UceSettings, "prompts", _why_not, _erase)
