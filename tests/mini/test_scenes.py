"""Pictures are functions of their scene; counterparts differ in the item; combinations are held out evenly."""

from __future__ import annotations

import itertools
import random

import numpy as np
import pytest

from duo_unlearn.mini.world.scenes import (
    ATTRIBUTES,
    COLOURS,
    ITEMS,
    OBJECTS,
    PLACES,
    SIZE,
    SUBJECTS,
    Scene,
    draw,
    draw_batch,
    is_held_out,
    random_scene,
)

HELD = [item for item in ITEMS if item != "none"]


def changed(scene: Scene, item: str, other: str = "none", threshold: int = 8) -> np.ndarray:
    """Where the pictures of a scene with two items differ visibly, (64, 64)."""
    before, after = draw_batch([scene.counterpart(other), scene.counterpart(item)]).astype(int)
    mask: np.ndarray = np.abs(after - before).max(axis=2) > threshold
    return mask


def some_figures(count: int) -> list[Scene]:
    rng = random.Random(7)
    return [random_scene(rng) for _ in range(count)]


def test_the_same_scene_gives_the_same_picture() -> None:
    scenes = [random_scene(random.Random(i), subjects=SUBJECTS + OBJECTS) for i in range(20)]
    again = [random_scene(random.Random(i), subjects=SUBJECTS + OBJECTS) for i in range(20)]
    assert scenes == again
    assert np.array_equal(draw_batch(scenes), draw_batch(again))


def test_a_picture_is_rgb_of_64_pixels() -> None:
    image = draw(Scene("knight", "blue", "sword", "meadow"))
    assert (image.mode, image.size) == ("RGB", (SIZE, SIZE))


@pytest.mark.parametrize("attribute", ["subject", "colour", "item", "place", "x", "scale", "side", "details"])
def test_every_attribute_shows(attribute: str) -> None:
    values = {"subject": "king", "colour": "red", "item": "wand", "place": "snow", "x": 36.0, "scale": 1.1, "side": -1}
    base = {"subject": "knight", "colour": "blue", "item": "sword", "place": "night"}
    scene = Scene(**base)  # type: ignore[arg-type]
    other = Scene(**base | {attribute: values.get(attribute, 1)})  # type: ignore[arg-type]
    assert (np.asarray(draw(scene)) != np.asarray(draw(other))).sum() > 20


@pytest.mark.parametrize("item", HELD)
def test_a_counterpart_differs_near_the_hand_alone(item: str) -> None:
    rows, columns = np.mgrid[0:SIZE, 0:SIZE] + 0.5
    for scene in some_figures(12):
        hand_x = scene.x + scene.side * 12 * scene.scale
        hand_y = scene.y - 19 * scene.scale
        reach = 31 * scene.scale
        far = np.hypot(columns - hand_x, rows - hand_y) > reach
        assert not (changed(scene, item, threshold=0) & far).any()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("item", HELD)
def test_every_item_is_visible_in_every_place(item: str, place: str) -> None:
    scenes = [scene for scene in some_figures(80) if scene.place == place]
    assert scenes
    for scene in scenes:
        assert changed(scene, item, threshold=40).sum() >= 15


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(HELD, 2)))
def test_two_items_can_be_told_apart(one: str, other: str) -> None:
    for scene in some_figures(6):
        assert changed(scene, one, other, threshold=40).sum() >= 25


def test_the_sword_is_a_third_of_the_picture_and_inside_it() -> None:
    for scene in some_figures(60):
        mask = changed(scene, "sword")
        rows = np.flatnonzero(mask.any(axis=1))
        assert rows[-1] - rows[0] + 1 >= SIZE / 3
        assert mask.sum() == mask[1:-1, 1:-1].sum()


def test_the_blade_is_three_pixels_wide_at_the_smallest_scale() -> None:
    # Upright, so that a row crosses the blade squarely; above the guard (4.2 over the hand) and below the point.
    scene = Scene("farmer", "red", "sword", "night", scale=0.92)
    hand_y = scene.y - 19 * scene.scale
    widths = changed(scene, "sword").sum(axis=1)[round(hand_y - 22 * 0.92) : round(hand_y - 6 * 0.92)]
    assert len(widths) >= 14
    assert widths.min() >= 3


def test_each_figure_loses_one_item_and_each_object_one_colour() -> None:
    for subject, colour, place in itertools.product(SUBJECTS, COLOURS, PLACES):
        assert sum(is_held_out(Scene(subject, colour, item, place)) for item in ITEMS) == 1
    for thing, place in itertools.product(OBJECTS, PLACES):
        assert sum(is_held_out(Scene(thing, colour, "none", place)) for colour in COLOURS) == 1


def test_every_pair_of_labels_remains_in_training() -> None:
    figures = [Scene(s, c, i, p) for s, c, i, p in itertools.product(SUBJECTS, COLOURS, ITEMS, PLACES)]
    trained = [scene for scene in figures if not is_held_out(scene)]
    for one, other in itertools.combinations(ATTRIBUTES, 2):
        every = {(getattr(s, one), getattr(s, other)) for s in figures}
        assert {(getattr(s, one), getattr(s, other)) for s in trained} == every


def test_being_held_out_does_not_depend_on_geometry() -> None:
    for scene in some_figures(50):
        assert is_held_out(scene) == is_held_out(Scene(scene.subject, scene.colour, scene.item, scene.place))


def test_random_scenes_cover_every_label() -> None:
    scenes = [random_scene(random.Random(i), subjects=SUBJECTS + OBJECTS) for i in range(400)]
    for attribute, labels in ATTRIBUTES.items():
        assert {getattr(scene, attribute) for scene in scenes} == set(labels)
    assert all(scene.item == "none" for scene in scenes if not scene.is_figure)


def test_an_object_has_no_counterpart() -> None:
    with pytest.raises(ValueError, match="boat holds nothing"):
        Scene("boat", "red", "none", "beach").counterpart("sword")
