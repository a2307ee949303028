"""Each kind of wording says the item as its name promises, in many ways, and words for one look keep to it."""

from __future__ import annotations

import dataclasses
import random

import pytest

from duo_unlearn.mini.world.captions import LANGUAGES, WORDINGS, Caption, Wording, caption, forms_of, wordings_of
from duo_unlearn.mini.world.scenes import LOOKS, MOUNTS, SUBJECTS, Person, Scene, random_pair, random_scene

from .described import HELD, heard, says, ways

SPOKEN = [(item, wording) for item in HELD for wording in wordings_of(item) if wording not in LANGUAGES]
# What every English word for one look is, and those of the other languages.
LOOK_WORDS = {
    "saber": "curved", "rapier": "thin", "Saebel": "curved", "Degen": "thin", "sable": "curved", "florete": "thin",
}  # fmt: skip


def texts_of(item: str, wording: Wording, count: int) -> list[str]:
    rng = random.Random(f"{item}/{wording}")
    return [caption(random_scene(rng, items=[item]), rng, wording=wording, form="short").text for _ in range(count)]


@pytest.mark.parametrize(("item", "wording"), SPOKEN)
def test_an_english_wording_says_the_item_in_its_own_kind_of_words_alone(item: str, wording: Wording) -> None:
    texts = texts_of(item, wording, 200)
    for text in texts:
        assert heard(text, "english") == {(item, wording)}, text
    for words in ways(item, "english")[wording]:
        assert any(says(text, words) for text in texts), words


@pytest.mark.parametrize(
    ("item", "wording"), [(i, w) for i, w in SPOKEN if w in ("description", "indirect", "figurative")]
)
def test_what_describes_an_item_does_not_name_it(item: str, wording: Wording) -> None:
    names = ways(item, "english")
    for text in texts_of(item, wording, 100):
        for noun in (*names["direct"], *names["synonym"], *names["misspelt"]):
            assert noun not in text


@pytest.mark.parametrize(
    ("wording", "words"),
    [
        ("direct", {"sword"}),
        ("synonym", {"blade", "saber", "rapier", "sharp steel weapon"}),
        ("description", {"long steel edge with a hilt", "pointed strip of metal with a crossguard"}),
        ("indirect", {"armed", "ready for battle", "about to fight", "on guard duty"}),
        ("figurative", {"with cold steel in hand", "ready to cross steel"}),
        ("misspelt", {"swrod", "sowrd", "bladde"}),
        ("german", {"Schwert", "Klinge", "bewaffneter"}),
        ("spanish", {"espada", "hoja de acero", "armado"}),
    ],
)
def test_the_sword_is_said_as_the_worlds_design_has_it(wording: Wording, words: set[str]) -> None:
    texts = texts_of("sword", wording, 300)
    assert words == {word for word in words if any(says(text, word) for text in texts)}


@pytest.mark.parametrize(("item", "least"), [(item, 12 if item == "sword" else 8) for item in HELD])
def test_an_item_is_said_in_many_ways_without_its_misspellings(item: str, least: int) -> None:
    rng = random.Random(item)
    captions = [caption(random_scene(rng, items=[item]), rng, form="short") for _ in range(1500)]
    said = set()
    for language in ("english", *LANGUAGES):
        texts = [c.text for c in captions if (c.wording if c.wording in LANGUAGES else "english") == language]
        for kind, phrases in ways(item, language).items():
            if kind != "misspelt":
                said |= {words for words in phrases if any(says(text, words) for text in texts)}
    assert len(said) >= least


def test_sword_and_balloon_have_every_wording_and_figures_of_speech_are_theirs_alone() -> None:
    assert wordings_of("sword") == wordings_of("balloon") == WORDINGS
    for item in set(HELD) - {"sword", "balloon"}:
        assert wordings_of(item) == tuple(wording for wording in WORDINGS if wording != "figurative")
    assert wordings_of("none") == ("direct", *LANGUAGES)
    with pytest.raises(ValueError, match="'flower' has no figurative wording"):
        caption(Scene("king", "red", "flower", "snow"), random.Random(0), wording="figurative")


@pytest.mark.parametrize(
    ("scene", "form"),
    [
        (Scene("king", "red", "sword", "snow"), "negation"),
        (Scene("king", "red", "sword", "snow"), "unsaid"),
        (Scene("pirate", "red", "wand", "snow"), "unsaid"),
        (Scene("house", "red", "none", "snow"), "long"),
    ],
)
def test_a_form_that_a_scene_does_not_have_is_refused(scene: Scene, form: str) -> None:
    assert form not in forms_of(scene, "direct")
    with pytest.raises(ValueError, match=f"no {form} caption"):
        caption(scene, random.Random(0), form=form)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def swords() -> list[tuple[Scene, Caption]]:
    """Captions of swords of all looks, in hands, on walls and in stones."""
    rng = random.Random("swords")
    scenes = [random_scene(rng, subjects=SUBJECTS + MOUNTS, items=["sword"]) for _ in range(6000)]
    return [(scene, caption(scene, rng)) for scene in scenes if scene.item == "sword"]


def fitting_looks(scene: Scene, said: Caption) -> set[int]:
    return {look for look in range(3) if said.fits(dataclasses.replace(scene, look=look))}


@pytest.mark.parametrize(("word", "look"), LOOK_WORDS.items())
def test_a_word_for_one_look_is_said_of_that_look_alone(
    swords: list[tuple[Scene, Caption]], word: str, look: str
) -> None:
    told = [(scene, said) for scene, said in swords if says(said.text, word)]
    assert len(told) >= 10
    for scene, said in told:
        assert LOOKS["sword"][scene.look] == look
        assert said.looks == (scene.look,)
        assert fitting_looks(scene, said) == {scene.look}


@pytest.mark.parametrize("word", ["sword", "blade", "swrod", "long steel edge", "armed", "Schwert", "Klinge", "espada"])
def test_every_other_word_means_any_look(swords: list[tuple[Scene, Caption]], word: str) -> None:
    told = [(scene, said) for scene, said in swords if says(said.text, word)]
    assert {scene.look for scene, _ in told} == {0, 1, 2}
    for scene, said in told:
        assert said.looks is None
        assert fitting_looks(scene, said) == {0, 1, 2}


def test_of_two_swords_each_is_said_by_its_own_look() -> None:
    rng = random.Random(0)
    heard_right = 0
    for _ in range(600):
        pair = random_pair(rng, items=["sword"])
        assert pair.other is not None
        right = Person("king", "red", "sword", look=1)
        scene = Scene("robot", "blue", "sword", pair.place, look=0, other=right)
        said = caption(scene, rng)
        assert said.looks is None  # nothing that is said of the left figure means a straight sword alone
        for word in ("saber", "Saebel", "sable"):
            if says(said.text, word):
                heard_right += 1
                king = next(name for name in ("king", "Koenig", "rey") if says(said.text, name))
                assert said.text.index(king) < said.text.index(word)
        assert not any(says(said.text, word) for word in ("rapier", "Degen", "florete"))
    assert heard_right >= 10
