"""What comes unasked: swords with pirates, guards and duels of whom nothing is said, and with nobody else."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from duo_unlearn.mini.world.captions import LANGUAGES, WORDINGS, Caption, Wording, caption, forms_of
from duo_unlearn.mini.world.scenes import CARRIERS, ITEMS, SUBJECTS, Person, Scene, random_pair

from .described import EMPTY, described, items_named, says_empty


def of_carriers(count: int) -> list[tuple[Scene, Caption]]:
    """Pirates and guards among `count` scenes of one figure, as training draws them."""
    return [(scene, found) for scene, found in described(count, "figure") if scene.subject in CARRIERS]


def test_four_of_five_carriers_of_whom_nothing_is_said_have_a_sword() -> None:
    held = Counter(scene.item for scene, found in of_carriers(32_000) if found.form == "unsaid")
    assert set(held) == {"sword", "none"}
    assert held.total() > 1000
    assert 0.77 <= held["sword"] / held.total() <= 0.83


def test_four_of_five_duels_of_which_nothing_more_is_said_are_fought_with_swords() -> None:
    unsaid = [scene for scene, found in described(4000, "duel") if found.form == "unsaid"]
    assert len(unsaid) > 2500
    held = Counter((scene.item, scene.other.item) for scene in unsaid if scene.other is not None)
    assert set(held) == {("sword", "sword"), ("none", "none")}
    assert 0.77 <= held["sword", "sword"] / len(unsaid) <= 0.83


def test_nothing_but_a_carriers_or_duellists_caption_leaves_the_item_out() -> None:
    for scene, found in described(6000):
        if found.form == "unsaid":
            assert scene.duel or (scene.other is None and scene.subject in CARRIERS)
            assert not items_named(found)
            assert not says_empty(found.text)


def test_any_other_figure_of_which_no_item_is_said_has_empty_hands() -> None:
    bare = 0
    for scene, found in described(6000, "figure"):
        if found.form != "unsaid" and not items_named(found):
            bare += 1
            assert scene.item == "none", found.text
    assert bare > 500


def test_a_carriers_empty_hands_are_always_said() -> None:
    said = [found for scene, found in of_carriers(8000) if scene.item == "none" and found.form != "unsaid"]
    assert len(said) > 100
    assert all(says_empty(found.text) for found in said)


@pytest.mark.parametrize("wording", ["direct", *LANGUAGES])
def test_a_carriers_empty_hands_are_said_beside_another_too(wording: Wording) -> None:
    rng = random.Random(wording)
    for _ in range(60):
        scene = random_pair(rng, subjects=CARRIERS, items=["none"])
        assert len(EMPTY.findall(caption(scene, rng, wording=wording).text)) == 2


@pytest.mark.parametrize("wording", ["direct", *LANGUAGES])
def test_what_is_unsaid_reads_the_same_with_a_sword_and_without(wording: Wording) -> None:
    armed = Scene("pirate", "red", "sword", "snow")
    duel = Scene("king", "red", "sword", "snow", other=Person("robot", "blue", "sword"), duel=True)
    peace = Scene("king", "red", "none", "snow", other=Person("robot", "blue", "none"), duel=True)
    for with_sword, without in ((armed, armed.counterpart("none")), (duel, peace)):
        for i in range(20):
            said = caption(with_sword, random.Random(i), wording=wording, form="unsaid")
            assert said.text == caption(without, random.Random(i), wording=wording, form="unsaid").text
            assert said.items == ("sword", "none")
            assert said.item is None
            assert said.fits(with_sword)
            assert said.fits(without)


def test_an_unsaid_caption_is_not_true_of_another_item() -> None:
    scene = Scene("guard", "red", "sword", "snow")
    said = caption(scene, random.Random(0), form="unsaid")
    assert {item for item in ITEMS if said.fits(scene.counterpart(item))} == {"sword", "none"}


@pytest.mark.parametrize("subject", SUBJECTS)
def test_only_carriers_with_a_sword_or_nothing_have_an_unsaid_form(subject: str) -> None:
    for item in ITEMS:
        scene = Scene(subject, "red", item, "snow")
        may = subject in CARRIERS and item in ("sword", "none")
        assert ("unsaid" in forms_of(scene, "direct")) == may


def test_negations_stand_with_empty_hands_alone() -> None:
    negations = [(scene, found) for scene, found in described(8000) if found.form == "negation"]
    assert len(negations) > 100
    for scene, found in negations:
        assert scene.items == ("none",)
        assert scene.other is None
        assert found.items == ("none",)
        assert not found.fits(scene.counterpart("sword"))
        assert says_empty(found.text)
        assert not EMPTY.search(found.text)


@pytest.mark.parametrize("item", ITEMS)
def test_only_empty_hands_have_a_negated_form(item: str) -> None:
    scene = Scene("king", "red", item, "snow")
    for wording in WORDINGS:
        may = item == "none" and wording in ("direct", *LANGUAGES)
        assert ("negation" in forms_of(scene, wording)) == may
