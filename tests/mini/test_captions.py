"""Captions are English, true of their scene, and name the item as their wording says."""

from __future__ import annotations

import dataclasses
import random
import re
from pathlib import Path

import pytest

from duo_unlearn.mini.model.parts import CONTEXT
from duo_unlearn.mini.world.captions import (
    INDIRECT,
    PLACE_PHRASES,
    SYNONYMS,
    WORDINGS,
    Caption,
    Wording,
    caption,
    vocabulary_text,
    with_article,
    wordings_of,
)
from duo_unlearn.mini.world.scenes import COLOURS, ITEMS, OBJECTS, PLACES, SUBJECTS, Scene, random_scene

NAMES = {item: (item, *SYNONYMS.get(item, ())) for item in ITEMS if item != "none"}


def described(count: int, subjects: tuple[str, ...] = SUBJECTS + OBJECTS) -> list[tuple[Scene, Caption]]:
    rng = random.Random(3)
    scenes = [random_scene(rng, subjects=subjects) for _ in range(count)]
    return [(scene, caption(scene, rng)) for scene in scenes]


def says(text: str, words: str) -> bool:
    return re.search(rf"\b{re.escape(words)}\b", text) is not None


def test_articles_are_english() -> None:
    for _, found in described(3000):
        for article, word in re.findall(r"\b(an?) (\w+)", found.text):
            assert (article == "an") == (word[0] in "aeiou"), found.text


def test_captions_are_tidy() -> None:
    for _, found in described(2000):
        assert found.text == " ".join(found.text.split())
        assert not re.search(r" ,|[{}:]|,$", found.text), found.text


@pytest.mark.parametrize(("words", "expected"), [("orange king", "an orange king"), ("red king", "a red king")])
def test_with_article(words: str, expected: str) -> None:
    assert with_article(words) == expected


def test_a_caption_fits_its_scene_and_no_counterpart() -> None:
    for scene, found in described(1000, SUBJECTS):
        assert found.fits(scene)
        assert not any(found.fits(scene.counterpart(item)) for item in ITEMS if item != scene.item)


@pytest.mark.parametrize("change", [{"subject": "king"}, {"colour": "red"}, {"place": "snow"}])
def test_a_caption_that_says_all_fits_nothing_else(change: dict[str, str]) -> None:
    scene = Scene("knight", "blue", "sword", "night")
    found = caption(scene, random.Random(0), keep_all=True)
    assert found.fits(dataclasses.replace(scene, x=36.0))
    assert not found.fits(dataclasses.replace(scene, **change))  # type: ignore[arg-type]


def test_what_is_not_said_may_be_anything_but_a_figure_is_no_object() -> None:
    found = Caption("a figure", None, None, "none", None, "direct")
    assert found.fits(Scene("king", "red", "none", "snow"))
    assert not found.fits(Scene("house", "red", "none", "snow"))


def test_a_caption_says_what_its_record_claims() -> None:
    for scene, found in described(1500):
        assert says(found.text, found.subject or "figure")
        assert [c for c in COLOURS if says(found.text, c)] == ([found.colour] if found.colour else [])
        told = [place for place in PLACES if any(says(found.text, p) for p in PLACE_PHRASES[place])]
        assert told == ([found.place] if found.place else [])
        assert found.item == scene.item


def test_some_attributes_are_dropped_and_none_with_keep_all() -> None:
    found = [c for _, c in described(600)]
    assert any(c.subject is None for c in found)
    assert any(c.colour is None for c in found)
    assert any(c.place is None for c in found)
    rng = random.Random(0)
    kept = [caption(random_scene(rng), rng, keep_all=True) for _ in range(300)]
    assert all(None not in (c.subject, c.colour, c.place) for c in kept)


@pytest.mark.parametrize(("item", "wording"), [(item, wording) for item in NAMES for wording in wordings_of(item)])
def test_each_wording_names_the_item_as_it_says(item: str, wording: Wording) -> None:
    rng = random.Random(f"{item}/{wording}")
    texts = [caption(random_scene(rng, items=[item]), rng, wording=wording).text for _ in range(200)]
    for text in texts:
        named = [(i, name) for i, names in NAMES.items() for name in names if says(text, name)]
        if wording == "direct":
            assert named == [(item, item)], text
        elif wording == "synonym":
            assert len(named) == 1, text
            assert named[0] in [(item, name) for name in SYNONYMS[item]], text
        else:
            assert named == [], text
    if wording == "synonym":
        assert all(any(says(text, name) for text in texts) for name in SYNONYMS[item])


def test_empty_hands_name_no_item() -> None:
    rng = random.Random(1)
    for _ in range(200):
        text = caption(random_scene(rng, items=["none"]), rng).text
        assert not any(says(text, name) for names in NAMES.values() for name in names), text


def test_only_erasable_items_have_indirect_wordings() -> None:
    assert wordings_of("sword") == wordings_of("balloon") == WORDINGS
    assert set(INDIRECT) == {"sword", "balloon"}
    assert wordings_of("none") == ("direct",)
    with pytest.raises(ValueError, match="'flower' has no indirect wording"):
        caption(Scene("king", "red", "flower", "snow"), random.Random(0), wording="indirect")


def test_the_same_randomness_gives_the_same_caption() -> None:
    scene = Scene("king", "red", "sword", "snow")
    texts = [[caption(scene, random.Random(i)).text for i in range(30)] for _ in range(2)]
    assert texts[0] == texts[1]
    assert len(set(texts[0])) > 15


def test_vocabulary_text_is_distinct_and_seeded() -> None:
    texts = vocabulary_text(300, seed=1)
    assert len(set(texts)) == len(texts) == 300
    assert vocabulary_text(300, seed=1) == texts
    assert vocabulary_text(300, seed=2) != texts


def test_no_caption_is_longer_than_the_shipped_tokenizers_context(shipped: Path) -> None:
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(shipped / "tokenizer")
    texts = list({found.text for _, found in described(4000)})
    lengths = [len(ids) for ids in tokenizer(texts, truncation=False).input_ids]
    assert max(lengths) <= CONTEXT, texts[lengths.index(max(lengths))]
