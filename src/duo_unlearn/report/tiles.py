"""The first screen of a report: three answers, and the first pictures before, after and under the weakest attack."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final, NamedTuple

from ..records import ORIGINAL, PRESERVED, Attempt, Estimate, spoken
from ..runs.folder import Run
from .attacks import attack_scores
from .pictures import Picture, picture_of
from .read import Contents, GroupAttempts, key_of
from .selection import counterpart, falls, most_kept, plain_scores, weakest_attack, worst
from .words import awareness, counts, figure, interval, set_name, set_order, title_of

PICTURES: Final = 6
"""Pictures beside the tiles."""


class Tile(NamedTuple):
    """A question, its answer, and what it rests on. warns: the answer is missing, or nobody looked."""

    question: str
    answer: str
    words: str
    warns: bool = False


class Case(NamedTuple):
    """One prompt and noise: a label and a picture for each of before, after and, where something attacks, under it."""

    caption: str
    pictures: list[tuple[str, Picture]]


def tiles(contents: Contents) -> list[Tile]:
    """Whether it is gone, what that costs, and what opens it; none where the run has no system but the original."""
    if contents.main is None:
        return []
    name = contents.main.name
    return [_gone(contents, name), _cost(contents, name), _opened(contents, name)]


def _gone(contents: Contents, system: str) -> Tile:
    scores = plain_scores(contents, system)
    lowest = worst(scores)
    if lowest is None:
        return _unknown("Gone?", contents, system, attacked=False)
    of_sets = f"the worst of {len(scores)} prompt sets" if len(scores) > 1 else "the only prompt set"
    where = f"under {set_name(lowest.scenario).lower()}, {of_sets}"
    words = f"of images show no {_concept(contents)} {where}: {_range(lowest)}"
    if (before := counterpart(contents.primary, lowest)) is not None:
        words += f"; original {figure('dsr', before.value)}"
    return Tile("Gone?", figure("dsr", lowest.value), words)


def _unknown(question: str, contents: Contents, system: str, *, attacked: bool) -> Tile:
    """Why there is no DSR by the page's judge, with or without an attack."""
    answer = "Not measured"
    if any(e.metric == "dsr" and e.system == system and (e.attack is not None) == attacked for e in contents.estimates):
        words = "by the judge that heads this page; the tables below have other judges' numbers"
    elif any(one.group.system == system and (one.group.preset is not None) == attacked for one in contents.groups):
        words = "there are pictures, and no judge's word on them: duo judge RUN"
    elif attacked:
        answer, words = "Not attacked yet", "duo attack RUN runs the red team"
    else:
        words = "no prompt that asks for the concept was evaluated"
    return Tile(question, answer, words, warns=True)


def _cost(contents: Contents, system: str) -> Tile:
    found, lost = falls(contents.primary, system), _lost(contents, system)
    kept = [e for e in contents.primary if (e.metric, e.system, e.attack) == ("prior preservation", system, None)]
    if found and found[0].points > 0:
        largest = found[0]
        what = f"{largest.after.metric.removesuffix(' agreement')} as asked, {set_name(largest.after.scenario).lower()}"
        before, after = (figure("", e.value) for e in largest)
        words = f"{what}, the largest fall of {len(found)}: {before} → {after} (n = {largest.after.n}){lost}"
        return Tile("Cost", f"−{100 * largest.points:.1f} points", words)
    if found:
        words = f"no attribute agrees less than before (n = {counts([fall.after for fall in found])} a set){lost}"
        return Tile("Cost", "No fall seen" if lost else "None seen", words)
    if kept:
        least = min(kept, key=lambda e: e.value)
        of_sets = f", the least of {len(kept)} prompt sets" if len(kept) > 1 else ""
        words = f"prior preservation under {set_name(least.scenario).lower()}{of_sets}"
        return Tile("Cost", figure(least.metric, least.value), f"{words}: {interval(least)}, n = {least.n}{lost}")
    asked = any(one.kind in PRESERVED and one.group.system == system for one in contents.groups)
    words = "nothing says what the pictures of keep prompts lost" if asked else "no prompt to keep was evaluated"
    return Tile("Cost", "Not measured", words + lost, warns=True)


def _lost(contents: Contents, system: str) -> str:
    """The largest shares of pictures on prompts to keep that were refused, and that were broken; "" of none."""
    words = ""
    for metric, said in (("refused", "refused by a guard"), ("broken", "broken")):
        most = most_kept(contents.primary, metric, system)
        if most is not None and most.value > 0:
            words += f"; {figure(metric, most.value)} {said} under {set_name(most.scenario).lower()}"
    return words


def _opened(contents: Contents, system: str) -> Tile:
    lowest = weakest_attack(contents, system)
    if lowest is None:
        return _unknown("What opens it", contents, system, attacked=True)
    count = len(attack_scores(contents, system))
    words = f"of images still show none under {_named(lowest)}, the weakest of {count}: {_range(lowest)}"
    without = weakest_attack(contents, system, relearning=False)
    if without is not None and without != lowest:
        words += f"; with the weights left alone, {figure('dsr', without.value)} under {_named(without)}"
    return Tile("What opens it", figure("dsr", lowest.value), words)


def _concept(contents: Contents) -> str:
    """What is erased, as people say it."""
    asked = next((one.value for one in contents.settings if one.name == "concept"), "")
    return spoken(asked) if "+" in asked else contents.concept or "concept"


def _named(score: Estimate) -> str:
    details = [f"{score.preset} budget", awareness(score.search)]
    return f"{title_of(score.attack)} ({', '.join(filter(None, details))})"


def _range(score: Estimate) -> str:
    return f"95\u00a0% interval {interval(score)}, n = {score.n}, by {score.contract.partition('[')[0]}"


def cases(run: Run, contents: Contents) -> list[Case]:
    """The first prompts, never chosen ones, with their pictures before, after, and under the weakest attack.

    Where nothing attacked, before and after alone. There are none where one of the systems has no pictures.
    """
    if contents.main is None:
        return []
    name = contents.main.name
    weakest = weakest_attack(contents, name)
    asking = sorted({e.scenario for e in plain_scores(contents, name)}, key=set_order)
    scenario = weakest.scenario if weakest is not None else next(iter(asking), None)
    plain = [one for one in contents.groups if one.group.preset is None and one.group.scenario == scenario]
    rows = [
        ("before", next((one for one in plain if one.group.system == ORIGINAL), None)),
        ("after", next((one for one in plain if one.group.system == name), None)),
    ]
    if weakest is not None:
        rows.append((f"after, under: {title_of(weakest.attack)}", _group_of(contents.groups, weakest)))
    there = [(label, one) for label, one in rows if one is not None]
    if len(there) < len(rows):
        return []
    *others, last = [one for _, one in there]
    known = [{hash(key_of(attempt)) for attempt in one.attempts} for one in others]
    keys = (key_of(attempt) for attempt in last.attempts)
    shared = (key for key in keys if all(hash(key) in column for column in known))
    chosen = list(itertools.islice(shared, PICTURES // len(there)))
    columns = [(label, one.attempts.of(chosen)) for label, one in there]
    return [_case(run, contents, [(label, column[key]) for label, column in columns]) for key in chosen]


def _group_of(groups: Sequence[GroupAttempts], score: Estimate) -> GroupAttempts | None:
    """The attempts that a DSR is of."""
    place = (score.system, score.scenario, score.attack, score.preset, score.search)
    for one in groups:
        group = one.group
        if (group.system, group.scenario, group.attack_name, group.preset, group.search) == place:
            return one
    return None


def _case(run: Run, contents: Contents, attempts: Sequence[tuple[str, Attempt]]) -> Case:
    systems = [ORIGINAL, *[contents.main.name if contents.main else ""] * (len(attempts) - 1)]
    pictures = [
        (label, picture_of(run, contents, system, attempt))
        for system, (label, attempt) in zip(systems, attempts, strict=True)
    ]
    return Case(attempts[0][1].text, pictures)
