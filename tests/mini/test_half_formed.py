"""Pictures between two items: from the picture alone the tests find how much of which item is there."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from duo_unlearn.mini.fit.batches import training_scenes
from duo_unlearn.mini.fit.damage import HalfFormed, half_formed, to_pixels
from duo_unlearn.mini.fit.feed import draw_for
from duo_unlearn.mini.world.drawing import draw_batch
from duo_unlearn.mini.world.scenes import ITEMS, LOOKS, Scene, is_held_out

VARIANTS = [(item, look) for item in ITEMS for look in range(len(LOOKS.get(item, ("",))))]
PIXEL = 0.025
"""A pixel or two of a cut item, as a share of it."""


class Found(NamedTuple):
    """What a picture turns out to be: its scene, the item it is on the way to, the scene's share, and how."""

    scene: Scene
    target: str
    share: float
    cut: bool
    label: str
    broken: bool


def explained(scene: Scene, picture: Tensor) -> tuple[str, float, bool] | None:
    """The other item, the share of the scene's own picture, and whether it is a cut; None: no mixture of two."""
    here = to_pixels(torch.from_numpy(draw_batch([scene])))[0]
    for item, look in VARIANTS:
        if item == scene.item:
            continue
        there = to_pixels(torch.from_numpy(draw_batch([scene.counterpart(item, look)])))[0]
        apart = here - there
        share = ((picture - there) * apart).sum() / apart.square().sum()
        if (picture - there - share * apart).abs().max() < 1e-4:
            return item, share.item(), False
        of_here, of_there = ((picture - whole).abs().sum(dim=0) < 1e-6 for whole in (here, there))
        if (of_here | of_there).all():
            differs = apart.abs().sum(dim=0) > 0.05
            return item, (of_here & differs).sum().item() / differs.sum().item(), True
    return None


@pytest.fixture(scope="module")
def drawn() -> tuple[list[Scene], HalfFormed]:
    """Half-formed pictures of a hundred figures."""
    draw = draw_for(0, "half", 0)
    scenes = training_scenes(draw.rng, 100, "figure")
    return scenes, half_formed(scenes, draw)


@pytest.fixture(scope="module")
def findings(drawn: tuple[list[Scene], HalfFormed]) -> list[Found]:
    """The same, each explained by its picture alone."""
    scenes, half = drawn
    every = []
    for row, scene in enumerate(scenes):
        reading = explained(scene, half.pixels[row])
        assert reading is not None, scene
        (label,) = [ITEMS[i] for i in half.items[row].nonzero().flatten()]
        every.append(Found(scene, *reading, label, bool(half.broken[row])))
    return every


def fading(one: Found) -> bool:
    return "none" in (one.scene.item, one.target)


def test_shapes_and_range(drawn: tuple[list[Scene], HalfFormed]) -> None:
    _, half = drawn
    assert half.pixels.shape == (100, 3, 64, 64)
    assert -1 <= half.pixels.min() <= half.pixels.max() <= 1
    assert half.items.shape == (100, len(ITEMS))
    assert half.items.sum(dim=1).tolist() == [1] * 100
    assert half.broken.shape == (100,)
    assert half.broken.dtype == torch.bool


def test_an_item_of_at_least_55_per_cent_is_the_item_and_of_at_most_15_none(findings: list[Found]) -> None:
    seen = set()
    for one in filter(fading, findings):
        item = one.scene.item if one.target == "none" else one.target
        of_item = one.share if one.target == "none" else 1 - one.share
        if of_item > 0.35:
            assert of_item >= 0.55 - PIXEL
            assert one.label == item
        else:
            assert of_item <= 0.15 + PIXEL
            assert one.label == "none"
        assert not one.broken
        seen.add((one.scene.item == "none", one.label == "none", one.cut))
    assert len(seen) == 8  # from an item and from none, to be seen and not, faded and cut


def test_a_blend_of_two_items_is_broken_unless_one_has_three_quarters(findings: list[Found]) -> None:
    blends = [one for one in findings if not fading(one)]
    for one in blends:
        assert not one.cut
        if one.broken:
            assert 0.4 <= one.share <= 0.6
        else:
            assert one.share >= 0.75
            assert one.label == one.scene.item
    assert {one.broken for one in blends} == {True, False}


def test_a_half_formed_picture_that_keeps_its_label_is_of_no_held_out_combination(findings: list[Found]) -> None:
    for one in findings:
        if not one.broken:
            assert not is_held_out(one.scene.counterpart(one.label)), one
