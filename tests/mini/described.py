"""Captions of many scenes, and how tests look for words in them."""

from __future__ import annotations

import functools
import random
import re

from duo_unlearn.mini.fit.batches import training_scene
from duo_unlearn.mini.world.captions import LANGUAGES, Caption, caption
from duo_unlearn.mini.world.scenes import ITEMS, Scene
from duo_unlearn.mini.world.words import lexicon

HELD = ITEMS[1:]
"""The items that can be seen."""
EMPTY = re.compile(
    r"empty hands|holding nothing|leeren Haenden|ohne etwas in der Hand|manos vacias|sin nada en la mano"
)
_NEGATED = re.compile(r"\b(without an?|with no|who left the|ohne|sin)\b")


_SPOKEN: dict[str | None, tuple[random.Random, list[tuple[Scene, Caption]]]] = {}


def described(count: int, kind: str | None = None) -> list[tuple[Scene, Caption]]:
    """Training scenes with a caption each, as training has them: the first ones of a list that grows when asked.

    kind: figure, object, pair or duel.
    """
    rng, spoken = _SPOKEN.setdefault(kind, (random.Random(f"described/{kind}"), []))
    while len(spoken) < count:
        scene = training_scene(rng, kind)
        spoken.append((scene, caption(scene, rng)))
    return spoken[:count]


def says(text: str, words: str) -> bool:
    """Whether a text holds these words, as whole words."""
    return words in text and re.search(rf"\b{re.escape(words)}\b", text) is not None


@functools.cache
def ways(item: str, language: str) -> dict[str, tuple[str, ...]]:
    """Every way to say an item in a language, by the lexicon's kind, as it stands in a caption.

    A German adjective ends in -er there, as every figure that can be armed or festive has the article "ein".
    """
    found = {}
    for kind, phrases in lexicon()[language]["items"][item].items():
        several = [phrases] if isinstance(phrases, str) else phrases
        ending = "er" if language == "german" and kind == "adjective" else ""
        found[kind] = tuple(words.removeprefix("adjective:").replace("{} ", "") + ending for words in several)
    return found


@functools.cache
def _longest_first(language: str) -> list[tuple[str, str, str]]:
    every = [(words, item, kind) for item in HELD for kind, some in ways(item, language).items() for words in some]
    return sorted(every, key=lambda entry: -len(entry[0]))


def heard(text: str, language: str) -> set[tuple[str, str]]:
    """Which items a text names in a language, and in which kind of words.

    The longest words are heard first: who carries "a light thing that floats" does not carry "a light".
    """
    found = set()
    for words, item, kind in _longest_first(language):
        if says(text, words):
            text = text.replace(words, "…")
            found.add((item, kind))
    return found


def items_named(found: Caption) -> set[str]:
    """The items that a caption names, in its own language."""
    language = found.wording if found.wording in LANGUAGES else "english"
    return {item for item, _ in heard(found.text, language)}


def says_empty(text: str) -> bool:
    """Whether a text says that hands are empty, by itself or by naming what is not there."""
    return EMPTY.search(text) is not None or _NEGATED.search(text) is not None
