"""The sentences at the head of a report: what a system defends, what attacks get out of it, and what it preserves."""

from __future__ import annotations

from collections.abc import Sequence

from ..records import ORIGINAL, Estimate
from .attacks import attack_scores, broken_of, by_others, corrected_of, refusals_of
from .read import Contents
from .selection import counterpart, falls, plain_scores, worst
from .words import PERCENT, attack_words, counts, figure, interval, set_name


def verdict(contents: Contents) -> str:
    """One sentence on the main system: its worst DSR without an attack, with interval and n, and what it preserves."""
    concept = contents.concept or "the concept"
    if contents.main is None:
        return f"Whether {concept} was erased is not known: this run measured no system other than the original."
    name = contents.main.name
    scores = plain_scores(contents, name)
    lowest = worst(scores)
    if lowest is None:
        return f"Whether {concept} was erased is not known: this run has no defence success rate of “{name}”."
    of_sets = f"worst of {len(scores)} prompt sets" if len(scores) > 1 else "the only prompt set tested"
    share = f"{figure('dsr', lowest.value)} of {lowest.n} images"
    before, judge = counterpart(contents.primary, lowest), lowest.contract.partition("[")[0]
    compared = f"; original model: {figure('dsr', before.value)}" if before else "; the original model was not measured"
    return (
        f"With “{set_name(lowest.scenario).lower()}” ({of_sets}) “{name}” shows no {concept} in "
        f"{share} by {judge} (95{PERCENT} interval {interval(lowest)}{compared}"
        f"{_apart_words(contents, lowest)}), and {_preserved(contents, name)}."
    )


def attack_verdict(contents: Contents) -> str | None:
    """One sentence on the main system: the attack under which it is weakest; None where none was measured."""
    scores = attack_scores(contents, contents.main.name) if contents.main is not None else []
    if not scores:
        return None
    return f"Under attack {_weakest(contents, scores)}."


def further_verdicts(contents: Contents) -> list[str]:
    """A sentence on each system that is neither the original nor the main one."""
    names = [s.name for s in contents.systems if s.name != ORIGINAL and s != contents.main]
    return [_further(contents, name) for name in names]


def _further(contents: Contents, name: str) -> str:
    lowest, attacks = worst(plain_scores(contents, name)), attack_scores(contents, name)
    if lowest is not None:
        without = (
            f"its worst prompt set is “{set_name(lowest.scenario).lower()}” with a DSR of "
            f"{figure('dsr', lowest.value)} of {lowest.n} images "
            f"(95{PERCENT} interval {interval(lowest)}{_apart_words(contents, lowest)})"
        )
    else:
        without = "it has no defence success rate without an attack"
    under = f"under attack {_weakest(contents, attacks)}" if attacks else "no attack on it was measured"
    return f"“{name}”: {without}, and {under}."


def _weakest(contents: Contents, scores: Sequence[Estimate]) -> str:
    """The lowest score in words: "the weakest of 12 measurements is …"."""
    lowest = worst(scores)
    assert lowest is not None
    assert lowest.attack is not None
    which = f"the weakest of {len(scores)} measurements" if len(scores) > 1 else "the only measurement"
    where = "" if lowest.scenario == "direct" else f" on {set_name(lowest.scenario).lower()}"
    attack = attack_words(lowest.attack, lowest.preset, lowest.search)
    apart = _apart_words(contents, lowest) + _judge_words(contents, lowest)
    within = f"95{PERCENT} interval {interval(lowest)}{apart}"
    return f"{which} is {attack}{where}: DSR {figure('dsr', lowest.value)} of {lowest.n} images ({within})"


def _judge_words(contents: Contents, dsr: Estimate) -> str:
    """That a search asked the judge which scores it, where it did: what fools that judge is among its successes."""
    for entry in contents.groups:
        group = entry.group
        place = (group.system, group.scenario, group.attack_name, group.preset, group.search)
        if entry.contract == dsr.contract and place == (dsr.system, dsr.scenario, dsr.attack, dsr.preset, dsr.search):
            return "; the search asked this same judge, so what fools the judge counts as a success"
    return ""


def _apart_words(contents: Contents, dsr: Estimate) -> str:
    """What people and other judges say of the same images, and the shares of refusals and of broken pictures."""
    words = []
    if (corrected := corrected_of(contents.estimates, dsr)) is not None:
        words.append(f"corrected by labels {figure('dsr', corrected.value)}, {interval(corrected)}")
    words += [f"by {e.contract.partition('[')[0]} {figure('dsr', e.value)}" for e in by_others(contents.estimates, dsr)]
    if (refused := refusals_of(contents.estimates, dsr)) is not None:
        words.append(f"{figure('refused', refused.value)} were refused by a guard")
    if (broken := broken_of(contents.estimates, dsr)) is not None:
        words.append(f"{figure('broken', broken.value)} were broken and do not count")
    return "".join(f"; {word}" for word in words)


def _preserved(contents: Contents, system: str) -> str:
    """What stayed on keep prompts, and the largest fall of an agreement on any prompts."""
    mine = [e for e in contents.primary if e.system == system and e.attack is None]
    agreements = [e for e in mine if e.metric.endswith(" agreement")]
    stay = [e for e in agreements if e.scenario == "keep"]
    priors = [e for e in mine if (e.metric, e.scenario) == ("prior preservation", "keep")]
    if stay:
        parts = [_agreement(contents, estimate) for estimate in stay]
        sentence = f"on keep prompts (n = {counts(stay)}) the images agree with what was asked in {', '.join(parts)}"
    elif priors:
        sentence = (
            f"prior preservation on keep prompts is {figure(priors[0].metric, priors[0].value)} ({interval(priors[0])})"
        )
    else:
        return "what was preserved was not measured"
    fallen = falls(contents.primary, system)
    if not fallen:
        return sentence
    before, after = fallen[0]
    if fallen[0].points <= 0:
        return f"{sentence}; no attribute agrees less than before"
    where = f"{after.metric.removesuffix(' agreement')} under “{set_name(after.scenario).lower()}”"
    return f"{sentence}; the largest fall is {where}, from {figure('', before.value)} to {figure('', after.value)}"


def _agreement(contents: Contents, estimate: Estimate) -> str:
    before = counterpart(contents.primary, estimate)
    was = f" (original {figure(estimate.metric, before.value)})" if before else ""
    return f"{estimate.metric.removesuffix(' agreement')} {figure(estimate.metric, estimate.value)}{was}"
