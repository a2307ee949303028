"""Scenes are records: combinations are held out evenly, and random ones cover the world."""

from __future__ import annotations

import dataclasses
import itertools
import random

import pytest

from duo_unlearn.mini.world.scenes import (
    ATTRIBUTES,
    CARRIERS,
    COLOURS,
    HELD_OUT,
    ITEMS,
    LOOKS,
    MOUNTS,
    OBJECTS,
    PAIR_SCALE,
    PLACES,
    SUBJECTS,
    Person,
    Scene,
    is_held_out,
    random_pair,
    random_scene,
)

SAID = ("item", "subject", "colour", "place")


def some_figures(count: int) -> list[Scene]:
    rng = random.Random(7)
    return [random_scene(rng) for _ in range(count)]


def test_carriers_mounts_and_looks_are_of_the_world() -> None:
    assert set(CARRIERS) < set(SUBJECTS)
    assert set(MOUNTS) < set(OBJECTS)
    assert set(LOOKS) < set(ITEMS)
    assert not set(SUBJECTS) & set(OBJECTS)


def test_the_labels_of_each_attribute() -> None:
    assert {name: len(labels) for name, labels in ATTRIBUTES.items()} == {
        "item": 10, "subject": 13, "colour": 6, "place": 5, "state": 2,
    }  # fmt: skip
    assert ATTRIBUTES["item"][0] == "none"
    assert ATTRIBUTES["state"] == ("whole", "broken")


def test_each_figure_loses_one_item_or_two_and_each_object_one_colour() -> None:
    for subject, colour, place in itertools.product(SUBJECTS, COLOURS, PLACES):
        assert sum(is_held_out(Scene(subject, colour, item, place)) for item in ITEMS) in (1, 2)
    for thing, place, item in itertools.product(OBJECTS, PLACES, ("none", "sword")):
        assert sum(is_held_out(Scene(thing, colour, item, place)) for colour in COLOURS) == 1


def test_one_combination_in_six_is_held_out() -> None:
    combinations = list(itertools.product(SUBJECTS, COLOURS, ITEMS, PLACES))
    held_out = sum(is_held_out(Scene(*combination)) for combination in combinations)
    assert held_out / len(combinations) == pytest.approx(1 / HELD_OUT, abs=0.002)


@pytest.mark.parametrize("subjects", [SUBJECTS, OBJECTS], ids=["figures", "objects"])
def test_every_pair_of_labels_remains_in_training(subjects: tuple[str, ...]) -> None:
    items = ITEMS if subjects == SUBJECTS else ("none",)
    scenes = [Scene(s, c, i, p) for s, c, i, p in itertools.product(subjects, COLOURS, items, PLACES)]
    trained = [scene for scene in scenes if not is_held_out(scene)]
    for one, other in itertools.combinations(SAID, 2):
        every = {(getattr(s, one), getattr(s, other)) for s in scenes}
        assert {(getattr(s, one), getattr(s, other)) for s in trained} == every


def test_being_held_out_does_not_depend_on_geometry_or_look() -> None:
    for scene in some_figures(50):
        assert is_held_out(scene) == is_held_out(Scene(scene.subject, scene.colour, scene.item, scene.place))


def test_two_figures_are_held_out_where_either_is() -> None:
    rng = random.Random(0)
    found = set()
    for _ in range(400):
        scene = random_pair(rng)
        other = scene.other
        assert other is not None
        left = is_held_out(Scene(scene.subject, scene.colour, scene.item, scene.place))
        right = is_held_out(Scene(other.subject, other.colour, other.item, scene.place))
        assert is_held_out(scene) == (left or right)
        found.add((left, right))
    assert len(found) == 4


def test_random_scenes_cover_every_label_and_look() -> None:
    scenes = [random_scene(random.Random(i), subjects=SUBJECTS + OBJECTS) for i in range(800)]
    for attribute in SAID:
        assert {getattr(scene, attribute) for scene in scenes} == set(ATTRIBUTES[attribute])
    for item in ITEMS:
        assert {s.look for s in scenes if s.item == item} == set(range(len(LOOKS.get(item, ("",)))))
    assert {scene.side for scene in scenes} == {-1, 1}
    assert all(scene.other is None and not scene.duel for scene in scenes)


def test_objects_hold_nothing_but_castles_and_stones_a_sword_half_the_time() -> None:
    rng = random.Random(0)
    scenes = [random_scene(rng, subjects=OBJECTS) for _ in range(2000)]
    assert {scene.item for scene in scenes if scene.subject not in MOUNTS} == {"none"}
    for mount in MOUNTS:
        items = [scene.item for scene in scenes if scene.subject == mount]
        assert set(items) == {"none", "sword"}
        assert items.count("sword") / len(items) == pytest.approx(0.5, abs=0.1)
    swordless = [random_scene(rng, subjects=MOUNTS, items=["none", "wand"]) for _ in range(50)]
    assert {scene.item for scene in swordless} == {"none"}


def test_random_pairs_cover_both_figures_and_are_small() -> None:
    rng = random.Random(0)
    pairs = [random_pair(rng) for _ in range(600)]
    others = [pair.other for pair in pairs if pair.other is not None]
    assert len(others) == len(pairs)
    for figures in (pairs, others):
        assert {who.subject for who in figures} == set(SUBJECTS)
        assert {who.item for who in figures} == set(ITEMS)
        assert {who.colour for who in figures} == set(COLOURS)
        assert {who.look for who in figures if who.item == "sword"} == {0, 1, 2}
    assert all(abs(pair.scale / PAIR_SCALE - 1) <= 0.05 for pair in pairs)
    assert not any(pair.duel for pair in pairs)


def test_both_or_neither_of_a_duel_are_armed_four_in_five() -> None:
    rng = random.Random(0)
    duels = [random_pair(rng, duel=True) for _ in range(2000)]
    held = [(duel.item, duel.other.item) for duel in duels if duel.other is not None]
    assert set(held) == {("sword", "sword"), ("none", "none")}
    assert held.count(("sword", "sword")) / 2000 == pytest.approx(0.8, abs=0.03)
    assert all(duel.duel for duel in duels)


def test_the_items_asked_for_are_the_items_held() -> None:
    rng = random.Random(0)
    assert {random_scene(rng, items=["oar", "book"]).item for _ in range(50)} == {"oar", "book"}
    assert {random_pair(rng, items=["oar"]).items for _ in range(20)} == {("oar",)}


@pytest.mark.parametrize(
    ("left", "right", "items"),
    [
        ("sword", None, ("sword",)),
        ("none", None, ("none",)),
        ("none", "none", ("none",)),
        ("none", "oar", ("oar",)),
        ("oar", "oar", ("oar",)),
        ("flower", "wand", ("wand", "flower")),
    ],
)
def test_the_items_to_be_seen_stand_in_the_worlds_order(left: str, right: str | None, items: tuple[str, ...]) -> None:
    other = Person("king", "red", right) if right else None
    assert Scene("knight", "blue", left, "snow", other=other).items == items


def test_a_counterpart_differs_in_item_and_look_alone() -> None:
    for scene in some_figures(20):
        other = scene.counterpart("sword", 2)
        assert (other.item, other.look) == ("sword", 2)
        assert dataclasses.replace(other, item=scene.item, look=scene.look) == scene


def test_an_object_has_no_counterpart() -> None:
    with pytest.raises(ValueError, match="boat holds nothing"):
        Scene("boat", "red", "none", "beach").counterpart("sword")


def test_the_same_randomness_gives_the_same_scene() -> None:
    for draw in (random_scene, random_pair):
        assert [draw(random.Random(i)) for i in range(20)] == [draw(random.Random(i)) for i in range(20)]
