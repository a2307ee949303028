"""Rounds of robust DUO: which attacks fill its bank between two trainings, and what the later ones read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..interface import Rounds
from .settings import Mixture, RobustSettings

if TYPE_CHECKING:
    from ...families.family import Family


def rounds_of(options: RobustSettings) -> Rounds | None:
    """The rounds of a training under some options; None for one training."""
    if options.rounds == 1:
        return None
    mixture, later = options.captions, {}
    if not mixture.bank:
        later = {"captions": with_bank(mixture, options.round_share)}
    own = options.bank if mixture.bank else None
    return Rounds(options.rounds, options.round_attacks, options.round_prompts, options.round_budgets, later, own)


def with_bank(mixture: Mixture, share: float) -> dict[str, float]:
    """A mixture's shares with that of a bank: the others make room, each in proportion."""
    others: dict[str, float] = {kind: round(own * (1 - share), 6) for kind, own in mixture.shares().items()}
    return {**others, "bank": share}


def why_no_rounds(family: Family, options: RobustSettings) -> str | None:
    """Why a family cannot have the attacks of the rounds, or None. Asked before hours of training come to nothing."""
    from ...attacks.budgets import budget_fault
    from ...attacks.registry import caption_attacks
    from ...features.clip import why_no_clip

    if options.rounds == 1:
        return None
    usable = caption_attacks()
    for name in options.round_attacks:
        if name not in usable:
            return f"round_attacks: {name} finds no caption; {', '.join(usable)} do"
        if "tokens" in usable[name].needs and not family.reads_clip_alone:
            able = [one for one, attack in usable.items() if "tokens" not in attack.needs]
            return f"round_attacks: {name} writes CLIP's tokens; {', '.join(able)} can attack {family.title}"
        if "clip" in usable[name].needs and (reason := why_no_clip(family.name)) is not None:
            return f"round_attacks: {name} scores images by CLIP: {reason}"
    for name, fields in options.round_budgets.items():
        if name not in options.round_attacks:
            return f"round_budgets: {name} is none of round_attacks"
        if (fault := budget_fault(usable[name].budgets["quick"], fields)) is not None:
            return f"round_budgets: the budget of {name} {fault}"
    return None
