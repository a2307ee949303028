"""What robust DUO holds beside the concept: pictures of keep prompts and neighbours, and random words."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from duo_unlearn.concepts.prompt_sets import Counts, prompt_sets
from duo_unlearn.erasers.interface import EraserContext
from duo_unlearn.erasers.latents import pair_latents
from duo_unlearn.erasers.robust.holding import Holding, keeps
from duo_unlearn.erasers.robust.settings import RobustSettings
from duo_unlearn.erasers.robust.texts import Texts
from duo_unlearn.erasers.trained_adapter import trained_adapter
from duo_unlearn.erasers.words import kept_texts, needed_texts
from duo_unlearn.errors import DuoError
from duo_unlearn.families.interface import Model

from .small_sdxl import context_on, small_sdxl


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return small_sdxl(tmp_path_factory.mktemp("sdxl"))


def holding(context: EraserContext) -> Holding:
    texts = Texts(context.model, context.pairs, context.options.captions)
    return Holding(context, pair_latents(context).safe, texts)


def test_pictures_of_keep_prompts_and_neighbours_are_held_beside_the_pairs(model: Model, tmp_path: Path) -> None:
    context = context_on(model, tmp_path, "robust-duo", keep=2, neighbours=3, keep_steps=2)
    held = holding(context)
    pairs = len(context.pairs)
    assert len(held.moments.mean) == len(held.captions.text) == pairs + 5
    expected = kept_texts(context, 2, plain=True) + kept_texts(context, 3, "neighbours", plain=True)
    with torch.no_grad():
        wanted = model.condition(expected).text.float()
    torch.testing.assert_close(held.captions.text[pairs:], wanted, rtol=1e-4, atol=1e-4)
    assert not torch.equal(held.moments.mean[pairs], held.moments.mean[pairs + 1])
    assert keeps(context.options)
    # Two steps of five pictures, each under its prompt and under none.
    assert held.passes == 2 * 5 * 2


def test_what_is_held_is_no_scene_and_no_other_wording_of_the_evaluation(model: Model, tmp_path: Path) -> None:
    context = context_on(model, tmp_path, "robust-duo")
    concept = context.concept
    held = kept_texts(context, 90, "neighbours", plain=True)
    sets = {name: [one.templates[0] for one in several] for name, several in concept.neighbours.items()}
    words = {name: templates[0].partition("} with ")[2].partition(" {")[0] for name, templates in sets.items()}
    # Every neighbour has its turn, and each says its first wording.
    found = Counter(name for text in held for name, word in words.items() if f" with {word} " in text)
    assert found == dict.fromkeys(words, 10)
    evaluated = prompt_sets(concept, Counts(300, 300, 300, 100), context.seed)
    assert not {*held} & {prompt.text for one in evaluated for prompt in one.prompts}
    assert len({*kept_texts(context, 90, "neighbours")} - {*held}) > 45  # other wordings, where all may be had


def test_a_concept_without_neighbours_is_told(model: Model, tmp_path: Path) -> None:
    context = context_on(model, tmp_path, "robust-duo")
    alone = context._replace(concept=context.concept.model_copy(update={"neighbours": {}}))
    with pytest.raises(DuoError, match="has no neighbour prompts"):
        needed_texts(alone, 2, "neighbours")


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, False), ({"keep": 1}, True), ({"neighbours": 1}, True), ({"keep": 1, "hold_weight": 0}, False)],
)
def test_the_evaluation_decides_a_training_that_keeps_alone(options: dict[str, int], expected: bool) -> None:
    assert keeps(RobustSettings.model_validate(options)) is expected


@pytest.mark.slow
def test_random_words_take_the_place_of_captions(model: Model, tmp_path: Path) -> None:
    found = {}
    for share in (0.0, 1.0):
        context = context_on(model, tmp_path / str(share), "robust-duo", hold_random=share)
        with trained_adapter(model, rank=2, seed=0) as tensors:
            held = holding(context)
            assert float(held(0).detach()) == 0  # the adapter is the identity still
            for tensor in tensors.values():
                tensor.data += 0.1 * torch.randn(tensor.shape, generator=torch.Generator().manual_seed(1))
            first = held(0).detach()
            assert torch.equal(held(0).detach(), first)  # a function of the step's number
            # Under random words it does not matter what the captions are.
            held.captions = held.captions.map(torch.zeros_like)
            held.original = held.captions
            found[share] = (float(first), float(held(0).detach()))
    assert found[1.0][0] == found[1.0][1] > 0
    assert found[0.0][0] != found[0.0][1]
