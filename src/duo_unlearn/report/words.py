"""The numbers of a report in words and rows: the verdict, the table of estimates, what was not tested."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from ..records import Estimate, is_share
from .read import Absent, Contents

PERCENT: Final = "\u00a0%"
"""Never parted from its number at the end of a line."""
ATTACK_SETS: Final = ("direct", "synonym", "indirect", "inverted")
SET_NAMES: Final = {
    "direct": "Direct wording",
    "synonym": "Synonyms",
    "indirect": "Indirect wording",
    "inverted": "Inverted token",
    "inverted-plain": "Inverted token, plain prompts",
    "keep": "Keep prompts",
    "empty": "Empty-hands prompts",
    "neighbours": "Neighbour prompts",
}
OTHER_ATTACKS: Final = {
    "Ring-A-Bell": "a black-box search over tokens",
    "SneakyPrompt": "a black-box search for words that slip past",
    "UnlearnDiffAtk": "a white-box adversarial prefix",
    "P4D": "a white-box prompt search",
    "Relearning": "fine-tuning the erased model on the concept again",
    "Image-to-image": "starting from a picture in place of noise",
}


class Row(NamedTuple):
    """One metric of one prompt set under one contract, for both models. contract: its number, from 1."""

    metric: str
    original: Estimate | None
    erased: Estimate | None
    contract: int


class Group(NamedTuple):
    """The rows of a prompt set."""

    prompts: str
    rows: list[Row]


class Table(NamedTuple):
    """All estimates; contracts in the order of their numbers."""

    groups: list[Group]
    contracts: list[str]


def set_name(prompts: str) -> str:
    """A prompt set as the report calls it."""
    return SET_NAMES.get(prompts, f"{prompts[:1].upper()}{prompts[1:]} prompts")


def metric_name(metric: str) -> str:
    """A metric as the report calls it."""
    known = {"dsr": "DSR: concept not seen", "detected": "Concept seen (false positives)"}
    known |= {"clip score": "CLIP score", **{name: name.upper() for name in ("lpips", "fid", "kid", "cmmd")}}
    return known.get(metric, metric[:1].upper() + metric[1:])


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


def order_of(prompts: str) -> tuple[int, str]:
    """Attacks first, then keep prompts, then neighbours by name."""
    known = (*ATTACK_SETS, "inverted-plain", "keep", "neighbours")
    return (known.index(prompts), "") if prompts in known else (len(known), prompts)


def table(estimates: Sequence[Estimate]) -> Table:
    """Estimates by prompt set. Those of another contract never share a row."""
    contracts: list[str] = []
    groups: dict[str, list[Row]] = {}
    for estimate in estimates:
        if estimate.contract not in contracts:
            contracts.append(estimate.contract)
        number = contracts.index(estimate.contract) + 1
        rows = groups.setdefault(estimate.prompts, [])
        for i, row in enumerate(rows):
            if (row.metric, row.contract) != (estimate.metric, number):
                continue
            if estimate.model == "original" and row.original is None:
                rows[i] = row._replace(original=estimate)
                break
            if estimate.model == "erased" and row.erased is None:
                rows[i] = row._replace(erased=estimate)
                break
        else:
            original, erased = (estimate, None) if estimate.model == "original" else (None, estimate)
            rows.append(Row(estimate.metric, original, erased, number))
    return Table([Group(name, groups[name]) for name in sorted(groups, key=order_of)], contracts)


def _find(estimates: Sequence[Estimate], metric: str, model: str, prompts: str) -> Estimate | None:
    return next((e for e in estimates if (e.metric, e.model, e.prompts) == (metric, model, prompts)), None)


def verdict(contents: Contents) -> str:
    """One sentence: the worst DSR of the erased model with its interval and n, and what was preserved."""
    concept = contents.concept or "the concept"
    scores = [e for e in contents.estimates if e.metric == "dsr" and e.model == "erased"]
    if not scores:
        return f"Whether {concept} was erased is not known: this run has no defence success rate of the erased model."
    worst = min(scores, key=lambda e: (e.value, e.low))
    of_sets = f"worst of {len(scores)} prompt sets" if len(scores) > 1 else "the only prompt set tested"
    before = _find(contents.estimates, "dsr", "original", worst.prompts)
    compared = f"; original model: {figure('dsr', before.value)}" if before else "; the original model was not measured"
    return (
        f"With “{set_name(worst.prompts).lower()}” ({of_sets}) the erased model shows no {concept} in "
        f"{figure('dsr', worst.value)} of {worst.n} images (95{PERCENT} interval {interval(worst)}{compared}), "
        f"and {_preserved(contents.estimates)}."
    )


def _preserved(estimates: Sequence[Estimate]) -> str:
    """What stayed on keep prompts, and the largest fall of an agreement on any prompts."""
    agreements = [e for e in estimates if e.metric.endswith(" agreement") and e.model == "erased"]
    kept = [e for e in agreements if e.prompts == "keep"]
    parts = []
    for estimate in kept:
        before = _find(estimates, estimate.metric, "original", "keep")
        was = f" (original {figure(estimate.metric, before.value)})" if before else ""
        parts.append(f"{estimate.metric.removesuffix(' agreement')} {figure(estimate.metric, estimate.value)}{was}")
    if parts:
        sentence = f"on keep prompts (n = {_counts(kept)}) the images agree with what was asked in {', '.join(parts)}"
    elif (prior := _find(estimates, "prior preservation", "erased", "keep")) is not None:
        sentence = f"prior preservation on keep prompts is {figure(prior.metric, prior.value)} ({interval(prior)})"
    else:
        return "what was preserved was not measured"
    falls = [(b.value - e.value, b, e) for e in agreements if (b := _find(estimates, e.metric, "original", e.prompts))]
    if not falls:
        return sentence
    fall, before, after = max(falls, key=lambda entry: entry[0])
    if fall <= 0:
        return f"{sentence}; no attribute agrees less than before"
    where = f"{after.metric.removesuffix(' agreement')} under “{set_name(after.prompts).lower()}”"
    return f"{sentence}; the largest fall is {where}, from {figure('', before.value)} to {figure('', after.value)}"


def _counts(estimates: Sequence[Estimate]) -> str:
    low, high = min(e.n for e in estimates), max(e.n for e in estimates)
    return str(low) if low == high else f"{low} to {high}"


def untested_attacks(estimates: Sequence[Estimate], attacks: Sequence[str] = ()) -> list[tuple[str, str]]:
    """Attacks that no estimate names, and that the red team has not measured, and what each does."""
    named = " ".join(_plain(name) for name in (*(e.metric + e.prompts for e in estimates), *attacks))
    return [(name, what) for name, what in OTHER_ATTACKS.items() if _plain(name) not in named]


def missing_sets(contents: Contents) -> list[Absent]:
    """Prompt sets without a number for the erased model, with the reason where the run gives one."""
    given = {(a.metric, a.prompts) for a in contents.absent}
    seen = {e.prompts for e in contents.estimates if e.model == "erased"}
    reasoned = {prompts for _, prompts in given}
    rest = [s for s in (*ATTACK_SETS, "keep") if s not in seen and s not in reasoned]
    return [*contents.absent, *(Absent("all metrics", s, "not evaluated in this run") for s in rest)]


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]", "", text.lower())
