"""English captions: articles, what they claim of one figure, of two and of a sword that nobody holds."""

from __future__ import annotations

import random
import re

import pytest

from duo_unlearn.mini.world.captions import LANGUAGES, Caption, caption
from duo_unlearn.mini.world.english import DUELS, LONG
from duo_unlearn.mini.world.scenes import COLOURS, ITEMS, PLACES, SUBJECTS, Person, Scene, random_scene
from duo_unlearn.mini.world.words import lexicon, with_article

from .described import HELD, described, heard, says

PLACE_PHRASES = lexicon()["english"]["places"]


def in_english(count: int, kind: str | None = None) -> list[tuple[Scene, Caption]]:
    return [(scene, found) for scene, found in described(count, kind) if found.wording not in LANGUAGES]


def places_told(text: str) -> list[str]:
    return [place for place in PLACES if any(says(text, phrase) for phrase in PLACE_PHRASES[place])]


@pytest.mark.parametrize(("words", "expected"), [("orange king", "an orange king"), ("red king", "a red king")])
def test_with_article(words: str, expected: str) -> None:
    assert with_article(words) == expected


def test_articles_are_english() -> None:
    for _, found in in_english(4000):
        for article, word in re.findall(r"\b(an?) (\w+)", found.text):
            assert (article == "an") == (word[0] in "aeiou"), found.text


def test_no_word_stands_twice_in_a_row() -> None:
    for _, found in in_english(3000):
        assert not re.search(r"\b(\w+) \1\b", found.text), found.text


@pytest.mark.parametrize("kind", ["figure", "object"])
def test_a_caption_says_what_its_record_claims(kind: str) -> None:
    for scene, found in in_english(1500, kind):
        assert says(found.text, found.subject or "figure")
        text = found.text.replace("green stem with a bloom", "")  # the flower's own colour
        assert [c for c in COLOURS if says(text, c)] == ([found.colour] if found.colour else [])
        assert places_told(found.text) == ([found.place] if found.place else [])
        assert found.subject in (None, scene.subject)


def test_a_caption_of_two_says_who_is_who_from_left_to_right() -> None:
    for scene, found in in_english(1200, "pair"):
        assert scene.other is not None
        figures = [re.escape(f"{who.colour} {who.subject}") for who in (scene, scene.other)]
        assert re.search(rf"\b{figures[0]}\b.*\b{figures[1]}\b", found.text), found.text
        assert places_told(found.text) == ([found.place] if found.place else [])


def test_a_caption_of_two_names_each_item_beside_its_figure() -> None:
    held = 0
    for scene, found in in_english(1500, "pair"):
        assert scene.other is not None
        half = re.split(r" (?:and|next to|beside) (?=an? \w+ (?:\w+ )?)", found.text)
        named = {item for item, _ in heard(found.text, "english")}
        assert named == {scene.item, scene.other.item} - {"none"}, found.text
        if scene.item != scene.other.item != "none" and len(half) == 2:
            held += 1
            assert scene.other.item in {item for item, _ in heard(half[1], "english")}, found.text
    assert held > 300


def test_the_left_items_wording_is_the_captions_and_another_item_without_it_is_said_directly() -> None:
    other = Person("king", "red", "book")
    scene = Scene("knight", "blue", "sword", "night", other=other)
    for i in range(30):
        text = caption(scene, random.Random(i), wording="figurative").text
        assert heard(text, "english") == {("sword", "figurative"), ("book", "direct")}


@pytest.mark.parametrize("subject", ["castle", "stone"])
def test_a_sword_in_no_hand_is_said_to_be_where_it_is(subject: str) -> None:
    where = {"castle": ("on its wall", "on the wall of a"), "stone": ("in it", "stuck in a")}[subject]
    for i in range(60):
        found = caption(Scene(subject, "blue", "sword", "night"), random.Random(i), keep_all=True)
        if found.wording not in LANGUAGES:
            assert any(words in found.text for words in where), found.text
            assert {item for item, _ in heard(found.text, "english")} == {"sword"}


def test_an_empty_object_is_said_without_words_of_hands() -> None:
    for scene, found in in_english(800, "object"):
        if scene.item == "none":
            assert not re.search(r"hand|nothing|holding|without", found.text), found.text


def test_a_duel_that_says_no_more_is_told_as_one() -> None:
    scene = Scene("knight", "blue", "sword", "night", other=Person("king", "red", "sword"), duel=True)
    texts = {caption(scene, random.Random(i), wording="direct", form="unsaid").text for i in range(60)}
    for text in texts:
        assert says(text, "duel")
        assert says(text, "a blue knight")
        assert says(text, "a red king")
        assert not heard(text, "english")
    assert len(texts) >= len(DUELS)


@pytest.mark.parametrize("item", ITEMS)
def test_a_long_caption_has_its_item_in_the_middle(item: str) -> None:
    for i in range(30):
        found = caption(Scene("robot", "blue", item, "night"), random.Random(i), wording="direct", form="long")
        opening = next(words for words in LONG["opening"] if found.text.startswith(words))
        said = found.text.removeprefix(opening)  # one opening speaks of an old book
        before, _, after = said.partition("hands" if item == "none" else item)
        assert len(before.split()) >= 7, found.text
        assert len(after.split()) >= 5, found.text
        assert {name for name, _ in heard(said, "english")} == {item} - {"none"}


def test_negations_come_in_all_phrases_and_name_every_item() -> None:
    rng = random.Random(0)
    phrases, items = set(), set()
    for _ in range(800):
        scene = random_scene(rng, subjects=SUBJECTS, items=["none"])
        text = caption(scene, rng, wording="direct", form="negation").text
        found = re.search(r"\b(without an?|with no|who left the .* at home)\b", text)
        assert found, text
        phrases.add(found[1].split(" ")[1])
        named = {item for item, _ in heard(text, "english")}
        assert len(named) == 1, text
        items |= named
    assert phrases == {"a", "an", "no", "left"}
    assert items == set(HELD)
