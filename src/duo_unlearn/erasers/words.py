"""The words that an eraser is handed: prompts with the concept, each beside the same scene without it."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple

from ..concepts.prompt_sets import fill_template, prompts_of, splitter
from ..concepts.spec import Concept
from ..errors import DuoError
from ..records import Prompt

if TYPE_CHECKING:
    from .interface import EraserContext

Wordings = Literal["direct", "all"]
"""direct: the pairs' own prompts. all: those, and prompts of every wording of the concept file.

On the mini world these are of scenes that no evaluation uses. A concept file without a split has no such scenes: there
what the run's evaluation asks is left out, by its text.
"""
Kept = Literal["keep", "neighbours"]
"""Which prompts of a concept file must stay: those of `keep`, or those of all neighbours."""
EACH = 24
"""Prompts of each further wording."""


class Contrast(NamedTuple):
    """A prompt that asks for the concept, and its counterpart without it."""

    unsafe: str
    safe: str


def contrasts(context: EraserContext, wordings: Wordings) -> list[Contrast]:
    """The prompts that stand for the concept, distinct and in order. Pairs without prompts are a DuoError."""
    found = {Contrast(p.unsafe_prompt, p.safe_prompt) for p in context.pairs if p.unsafe_prompt and p.safe_prompt}
    if not found:
        hint = "pairs that `duo pairs` makes have prompts; a manifest may give them for your own"
        raise DuoError("this eraser reads prompts, and the pairs have none", hint=hint)
    if wordings == "all":
        found |= set(_others(context))
    return sorted(found)


def word_of(context: EraserContext) -> str:
    """The word that stands for the concept."""
    return str(context.options.word or context.concept.name.replace("-", " "))


def kept_texts(context: EraserContext, count: int, kind: Kept = "keep", *, plain: bool = False) -> list[str]:
    """Prompts that must stay and that no evaluation asks; none where the concept has none, or all of them are asked.

    plain: by the first template of each set alone, so that its other wordings tell what was not held.
    """
    concept = context.concept
    sets = concept.keep if kind == "keep" else [one for several in concept.neighbours.values() for one in several]
    if plain:
        sets = [one.model_copy(update={"templates": one.templates[:1]}) for one in sets]
    if not sets or not count:
        return []
    accept, seed = splitter(concept, held_out=False), "kept" if kind == "keep" else kind
    return [prompt.text for prompt in prompts_of(concept, sets, count, f"{context.seed}/{seed}", accept, context.asked)]


def needed_texts(context: EraserContext, count: int, kind: Kept = "keep", *, plain: bool = False) -> list[str]:
    """As `kept_texts`, where some are needed: a concept that has none left is a DuoError."""
    if found := kept_texts(context, count, kind, plain=plain):
        return found
    concept, word = context.concept, "neighbour" if kind == "neighbours" else kind
    if getattr(concept, kind):
        hint = f"more values under fill: in the concept file, or fewer evaluate.{word}_prompts"
        raise DuoError(f"the evaluation asks every {word} prompt, so none is left", got=concept.name, hint=hint)
    raise DuoError(f"the concept {concept.name} has no {word} prompts", hint=f"add {kind}: to the concept file")


def left_out(context: EraserContext, *, keeps: bool = False) -> list[str]:
    """The evaluation's prompts where they decide what else an eraser is given, for its key. keeps: by `kept_texts`."""
    others = getattr(context.options, "wordings", "direct") == "all"
    return sorted(context.asked) if keeps or others else []


def _others(context: EraserContext) -> list[Contrast]:
    """Prompts of every wording of the concept file that no evaluation asks, and the pairs' safe ones there.

    A wording of which every prompt is asked is a DuoError.
    """
    concept, asked = context.concept, context.asked
    accept, made = splitter(concept, held_out=False), []
    for name, templates in concept.attacks.items():
        basis = f"{context.seed}/words/{name}"
        rng = random.Random(basis)
        prompts = prompts_of(concept, [templates], EACH, basis, accept, asked)
        if not prompts:
            hint = "more values under fill: in the concept file, fewer evaluate.prompts, or wordings=direct"
            raise DuoError("the evaluation asks every prompt of a wording, so none is left", got=name, hint=hint)
        found = [Contrast(p.text, _counterpart(concept, p.shows, rng)) for p in prompts if _has_counterpart(concept, p)]
        made += [contrast for contrast in found if contrast.safe not in asked]
    return made


def _has_counterpart(concept: Concept, prompt: Prompt) -> bool:
    """Whether the pairs' safe prompts can say its scene: a castle's wall, or a second figure, they cannot."""
    placed = [label in concept.fill[name] for name, label in prompt.shows.items() if name in concept.fill]
    return all(placed) and not any(name.endswith("2") for name in prompt.shows)


def _counterpart(concept: Concept, shows: Mapping[str, str], rng: random.Random) -> str:
    """A safe prompt of the pairs, of the scene that a prompt shows as far as it says."""
    words = {}
    for name, values in concept.fill.items():
        label = shows.get(name, "")
        if label not in values:
            label = rng.choice(list(values))
        words[name] = rng.choice(values[label]) if isinstance(values, dict) else label
    kind = rng.choices(concept.pairs, [kind.count for kind in concept.pairs])[0]
    return fill_template(kind.safe, words)
