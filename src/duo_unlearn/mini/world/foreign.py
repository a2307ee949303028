"""The mini world's German and Spanish, with templates of their own for everything."""

from __future__ import annotations

import random
from typing import Any

from .english import Words
from .scenes import CARRIERS, Scene
from .words import Said, fitting, lexicon, looks_of


def words_of(scene: Scene, language: str, form: str, said: Said, rng: random.Random) -> Words:
    """A scene in "german" or "spanish". said: what of it is told beside the items."""
    subject, colour, place = said
    words = lexicon()[language]
    where = rng.choice(words["places"][place]) if place else ""
    figure = figure_words(language, subject, colour)
    looks = None
    if scene.other is not None:
        texts = []
        for who in (scene, scene.other):
            if form == "unsaid":
                texts.append(figure_words(language, who.subject, who.colour))
                continue
            text, of_words = _person(language, who.subject, who.colour, who.item, who.look, rng)
            texts.append(text)
            looks = of_words if who is scene else looks
        template = rng.choice(words["duel" if form == "unsaid" else "two"])
        return Words(template.format(left=texts[0], right=texts[1], place=where), looks)
    if form == "negation":
        item = rng.choice(sorted(words["negated"]))
        return Words(words["without"].format(figure=figure, noun=rng.choice(words["negated"][item]), place=where))
    if form == "unsaid":
        text = rng.choice(words["plain"]).format(figure=figure, place=where)
    elif scene.item == "none":
        text = rng.choice(words["plain"]).format(figure=figure, place=where)
        if scene.is_figure:
            empty = [e for e in words["empty"] if e or scene.subject not in CARRIERS]
            text = f"{text} {rng.choice(empty)}"
    else:
        text, looks = _with_item(words, language, scene, figure, said, where, rng)
    text, prefix = text.removeprefix(", "), rng.choice(words["prefixes"])
    opens = text.startswith(tuple(f"{article} " for article in words["articles"].values()))
    return Words(prefix + text if opens else text, looks)


def figure_words(language: str, subject: str | None, colour: str | None) -> str:
    """A figure or object with its article and colour: 'ein roter Ritter', 'una casa roja'."""
    words = lexicon()[language]
    noun, gender = words["subjects"][subject] if subject else words["figure"]
    article = words["articles"][gender]
    if language == "german":
        return f"{article} {words['colours'][colour] + words['endings'][gender] + ' ' if colour else ''}{noun}"
    return f"{article} {noun} {words['colours'][colour][gender] if colour else ''}".strip()


def _with_item(
    words: dict[str, Any],
    language: str,
    scene: Scene,
    figure: str,
    said: Said,
    where: str,
    rng: random.Random,
) -> tuple[str, tuple[int, ...] | None]:
    entry = words["items"][scene.item]
    noun = rng.choice(fitting(scene.item, entry["noun"], scene.look))
    if not scene.is_figure:
        template = rng.choice(words["mounted"][scene.subject])
        ending = "o" if noun.startswith("un ") else "a"
        return template.format(figure=figure, item=noun, place=where, ending=ending), looks_of(scene.item, noun)
    if rng.random() < 0.25:
        phrases = [phrase.format(figure) for phrase in entry["about"]]
        # The adjective agrees with masculine figures; "figure" itself is feminine in both languages.
        if "adjective" in entry and said.subject is not None:
            phrases.append(_with_adjective(language, entry["adjective"], said.subject, said.colour))
        return f"{rng.choice(phrases)} {where}", None
    text = rng.choice(words["held"]).format(figure=figure, item=noun, place=where)
    return text, looks_of(scene.item, noun)


def _with_adjective(language: str, adjective: str, subject: str | None, colour: str | None) -> str:
    if language == "spanish":
        return f"{figure_words(language, subject, colour)} {adjective}"
    article, rest = figure_words(language, subject, colour).split(" ", 1)
    return f"{article} {adjective}er {rest}"


def _person(
    language: str, subject: str, colour: str, item: str, look: int, rng: random.Random
) -> tuple[str, tuple[int, ...] | None]:
    words = lexicon()[language]
    figure = figure_words(language, subject, colour)
    if item == "none":
        return (f"{figure} {words['empty'][0]}" if subject in CARRIERS or rng.random() < 0.5 else figure), None
    noun = rng.choice(fitting(item, words["items"][item]["noun"], look))
    return words["with"].format(figure=figure, item=noun), looks_of(item, noun)
