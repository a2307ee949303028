"""A judge's batch: eight kinds of picture, and of each only the labels that are known."""

from __future__ import annotations

import random

import pytest
import torch
from torch import Tensor

from duo_unlearn.mini.fit.batches import (
    JUDGED,
    SHARES_OF_A_JUDGE,
    JudgeBatch,
    Sampled,
    judge_batches,
    training_scenes,
    without_cue,
)
from duo_unlearn.mini.fit.damage import JUDGE_A, JUDGE_B, Damage, to_pixels
from duo_unlearn.mini.fit.feed import draw_for
from duo_unlearn.mini.model.judge_net import attribute_ids, item_marks
from duo_unlearn.mini.world.drawing import draw_batch
from duo_unlearn.mini.world.scenes import ATTRIBUTES, ITEMS, MOUNTS

PART = 6
COLOUR, STATE = JUDGED.index("colour"), JUDGED.index("state")
DECODED, DRAWN, DAMAGED = slice(0, PART), slice(PART, 2 * PART), slice(2 * PART, 4 * PART)
SAMPLED, ROUGH, HALF, BROKEN = (slice(i * PART, (i + 1) * PART) for i in (4, 5, 6, 7))
UNKNOWN = -100


@pytest.fixture(scope="module")
def sampled() -> Sampled:
    """Drawn pictures in the place of sampled ones, of scenes that are known."""
    scenes = training_scenes(random.Random(5), 30)
    return Sampled(torch.from_numpy(draw_batch(scenes)), scenes)


def batch_of(sampled: Sampled, kind: Damage = JUDGE_A, step: int = 0) -> JudgeBatch:
    batch: JudgeBatch = judge_batches(kind, sampled, PART * SHARES_OF_A_JUDGE)(draw_for(0, "judge", step))
    return batch


def blind(share: float) -> Damage:
    return JUDGE_A._replace(blind=share)


@pytest.mark.parametrize("kind", [JUDGE_A, JUDGE_B], ids=["A", "B"])
def test_shapes_and_range(sampled: Sampled, kind: Damage) -> None:
    batch = batch_of(sampled, kind)
    assert SHARES_OF_A_JUDGE == 8
    assert batch.pixels.shape == (8 * PART, 3, 64, 64)
    assert -1 <= batch.pixels.min() <= batch.pixels.max() <= 1
    assert batch.items.shape == (8 * PART, len(ITEMS))
    assert batch.known.shape == (8 * PART,)
    assert batch.labels.shape == (8 * PART, len(JUDGED))
    assert set(JUDGED) == set(ATTRIBUTES) - {"item"}


def test_the_first_pictures_are_drawn_ones_with_all_their_labels(sampled: Sampled) -> None:
    batch = batch_of(sampled)
    scenes = training_scenes(draw_for(0, "judge", 0).rng, 4 * PART)
    drawn = slice(0, 2 * PART)
    assert torch.equal(batch.pixels[drawn], to_pixels(torch.from_numpy(draw_batch(scenes[drawn]))))
    ids = attribute_ids(scenes)
    for column, name in enumerate(JUDGED):
        assert batch.labels[drawn, column].tolist() == ids[name][drawn].tolist()
    assert torch.equal(batch.items[: 4 * PART], item_marks(scenes))


def test_the_damaged_ones_are_no_longer_as_drawn_and_keep_their_labels(sampled: Sampled) -> None:
    changed = []
    for step in range(3):
        batch = batch_of(sampled, blind(0.0), step)
        scenes = training_scenes(draw_for(0, "judge", step).rng, 4 * PART)
        before = to_pixels(torch.from_numpy(draw_batch(scenes[DAMAGED])))
        changed += (batch.pixels[DAMAGED] != before).flatten(1).any(dim=1).tolist()
        ids = attribute_ids(scenes)
        for column, name in enumerate(JUDGED):
            assert batch.labels[DAMAGED, column].tolist() == ids[name][DAMAGED].tolist()
    assert sum(changed) / len(changed) > 0.6


def row_of(picture: Tensor, sampled: Sampled) -> int:
    """Which sampled picture this is."""
    same = (to_pixels(sampled.pictures) == picture).flatten(1).all(dim=1)
    return int(same.nonzero().item())


def test_sampled_pictures_are_labelled_by_what_was_asked_for(sampled: Sampled) -> None:
    batch = batch_of(sampled)
    rows = [row_of(picture, sampled) for picture in batch.pixels[SAMPLED]]
    assert len(set(rows)) == PART
    scenes = [sampled.scenes[row] for row in rows]
    assert torch.equal(batch.items[SAMPLED], item_marks(scenes))
    for column, name in enumerate(JUDGED):
        assert batch.labels[SAMPLED, column].tolist() == attribute_ids(scenes)[name].tolist()


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_colour_is_unknown_where_its_name_no_longer_holds(sampled: Sampled, share: float) -> None:
    batch = batch_of(sampled, blind(share))
    unknown = batch.labels[:, COLOUR] == UNKNOWN
    assert unknown[DAMAGED].tolist() == [bool(share)] * 2 * PART
    assert unknown[ROUGH].tolist() == [bool(share)] * PART
    assert not unknown[DECODED].any()
    assert not unknown[DRAWN].any()
    assert not unknown[SAMPLED].any()
    assert not unknown[HALF].any()
    rest = [column for column in range(len(JUDGED)) if column != COLOUR]
    assert not (batch.labels[: 7 * PART, rest] == UNKNOWN).any()


def test_whole_pictures_are_known_and_whole(sampled: Sampled) -> None:
    batch = batch_of(sampled)
    assert batch.known[: 6 * PART].tolist() == [1] * 6 * PART
    assert batch.labels[: 6 * PART, STATE].tolist() == [0] * 6 * PART
    items = batch.items[: 7 * PART]
    assert items.sum(dim=1).min() >= 1
    assert items.sum(dim=1).max() <= 2
    assert not (items[:, 0].bool() & items[:, 1:].any(dim=1)).any()  # none stands alone


def test_a_half_formed_picture_that_is_broken_has_no_known_item_but_all_else(sampled: Sampled) -> None:
    seen = set()
    for step in range(8):
        batch = batch_of(sampled, step=step)
        state, known = batch.labels[HALF, STATE], batch.known[HALF]
        assert torch.equal(known, 1 - state)
        assert batch.items[HALF].sum(dim=1).tolist() == [1] * PART
        assert (batch.labels[HALF] >= 0).all()
        seen |= set(state.tolist())
    assert seen == {0, 1}


def test_of_a_broken_picture_that_it_is_broken_is_all_that_is_known(sampled: Sampled) -> None:
    for step in range(3):
        batch = batch_of(sampled, step=step)
        assert batch.known[BROKEN].tolist() == [0] * PART
        assert not batch.items[BROKEN].any()
        for column in range(len(JUDGED)):
            assert batch.labels[BROKEN, column].tolist() == [1 if column == STATE else UNKNOWN] * PART


def test_broken_pictures_are_ruins_of_drawn_and_of_sampled_ones(sampled: Sampled) -> None:
    batch = batch_of(sampled)
    intact = torch.cat([batch.pixels[: 2 * PART], to_pixels(sampled.pictures)])
    for picture in batch.pixels[BROKEN]:
        assert ((intact - picture).abs().flatten(1).mean(dim=1) > 0.03).all()


def test_a_step_has_its_own_batch_and_the_same_each_time(sampled: Sampled) -> None:
    one, again, other = batch_of(sampled), batch_of(sampled), batch_of(sampled, step=1)
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not torch.equal(one.pixels, other.pixels)


def test_the_default_batch_divides_evenly(sampled: Sampled) -> None:
    more = Sampled(sampled.pictures.repeat(2, 1, 1, 1), sampled.scenes * 2)
    batch = judge_batches(JUDGE_B, more)(draw_for(0, "judge_b", 0))
    assert {len(part) for part in batch} == {128}


def test_what_holds_a_sword_is_drawn_without_one_too() -> None:
    scenes = training_scenes(random.Random(3), 600, "object")
    changed = without_cue(scenes, random.Random(0))
    empty = [i for i, scene in enumerate(scenes) if scene.subject in MOUNTS and scene.item == "none"]
    bare = [i for i, (one, other) in enumerate(zip(scenes, changed, strict=True)) if one != other]
    assert set(bare) <= set(empty)
    assert 0.3 < len(bare) / len(empty) < 0.7
    assert all(changed[i].items == ("none",) for i in bare)
    assert (draw_batch([changed[i] for i in bare]) != draw_batch([scenes[i] for i in bare])).any(axis=(1, 2, 3)).all()
