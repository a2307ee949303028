"""The settings of robust DUO: DUO's objective, what pairs read, the search in a step, and what must stay."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

from ...families.family import MOST_STEPS
from ...storage.forms import ASIDE, LATER, Strict
from ..duo.settings import ObjectiveSettings

Kind = Literal["unsafe", "own", "empty", "random", "bank", "search", "free"]
"""What a pair may read: the unsafe prompt, each member its own, the empty prompt, random words, a caption of the bank,
tokens that are searched for, or a conditioning that is, behind the text encoders."""
Form = Literal["prompt", "prefix", "soft-prompt", "soft-prefix"]
"""Where free tokens stand: in the prompt's place, or before it. soft: free vectors, not the nearest tokens."""

HOLD: Final = 1.5
"""w / β on the mini model. The gradient of the preference is β/2 at its start, so this is a ratio of gradients."""


class Mixture(Strict):
    """The share of pairs that read each kind of caption; both members read the same, but for `own`."""

    unsafe: float = Field(0.4, ge=0, le=1, description="Share: the pair's unsafe prompt.")
    own: float = Field(0.0, ge=0, le=1, description="Share: each member its own prompt.")
    empty: float = Field(0.1, ge=0, le=1, description="Share: the empty prompt.")
    random: float = Field(0.1, ge=0, le=1, description="Share: 1 to 16 random tokens.")
    bank: float = Field(0.0, ge=0, le=1, description="Share: a caption that attacks found (`duo bank`).")
    search: float = Field(0.4, ge=0, le=1, description="Share: tokens that are searched for inside the step.")
    free: Annotated[float, LATER] = Field(
        0.0, ge=0, le=1, description="Share: a conditioning that is searched for, behind the text encoders."
    )

    def shares(self) -> dict[Kind, float]:
        """Each kind's share."""
        return {
            "unsafe": self.unsafe,
            "own": self.own,
            "empty": self.empty,
            "random": self.random,
            "bank": self.bank,
            "search": self.search,
            "free": self.free,
        }


class SearchSettings(Strict):
    """The search inside a step, over prompts that are kept from step to step."""

    forms: list[Form] = Field(
        ["prompt", "prefix", "soft-prompt"],
        min_length=1,
        description="Forms of the prompts, in turn: prompt (P4D's), prefix (UnlearnDiffAtk's), and each as soft-….",
    )
    prompts: int = Field(48, ge=1, description="Prompts that are kept and moved on.")
    tokens: int = Field(16, ge=1, description="Free tokens in a prompt's place.")
    prefix_tokens: int = Field(5, ge=1, description="Free tokens before a prompt.")
    steps: int = Field(2, ge=0, description="Steps of a search each time that a prompt is drawn; 0: none.")
    lr: float = Field(0.1, gt=0, description="Of the search's Adam, which starts anew at every draw.")
    renew: float = Field(0.02, ge=0, le=1, description="Share of draws in which a prompt starts again at random.")
    imitate: float = Field(
        0.5,
        ge=0,
        le=1,
        description="Share of searches towards the original model's prediction under the unsafe prompt (P4D's aim); "
        "the others go towards the noise (UnlearnDiffAtk's).",
    )


class FreeSettings(Strict):
    """The search behind the text encoders, over conditionings that are kept from step to step."""

    conditionings: int = Field(8, ge=1, description="Conditionings that are kept and moved on.")
    steps: int = Field(3, ge=0, description="Steps of a search each time that one is drawn; 0: none.")
    lr: float = Field(
        0.1, gt=0, description="Of the search's Adam, in units of a plain text's conditioning's root mean square."
    )
    spread: float = Field(0.3, ge=0, description="How far around that text one starts, in the same units.")
    renew: float = Field(0.1, ge=0, le=1, description="Share of draws in which one starts again.")


class RobustSettings(ObjectiveSettings):
    """The options of robust DUO."""

    captions: Mixture = Field(Mixture(), description="Shares of what pairs read, which sum to 1.")
    search: SearchSettings = Field(SearchSettings(), description="The search inside a step.")
    free: Annotated[FreeSettings, LATER] = Field(FreeSettings(), description="The search behind the text encoders.")
    bank: Path | None = Field(None, description="A bank of captions, for captions.bank: a file that `duo bank` wrote.")
    hold_weight: float | None = Field(
        None, ge=0, description="Weight of the distance on pictures that must stay; 0: none; null: 1.5 β."
    )
    hold_to: Literal["original", "floor"] = Field(
        "original", description="What they are held to: the original model, or the model with the floor."
    )
    hold_batch: int = Field(4, ge=1, description="Pictures a step that must stay.")
    hold_random: float = Field(0.0, ge=0, le=1, description="Share of them that are read under random words.")
    keep: int = Field(
        0,
        ge=0,
        description="Pictures of the concept's `keep` prompts that must stay too.",
    )
    neighbours: Annotated[int, LATER] = Field(
        0, ge=0, description="Pictures of the concept's neighbours that must stay too."
    )
    keep_steps: int = Field(20, ge=2, le=MOST_STEPS, description="Sampling steps of these.")
    keep_guidance: float = Field(5.0, ge=0, description="Guidance of these.")
    rounds: Annotated[int, ASIDE] = Field(
        1,
        ge=1,
        le=9,
        description="Trainings one after another, each from the original; later ones read what attacks on earlier "
        "ones found. 1: one training, and no attack.",
    )
    round_attacks: Annotated[list[str], ASIDE] = Field(
        ["unlearndiffatk", "p4d", "concept-inversion"],
        min_length=1,
        description="Attacks on each round's edit where there are two rounds or more, with quick budgets.",
    )
    round_prompts: Annotated[int, ASIDE] = Field(16, ge=1, description="Training prompts that they attack.")
    round_budgets: Annotated[dict[str, dict[str, Any]], ASIDE] = Field(
        {}, description="Fields of these attacks' budgets that are not the quick one's, by attack."
    )
    round_share: Annotated[float, ASIDE] = Field(
        0.2,
        gt=0,
        lt=1,
        description="Share of what they found, in rounds after the first, where captions.bank has none: the other "
        "shares make room.",
    )

    @model_validator(mode="after")
    def _follow_beta(self) -> Self:
        """The number itself is what decides a training, however it was said."""
        if self.hold_weight is None:
            self.hold_weight = HOLD * self.beta
        return self

    def fault(self) -> str | None:
        """What does not go together, or None. Settings that are a layer of others are not asked: they are no whole."""
        # Shares that make room for a round's bank are kept to six digits.
        if not math.isclose(total := sum(self.captions.shares().values()), 1.0, abs_tol=1e-5):
            return f"the shares of captions must sum to 1, not {total:g}"
        if self.captions.bank and self.bank is None:
            return "captions.bank needs bank: a file that `duo bank` wrote"
        if self.bank is not None and not self.captions.bank:
            return "bank is read where captions.bank has a share: give it one, or bank=null"
        if self.free != FreeSettings() and not self.captions.free:
            return "free is read where captions.free has a share: give it one, or leave free out"
        if not self.hold_weight and (unread := [name for name in HELD if getattr(self, name)]):
            return f"{unread[0]} is read where hold_weight is more than 0: give it a weight, or leave {unread[0]} out"
        return None


HELD: Final = ("keep", "neighbours", "hold_random")
"""Options that say what is held beside the pairs, and how."""
MOST_RANDOM: Final = 16
"""How many random tokens a caption has at most."""
