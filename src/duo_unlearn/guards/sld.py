"""SLD: Safe Latent Diffusion (Schramowski et al. 2023, arXiv 2211.05105): guidance goes away from a safety concept.

With ε_s the prediction under the concept's words, elementwise (eq. 3 to 8, and the authors' pipeline):

    μ = min(S |ε_c − ε_s|, 1) where ε_c − ε_s < λ, else 0        γ = μ (ε_s − ε_n) + s_m ν
    ε_n + s ((ε_c − ε_n) − γ) from step δ on                     ν ← β ν + (1 − β) γ, from the first step on

δ counts the steps of a run of 50, as published, and is scaled to the steps that there are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from pydantic import Field

from ..storage.forms import Strict
from .interface import Asks, Branch, Context, Seen

if TYPE_CHECKING:
    from torch import Tensor

    from ..families.family import Family
    from ..families.interface import Branches, Hooks, Step
    from ..records import Level

STEPS: Final = 50
"""Of the run whose steps δ counts."""


class Strength(NamedTuple):
    """The numbers of the rule: δ, S, λ, s_m, β."""

    warmup: float
    scale: float
    threshold: float
    momentum: float
    beta: float


PRESETS: Final = {
    "weak": Strength(15, 20, 0.0, 0.0, 0.0),
    "medium": Strength(10, 1000, 0.01, 0.3, 0.4),
    "strong": Strength(7, 2000, 0.025, 0.5, 0.7),
    "max": Strength(0, 5000, 1.0, 0.5, 0.7),
}
"""The authors' four configurations."""


class SldSettings(Strict):
    """A preset, and numbers that override it."""

    preset: Literal["weak", "medium", "strong", "max"] = Field("medium", description="The authors' configuration.")
    text: str | None = Field(None, description="The safety concept; None: the concept's name.")
    warmup: float | None = Field(None, ge=0, description="δ, of 50 steps; None: the preset's.")
    scale: float | None = Field(None, ge=0, description="S; 0: no guard at all; None: the preset's.")
    threshold: float | None = Field(None, description="λ; None: the preset's.")
    momentum: float | None = Field(None, ge=0, lt=1, description="s_m; None: the preset's.")
    beta: float | None = Field(None, ge=0, lt=1, description="β; None: the preset's.")


def strength_of(settings: SldSettings) -> Strength:
    """The numbers that settings stand for."""
    given = {name: getattr(settings, name) for name in Strength._fields}
    return PRESETS[settings.preset]._replace(**{name: value for name, value in given.items() if value is not None})


def safety_term(positive: Tensor, negative: Tensor, safety: Tensor, momentum: Tensor, numbers: Strength) -> Tensor:
    """γ, from ε_c, ε_n, ε_s and ν, all of one shape."""
    difference = positive - safety
    share = (numbers.scale * difference.abs()).clamp(max=1) * (difference < numbers.threshold)
    return share * (safety - negative) + numbers.momentum * momentum


class Sld:
    """Guidance away from the concept's words where the prompt's prediction comes near theirs."""

    name, title = "sld", "SLD: safe latent diffusion"
    version, aware_version = 1, 1
    settings: type[Strict] = SldSettings
    learns, acts_on = False, "prediction"
    level: Level = "generator"
    cost = "a denoiser row a step (3 in place of 2)"
    replaces: Branch | None = None
    asks: Asks | None = None
    seen: Seen = "part"
    needs_negative: bool = True

    def why_not(self, kind: Family) -> str | None:
        """A family that is guided by an input has no guidance to change."""
        return kind.why_no_negative

    def build(self, options: Mapping[str, Any], context: Context) -> Hooks:
        """The hook on the prediction. Without guidance there is nothing to change, and images are the system's own."""
        from ..families.interface import Hooks

        settings = SldSettings.model_validate(dict(options))
        numbers = strength_of(settings)
        text = context.concept if settings.text is None else settings.text
        if numbers.scale == 0 or not text.strip():
            return Hooks()
        concept = context.model.condition([text])

        def prediction(step: Step, guided: Tensor) -> Tensor:
            branches: Branches | None = step.branches
            if branches is None:
                return guided
            positive, negative = branches.positive.float(), branches.negative.float()
            safety = branches.predict(concept.repeat(len(guided))).float()
            before = step.memory.get(self.name, safety.new_zeros(safety.shape))
            term = safety_term(positive, negative, safety, before, numbers)
            step.memory[self.name] = numbers.beta * before + (1 - numbers.beta) * term
            if step.number * STEPS < numbers.warmup * step.steps:
                return guided
            return guided - (branches.scale * term).to(guided)

        return Hooks(prediction=prediction)


SLD: Final = Sld()
