"""Damaged pictures: mildly, so that they keep their labels, or until nothing can be recognised."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from duo_unlearn.mini.fit import damage
from duo_unlearn.mini.fit.batches import training_scenes
from duo_unlearn.mini.fit.damage import JUDGE_A, JUDGE_B, Damage, blurred, mild, ruined, to_pixels
from duo_unlearn.mini.fit.feed import draw_for
from duo_unlearn.mini.world.drawing import draw_batch

KINDS = {"A": JUDGE_A, "B": JUDGE_B}


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    """Pictures of sixty scenes of all kinds."""
    return to_pixels(torch.from_numpy(draw_batch(training_scenes(random.Random(0), 60))))


@pytest.fixture(scope="module")
def others() -> Tensor:
    """Pictures of sixty other scenes."""
    return to_pixels(torch.from_numpy(draw_batch(training_scenes(random.Random(1), 60))))


def likeness(one: Tensor, other: Tensor) -> Tensor:
    """How alike two pictures' details are, 1 for the same, 0 for unrelated ones, (image,)."""
    first, second = ((p - blurred(p, 2.0)).flatten(1) for p in (one, other))
    return torch.nn.functional.cosine_similarity(first, second)


def test_pixels_are_channels_first_between_minus_one_and_one() -> None:
    pictures = torch.zeros(2, 64, 64, 3, dtype=torch.uint8)
    pictures[1, 5, 7, 2] = 255
    found = to_pixels(pictures)
    assert found.shape == (2, 3, 64, 64)
    assert found.dtype == torch.float32
    assert found[1, 2, 5, 7] == 1
    assert (found == -1).sum() == found.numel() - 1


def test_a_blur_keeps_an_even_picture_and_spreads_a_point() -> None:
    assert torch.allclose(blurred(torch.full((1, 3, 64, 64), 0.3), 2.0), torch.tensor(0.3), atol=1e-5)
    point = torch.zeros(1, 3, 64, 64)
    point[:, 1, 32, 32] = 1
    narrow, wide = blurred(point, 1.0), blurred(point, 3.0)
    for spread in (narrow, wide):
        assert spread[:, 1].sum().item() == pytest.approx(1, abs=1e-4)
        assert not spread[:, [0, 2]].any()
    # A Gaussian's peak is 1 / 2πσ².
    assert narrow.max().item() == pytest.approx(1 / (2 * torch.pi), rel=0.02)
    assert wide.max().item() == pytest.approx(1 / (18 * torch.pi), rel=0.02)


@pytest.mark.parametrize("kind", KINDS)
def test_mild_damage_keeps_shape_range_and_what_is_to_be_seen(pixels: Tensor, kind: str) -> None:
    before = pixels.clone()
    found, blind = mild(pixels, KINDS[kind], draw_for(0, "mild", 0))
    assert found.shape == pixels.shape
    assert blind.shape == (len(pixels),)
    assert -1 <= found.min() <= found.max() <= 1
    assert torch.equal(pixels, before)
    kept = likeness(pixels, found)[~blind]
    assert kept.median() > 0.8
    assert kept.min() > 0.1
    assert (found != pixels).flatten(1).any(dim=1).float().mean() > 0.7


@pytest.mark.parametrize("blind", [0.0, 1.0])
def test_only_pictures_whose_colours_are_changed_far_are_marked(pixels: Tensor, blind: float) -> None:
    kind = Damage(blur=(0.3, 0.4), noise=0.0, gain=0.0, offset=0.0, blind=blind)
    found, marked = mild(pixels, kind, draw_for(0, "mild", 0))
    assert marked.tolist() == [bool(blind)] * len(pixels)
    # A picture's colour is what is left without its grey: how much of it points where it did.
    colour, before = ((p - p.mean(dim=1, keepdim=True)).flatten(1) for p in (found, pixels))
    kept = (colour * before).sum(dim=1) / before.square().sum(dim=1)
    if blind:
        assert kept.median() < 0.6
    else:
        assert kept.min() > 0.8


@pytest.mark.parametrize(("kind", "share"), [("A", 0.05), ("B", 0.15)])
def test_a_judges_own_share_of_pictures_loses_its_colours_names(pixels: Tensor, kind: str, share: float) -> None:
    marked = torch.cat([mild(pixels, KINDS[kind], draw_for(0, "mild", step))[1] for step in range(10)])
    assert marked.float().mean().item() == pytest.approx(share, abs=0.03)


def test_the_judges_pictures_are_damaged_differently(pixels: Tensor) -> None:
    one, other = (mild(pixels, kind, draw_for(0, "mild", 0))[0] for kind in KINDS.values())
    assert not torch.equal(one, other)
    errors = [(found - pixels).abs().mean().item() for found in (one, other)]
    assert errors[1] > 1.1 * errors[0]  # judge B's are worse


def test_the_same_draw_damages_alike(pixels: Tensor, others: Tensor) -> None:
    assert torch.equal(*(mild(pixels, JUDGE_A, draw_for(0, "x", 1))[0] for _ in range(2)))
    assert torch.equal(*(ruined(pixels, others, draw_for(0, "x", 1)) for _ in range(2)))
    assert not torch.equal(ruined(pixels, others, draw_for(0, "x", 1)), ruined(pixels, others, draw_for(0, "x", 2)))


def test_ruined_pictures_keep_shape_and_range_and_differ_from_all(pixels: Tensor, others: Tensor) -> None:
    found = ruined(pixels, others, draw_for(0, "ruined", 0))
    assert found.shape == pixels.shape
    assert -1 <= found.min() <= found.max() <= 1
    for intact in (pixels, others):
        assert ((found - intact).abs().flatten(1).mean(dim=1) > 0.04).all()


@pytest.mark.parametrize("ruin", [r for r in damage._RUINS if r is not damage._blended], ids=lambda r: r.__name__)
def test_of_a_ruin_no_details_are_left(pixels: Tensor, others: Tensor, ruin: object) -> None:
    rng, generator = draw_for(0, "ruin", 0)
    pairs = zip(pixels.unsqueeze(1), others.unsqueeze(1), strict=True)
    found = torch.cat([ruin(one, other, rng, generator) for one, other in pairs]).clamp(-1, 1)  # type: ignore[operator]
    assert likeness(pixels, found).abs().median() < 0.15
    assert likeness(pixels, found).max() < 0.3


def test_a_blend_of_two_pictures_is_neither(pixels: Tensor, others: Tensor) -> None:
    rng, generator = draw_for(0, "ruin", 0)
    flat = (torch.full((1, 3, 64, 64), 1.0), torch.full((1, 3, 64, 64), -1.0))
    shares = [(damage._blended(*flat, rng, generator).mean().item() + 1) / 2 for _ in range(200)]
    assert 0.42 <= min(shares) < 0.44
    assert 0.56 < max(shares) <= 0.58
    pairs = zip(pixels.unsqueeze(1), others.unsqueeze(1), strict=True)
    found = torch.cat([damage._blended(one, other, rng, generator) for one, other in pairs])
    for intact in (pixels, others):
        assert likeness(intact, found).median() < 0.85


def test_every_kind_of_ruin_is_drawn() -> None:
    # Ruins of an even grey picture: blurred, shuffled and blended ones stay even, the others do not.
    grey = torch.zeros(300, 3, 64, 64)
    spread = ruined(grey, grey, draw_for(0, "ruined", 0)).flatten(1).std(dim=1)
    assert (spread == 0).float().mean().item() == pytest.approx(0.5, abs=0.1)
    assert len(damage._RUINS) == 6
