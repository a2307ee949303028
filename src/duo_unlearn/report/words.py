"""The words of a report: what prompt sets, metrics, attacks and systems are called, and how numbers are written."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..attacks.registry import ATTACKS
from ..records import CORRECTED, Awareness, Estimate, is_share
from ..runs.results import WORST

PERCENT: Final = "\u00a0%"
"""Never parted from its number at the end of a line."""
ASKING: Final = ("direct", "synonym", "indirect")
"""The usual prompt sets that ask for the concept."""
SET_NAMES: Final = {
    "direct": "Direct wording",
    "synonym": "Synonyms",
    "indirect": "Indirect wording",
    "empty": "Empty-hands prompts",
    "neighbours": "Neighbour prompts",
}
METRIC_NAMES: Final = {
    "dsr": "DSR: concept not seen",
    CORRECTED: "DSR, corrected for the judge's errors",
    "detected": "Concept seen (false positives)",
    "refused": "Refused by a guard",
    "broken": "Broken: nothing to recognise (not in DSR)",
    "verdict": "Verdicts",
    "clip score": "CLIP score",
    **{name: name.upper() for name in ("lpips", "fid", "kid", "cmmd")},
}
ATTACK_WORDS: Final = {
    "ring-a-bell": "a black-box search over tokens",
    "sneakyprompt": "a black-box search for words that slip past",
    "concept-inversion": "a new token that is trained to stand for the concept",
    "unlearndiffatk": "a white-box adversarial prefix",
    "p4d": "a white-box prompt search",
    "image-to-image": "starting from a picture in place of noise",
    "image-to-image-empty": "starting from a picture, under no text",
    "soft-prompt": "a conditioning that is trained to stand for the concept, past every text encoder",
    "tina": "the noise from which a picture comes back, under no text",
    "inpainting": "drawing the middle of a picture anew, under no text",
    "completion": "finishing what the original began, under no text",
    "noise-search": "a search for the seed that gives the concept, under no text",
    "relearning": "fine-tuning the edited model on the concept again",
    "edit-removal": "taking the edits off",
}
"""What an attack does, for people who do not know its name. One that is not here is named alone."""


def set_name(scenario: str) -> str:
    """A prompt set as the report calls it."""
    return SET_NAMES.get(scenario, f"{scenario[:1].upper()}{scenario[1:]} prompts")


def metric_name(metric: str) -> str:
    """A metric as the report calls it."""
    return METRIC_NAMES.get(metric, metric[:1].upper() + metric[1:])


def awareness(search: Awareness | None) -> str:
    """Whether a search saw the system's guards, in words; "" where there was no such question."""
    return {None: "", "aware": "aware of the guard", "unaware": "unaware of the guard"}.get(search, str(search))


def attack_words(attack: str, preset: str | None, search: Awareness | None) -> str:
    """An attack with its budget and what its search saw, e.g. "p4d (quick budget, unaware of the guard)"."""
    details = [f"{preset} budget"] if preset is not None else []
    details += [awareness(search)] if search is not None else []
    return f"“{attack}”" + (f" ({', '.join(details)})" if details else "")


def figure(metric: str, value: float) -> str:
    """A value: shares in per cent, others as plain numbers. 0 and 100 % are only ever said of the exact ones."""
    if not is_share(metric):
        return f"{value:.3g}" if abs(value) < 0.1 else f"{value:.3f}"
    if 0 < value < 0.0005:
        return f"<\u00a00.1{PERCENT}"
    if 0.9995 <= value < 1:
        return f">\u00a099.9{PERCENT}"
    return f"{100 * value:.1f}{PERCENT}"


def interval(estimate: Estimate) -> str:
    """The 95 % interval, low to high."""
    if not is_share(estimate.metric):
        return f"{figure(estimate.metric, estimate.low)} to {figure(estimate.metric, estimate.high)}"
    return f"{100 * estimate.low:.1f} to {100 * estimate.high:.1f}{PERCENT}"


def counts(estimates: Sequence[Estimate]) -> str:
    """How many attempts estimates are of: "300", or "20 to 300" where they differ."""
    low, high = min(e.n for e in estimates), max(e.n for e in estimates)
    return str(low) if low == high else f"{low} to {high}"


def set_order(scenario: str) -> tuple[int, str]:
    """A sort key: prompts that ask for the concept, keep prompts, then others by name."""
    usual = (*ASKING, "plain", "keep", "neighbours")
    return (usual.index(scenario), "") if scenario in usual else (len(usual), scenario)


def attack_order(attack: str | None) -> tuple[int, str]:
    """A sort key: no attack, then the order of the registry, unknown ones, and the worst case last."""
    names, base = ATTACKS.names(), (attack or "").partition("@")[0]
    if attack is None:
        return -1, ""
    if attack == WORST:
        return len(names) + 1, ""
    return (names.index(base) if base in names else len(names)), attack


def title_of(attack: str | None) -> str:
    """An attack as people call it."""
    if attack is None or attack == WORST:
        return attack or "no attack"
    return ATTACKS.get(attack).title if attack in ATTACKS.names() else attack


def family_of_attack(attack: str) -> str:
    """The name of attacks that differ in size or kind alone: relearning-concept-20 and the like are "relearning"."""
    name = attack.partition("@")[0]
    families = [family for family in ATTACK_WORDS if f"{name}-".startswith(f"{family}-")]
    return max(families, key=len, default=name)
