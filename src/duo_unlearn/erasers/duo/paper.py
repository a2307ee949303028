"""The paper's recipe: the authors' numbers for a concept and a family, and their rule that ties lr and λ to β.

What it does not copy of their scripts: the prior's noise is drawn afresh here and is the pair's own there; a pair
shares the noise of the VAE's posterior here, and each image has its own there. On SD3 their margins and prior are of
preconditioned outputs, x − σ v, which weighs both by σ²; here they are of the raw velocity.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from ...concepts.spec import Concept
from ...errors import DuoError
from .settings import TrainSettings


class Script(NamedTuple):
    """A script of the authors.

    base_rate: the learning rate is base_rate · 100 / β. weighed: its margins and prior are of preconditioned outputs,
    so they have a weight σ² there that they do not have here.
    """

    base_rate: float
    weighed: bool = False


SCRIPTS: Final = {"sd1": Script(3e-4), "sd3": Script(3e-5, weighed=True)}
"""The authors' scripts by family."""


def rates(family: str, beta: float) -> tuple[float, float]:
    """Learning rate and λ of the authors' scripts at a β: base·100/β and 10⁶·β/100."""
    return float(f"{SCRIPTS[family].base_rate * 100 / beta:.12g}"), 1e6 * beta / 100


def paper_settings(concept: Concept, family: str, beta: float | None = None) -> dict[str, Any]:
    """Settings, nested as in a settings file. beta: another one than the paper's; lr and λ follow it by the rule.

    Batches of 4 pairs equal those of the scripts' four GPUs. Members of a pair have timesteps of their own there.
    """
    published: Mapping[str, Any] = concept.paper
    if family not in published or family not in SCRIPTS:
        there = f"it has them for {', '.join(published)}" if published else "it is not one of its concepts"
        hint = "recipe: recommended, and your own β, lr and λ"
        raise DuoError(f"the paper has no settings for {concept.name} on {family}", got=there, hint=hint)
    used = published[family].beta if beta is None else beta
    rate, prior = rates(family, used)
    return {
        "pairs": {"guidance": 7.5, "steps": 50},
        "train": {
            "beta": used,
            "learning_rate": rate,
            "prior_weight": prior,
            "max_train_steps": published[family].max_train_steps,
            "lr_scheduler": "constant",
            "train_batch_size": 4,
            "gradient_accumulation_steps": 1,
            "rank": 32,
            "adapter_targets": "self-attention",
            "adam_weight_decay": 1e-2,
            "max_grad_norm": 1.0,
            "max_timestep": 750,
            "share_timestep": False,
            "captions": "none",
            "sides": "both",
            "pairing": "paired",
        },
    }


def explain(family: str, train: TrainSettings) -> str:
    """The rule with its numbers filled in, and what was given in place of them."""
    rate, prior = rates(family, train.beta)
    text = f"β {train.beta:g}, lr = {SCRIPTS[family].base_rate:g}·100/β = {rate:g}, λ = 1e6·β/100 = {prior:g}"
    other = {"lr": (train.learning_rate, rate), "λ": (train.prior_weight, prior)}
    given = [f"{name} {value:g}" for name, (value, rule) in other.items() if value != rule]
    text += f"; given in place of that: {', '.join(given)}" if given else ""
    weighed = "; the scripts' β and λ belong to margins and a prior weighed by σ², so tune them here"
    return text + (weighed if SCRIPTS[family].weighed else "")
