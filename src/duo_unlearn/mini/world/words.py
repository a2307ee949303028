"""The mini world's lexicon, read from words.yaml, and the small grammar that three languages share."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from .scenes import LOOKS

PATH: Final = Path(__file__).with_name("words.yaml")


class Said(NamedTuple):
    """What a caption says of a scene beside the items (None: not said)."""

    subject: str | None
    colour: str | None
    place: str | None


@functools.cache
def lexicon() -> dict[str, Any]:
    """The words of every language, as words.yaml has them."""
    words: dict[str, Any] = yaml.safe_load(PATH.read_text(encoding="utf-8"))
    return words


def with_article(words: str) -> str:
    """'orange king' → 'an orange king'."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def looks_of(item: str, words: str) -> tuple[int, ...] | None:
    """The looks that words for an item stand for, e.g. (1,) for a saber; None: any."""
    named = lexicon()["looks"].get(words.split()[-1].lower())
    return None if named is None or item not in LOOKS else (LOOKS[item].index(named),)


def fitting(item: str, choices: list[str], look: int) -> list[str]:
    """The words among `choices` that may stand for an item of this look."""
    return [words for words in choices if (looks_of(item, words) or (look,)) == (look,)]
