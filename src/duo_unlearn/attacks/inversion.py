"""Concept inversion (white box): textual inversion of one token on the attacked system (Pham et al. 2023).

Everything is frozen but one token's vector, which learns to make that system denoise images of the concept.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

from ..families.inversion import invert
from ..families.tokens import PLACEHOLDER
from ..records import Prompt
from ..runs.search_state import SearchState
from .interface import Attack, Finding, Findings, Report, Target


@dataclasses.dataclass(frozen=True)
class Budget:
    """steps of AdamW, images a step, and learning rate."""

    steps: int
    batch: int
    lr: float = 5e-3


def _find(
    target: Target,
    prompts: Sequence[Prompt],
    _seeds: Sequence[int],
    budget: Budget,
    _report: Report,
    state: SearchState,
) -> Findings:
    """One token for the whole concept, in front of every prompt."""
    vector = invert(
        target.model, target.moments(), steps=budget.steps, batch=budget.batch, seed=target.seed, lr=budget.lr,
        state=state, reader=target.reader,
    )  # fmt: skip
    return Findings([Finding(f"{PLACEHOLDER} {prompt.text}", vector="token") for prompt in prompts], {"token": vector})


CONCEPT_INVERSION: Final = Attack(
    "concept-inversion",
    "Concept inversion",
    {"quick": Budget(300, 16), "paper": Budget(3000, 4)},
    _find,
    found_on="model",
    aware_version=2,
    needs=frozenset({"tokens", "pairs"}),
    level="encoder",
    cost=lambda budget, _prompts, _steps: 3 * budget.steps * budget.batch,
)
