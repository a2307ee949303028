"""What robust DUO must be told on pairs without prompts: they have nothing that wordings, P4D's aim or rounds read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ...records import Pair
from .settings import Kind, RobustSettings


def for_wordless(options: RobustSettings, pairs: Sequence[Pair]) -> dict[str, Any]:
    """Options that must be otherwise for some pairs, dotted → the value that they can have; none where all is well."""
    changes: dict[str, Any] = {}
    shares = options.captions.shares()
    asking = [pair.unsafe_prompt is not None for pair in pairs]
    whole = all(pair.has_prompts for pair in pairs)
    if not whole and shares["unsafe"] + shares["own"] > 0:
        shares = changes["captions"] = without_own(shares)
    if not all(asking) and shares["search"] and options.search.steps and options.search.imitate:
        changes["search.imitate"] = 0
    if not any(asking) and options.rounds > 1:
        changes["rounds"] = 1
    return changes


def without_own(shares: Mapping[Kind, float]) -> dict[Kind, float]:
    """Shares without those of the pairs' own prompts: the others take the room, each in proportion, and sum to 1."""
    none = dict.fromkeys(shares, 0.0)
    others = {kind: share for kind, share in shares.items() if kind not in ("unsafe", "own") and share}
    if not others:
        return {**none, "empty": 0.5, "random": 0.5}
    scaled = {kind: round(share / sum(others.values()), 3) for kind, share in others.items()}
    largest = max(scaled, key=lambda kind: scaled[kind])
    scaled[largest] = round(scaled[largest] + 1 - sum(scaled.values()), 3)
    return {**none, **scaled}
