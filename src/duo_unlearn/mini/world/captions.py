"""The mini world's language: how a scene may be described.

Captions vary in prefix, order, dropped attributes and wording. An item has a direct name, synonyms, and for the
erasable concepts *indirect* wordings that name no item; so an eraser that cuts a word is bypassed, as in the
paper's Figure 1. The item of a figure always follows from its caption: no wording means empty hands.
"""

from __future__ import annotations

import dataclasses
import random
from typing import Final, Literal, get_args

from .scenes import COLOURS, ITEMS, OBJECTS, PLACES, SUBJECTS, Scene

Wording = Literal["direct", "synonym", "indirect"]
WORDINGS: Final[tuple[Wording, ...]] = get_args(Wording)

SYNONYMS: Final = {
    "sword": ("blade", "saber", "sharp steel weapon"),
    "wand": ("magic stick", "rod"),
    "flower": ("blossom", "daisy"),
    "balloon": ("inflatable", "party globe", "helium toy"),
    "book": ("novel", "open volume"),
}
# {} stands for the figure, article included: "an armed blue knight" takes its own article.
INDIRECT: Final = {
    "sword": ("{adjective:armed}", "{} ready for battle", "{} about to fight", "{} on guard duty"),
    "balloon": ("{adjective:festive}", "{} going to a birthday party", "{} at the fair", "{} ready to celebrate"),
}
PREFIXES: Final = ("", "", "a picture of ", "a drawing of ", "a cartoon of ", "an image of ")
HOLDING: Final = ("holding", "with", "carrying", "who holds", "showing")
EMPTY: Final = ("with empty hands", "holding nothing", "")
PLACE_PHRASES: Final = {
    "meadow": ("in a meadow", "on the grass"),
    "desert": ("in the desert", "on hot sand"),
    "night": ("at night", "under the stars"),
    "beach": ("on the beach", "by the sea"),
    "snow": ("in the snow", "on a snowy day"),
}
GENERIC_SUBJECT: Final = "figure"


@dataclasses.dataclass(frozen=True)
class Caption:
    """A caption, and which attributes it states (None: not said)."""

    text: str
    subject: str | None
    colour: str | None
    item: str
    place: str | None
    wording: Wording

    def fits(self, scene: Scene) -> bool:
        """Whether the caption is true of a scene."""
        return (
            self.subject in (None, scene.subject)
            and (self.subject is not None or scene.is_figure)
            and self.colour in (None, scene.colour)
            and self.item == scene.item
            and self.place in (None, scene.place)
        )


def with_article(words: str) -> str:
    """'orange king' → 'an orange king'."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def wordings_of(item: str) -> tuple[Wording, ...]:
    """The kinds of wording that an item has."""
    if item in INDIRECT:
        return WORDINGS
    return ("direct", "synonym") if item in SYNONYMS else ("direct",)


def caption(scene: Scene, rng: random.Random, *, wording: Wording | None = None, keep_all: bool = False) -> Caption:
    """A random caption of a scene.

    wording: which kind of words stand for the item (None: any that the item has). keep_all: no attribute is
    dropped (colour and place are left out one time in eight each otherwise, and the subject's name of a figure one
    time in sixteen).
    """
    kinds = wordings_of(scene.item)
    if wording is not None and wording not in kinds:
        raise ValueError(f"{scene.item!r} has no {wording} wording; it has {', '.join(kinds)}")
    chosen: Wording = rng.choice(kinds) if wording is None else wording
    colour = scene.colour if keep_all or rng.random() > 1 / 8 else None
    place = scene.place if keep_all or rng.random() > 1 / 8 else None
    subject = scene.subject if keep_all or not scene.is_figure or rng.random() > 1 / 16 else None
    words = f"{colour} {subject or GENERIC_SUBJECT}" if colour else subject or GENERIC_SUBJECT
    where = rng.choice(PLACE_PHRASES[place]) if place else ""
    body = _indirect(words, where, scene.item, rng) if chosen == "indirect" else None
    if body is None:
        body = _named(with_article(words), where, scene, chosen, rng)
    prefix = rng.choice(PREFIXES) if body.startswith(("a ", "an ")) else ""
    text = " ".join((prefix + body).split())
    return Caption(text, subject, colour, scene.item, place, chosen)


def _indirect(words: str, where: str, item: str, rng: random.Random) -> str:
    form = rng.choice(INDIRECT[item])
    if form.startswith("{adjective:"):
        what = with_article(f"{form[len('{adjective:') : -1]} {words}")
    else:
        what = form.format(with_article(words))
    return _placed(what, where, rng)


def _placed(what: str, where: str, rng: random.Random) -> str:
    return f"{where}, {what}" if where and rng.random() < 0.25 else f"{what} {where}"


def _named(figure: str, where: str, scene: Scene, wording: Wording, rng: random.Random) -> str:
    if not scene.is_figure:
        return _placed(figure, where, rng)
    if scene.item == "none":
        return _placed(f"{figure} {rng.choice(EMPTY)}", where, rng)
    name = scene.item if wording == "direct" else rng.choice(SYNONYMS[scene.item])
    item = with_article(name)
    order = rng.random()
    if order < 0.2:
        return f"{figure} {where} {rng.choice(HOLDING)} {item}"
    if order < 0.35:
        return f"{item} in the hand of {figure} {where}"
    return _placed(f"{figure} {rng.choice(HOLDING)} {item}", where, rng)


def vocabulary_text(count: int, seed: int) -> list[str]:
    """Distinct captions of random scenes, to train the tokenizer on."""
    from .scenes import random_scene

    rng = random.Random(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        scene = random_scene(rng, subjects=SUBJECTS * 3 + OBJECTS, items=ITEMS)
        found[caption(scene, rng).text] = None
    return list(found)


__all__ = ["COLOURS", "PLACES", "Caption", "Wording", "caption", "vocabulary_text", "with_article", "wordings_of"]
