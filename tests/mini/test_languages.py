"""German and Spanish captions have words, endings and templates of their own for everything."""

from __future__ import annotations

import random
import re

import pytest

from duo_unlearn.mini.world.captions import LANGUAGES, Caption, Wording, caption
from duo_unlearn.mini.world.foreign import figure_words
from duo_unlearn.mini.world.scenes import COLOURS, MOUNTS, OBJECTS, PLACES, SUBJECTS, Person, Scene, random_scene
from duo_unlearn.mini.world.words import lexicon

from .described import HELD, described, heard, items_named, says, ways

# Words that are spelt as English ones are, in sentences of both languages.
SHARED = {"german": {"an", "in", "hand", "sand", "ballon", "paddel", "orange"}, "spanish": {"a", "robot"}}
GERMAN_COLOURS = {
    "red": "rot", "blue": "blau", "green": "gruen", "yellow": "gelb", "orange": "orang", "purple": "violett",
}  # fmt: skip
SPANISH_COLOURS = {
    "red": "roj[oa]", "blue": "azul", "green": "verde", "yellow": "amarill[oa]", "orange": "naranja",
    "purple": "morad[oa]",
}  # fmt: skip
COLOUR_PATTERNS = {
    "german": {colour: rf"\b{word}(er|e|es)\b" for colour, word in GERMAN_COLOURS.items()},
    "spanish": {colour: rf"\b{word}\b" for colour, word in SPANISH_COLOURS.items()},
}


def spoken(language: str, count: int, kind: str | None = None) -> list[tuple[Scene, Caption]]:
    return [(scene, found) for scene, found in described(count, kind) if found.wording == language]


def test_captions_share_no_word_with_english_but_those_that_both_have() -> None:
    words: dict[str, set[str]] = {"english": set(), "german": set(), "spanish": set()}
    for _, found in described(15_000):
        language = found.wording if found.wording in LANGUAGES else "english"
        words[language] |= set(re.findall(r"[a-z]+", found.text.lower()))
    for language in LANGUAGES:
        assert words[language] & words["english"] <= SHARED[language]
        assert len(words[language]) > 90


@pytest.mark.parametrize(
    ("language", "subject", "colour", "words"),
    [
        ("german", "knight", "red", "ein roter Ritter"),
        ("german", "house", "green", "ein gruenes Haus"),
        ("german", "castle", "purple", "eine violette Burg"),
        ("german", "king", "orange", "ein oranger Koenig"),
        ("german", "guard", None, "ein Waechter"),
        ("german", None, "blue", "eine blaue Figur"),
        ("spanish", "knight", "red", "un caballero rojo"),
        ("spanish", "house", "red", "una casa roja"),
        ("spanish", "stone", "purple", "una piedra morada"),
        ("spanish", "king", "orange", "un rey naranja"),
        ("spanish", "guard", None, "un guardia"),
        ("spanish", None, "yellow", "una figura amarilla"),
    ],
)
def test_articles_and_colours_agree_with_the_noun(
    language: str, subject: str | None, colour: str | None, words: str
) -> None:
    assert figure_words(language, subject, colour) == words


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_figure_object_colour_and_place_has_a_name_of_its_own(language: str) -> None:
    names = [figure_words(language, subject, None) for subject in SUBJECTS + OBJECTS]
    assert len(set(names)) == len(names) == 13
    assert len({figure_words(language, "house", colour) for colour in COLOURS}) == len(COLOURS)
    phrases = [phrase for place in PLACES for phrase in lexicon()[language]["places"][place]]
    assert len(set(phrases)) == len(phrases) == 2 * len(PLACES)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("kind", ["figure", "object"])
def test_a_caption_says_what_its_record_claims(language: str, kind: str) -> None:
    words = lexicon()[language]
    for scene, found in spoken(language, 4000, kind):
        told = [place for place in PLACES if any(says(found.text, p) for p in words["places"][place])]
        assert told == ([found.place] if found.place else []), found.text
        noun = words["subjects"][scene.subject][0] if found.subject else words["figure"][0]
        assert says(found.text, noun), found.text
        colours = [c for c, pattern in COLOUR_PATTERNS[language].items() if re.search(pattern, found.text)]
        assert colours == ([found.colour] if found.colour else []), found.text


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_caption_names_the_items_that_are_to_be_seen_and_no_others(language: str) -> None:
    for kind in ("figure", "object", "pair"):
        for scene, found in spoken(language, 2000, kind):
            if found.form == "short":
                assert items_named(found) == set(scene.items) - {"none"}, found.text


@pytest.mark.parametrize("item", HELD)
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_word_for_an_item_is_used(language: Wording, item: str) -> None:
    rng = random.Random(f"{language}/{item}")
    texts = [caption(random_scene(rng, items=[item]), rng, wording=language, form="short").text for _ in range(400)]
    for kind, phrases in ways(item, language).items():
        for words in phrases:
            assert any(says(text, words) for text in texts), (kind, words)


@pytest.mark.parametrize(("language", "words"), [("german", "bewaffneter roter Ritter"), ("spanish", "rojo armado")])
def test_a_named_figure_may_be_armed(language: Wording, words: str) -> None:
    scene = Scene("knight", "red", "sword", "snow")
    texts = [caption(scene, random.Random(i), wording=language, keep_all=True).text for i in range(200)]
    assert any(words in text for text in texts)


def test_a_nameless_figure_is_never_armed_as_its_noun_is_feminine() -> None:
    nameless = [c.text for _, c in described(12_000, "figure") if c.wording in LANGUAGES and c.subject is None]
    assert len(nameless) > 50
    assert not any(re.search(r"bewaffnet|armado|festlich|festivo", text) for text in nameless)


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_caption_of_two_says_who_is_who_from_left_to_right(language: str) -> None:
    for scene, found in spoken(language, 3000, "pair"):
        assert scene.other is not None
        left, right = (figure_words(language, who.subject, who.colour) for who in (scene, scene.other))
        assert re.search(rf"\b{left}\b.*\b{right}\b", found.text), found.text


@pytest.mark.parametrize(("language", "word"), [("german", "Duell"), ("spanish", "duelo")])
def test_a_duel_that_says_no_more_is_told_as_one(language: Wording, word: str) -> None:
    scene = Scene("knight", "blue", "sword", "night", other=Person("king", "red", "sword"), duel=True)
    for i in range(30):
        text = caption(scene, random.Random(i), wording=language, form="unsaid").text
        assert says(text, word)
        assert not heard(text, language)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("subject", MOUNTS)
def test_a_sword_in_no_hand_is_said_to_be_where_it_is(language: Wording, subject: str) -> None:
    where = {
        ("german", "castle"): "an der Mauer", ("german", "stone"): "darin",
        ("spanish", "castle"): "en la muralla", ("spanish", "stone"): "clavad",
    }[language, subject]  # fmt: skip
    for i in range(30):
        found = caption(Scene(subject, "blue", "sword", "night"), random.Random(i), wording=language)
        assert where in found.text
        assert items_named(found) == {"sword"}


@pytest.mark.parametrize(("language", "word"), [("german", "ohne"), ("spanish", "sin")])
def test_a_negation_names_the_item_that_is_not_there(language: Wording, word: str) -> None:
    nouns = {noun for some in lexicon()[language]["negated"].values() for noun in some}
    heard_of = set()
    for i in range(400):
        found = caption(Scene("king", "red", "none", "snow"), random.Random(i), wording=language, form="negation")
        named = [noun for noun in nouns if says(found.text, f"{word} {noun}")]
        assert len(named) == 1, found.text
        heard_of |= set(named)
        assert found.items == ("none",)
    assert heard_of == nouns


def test_a_spanish_sword_in_a_stone_agrees_and_nothing_stands_between_a_prefix_and_its_article() -> None:
    rng = random.Random(0)
    stuck = [caption(Scene("stone", "blue", "sword", "night"), rng, wording="spanish").text for _ in range(60)]
    assert {tuple(re.findall(r"con (una?) .*? clavad([oa])", text)) for text in stuck} == {
        (("una", "a"),),
        (("un", "o"),),
    }
    for place in PLACES:
        for _ in range(60):
            text = caption(Scene("king", "blue", "sword", place), rng, wording="spanish").text
            assert not re.search(r"\bde (de|en|sobre|bajo|junto)\b", text), text
