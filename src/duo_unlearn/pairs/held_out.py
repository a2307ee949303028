"""Pairs that a training does not use and is measured on: made beside the others, or taken from a user's own."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from ..concepts.spec import Concept


def held_out_seed(seed: int) -> int:
    """The seed of a run's held-out pairs: no run has it, so they share no noise with the pairs of any run."""
    return -1 - seed


def are_made(concept: Concept, scale: float, share: float) -> bool:
    """Whether a share of a concept's pairs is at least one pair of some kind."""
    return any(round(kind.count * scale * share) for kind in concept.pairs)


def chosen_names(names: Sequence[str], share: float) -> set[str]:
    """Which of a user's pairs are held out: a share of them, rounded down, that their names alone decide."""
    ranked = sorted(names, key=lambda name: hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest())
    return set(ranked[: int(len(names) * share)])
