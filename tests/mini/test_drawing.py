"""Pictures are functions of their scene: every item and look shows and can be told apart, wherever it is."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import random

import numpy as np
import pytest

from duo_unlearn.mini.world.drawing import draw, draw_batch
from duo_unlearn.mini.world.scenes import (
    ITEMS,
    LOOKS,
    MOUNTS,
    OBJECTS,
    PLACES,
    SIZE,
    SUBJECTS,
    Person,
    Scene,
    random_pair,
    random_scene,
)

SEEN = [(item, look) for item in ITEMS[1:] for look in range(len(LOOKS.get(item, ("",))))]
VISIBLE = 40
"""A difference in one colour channel that an eye sees at once, of 255."""


@functools.lru_cache(maxsize=2000)
def picture(scene: Scene) -> np.ndarray:
    """A scene's picture as whole numbers, (64, 64, 3)."""
    return np.asarray(draw(scene)).astype(int)


def changed(one: Scene, other: Scene, threshold: int = VISIBLE) -> np.ndarray:
    """Where two pictures differ by more than a threshold, (64, 64)."""
    mask: np.ndarray = np.abs(picture(other) - picture(one)).max(axis=2) > threshold
    return mask


def shown(scene: Scene, item: str, look: int = 0, threshold: int = VISIBLE) -> np.ndarray:
    """Where an item in a figure's hand is to be seen."""
    return changed(scene.counterpart("none"), scene.counterpart(item, look), threshold)


def some_figures(count: int) -> list[Scene]:
    rng = random.Random(7)
    return [random_scene(rng) for _ in range(count)]


def empty_pairs(count: int) -> list[Scene]:
    rng = random.Random(8)
    return [random_pair(rng, items=["none"]) for _ in range(count)]


def right_holds(scene: Scene, item: str, look: int = 0) -> Scene:
    assert scene.other is not None
    return dataclasses.replace(scene, other=dataclasses.replace(scene.other, item=item, look=look))


def test_the_same_scene_gives_the_same_picture() -> None:
    scenes = [random_scene(random.Random(i), subjects=SUBJECTS + OBJECTS) for i in range(20)]
    scenes += [random_pair(random.Random(i)) for i in range(10)]
    assert np.array_equal(draw_batch(scenes), draw_batch(scenes))


def test_a_picture_is_rgb_of_64_pixels() -> None:
    image = draw(Scene("knight", "blue", "sword", "meadow"))
    assert (image.mode, image.size) == ("RGB", (SIZE, SIZE))
    assert draw_batch([Scene("stone", "blue", "sword", "meadow")] * 2).shape == (2, SIZE, SIZE, 3)


OTHER_VALUES = {
    "subject": "king", "colour": "red", "item": "wand", "place": "snow", "x": 36.0, "y": 60.0, "scale": 1.1,
    "side": -1, "tilt": 12.0, "details": 1, "look": 1, "other": Person("king", "red", "none"),
}  # fmt: skip


@pytest.mark.parametrize("attribute", OTHER_VALUES)
def test_every_attribute_shows(attribute: str) -> None:
    scene = Scene("knight", "blue", "sword", "night")
    other = dataclasses.replace(scene, **{attribute: OTHER_VALUES[attribute]})  # type: ignore[arg-type]
    assert changed(scene, other, threshold=0).sum() > 8


@pytest.mark.parametrize("attribute", ["subject", "colour", "item", "look", "tilt"])
def test_every_attribute_of_the_second_figure_shows(attribute: str) -> None:
    scene = Scene("knight", "blue", "none", "night", x=20, scale=0.72, side=-1, other=Person("robot", "green", "sword"))
    assert scene.other is not None
    other = dataclasses.replace(scene.other, **{attribute: OTHER_VALUES[attribute]})  # type: ignore[arg-type]
    assert changed(scene, dataclasses.replace(scene, other=other), threshold=0).sum() > 8


def test_a_duel_is_drawn_as_two_figures_are() -> None:
    duel = random_pair(random.Random(0), duel=True)
    assert not changed(duel, dataclasses.replace(duel, duel=False), threshold=0).any()


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(SUBJECTS + OBJECTS, 2)))
def test_two_subjects_can_be_told_apart(one: str, other: str) -> None:
    for place in PLACES:
        assert changed(Scene(one, "red", "none", place), Scene(other, "red", "none", place)).sum() >= 40


@pytest.mark.parametrize(("item", "look"), SEEN)
def test_a_counterpart_differs_near_the_hand_alone(item: str, look: int) -> None:
    rows, columns = np.mgrid[0:SIZE, 0:SIZE] + 0.5
    for scene in some_figures(12):
        hand_x = scene.x + scene.side * 12 * scene.scale
        hand_y = scene.y - 19 * scene.scale
        far = np.hypot(columns - hand_x, rows - hand_y) > 31 * scene.scale
        assert not (shown(scene, item, look, threshold=0) & far).any()


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("item", "look"), SEEN)
def test_every_item_and_look_is_visible_in_every_place(item: str, look: int, place: str) -> None:
    scenes = [scene for scene in some_figures(60) if scene.place == place]
    assert len(scenes) >= 5
    for scene in scenes:
        assert shown(scene, item, look).sum() >= 45


@pytest.mark.parametrize(("one", "other"), list(itertools.combinations(SEEN, 2)))
def test_two_items_or_looks_can_be_told_apart(one: tuple[str, int], other: tuple[str, int]) -> None:
    for scene in some_figures(6):
        assert changed(scene.counterpart(*one), scene.counterpart(*other)).sum() >= 50


@pytest.mark.parametrize(("item", "look"), SEEN)
def test_items_lie_inside_the_picture(item: str, look: int) -> None:
    for scene in some_figures(40):
        mask = shown(scene, item, look, threshold=8)
        assert mask.sum() == mask[1:-1, 1:-1].sum()


@pytest.mark.parametrize("look", range(3))
def test_the_sword_is_a_third_of_the_picture_high(look: int) -> None:
    for scene in some_figures(60):
        rows = np.flatnonzero(shown(scene, "sword", look, threshold=8).any(axis=1))
        assert rows[-1] - rows[0] + 1 >= SIZE / 3


@pytest.mark.parametrize("item", ["wand", "torch", "umbrella", "oar", "broom"])
def test_look_alikes_are_as_long_as_a_sword(item: str) -> None:
    def length(what: str) -> int:
        rows = np.flatnonzero(shown(Scene("knight", "red", "none", "night"), what, threshold=8).any(axis=1))
        return int(rows[-1] - rows[0] + 1)

    assert abs(length(item) - length("sword")) <= 7


@pytest.mark.parametrize(("look", "least", "most"), [(0, 3, 6), (2, 2, 3)], ids=["straight", "thin"])
def test_the_width_of_a_blade_at_the_smallest_scale(look: int, least: int, most: int) -> None:
    # Upright, so that a row crosses the blade squarely; above the guard (4.2 over the hand) and below the point.
    scene = Scene("farmer", "red", "sword", "night", scale=0.92)
    hand_y = scene.y - 19 * scene.scale
    mask = shown(scene, "sword", look, threshold=8)
    widths = mask.sum(axis=1)[round(hand_y - 22 * 0.92) : round(hand_y - 6 * 0.92)]
    assert len(widths) >= 14
    assert least <= widths.min() <= widths.max() <= most


@pytest.mark.parametrize("look", range(3))
def test_a_sword_in_a_stone_is_visible_above_it(look: int) -> None:
    rng = random.Random(look)
    for _ in range(25):
        scene = dataclasses.replace(random_scene(rng, subjects=["stone"]), item="sword", look=look)
        mask = changed(dataclasses.replace(scene, item="none"), scene)
        assert mask.sum() >= 80
        top = int(scene.y - 14 * scene.scale)  # of the stone
        assert mask[:top].sum() >= 45


@pytest.mark.parametrize("look", range(3))
def test_a_sword_on_a_castles_wall_is_visible_on_its_plate(look: int) -> None:
    plate = np.array((228, 222, 208))
    rng = random.Random(look)
    for _ in range(25):
        scene = dataclasses.replace(random_scene(rng, subjects=["castle"]), item="sword", look=look)
        differs = changed(dataclasses.replace(scene, item="none"), scene)
        sword = differs & (np.abs(picture(scene) - plate).max(axis=2) > VISIBLE)
        assert sword.sum() >= 30
        assert np.flatnonzero(sword.any(axis=0)).size >= 20  # it lies across the gate


@pytest.mark.parametrize("subject", MOUNTS)
def test_the_looks_of_a_mounted_sword_can_be_told_apart(subject: str) -> None:
    rng = random.Random(subject)
    for _ in range(10):
        scene = dataclasses.replace(random_scene(rng, subjects=[subject]), item="sword")
        for one, other in itertools.combinations(range(3), 2):
            mask = changed(dataclasses.replace(scene, look=one), dataclasses.replace(scene, look=other))
            assert mask.sum() >= 25


@pytest.mark.parametrize(("item", "look"), SEEN)
def test_both_figures_items_are_visible_and_keep_to_their_sides(item: str, look: int) -> None:
    for scene in empty_pairs(25):
        left, right = shown(scene, item, look), changed(scene, right_holds(scene, item, look))
        for mask in (left, right):
            assert mask.sum() >= 20
        middle = round(scene.x + 12)
        assert not left[:, middle:].any()
        assert not right[:, :middle].any()


@pytest.mark.parametrize("look", range(3))
def test_the_swords_of_two_figures_are_visible_beside_each_other(look: int) -> None:
    for scene in empty_pairs(25):
        right = right_holds(scene, "sword", look)
        both = right.counterpart("sword", look)
        assert changed(right, both).sum() >= 25
        assert changed(scene.counterpart("sword", look), both).sum() >= 25
