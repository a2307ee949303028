"""The README of an export: what it is, how to load it, where it comes from, and what was measured."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..records import Estimate
from .interface import Format

REMOVABLE = (
    "Whoever loads the model can leave this adapter out: without it the concept is there. "
    "Ship a merged model where that matters."
)
FIXED = "The change is in the weights: it cannot be unloaded. Fine-tuning can still bring the concept back."
UNMEASURED = "Not measured: there is no results.json of this edit beside it."


class Card(NamedTuple):
    """What a model card says.

    target: what is loaded, a folder's or a file's name. method: the eraser's title, None where it is not known.
    provenance: of the edit. estimates: of the edit's system and of the original. check: a sentence on how the export
    was compared with the edit.
    """

    form: Format
    target: str
    concept: str
    base: str
    method: str | None
    strength: float
    provenance: Mapping[str, Any]
    estimates: Sequence[Estimate]
    check: str


def model_card(card: Card) -> str:
    """A model card as Markdown."""
    tags = ["text-to-image", "unlearning", "duo_unlearn", *(["lora"] if card.form.removable else [])]
    front = {"base_model": card.base, "library_name": "diffusers", "tags": tags}
    kind = "An adapter (LoRA)" if card.form.removable else "A merged model"
    method = "" if card.method is None else f" The method: {card.method}."
    loading = card.form.loading.replace("FOLDER", card.target).replace("FILE", card.target)
    sections = {
        "Loading": [f"    {loading}"],
        "Results": _results(card.estimates, card.strength),
        "Checked": [card.check],
        "Provenance": _provenance(card.provenance),
    }
    lines = ["---", *(f"{key}: {json.dumps(value)}" for key, value in front.items()), "---", ""]
    lines += [f"# {card.base} without “{card.concept}”", ""]
    lines += [f"{kind} that erases the concept, at strength {card.strength:g}.{method}", ""]
    lines += [f"**{REMOVABLE if card.form.removable else FIXED}**", ""]
    for title, content in sections.items():
        lines += [f"## {title}", "", *content, ""]
    return "\n".join(lines)


def _results(estimates: Sequence[Estimate], strength: float) -> list[str]:
    if not estimates:
        return [UNMEASURED]
    head = [] if strength == 1 else [f"Measured at strength 1, not at {strength:g}.", ""]
    columns = ("metric", "scenario", "attack", "preset", "system", "value [95 % interval]", "n", "judged by")
    head += [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    return head + [_row(estimate) for estimate in estimates]


def _row(e: Estimate) -> str:
    value = f"{e.value:.3f} [{e.low:.3f}, {e.high:.3f}]"
    cells = (e.metric, e.scenario, e.attack or "–", e.preset or "–", e.system, value, str(e.n), f"`{e.contract}`")
    return f"| {' | '.join(cells)} |"


def _provenance(provenance: Mapping[str, Any]) -> list[str]:
    rows: list[str] = []
    for key, value in provenance.items():
        if key == "pairs":
            rows.append(f"* pairs: {len(value)}; SHA-256 of each member in provenance.json")
        elif key == "parts":
            rows += [
                f"* part: {part.get('concept')}, weight {part.get('weight')}, sha256 {part.get('sha256')}"
                for part in value
            ]
        else:
            rows.append(f"* {key}: {json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value}")
    return rows
