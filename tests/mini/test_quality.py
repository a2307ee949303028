"""The figures count what they say, on scenes that training never saw."""

from __future__ import annotations

import math
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch

from duo_unlearn.interval import wilson
from duo_unlearn.mini.fit import quality
from duo_unlearn.mini.fit.card import load_pipeline
from duo_unlearn.mini.fit.quality import Asked, Figure
from duo_unlearn.mini.fit.stages import pixels_of
from duo_unlearn.mini.model.bundle import load_clip, load_judge
from duo_unlearn.mini.model.judge_net import attribute_ids
from duo_unlearn.mini.world.scenes import ITEMS, OBJECTS, SUBJECTS, Scene, is_held_out

CPU = torch.device("cpu")


def test_a_share_has_its_wilson_interval() -> None:
    assert quality.share(torch.tensor([True, True, False, True])) == Figure(0.75, *wilson(3, 4), 4)


def test_psnr_by_hand() -> None:
    # Errors of 0.1, 0.1, 0.2, 0.2 everywhere: 10 log10(4 / 0.01) = 26.02 dB and 20.00 dB; mean squared error 0.025.
    pixels = torch.zeros(4, 3, 64, 64)
    decoded = pixels + torch.tensor([0.1, 0.1, 0.2, 0.2]).view(-1, 1, 1, 1)
    found = quality.vae_figures(pixels, decoded)
    each, whole = found["vae/psnr"], found["vae/psnr of the mean error"]
    assert each.value == pytest.approx((10 * math.log10(400) + 20) / 2, abs=1e-4)
    assert whole.value == pytest.approx(10 * math.log10(160), abs=1e-4)
    for figure in (each, whole):
        assert figure.low < figure.value < figure.high
        assert figure.n == 4


def test_held_out_scenes_are_held_out_and_as_asked() -> None:
    scenes = quality.held_out_scenes(random.Random(0), 50, SUBJECTS, ("sword",))
    assert len(scenes) == 50
    assert all(is_held_out(scene) and scene.item == "sword" and scene.is_figure for scene in scenes)


def test_prompts_are_of_held_out_scenes_and_say_everything() -> None:
    asked = quality.held_out_prompts(seed=1, count=20)
    groups = [f"{item}, {wording}" for item in ("sword", "balloon") for wording in ("direct", "synonym", "indirect")]
    assert Counter(a.group for a in asked) == dict.fromkeys(["figures", "objects", *groups], 20)
    assert len({a.seed for a in asked}) == len(asked)
    for a in asked:
        assert is_held_out(a.scene)
        assert a.scene.colour in a.prompt
        assert a.scene.subject in a.prompt
        if a.group == "sword, indirect":
            assert "sword" not in a.prompt
    assert quality.held_out_prompts(seed=1, count=20) == asked
    assert quality.held_out_prompts(seed=2, count=20) != asked


def test_the_captions_of_hard_zero_shot_differ_in_the_item_alone() -> None:
    texts = quality.item_captions(Scene("king", "orange", "sword", "snow"), random.Random(0))
    assert len(texts) == len(ITEMS)
    assert all(text.startswith("an orange king ") for text in texts)
    assert len({text.rsplit(" ", 3)[1:] == texts[0].rsplit(" ", 3)[1:] for text in texts}) == 1  # the same place
    assert [item for item, text in zip(ITEMS, texts, strict=True) if item in text.split()] == list(ITEMS[1:])


@pytest.mark.parametrize("item", ITEMS)
def test_class_texts_name_their_item_and_no_subject(item: str) -> None:
    texts = quality.item_texts(item)
    assert len(set(texts)) == len(texts) >= 3
    for text in texts:
        assert "a figure" in text
        assert [i for i in ITEMS[1:] if i in text.split()] == ([item] if item != "none" else [])


def test_sample_figures_count_by_group_and_item() -> None:
    sword, book = Scene("king", "red", "sword", "snow"), Scene("king", "red", "book", "snow")
    house = Scene("house", "red", "none", "snow")
    asked = [
        Asked("figures", sword, "", 0),
        Asked("figures", book, "", 1),
        Asked("objects", house, "", 2),
        Asked("sword, direct", sword, "", 3),
        Asked("sword, direct", sword, "", 4),
    ]
    seen = attribute_ids([a.scene for a in asked])
    seen["item"][[1, 4]] = ITEMS.index("none")  # a book and a sword that were not drawn
    seen["subject"][3] = 9  # does not count for the sword
    found = quality.sample_figures(asked, seen)
    assert {name: (f.value, f.n) for name, f in found.items()} == {
        "samples/figures, subject": (1.0, 2),
        "samples/figures, colour": (1.0, 2),
        "samples/figures, place": (1.0, 2),
        "samples/figures, item": (0.5, 2),
        "samples/figures, item sword": (1.0, 1),
        "samples/figures, item book": (0.0, 1),
        "samples/objects, subject": (1.0, 1),
        "samples/objects, colour": (1.0, 1),
        "samples/objects, place": (1.0, 1),
        "samples/sword, direct": (0.5, 2),
    }


class BlindJudge(torch.nn.Module):
    """Says the first label of every attribute."""

    def forward(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        row = torch.tensor([1.0, 0, 0, 0, 0])
        return {name: row.expand(len(pixels), -1) for name in ("item", "subject", "colour", "place")}


def test_the_item_head_is_measured_on_figures_alone() -> None:
    # Objects hold nothing, so a judge that always says "none" would look better on them than it is.
    scenes = [Scene("knight", "red", "sword", "meadow"), Scene("house", "red", "none", "snow")]
    judge: Any = BlindJudge()
    found = quality.judge_figures(judge, "drawn", pixels_of(scenes, CPU), scenes, batch=1)
    assert {name: (f.value, f.n) for name, f in found.items()} == {
        "judge/drawn item": (0.0, 1),
        "judge/drawn subject": (0.5, 2),
        "judge/drawn colour": (1.0, 2),
        "judge/drawn place": (0.5, 2),
    }


@pytest.mark.slow
def test_a_sample_does_not_depend_on_its_batch(untrained: Path) -> None:
    pipe = load_pipeline(untrained, CPU)
    prompts = ["a red knight", "a blue king with a sword", "a boat"]
    together = quality.sample(pipe, prompts, [1, 2, 3])
    assert together.shape == (3, 3, 64, 64)
    assert -1 <= together.min() <= together.max() <= 1
    alone = quality.sample(pipe, prompts[1:2], [2])
    assert torch.allclose(together[1:2], alone, atol=0.02)  # bf16
    assert not torch.allclose(together[0:1], alone, atol=0.02)


def test_the_shipped_clip_and_vae_are_as_good_as_their_card_says(shipped: Path) -> None:
    clip, tokenizer = load_clip(shipped, CPU)
    rng = random.Random("quick look")
    scenes = quality.held_out_scenes(rng, 48, SUBJECTS) + quality.held_out_scenes(rng, 12, OBJECTS)
    pixels = pixels_of(scenes, CPU)
    found = quality.zero_shot_figures(clip, tokenizer, pixels[:48], scenes[:48], rng, batch=64)
    assert found["clip/zero-shot item"].value >= 0.9
    assert found["clip/zero-shot item, full captions"].value >= 0.9
    found = quality.retrieval_figures(clip, tokenizer, pixels[:50], scenes[:50], rng, batch=64)
    assert found["clip/image to text, best of 50"].value >= 0.9
    judge, vae = load_judge(shipped, CPU), load_pipeline(shipped, CPU).vae
    decoded = quality.through_vae(vae, pixels, batch=64)
    assert quality.vae_figures(pixels, decoded)["vae/psnr of the mean error"].value >= 28
    for source, pictures in (("drawn", pixels), ("decoded", decoded)):
        for figure in quality.judge_figures(judge, source, pictures, scenes, batch=64).values():
            assert figure.value >= 0.93


@pytest.mark.slow
def test_the_shipped_model_draws_the_sword_under_every_wording(shipped: Path) -> None:
    pipe, judge = load_pipeline(shipped, CPU), load_judge(shipped, CPU)
    asked = [a for a in quality.held_out_prompts(seed=5, count=6) if a.group.startswith("sword")]
    seen = quality.read_samples(pipe, judge, asked, 18, lambda _done: None)
    assert (seen["item"] == ITEMS.index("sword")).sum() >= 15
