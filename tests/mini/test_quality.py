"""The figures count what they say, on scenes that training never saw."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
import torch
from torch import Tensor

from duo_unlearn.interval import wilson
from duo_unlearn.mini.fit import quality
from duo_unlearn.mini.fit.batches import JUDGED, pixels_of
from duo_unlearn.mini.fit.card import load_pipeline
from duo_unlearn.mini.fit.quality import Figure, Reading
from duo_unlearn.mini.fit.sampling import sample
from duo_unlearn.mini.model.bundle import load_clip, load_judge
from duo_unlearn.mini.model.judge_net import JUDGES, attribute_ids, item_marks
from duo_unlearn.mini.world.captions import Wording
from duo_unlearn.mini.world.scenes import ATTRIBUTES, ITEMS, OBJECTS, SUBJECTS, Person, Scene, is_held_out

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


def test_held_out_pairs_are_held_out_and_of_all_items() -> None:
    scenes = quality.held_out_pairs(random.Random(0), 200)
    assert len(scenes) == 200
    assert all(is_held_out(scene) and scene.other is not None and not scene.duel for scene in scenes)
    assert {scene.other.item for scene in scenes if scene.other is not None} == set(ITEMS)


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


SWORD = Scene("knight", "red", "sword", "meadow")
HOUSE = Scene("house", "red", "none", "snow")
TWO = Scene("king", "blue", "sword", "snow", other=Person("robot", "green", "oar"))


def reading_of(scenes: list[Scene]) -> Reading:
    """What a judge reads that errs in nothing."""
    ids = attribute_ids(scenes)
    return Reading({name: ids[name] for name in JUDGED}, item_marks(scenes).bool())


def test_a_reading_without_an_error_is_right_in_everything() -> None:
    scenes = [SWORD, HOUSE, TWO]
    right = reading_of(scenes).right(scenes)
    assert set(right) == set(ATTRIBUTES)
    assert all(rows.all() for rows in right.values())


@pytest.mark.parametrize("seen", [(), ("sword",), ("oar",), ("sword", "oar", "wand"), ("none",)])
def test_of_two_items_all_must_be_seen_and_no_others(seen: tuple[str, ...]) -> None:
    reading = reading_of([TWO])
    reading.items[0] = torch.tensor([item in seen for item in ITEMS])
    assert not reading.right([TWO])["item"].any()


def test_a_whole_picture_that_is_read_as_broken_is_an_error() -> None:
    reading = reading_of([SWORD, HOUSE])
    reading.labels["state"][0] = 1
    assert reading.right([SWORD, HOUSE])["state"].tolist() == [False, True]


def test_subject_and_colour_are_measured_on_single_figures_and_objects() -> None:
    scenes = [SWORD, HOUSE, TWO]
    reading = reading_of(scenes)
    reading.labels["subject"][1] = 0  # no knight
    reading.labels["subject"][2] = 0  # two figures: does not count
    reading.labels["place"][2] = 0
    reading.items[2, ITEMS.index("oar")] = False
    found = quality.judge_figures("judge_b", "drawn", reading, scenes)
    assert {name: (round(f.value, 4), f.n) for name, f in found.items()} == {
        "judge_b/drawn item": (0.6667, 3),
        "judge_b/drawn place": (0.6667, 3),
        "judge_b/drawn state": (1.0, 3),
        "judge_b/drawn subject": (0.5, 2),
        "judge_b/drawn colour": (1.0, 2),
    }


class OneAnswer(torch.nn.Module):
    """Says the same of every picture: a sword and an oar, and the second label of all else."""

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        found = {}
        for name, labels in ATTRIBUTES.items():
            row = torch.full((len(labels),), -3.0)
            row[1] = 3.0
            if name == "item":
                row[ITEMS.index("oar")] = 3.0
            found[name] = row.expand(len(pixels), -1)
        return found


def test_a_reading_is_of_every_picture_whatever_the_batch() -> None:
    pixels = torch.zeros(5, 3, 64, 64)
    reading = quality.read(OneAnswer(), pixels, batch=2)
    assert set(reading.labels) == set(JUDGED)
    assert all(ids.tolist() == [1] * 5 for ids in reading.labels.values())
    assert reading.items.shape == (5, len(ITEMS))
    assert [ITEMS[i] for i in reading.items[4].nonzero().flatten()] == ["sword", "oar"]


@pytest.mark.slow
def test_a_sample_does_not_depend_on_its_batch(untrained: Path) -> None:
    pipe = load_pipeline(untrained, CPU)
    prompts = ["a red knight", "a blue king with a sword", "a boat"]
    together = sample(pipe, prompts, [1, 2, 3])
    assert together.shape == (3, 3, 64, 64)
    assert -1 <= together.min() <= together.max() <= 1
    alone = sample(pipe, prompts[1:2], [2])
    assert torch.allclose(together[1:2], alone, atol=0.02)  # bf16
    assert not torch.allclose(together[0:1], alone, atol=0.02)


def quick_look() -> list[Scene]:
    """Forty-eight figures, twelve objects and twelve pairs that training never saw."""
    rng = random.Random("quick look")
    scenes = quality.held_out_scenes(rng, 48, SUBJECTS) + quality.held_out_scenes(rng, 12, OBJECTS)
    return scenes + quality.held_out_pairs(rng, 12)


@pytest.mark.slow
def test_the_shipped_clip_is_as_good_as_its_card_says(shipped: Path) -> None:
    clip, tokenizer = load_clip(shipped, CPU)
    scenes, rng = quick_look(), random.Random(0)
    pixels = pixels_of(scenes, CPU)
    found = quality.zero_shot_figures(clip, tokenizer, pixels[:48], scenes[:48], rng, batch=64)
    assert found["clip/zero-shot item"].value >= 0.8
    assert found["clip/zero-shot item, full captions"].value >= 0.8
    mixed = random.Random(1).sample(range(len(scenes)), 50)
    of_mixed = [scenes[i] for i in mixed]
    wordings: tuple[Wording | None, ...] = (None, "german", "spanish")
    for wording in wordings:
        found = quality.retrieval_figures(clip, tokenizer, pixels[mixed], of_mixed, rng, 64, wording)
        (figure,) = found.values()
        assert figure.value >= 0.8


@pytest.fixture(scope="module")
def decoded(shipped: Path) -> Tensor:
    """Every second picture of the quick look, through the shipped VAE."""
    return quality.through_vae(load_pipeline(shipped, CPU).vae, pixels_of(quick_look()[::2], CPU), batch=64)


@pytest.mark.slow
def test_the_shipped_vae_is_as_good_as_its_card_says(decoded: Tensor) -> None:
    pixels = pixels_of(quick_look()[::2], CPU)
    assert quality.vae_figures(pixels, decoded)["vae/psnr of the mean error"].value >= 28


@pytest.mark.slow
@pytest.mark.parametrize("name", JUDGES)
def test_a_shipped_judge_is_as_good_as_its_card_says(shipped: Path, decoded: Tensor, name: str) -> None:
    judge, scenes = load_judge(shipped, CPU, name), quick_look()
    for source, pictures, shown in (("drawn", pixels_of(scenes, CPU), scenes), ("decoded", decoded, scenes[::2])):
        reading = quality.read(judge, pictures, batch=64)
        for figure in quality.judge_figures(name, source, reading, shown).values():
            assert figure.value >= 0.93
