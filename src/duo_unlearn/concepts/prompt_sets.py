"""From a concept's templates to prompts, and the named sets of prompts that a system is asked."""

from __future__ import annotations

import itertools
import random
import re
import string
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, Literal, NamedTuple

from ..errors import DuoError
from ..records import Prompt
from ..storage.files import seed_of
from .spec import Concept, Templates

MOST_DRAWS: Final = 2000
"""How many draws without a new prompt there may be before templates count as used up."""
DRAWN: Final = 4
"""How many times as many keep prompts are drawn as are taken, since not every one serves."""
NOTHING: Final = "none"
"""The label of an attribute that a picture shows nothing of."""
Accept = Callable[[Mapping[str, str]], bool]
"""Tells by its labels, attribute → label, whether a combination of words may be used."""
SetKind = Literal["attack", "plain", "keep", "neighbour"]


class Counts(NamedTuple):
    """How many prompts each set has, by its kind. A kind with 0 has no set."""

    attack: int
    keep: int
    neighbour: int
    plain: int


class PromptSet(NamedTuple):
    """A named set of prompts, and the seed of each prompt's image.

    kind: "attack" asks for the concept, "plain" does not speak of it (attacks that bring it by themselves use these),
    "keep" and "neighbour" must go on working.
    """

    name: str
    kind: SetKind
    prompts: list[Prompt]
    seeds: list[int]


def prompt_sets(concept: Concept, counts: Counts, seed: int) -> list[PromptSet]:
    """The prompt sets of a concept, in the order attacks, keep, neighbours, plain. `duo evaluate` and attacks ask them.

    For the mini world the prompts are of combinations that its training never saw. The result is a function of the
    arguments: image i of a set has the seed `seed_of(seed, "evaluate", NAME, i)`, for every system the same.
    """
    templates: list[tuple[str, SetKind, list[Templates], int]] = [
        *((name, "attack", [one], counts.attack) for name, one in concept.attacks.items()),
        ("keep", "keep", concept.keep, counts.keep),
        *((name, "neighbour", several, counts.neighbour) for name, several in concept.neighbours.items()),
        ("plain", "plain", [concept.plain] if concept.plain is not None else [], counts.plain),
    ]
    accept = splitter(concept, held_out=True)
    sets = []
    for name, kind, several, count in templates:
        if several and count:
            prompts = prompts_of(concept, several, count, f"{seed}/{name}", accept)
            sets.append(PromptSet(name, kind, prompts, [seed_of(seed, "evaluate", name, i) for i in range(count)]))
    return sets


def showing(concept: Concept, attribute: str, count: int, seed: int) -> list[tuple[Prompt, int]]:
    """Up to `count` prompts that must go on working and show something of an attribute, each with its image's seed.

    They are of the keep and neighbour sets, as `prompt_sets` has them; what they show is taken in turn.
    """
    sets = prompt_sets(concept, Counts(0, DRAWN * count, count, 0), seed)
    found: dict[str, list[tuple[Prompt, int]]] = {}
    # The first of every set before the second of any: these are what an evaluation asks, so originals are shared.
    for row in itertools.zip_longest(*(zip(one.prompts, one.seeds, strict=True) for one in sets)):
        for entry in filter(None, row):
            if (label := entry[0].shows.get(attribute, NOTHING)) != NOTHING:
                found.setdefault(label, []).append(entry)
    in_turn = itertools.chain.from_iterable(itertools.zip_longest(*found.values()))
    return [entry for entry in in_turn if entry is not None][:count]


def placeholders(template: str) -> set[str]:
    """The names in braces of a template. Unbalanced braces are a DuoError, and so is more than a name in them."""
    hint = "write {name} for a placeholder that fill: defines"
    try:
        parts = [
            (name, spec, change) for _, name, spec, change in string.Formatter().parse(template) if name is not None
        ]
    except ValueError as error:
        raise DuoError("a prompt template has unbalanced braces", got=template, hint=hint) from error
    if any(spec or change for _, spec, change in parts):
        raise DuoError("a placeholder of a prompt template is more than a name", got=template, hint=hint)
    return {name for name, _, _ in parts}


def fill_template(template: str, words: Mapping[str, str]) -> str:
    """A template with its placeholders filled and 'a' turned into 'an' before a vowel."""
    return re.sub(r"\b([aA])(?= [aeiou])", r"\1n", template.format_map(dict(words)))


class Choice(NamedTuple):
    """What is chosen at random for a template. names: the placeholders that say it; labels: what there is to choose."""

    base: str
    names: list[str]
    labels: list[str]


def choices_of(concept: Concept, used: Collection[str] = ()) -> list[Choice]:
    """The choices of a concept for a template whose placeholders are `used`: those must have words for every label.

    colour_german says the choice of colour in other words, and is no choice of its own.
    """
    groups: dict[str, list[str]] = {}
    for name in concept.fill:
        groups.setdefault(base_of(concept, name), []).append(name)
    choices = []
    for base, names in groups.items():
        needed = [name for name in names if name in used] or names[:1]
        labels = [one for one in concept.fill[needed[0]] if all(one in concept.fill[n] for n in needed)]
        choices.append(Choice(base, names, labels))
    return choices


def choose_fill(
    concept: Concept, rng: random.Random, choices: Sequence[Choice]
) -> tuple[dict[str, str], dict[str, str]]:
    """Random words for every placeholder, and the labels they stand for. A placeholder without words for one has none.

    choices: those of `choices_of` for the template's placeholders.
    """
    words: dict[str, str] = {}
    labels: dict[str, str] = {}
    for base, names, candidates in choices:
        label = labels[base] = rng.choice(candidates)
        for name in names:
            values = concept.fill[name]
            if label in values:
                words[name] = rng.choice(values[label]) if isinstance(values, dict) else label
    return words, labels


def base_of(concept: Concept, name: str) -> str:
    """The placeholder that another one says in other words: "colour" for "colour_german"; or the name itself."""
    base = name.partition("_")[0]
    return base if base in concept.fill else name


def prompts_of(
    concept: Concept, several: Sequence[Templates], count: int, seed: str, accept: Accept, without: Collection[str] = ()
) -> list[Prompt]:
    """`count` prompts drawn from several templates in turn: distinct while these last, then repeated.

    Templates that have no new prompt left drop out, and the others go on. accept decides by what a prompt shows (labels
    of its placeholders and of its templates) whether it may be used. No prompt at all is a DuoError. without: texts to
    leave out; where they leave no prompt, the list is empty.
    """
    rng = random.Random(seed)
    prompts: list[Prompt] = []
    known = set(without)
    left = [[_Drawer.of(concept, template, one.shows) for template in one.templates] for one in several]
    turn = 0
    while len(prompts) < count and left:
        prompt = _new_prompt(concept, left[turn % len(left)], rng, accept, known)
        if prompt is None:
            del left[turn % len(left)]
        else:
            prompts.append(prompt)
            known.add(prompt.text)
            turn += 1
    if not prompts:
        if without:
            return []
        got = f"{several[0].templates[0]!r} and {len(several) - 1} more sets"
        raise DuoError("a prompt set gives no prompt", got=got, hint="give its placeholders more values under fill:")
    return [prompts[i % len(prompts)] for i in range(count)]


class _Drawer(NamedTuple):
    """A template and what may be chosen for it. states: what its placeholders state; shows: what the set adds."""

    template: str
    choices: list[Choice]
    states: list[str]
    shows: dict[str, str]

    @classmethod
    def of(cls, concept: Concept, template: str, shows: dict[str, str]) -> _Drawer:
        used = placeholders(template)
        states = sorted({base_of(concept, name) for name in used})
        return cls(template, choices_of(concept, used), states, shows)


def _new_prompt(
    concept: Concept, drawers: Sequence[_Drawer], rng: random.Random, accept: Accept, known: Collection[str]
) -> Prompt | None:
    """A prompt of one of the templates that is not among `known` ones; None if many draws in a row give none."""
    for _ in range(MOST_DRAWS):
        drawer = rng.choice(drawers)
        words, labels = choose_fill(concept, rng, drawer.choices)
        text = fill_template(drawer.template, words)
        if text not in known and accept(labels | drawer.shows):
            return Prompt(text, {base: labels[base] for base in drawer.states} | drawer.shows)
    return None


def splitter(concept: Concept, *, held_out: bool) -> Accept:
    """Which combinations may be used: those held out from the mini world's training, the others, or all."""
    if concept.split == "none":
        return lambda _labels: True
    from ..mini.world.scenes import Scene, is_held_out

    def accept(labels: Mapping[str, str]) -> bool:
        first = labels.get("item", "none").partition("+")[0]  # "wand+flower": that of the left figure comes first
        scene = Scene(labels["subject"], labels["colour"], first, labels["place"])
        return is_held_out(scene) == held_out

    return accept
