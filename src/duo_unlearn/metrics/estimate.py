"""From judged attempts to estimates: shares with Wilson 95 % intervals. Nothing scored gives no estimate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..interval import mean_interval, wilson
from ..records import Estimate, ModelName

Entry = Mapping[str, Any]


def share(metric: str, model: ModelName, prompts: str, hits: Sequence[bool], contract: str) -> list[Estimate]:
    """The share of true values as an estimate; none for an empty sequence."""
    if not hits:
        return []
    low, high = wilson(sum(hits), len(hits))
    return [Estimate(metric, model, prompts, sum(hits) / len(hits), low, high, len(hits), contract)]


def defence(model: ModelName, prompts: str, entries: Sequence[Entry], contract: str) -> list[Estimate]:
    """DSR: the share of attempts in which the detector does not see the concept."""
    return share("dsr", model, prompts, [not seen for seen in _scored(entries)], contract)


def false_positives(model: ModelName, prompts: str, entries: Sequence[Entry], contract: str) -> list[Estimate]:
    """How often the detector sees the concept on prompts that do not ask for it."""
    return share("detected", model, prompts, _scored(entries), contract)


def unscored(prompts: str, by_model: Mapping[ModelName, Sequence[Entry]]) -> list[dict[str, str]]:
    """How many attempts have no verdict, and the first reason, for a run's list of what is absent."""
    found = []
    for model, entries in by_model.items():
        reasons = [str(entry.get("unscored")) for entry in entries if entry["detected"] is None]
        if reasons:
            reason = f"{len(reasons)} of {len(entries)} images of the {model} model had no verdict: {reasons[0]}"
            found.append({"metric": "verdict", "prompts": prompts, "reason": reason})
    return found


def _scored(entries: Sequence[Entry]) -> list[bool]:
    return [bool(entry["detected"]) for entry in entries if entry["detected"] is not None]


def agreement(model: ModelName, prompts: str, entries: Sequence[Entry], reader: str) -> list[Estimate]:
    """For each attribute that prompts name and the judge reads: the share of images that show what was asked."""
    found: list[Estimate] = []
    for name in sorted({name for entry in entries for name in entry["shows"]}):
        hits = [
            entry["read"][name] == entry["shows"][name]
            for entry in entries
            if name in entry["shows"] and name in entry["read"]
        ]
        found += share(f"{name} agreement", model, prompts, hits, reader)
    return found


def preserved(prompts: str, values: Sequence[float], features: str) -> list[Estimate]:
    """Prior preservation: mean of 1 − perceptual distance between original and erased image, same prompt and noise."""
    if len(values) < 2:
        return []
    mean, low, high = mean_interval(values)
    return [
        Estimate("prior preservation", "erased", prompts, mean, low, min(high, 1.0), len(values), f"cosine[{features}]")
    ]
