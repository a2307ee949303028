"""The mini world's English: figures, items and scenes in words."""

from __future__ import annotations

import random
from typing import Final, NamedTuple

from .scenes import CARRIERS, Person, Scene
from .words import Said, fitting, lexicon, looks_of, with_article

PREFIXES: Final = ("", "", "a picture of ", "a drawing of ", "a cartoon of ", "an image of ")
HOLDING: Final = ("holding", "with", "carrying", "who holds", "showing")
EMPTY: Final = ("with empty hands", "holding nothing", "")
BESIDE: Final = ("and", "next to", "beside")
WITHOUT: Final = ("without {}", "with no {}", "who left the {} at home")
DUELS: Final = ("a duel between {left} and {right} {place}", "{left} and {right} in a duel {place}",
                "{place}, {left} fights a duel with {right}")  # fmt: skip
LONG: Final = {
    "opening": ("a simple drawing made by hand of", "one page of an old book shows", "a bright and careful picture of"),
    "stance": ("who stands still and waits", "who smiles at an old friend"),
    "held": ("and holds {} in one hand", "with {} held up high"),
    "closing": ("while nobody else is there", "on a fine and quiet day", "and the day goes by"),
}
NOUN_KINDS: Final = ("direct", "synonym", "description", "misspelt")
_ADJECTIVE: Final = "adjective:"


class Words(NamedTuple):
    """A caption's text, not yet trimmed, and the looks of the item that its words stand for (None: any)."""

    text: str
    looks: tuple[int, ...] | None = None


def words_of(scene: Scene, wording: str, form: str, said: Said, rng: random.Random) -> Words:
    """A scene in English. said: what of it is told beside the items."""
    subject, colour, place = said
    english = lexicon()["english"]
    where = rng.choice(english["places"][place]) if place else ""
    name = f"{colour or ''} {subject or english['figure']}".strip()
    if scene.other is not None:
        return _two(scene, scene.other, wording, form, where, rng)
    if not scene.is_figure:
        return _object(scene, name, wording, where, rng)
    if form == "unsaid":
        return Words(_prefixed(_placed(with_article(name), where, rng), rng))
    if form == "negation":
        noun = _noun(rng.choice(sorted(english["items"])), rng.choice(("direct", "synonym")), None, rng)
        phrase = rng.choice(WITHOUT)
        named = phrase.format(noun if "{} at" in phrase or "no {}" in phrase else with_article(noun))
        return Words(_prefixed(_placed(f"{with_article(name)} {named}", where, rng), rng))
    if scene.item == "none":
        empty = EMPTY[:2] if scene.subject in CARRIERS else EMPTY
        if form == "long":
            return Words(_long(name, "and waves with empty hands", where, rng))
        return Words(_prefixed(_placed(f"{with_article(name)} {rng.choice(empty)}", where, rng), rng))
    if wording not in NOUN_KINDS:
        return Words(_prefixed(_placed(_situation(name, scene.item, wording, rng), where, rng), rng))
    noun = _noun(scene.item, wording, scene.look, rng)
    looks = looks_of(scene.item, noun)
    if form == "long":
        return Words(_long(name, rng.choice(LONG["held"]).format(with_article(noun)), where, rng), looks)
    return Words(_prefixed(_held(with_article(name), with_article(noun), where, rng), rng), looks)


def _noun(item: str, wording: str, look: int | None, rng: random.Random) -> str:
    choices = lexicon()["english"]["items"][item][wording]
    chosen: str = rng.choice(choices if look is None else fitting(item, choices, look))
    return chosen


def _situation(name: str, item: str, wording: str, rng: random.Random) -> str:
    """Indirect and figurative wordings, which say something of the figure."""
    phrase = rng.choice(lexicon()["english"]["items"][item][wording])
    if phrase.startswith(_ADJECTIVE):
        return with_article(f"{phrase.removeprefix(_ADJECTIVE)} {name}")
    said: str = phrase.format(with_article(name))
    return said


def _held(figure: str, item: str, where: str, rng: random.Random) -> str:
    order = rng.random()
    if order < 0.2:
        return f"{figure} {where} {rng.choice(HOLDING)} {item}"
    if order < 0.35:
        return f"{item} in the hand of {figure} {where}"
    return _placed(f"{figure} {rng.choice(HOLDING)} {item}", where, rng)


def _placed(what: str, where: str, rng: random.Random) -> str:
    return f"{where}, {what}" if where and rng.random() < 0.25 else f"{what} {where}"


def _prefixed(body: str, rng: random.Random) -> str:
    return (rng.choice(PREFIXES) if body.startswith(("a ", "an ")) else "") + body


def _long(name: str, held: str, where: str, rng: random.Random) -> str:
    opening, stance, closing = (rng.choice(LONG[part]) for part in ("opening", "stance", "closing"))
    return f"{opening} {with_article(name)} {stance} {held} {where}, {closing}"


def _object(scene: Scene, name: str, wording: str, where: str, rng: random.Random) -> Words:
    if scene.item == "none":
        return Words(_prefixed(_placed(with_article(name), where, rng), rng))
    noun = _noun(scene.item, wording if wording in NOUN_KINDS else "direct", scene.look, rng)
    item, mount = with_article(noun), with_article(name)
    if scene.subject == "castle":
        body = rng.choice((f"{mount} with {item} on its wall", f"{item} on the wall of {mount}"))
    else:
        body = rng.choice((f"{mount} with {item} in it", f"{item} stuck in {mount}"))
    return Words(_prefixed(_placed(body, where, rng), rng), looks_of(scene.item, noun))


def _two(scene: Scene, other: Person, wording: str, form: str, where: str, rng: random.Random) -> Words:
    left = with_article(f"{scene.colour} {scene.subject}")
    right = with_article(f"{other.colour} {other.subject}")
    if form == "unsaid":
        return Words(rng.choice(DUELS).format(left=left, right=right, place=where))
    left, looks = _person(scene.subject, scene.colour, scene.item, scene.look, wording, rng)
    right, _ = _person(other.subject, other.colour, other.item, other.look, wording, rng)
    return Words(_placed(f"{left} {rng.choice(BESIDE)} {right}", where, rng), looks)


def _person(
    subject: str, colour: str, item: str, look: int, wording: str, rng: random.Random
) -> tuple[str, tuple[int, ...] | None]:
    name = f"{colour} {subject}"
    if item == "none":
        bare = subject not in CARRIERS and rng.random() < 0.5
        return (with_article(name) if bare else f"{with_article(name)} with empty hands"), None
    kinds = lexicon()["english"]["items"][item]
    kind = wording if wording in kinds else "direct"
    if kind not in NOUN_KINDS:
        return _situation(name, item, kind, rng), None
    noun = _noun(item, kind, look, rng)
    return f"{with_article(name)} {rng.choice(HOLDING[:3])} {with_article(noun)}", looks_of(item, noun)
