"""Several concepts as one: one training, one adapter, pairs of all. What must stay for one may not be another one."""

from __future__ import annotations

import copy
import re
import string
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from ..errors import DuoError
from .spec import LONGEST_NAME, Concept, DetectorSpec, PairKind, Recommended, Templates, Values

EACH: Final = ("mini-judge", "mini-judge-b")
"""Detectors that look for each of their labels by itself. Others weigh labels against one another."""
Fill = dict[str, Values | dict[str, Values]]


def join(concepts: Sequence[Concept]) -> Concept:
    """One concept of several, in the given order.

    Its prompt sets that ask are "NAME-SET"; its detectors see any of the concepts. Counterparts, keep prompts and
    neighbours of one that show another are left out: that one is erased too. What cannot be joined is a DuoError.
    """
    names = [concept.name for concept in concepts]
    if repeated := [name for name in names if names.count(name) > 1]:
        raise DuoError("concepts are joined once each", got=", ".join(names), hint=f"name {repeated[0]} once")
    _same([concept.split for concept in concepts], names, "split", "a concept of the mini world and one of real models")
    erased = {shown for concept in concepts for shown in concept.shows.items()}
    kinds = [(concept.name, kind) for concept in concepts for kind in concept.pairs if _stays(kind, erased)]
    if bare := [name for name in names if name not in dict(kinds)]:
        got = f"every safe picture of {bare[0]} shows another of them"
        raise DuoError(
            "the concepts cannot be joined: one has no pairs left", got=got, hint="other safe prompts for it"
        )
    negatives = [concept.negative_prompt for concept in concepts]
    sets = [f"{concept.name}-{name}" for concept in concepts for name in concept.attacks]
    if alike := [name for name in sets if sets.count(name) > 1]:
        raise DuoError("the concepts cannot be joined: two prompt sets have one name", got=alike[0], hint="rename one")
    if long := [name for name in ("-and-".join(names), *sets) if len(name) > LONGEST_NAME]:
        hint = f"shorter names in the concept files: {LONGEST_NAME} letters together"
        raise DuoError("the concepts cannot be joined: a name is too long", got=long[0], hint=hint)
    return Concept(
        name="-and-".join(names),
        joins=names,
        summary=" ".join(concept.summary for concept in concepts),
        sensitive=any(concept.sensitive for concept in concepts),
        detector=_detector([concept.detector for concept in concepts], names),
        judges=_judges(concepts),
        fill=_filled([concept.fill for concept in concepts]),
        split=concepts[0].split,
        pairs=[kind for _, kind in kinds],
        kinds_of=[name for name, _ in kinds],
        kept_attributes=list(dict.fromkeys(name for concept in concepts for name in concept.kept_attributes)),
        # Without one a pair has its unsafe prompt: another concept's words are no stand-in for that.
        negative_prompt=None if None in negatives else ", ".join(filter(None, negatives)),
        strength=max(concept.strength for concept in concepts),
        attacks={f"{c.name}-{name}": templates for c in concepts for name, templates in c.attacks.items()},
        plain=next((concept.plain for concept in concepts if concept.plain is not None), None),
        keep=_distinct(one for concept in concepts for one in concept.keep if _stays(one, erased)),
        neighbours=_neighbours(concepts, erased),
        recommended=_shared([concept.recommended for concept in concepts], names),
        robust=_shared([concept.robust for concept in concepts], names),
    )


def near_several(concepts: Sequence[Concept]) -> list[str]:
    """The neighbours that several concepts have, and none of them is: what adapters trained apart may cost twice."""
    erased = {shown for concept in concepts for shown in concept.shows.items()}
    names = [name for concept in concepts for name in _neighbours([concept], erased)]
    return list(dict.fromkeys(name for name in names if names.count(name) > 1))


def at_odds(concepts: Sequence[Concept]) -> list[tuple[str, str]]:
    """Concepts of which the first has pairs whose safe picture shows the second: one adapter keeps what one erases."""
    return [
        (one.name, other.name)
        for one in concepts
        for other in concepts
        if one is not other and any(not _stays(kind, set(other.shows.items())) for kind in one.pairs)
    ]


def rows_of(concept: Concept, name: str, prompts: Sequence[str | None]) -> list[int]:
    """Which pairs, by their unsafe prompts, are of one of the concepts that are joined.

    A prompt that no kind of pair makes may be of any, and counts. All of them where there would be none.
    """
    kinds = {(one, _pattern(kind.unsafe)) for one, kind in zip(concept.kinds_of, concept.pairs, strict=False)}
    rows = []
    for row, prompt in enumerate(prompts):
        owners = {one for one, pattern in kinds if pattern.fullmatch(_before_filling(prompt or ""))}
        if not owners or name in owners:
            rows.append(row)
    return rows or list(range(len(prompts)))


def _pattern(template: str) -> re.Pattern[str]:
    """What the prompts of a template look like, whatever fills it."""
    parts = string.Formatter().parse(_before_filling(template))
    return re.compile("".join(re.escape(text) + (".+" if name is not None else "") for text, name, _, _ in parts))


def _before_filling(text: str) -> str:
    """Words with the "a" before a vowel that `prompt_sets.fill_template` turns into "an"."""
    return re.sub(r"\b([aA])n(?= [aeiou])", r"\1", text)


def _stays(one: PairKind | Templates, erased: set[tuple[str, str]]) -> bool:
    """Whether a picture of these prompts shows nothing that is erased. "flower+book" shows both."""
    shown = {(attribute, part) for attribute, label in one.shows.items() for part in label.split("+")}
    return not shown & erased


def _same(values: Sequence[object], names: Sequence[str], what: str, hint: str) -> None:
    if len(set(values)) > 1:
        got = ", ".join(f"{name}: {value}" for name, value in zip(names, values, strict=True))
        raise DuoError(f"the concepts cannot be joined: they have another {what}", got=got, hint=f"not {hint}")


def _detector(specs: Sequence[DetectorSpec], names: Sequence[str]) -> DetectorSpec:
    hint = "two detectors: write a concept file of your own with one that sees both"
    _same([f"{spec.name} at {spec.threshold}" for spec in specs], names, "detector", hint)
    _same([" or ".join(spec.labels) if spec.name not in EACH else "" for spec in specs], names, "label", hint)
    labels = list(dict.fromkeys(label for spec in specs for label in spec.labels))
    return specs[0].model_copy(update={"labels": labels})


def _judges(concepts: Sequence[Concept]) -> list[DetectorSpec]:
    """The judges that all concepts have."""
    names = [concept.name for concept in concepts]
    found = []
    for judge in concepts[0].judges:
        specs = [spec for concept in concepts for spec in concept.judges if spec.name == judge.name]
        if len(specs) == len(concepts):
            found.append(_detector(specs, names))
    return found


def _filled(fills: Sequence[Fill]) -> Fill:
    """The values of all for each placeholder; what one says in labels and another plainly is said in labels."""
    found: Fill = {}
    for fill in fills:
        for name, values in fill.items():
            there = found.setdefault(name, values)
            if there is values or there == values:
                continue
            if isinstance(there, list) and isinstance(values, list):
                found[name] = list(dict.fromkeys([*there, *values]))
            else:
                one, other = _labelled(there), _labelled(values)
                labels = dict.fromkeys([*one, *other])
                found[name] = {k: list(dict.fromkeys([*one.get(k, []), *other.get(k, [])])) for k in labels}
    return found


def _labelled(values: Values | Mapping[str, Values]) -> dict[str, Values]:
    return {value: [value] for value in values} if isinstance(values, list) else dict(values)


def _distinct(several: Iterable[Templates]) -> list[Templates]:
    found: list[Templates] = []
    for one in several:
        if one not in found:
            found.append(one)
    return found


def _neighbours(concepts: Sequence[Concept], erased: set[tuple[str, str]]) -> dict[str, list[Templates]]:
    found: dict[str, list[Templates]] = {}
    for concept in concepts:
        for name, several in concept.neighbours.items():
            if kept := [one for one in several if _stays(one, erased)]:
                found.setdefault(name, kept)
    return found


def _shared(several: Sequence[Mapping[str, Recommended]], names: Sequence[str]) -> dict[str, Recommended]:
    """The first concept's settings for the families that all have some for; what a guard looks for is that of all."""
    first = several[0]
    shared = [family for family in first if all(family in one for one in several)]
    return {
        family: Recommended(
            source=f"{first[family].source}, of {names[0]} alone: not searched for {' and '.join(names)}",
            settings=_looking_for_all([one[family].settings for one in several], names),
        )
        for family in shared
    }


def _looking_for_all(several: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
    """The first settings. A guard that any gives a text looks for all: for a concept's name where it has none."""
    first = copy.deepcopy(dict(several[0]))
    guards = [one.get("guards", {}) for one in several]
    for guard in dict.fromkeys(guard for own in guards for guard, options in own.items() if options.get("text")):
        given = [own.get(guard, {}).get("text") for own in guards]
        texts = [name if text is None else text for text, name in zip(given, names, strict=True)]
        options = first.setdefault("guards", {}).setdefault(guard, {})
        options["text"] = ", ".join(filter(None, dict.fromkeys(texts)))
    return first
