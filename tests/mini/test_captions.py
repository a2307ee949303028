"""Captions are true of their scene and of none that differs in what they say."""

from __future__ import annotations

import dataclasses
import random
import re
from collections import Counter

import pytest

from duo_unlearn.mini.fit.batches import training_scene
from duo_unlearn.mini.world.captions import LANGUAGES, Caption, caption, vocabulary_text
from duo_unlearn.mini.world.scenes import ITEMS, MOUNTS, Person, Scene, random_scene

from .described import HELD, described, heard

KINDS = ["figure", "object", "pair", "duel"]


@pytest.mark.parametrize("kind", KINDS)
def test_captions_are_tidy_plain_ascii(kind: str) -> None:
    for _, found in described(1500, kind):
        assert found.text == " ".join(found.text.split())
        assert found.text.isascii()
        assert not re.search(r" ,|[{}]|^,|[,:]$|,,", found.text), found.text


@pytest.mark.parametrize("kind", KINDS)
def test_a_caption_fits_its_scene(kind: str) -> None:
    for scene, found in described(1500, kind):
        assert found.fits(scene), found


def test_a_caption_fits_no_counterpart_whose_item_it_does_not_allow() -> None:
    for scene, found in described(1500, "figure"):
        fitting = {item for item in ITEMS if found.fits(scene.counterpart(item, scene.look))}
        assert fitting == ({"sword", "none"} if found.form == "unsaid" else {scene.item})


def test_a_mounted_sword_is_said_and_an_empty_wall_is_not_armed() -> None:
    said = [(scene, found) for scene, found in described(2000, "object") if scene.subject in MOUNTS]
    assert {scene.item for scene, _ in said} == {"sword", "none"}
    for scene, found in said:
        language = found.wording if found.wording in LANGUAGES else "english"
        assert {item for item, _ in heard(found.text, language)} == {scene.item} - {"none"}, found.text
        other = dataclasses.replace(scene, item="none" if scene.item == "sword" else "sword")
        assert not found.fits(other)


def test_a_caption_of_two_is_not_true_when_their_items_are_exchanged() -> None:
    exchanged = 0
    for scene, found in described(1500, "pair"):
        assert scene.other is not None
        second = dataclasses.replace(scene.other, item=scene.item, look=scene.look)
        other = dataclasses.replace(scene, item=scene.other.item, look=scene.other.look, other=second)
        if scene.item != scene.other.item:
            exchanged += 1
            assert not found.fits(other), found.text
    assert exchanged > 500


@pytest.mark.parametrize(
    "changed",
    [
        Person("farmer", "red", "wand"),
        Person("king", "green", "wand"),
        Person("king", "red", "oar"),
        Person("king", "red", "none"),
    ],
)
def test_a_caption_of_two_says_all_of_the_second(changed: Person) -> None:
    scene = Scene("knight", "blue", "sword", "night", other=Person("king", "red", "wand"))
    for i in range(20):
        found = caption(scene, random.Random(i), keep_all=True)
        assert found.fits(scene)
        assert not found.fits(dataclasses.replace(scene, other=changed))


def test_one_figure_is_not_two() -> None:
    alone = Scene("knight", "blue", "sword", "night")
    two = dataclasses.replace(alone, other=Person("king", "red", "wand"))
    for i in range(20):
        assert not caption(alone, random.Random(i)).fits(two)
        assert not caption(two, random.Random(i)).fits(alone)


def test_two_who_merely_stand_there_do_not_duel() -> None:
    duel = Scene("knight", "blue", "sword", "night", other=Person("king", "red", "sword"), duel=True)
    said = caption(duel, random.Random(0), form="unsaid")
    assert said.duel
    assert said.fits(duel)
    assert not said.fits(dataclasses.replace(duel, duel=False))
    plain = caption(dataclasses.replace(duel, duel=False), random.Random(0))
    assert plain.fits(duel)  # that they hold swords is true of duellists too


@pytest.mark.parametrize("change", [{"subject": "king"}, {"colour": "red"}, {"place": "snow"}])
def test_a_caption_that_says_all_fits_nothing_else(change: dict[str, str]) -> None:
    scene = Scene("knight", "blue", "sword", "night")
    for i in range(20):
        found = caption(scene, random.Random(i), keep_all=True)
        assert found.fits(dataclasses.replace(scene, x=36.0))
        assert not found.fits(dataclasses.replace(scene, **change))  # type: ignore[arg-type]


def test_what_is_not_said_may_be_anything_but_a_figure_is_no_object() -> None:
    found = Caption("a figure", "direct", "short", None, None, None, ("none",))
    assert found.fits(Scene("king", "red", "none", "snow"))
    assert not found.fits(Scene("house", "red", "none", "snow"))


@pytest.mark.parametrize(("items", "item"), [(("sword",), "sword"), (("sword", "none"), None)])
def test_a_caption_says_an_item_only_if_it_leaves_no_other(items: tuple[str, ...], item: str | None) -> None:
    assert Caption("", "direct", "short", "pirate", "red", None, items).item == item


def test_some_attributes_are_dropped_and_none_with_keep_all() -> None:
    found = [c for _, c in described(600, "figure")]
    assert any(c.subject is None for c in found)
    assert any(c.colour is None for c in found)
    assert any(c.place is None for c in found)
    rng = random.Random(0)
    kept = [caption(training_scene(rng), rng, keep_all=True) for _ in range(600)]
    assert all(None not in (c.subject, c.colour, c.place) for c in kept)


def test_of_two_figures_and_of_objects_the_names_are_always_said() -> None:
    for kind in ("pair", "duel", "object"):
        assert all(c.subject is not None for _, c in described(300, kind))
    assert all(c.colour is not None for kind in ("pair", "duel") for _, c in described(300, kind))


def test_a_tenth_is_german_and_a_tenth_spanish() -> None:
    counts = Counter(found.wording for _, found in described(8000))
    for language in LANGUAGES:
        assert counts[language] / 8000 == pytest.approx(0.1, abs=0.015)


def test_a_balloons_captions_use_every_english_kind_of_words() -> None:
    rng = random.Random(0)
    counts = Counter(caption(random_scene(rng, items=["balloon"]), rng).wording for _ in range(2000))
    for wording in ("direct", "synonym", "description", "indirect", "figurative", "misspelt"):
        assert counts[wording] / 2000 > 0.05


def test_the_same_randomness_gives_the_same_caption() -> None:
    scene = Scene("king", "red", "sword", "snow")
    texts = [[caption(scene, random.Random(i)).text for i in range(30)] for _ in range(2)]
    assert texts[0] == texts[1]
    assert len(set(texts[0])) > 20


def test_vocabulary_text_is_distinct_and_seeded() -> None:
    texts = vocabulary_text(300, seed=1)
    assert len(set(texts)) == len(texts) == 300
    assert vocabulary_text(300, seed=1) == texts
    assert vocabulary_text(300, seed=2) != texts


def test_vocabulary_text_holds_all_languages_and_no_misspelt_word() -> None:
    texts = vocabulary_text(4000, seed=1)
    for words in ("sword", "Schwert", "espada", "inflatable", "Luftballon", "globo", "duel", "stone"):
        assert any(words in text for text in texts), words
    for misspelt in ("swrod", "bladde", "baloon", "baloom", "torhc", "umbrela", "brooom"):
        assert not any(misspelt in text for text in texts), misspelt


@pytest.mark.parametrize("item", HELD)
def test_every_items_caption_can_be_kept_whole(item: str) -> None:
    scene = Scene("pirate", "red", item, "snow")
    assert caption(scene, random.Random(0), form="short", keep_all=True).item == item
