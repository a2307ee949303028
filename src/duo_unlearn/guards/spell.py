"""SPELL: Sparse Repellency (Kirchhof et al. 2025, arXiv 2410.06025): clean latents are pushed away from unsafe ones.

At every step, with z_k the latents of the pairs' unsafe images (eq. 6; no code is published):

    x̂0 ← x̂0 + λ Σ_k relu(r / ‖x̂0 − z_k‖ − 1) (x̂0 − z_k)

λ = 1 moves x̂0 onto the shell of radius r, the published 1.6 beyond it. Outside every shell nothing changes, bit for
bit. The published rule shields whole pictures, not a feature of them. `along: difference` is ours: with u the direction
from the safe member z⁺ to the unsafe member z⁻ of the nearest pair, and a = ⟨x̂0 − z⁺, u⟩,

    x̂0 ← x̂0 − λ relu(a − (1 − share) ‖z⁻ − z⁺‖) u

so an estimate that has gone most of the way from the safe to the unsafe member is taken back along that way alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import Field

from ..storage.forms import Strict
from .interface import Asks, Branch, Context, Seen

if TYPE_CHECKING:
    from torch import Tensor

    from ..families.family import Family
    from ..families.interface import Hooks, Model, Step
    from ..records import Level


class SpellSettings(Strict):
    """What is repelled from, how far and how much."""

    along: Literal["pictures", "difference"] = Field(
        "pictures", description="pictures: away from unsafe latents (published); difference: along the nearest pair's."
    )
    strength: float = Field(1.6, ge=0, description="λ (published: 1.6); 0: no guard at all.")
    radius: float | None = Field(
        None,
        gt=0,
        description="r, of along: pictures, in the latents' units; None: the median distance of an unsafe member from "
        "its safe one (the paper's radii are not known).",
    )
    share: float = Field(
        0.25, gt=0, le=1, description="Of along: difference: how much of the way, from the unsafe end, is shielded."
    )


def repelled(clean: Tensor, unsafe: Tensor, radius: float, strength: float) -> Tensor:
    """x̂0, (image, d), pushed away from latents (k, d)."""
    import torch

    distance = torch.cdist(clean, unsafe, compute_mode="donot_use_mm_for_euclid_dist").clamp(min=1e-6)
    weight = strength * (radius / distance - 1).clamp(min=0)
    moved: Tensor = clean + weight.sum(dim=1, keepdim=True) * clean - weight @ unsafe
    return moved


def taken_back(clean: Tensor, unsafe: Tensor, safe: Tensor, share: float, strength: float) -> Tensor:
    """x̂0, (image, d), taken back along the difference of its nearest pair, of latents (pair, d).

    Nearest is the pair whose middle is: neither member is favoured.
    """
    import torch

    nearest = torch.cdist(clean, (unsafe + safe) / 2, compute_mode="donot_use_mm_for_euclid_dist").argmin(dim=1)
    way = (unsafe - safe)[nearest]
    length = way.norm(dim=1, keepdim=True).clamp(min=1e-6)
    direction = way / length
    gone = ((clean - safe[nearest]) * direction).sum(dim=1, keepdim=True)
    moved: Tensor = clean - strength * (gone - (1 - share) * length).clamp(min=0) * direction
    return moved


class Spell:
    """Clean latents that come near the unsafe images are pushed away."""

    name, title = "spell", "SPELL: sparse repellency"
    version, aware_version = 1, 1
    settings: type[Strict] = SpellSettings
    learns, acts_on = True, "clean latents"
    level: Level = "generator"
    cost = "no denoiser row: a distance to each pair a step"
    replaces: Branch | None = None
    asks: Asks | None = None
    seen: Seen = "whole"
    needs_negative: bool = False

    def why_not(self, _kind: Family) -> str | None:
        """Every family estimates clean latents."""
        return None

    def build(self, options: Mapping[str, Any], context: Context) -> Hooks:
        """The hook on the clean latents."""
        import torch

        from ..families.interface import Hooks

        settings = SpellSettings.model_validate(dict(options))
        if settings.strength == 0:
            return Hooks()
        unsafe = _flat(context.model, context.pairs.unsafe().mean)
        by_pictures = settings.along == "pictures"
        safe = None if by_pictures and settings.radius else _flat(context.model, context.pairs.safe().mean)
        radius = settings.radius or float((unsafe - safe).norm(dim=1).median() if safe is not None else 0)

        def clean(_step: Step, estimate: Tensor) -> Tensor:
            rows = estimate.flatten(1)
            if by_pictures:
                moved = repelled(rows, unsafe, radius, settings.strength)
            else:
                assert safe is not None
                moved = taken_back(rows, unsafe, safe, settings.share, settings.strength)
            return estimate if torch.equal(moved, rows) else moved.view_as(estimate)

        return Hooks(clean=clean)


def _flat(model: Model, latents: Tensor) -> Tensor:
    """Latents in the pipeline's layout, (image, d), float32."""
    return model.kind.latents.pack(latents).flatten(1).float().to(model.device)


SPELL: Final = Spell()
