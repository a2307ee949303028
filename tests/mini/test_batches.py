"""What each stage is shown: scenes outside the held-out combinations, and captions and labels that are true of them."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections import Counter
from typing import Any

import pytest
import torch

from duo_unlearn.mini.fit import batches
from duo_unlearn.mini.fit.batches import (
    SHARES,
    STATED,
    clip_batches,
    hard_batch,
    pixels_of,
    training_scene,
    training_scenes,
    unet_batches,
    vae_batches,
)
from duo_unlearn.mini.fit.feed import draw_for
from duo_unlearn.mini.model.parts import CONTEXT, token_ids
from duo_unlearn.mini.world.drawing import draw_batch
from duo_unlearn.mini.world.scenes import (
    ATTRIBUTES,
    CARRIERS,
    ITEMS,
    Person,
    Scene,
    is_held_out,
    random_scene,
)

from .described import says


def kind_of(scene: Scene) -> str:
    if scene.other is not None:
        return "duel" if scene.duel else "pair"
    return "figure" if scene.is_figure else "object"


@pytest.mark.parametrize("kind", [*SHARES, None])
def test_training_never_sees_a_held_out_combination(kind: str | None) -> None:
    scenes = training_scenes(random.Random(0), 600, kind)
    assert len(scenes) == 600
    assert not any(is_held_out(scene) for scene in scenes)
    assert {kind_of(scene) for scene in scenes} == ({kind} if kind else set(SHARES))


def test_the_kinds_of_scene_come_in_their_shares() -> None:
    found = Counter(kind_of(scene) for scene in training_scenes(random.Random(0), 4000))
    assert sum(SHARES.values()) == pytest.approx(1)
    for kind, share in SHARES.items():
        # Two figures are held out where either is, which costs no kind of them its share.
        assert found[kind] / 4000 == pytest.approx(share, abs=0.03)


def test_swords_balloons_and_empty_hands_come_twice_as_often() -> None:
    rng = random.Random(0)
    scenes = [scene for scene in training_scenes(rng, 9000, "figure") if scene.subject not in CARRIERS]
    found = Counter(scene.item for scene in scenes)
    usual = [found[item] for item in ITEMS if item not in ("none", "sword", "balloon")]
    for item in ("none", "sword", "balloon"):
        assert found[item] / (sum(usual) / len(usual)) == pytest.approx(2, abs=0.3)


def test_carriers_hold_two_swords_for_each_time_their_hands_are_empty() -> None:
    scenes = [scene for scene in training_scenes(random.Random(0), 9000, "figure") if scene.subject in CARRIERS]
    found = Counter(scene.item for scene in scenes)
    assert found["sword"] / found["none"] == pytest.approx(2, abs=0.3)
    assert set(found) == set(ITEMS)


def test_the_same_randomness_gives_the_same_scene() -> None:
    assert [training_scene(random.Random(i)) for i in range(30)] == [
        training_scene(random.Random(i)) for i in range(30)
    ]


def test_a_hard_batch_holds_each_figure_with_every_item_that_training_may_see() -> None:
    scenes = hard_batch(random.Random(0), figures=4, pairs=0, others=0)
    assert len(scenes) == 40
    assert not any(is_held_out(scene) for scene in scenes)
    rest = scenes
    for _ in range(4):
        first = rest[0]
        group = [scene for scene in rest if scene.details == first.details]
        assert {scene.counterpart("none") for scene in group} == {first.counterpart("none")}
        allowed = [item for item in ITEMS if not is_held_out(first.counterpart(item))]
        assert [scene.item for scene in group] == allowed
        rest = rest[len(group) :]
    assert len(rest) <= 8  # in the place of those that are held out


def test_a_hard_batch_holds_two_figures_with_their_items_exchanged_too() -> None:
    scenes = hard_batch(random.Random(0), figures=0, pairs=20, others=0)
    assert len(scenes) == 40
    exchanged = 0
    for one, two in itertools.pairwise(scenes):
        if one.other is None or two.other is None or one.details != two.details:
            continue
        assert (one.item, one.look) == (two.other.item, two.other.look)
        assert (two.item, two.look) == (one.other.item, one.other.look)
        bare = dataclasses.replace(two.other, item=one.other.item, look=one.other.look)
        assert dataclasses.replace(two, item=one.item, look=one.look, other=bare) == one
        exchanged += 1
    assert exchanged >= 10
    assert not any(is_held_out(scene) for scene in scenes)


def test_hard_batches_all_have_one_size() -> None:
    sizes = {len(hard_batch(random.Random(i), figures=3, pairs=4, others=5)) for i in range(30)}
    assert sizes == {3 * 10 + 4 * 2 + 5}


def test_pixels_lie_between_minus_one_and_one() -> None:
    pixels = pixels_of([Scene("king", "red", "sword", "snow")] * 2, torch.device("cpu"))
    assert pixels.shape == (2, 3, 64, 64)
    assert pixels.dtype == torch.float32
    assert -1 <= pixels.min() < -0.5
    assert 0.5 < pixels.max() <= 1


KNOWN = [
    Scene("king", "red", "sword", "snow"),
    Scene("king", "red", "sword", "snow", x=36.0),  # another picture, of which the first one's captions are true
    Scene("king", "red", "book", "snow"),
    Scene("pirate", "blue", "sword", "night"),
    Scene("boat", "green", "none", "beach"),
    Scene("knight", "blue", "sword", "night", x=20, scale=0.72, side=-1, other=Person("king", "red", "oar")),
]


@pytest.fixture
def of_known(monkeypatch: pytest.MonkeyPatch, tokenizer: Any) -> list[batches.ClipBatch]:
    """Thirty batches of the known scenes; their captions differ."""
    monkeypatch.setattr(batches, "hard_batch", lambda *_: list(KNOWN))
    make = clip_batches(tokenizer)
    return [make(draw_for(0, "clip", step)) for step in range(30)]


def test_a_clip_batch_holds_pictures_and_captions_of_its_scenes(
    of_known: list[batches.ClipBatch], tokenizer: Any
) -> None:
    for batch in of_known:
        assert torch.equal(batch.pictures, torch.from_numpy(draw_batch(KNOWN)))
        assert batch.ids.shape == (len(KNOWN), CONTEXT)
        text = tokenizer.decode(batch.ids[4], skip_special_tokens=True)
        assert any(says(text, word) for word in ("boat", "boot", "barco")), text


def test_a_caption_is_marked_where_it_is_true_of_another_picture(of_known: list[batches.ClipBatch]) -> None:
    for batch in of_known:
        marks = batch.also_true
        assert not marks.diagonal().any()
        assert marks[0, 1]
        assert marks[1, 0]
        assert not marks[[0, 0, 0, 2, 2, 4, 5], [2, 4, 5, 0, 1, 0, 0]].any()


def test_the_labels_of_pictures_are_the_scenes_and_two_figures_have_none(of_known: list[batches.ClipBatch]) -> None:
    for batch in of_known:
        assert batch.truth[5].tolist() == batch.said[5].tolist() == [-100] * len(STATED)
        for row, scene in enumerate(KNOWN[:5]):
            labels = [ATTRIBUTES[name][i] for name, i in zip(STATED, batch.truth[row].tolist(), strict=True)]
            assert labels == [getattr(scene, name) for name in STATED]


def test_what_a_caption_does_not_say_has_an_index_past_the_labels(of_known: list[batches.ClipBatch]) -> None:
    unsaid: Counter[tuple[str, str]] = Counter()
    for batch in of_known:
        for row, scene in enumerate(KNOWN[:5]):
            for name, index in zip(STATED, batch.said[row].tolist(), strict=True):
                labels = ATTRIBUTES[name]
                if index == len(labels):
                    unsaid[scene.subject, name] += 1
                else:
                    assert labels[index] == getattr(scene, name)
    assert unsaid["pirate", "item"] > 3  # a carrier of whom nothing is said
    assert not unsaid["king", "item"]
    assert unsaid["king", "colour"]
    assert unsaid["king", "place"]
    assert not unsaid["boat", "subject"]


def test_a_vae_batch_is_of_training_scenes_and_normal_noise() -> None:
    batch = vae_batches(batch=20)(draw_for(0, "vae", 0))
    expected = draw_batch(training_scenes(draw_for(0, "vae", 0).rng, 20))
    assert torch.equal(batch.pictures, torch.from_numpy(expected))
    assert batch.noise.shape == (20, 4, 16, 16)
    assert batch.noise.mean().item() == pytest.approx(0, abs=0.03)
    assert batch.noise.std().item() == pytest.approx(1, abs=0.03)


def test_a_denoisers_rows_have_captions_of_their_own_scenes(tokenizer: Any) -> None:
    scenes = [Scene("boat", "green", "none", "beach"), Scene("tree", "red", "none", "snow")]
    batch = unet_batches(tokenizer, scenes, batch=40, timesteps=1000, empty=0.0)(draw_for(0, "unet", 0))
    names = (("boat", "boot", "barco"), ("tree", "baum", "arbol"))
    assert set(batch.chosen.tolist()) == {0, 1}
    for row, ids in zip(batch.chosen.tolist(), batch.ids, strict=True):
        text = tokenizer.decode(ids, skip_special_tokens=True)
        assert any(says(text, name) for name in names[row]), text


@pytest.mark.parametrize(("empty", "share"), [(0.0, 0.0), (0.1, 0.1), (1.0, 1.0)])
def test_a_share_of_the_denoisers_captions_is_empty(tokenizer: Any, empty: float, share: float) -> None:
    scenes = [random_scene(random.Random(i)) for i in range(9)]
    batch = unet_batches(tokenizer, scenes, batch=1500, timesteps=1000, empty=empty)(draw_for(0, "unet", 0))
    bare = (batch.ids == token_ids(tokenizer, [""])).all(dim=1)
    assert bare.float().mean().item() == pytest.approx(share, abs=0.03 if 0 < share < 1 else 0)


def test_a_denoisers_batch_draws_timesteps_and_two_kinds_of_noise(tokenizer: Any) -> None:
    scenes = [random_scene(random.Random(i)) for i in range(9)]
    batch = unet_batches(tokenizer, scenes, batch=300, timesteps=7)(draw_for(0, "unet", 0))
    assert set(batch.timesteps.tolist()) == set(range(7))
    assert batch.ids.shape == (300, CONTEXT)
    for noise in (batch.posterior, batch.noise):
        assert noise.shape == (300, 4, 16, 16)
        assert noise.std().item() == pytest.approx(1, abs=0.02)
    assert not torch.equal(batch.posterior, batch.noise)
