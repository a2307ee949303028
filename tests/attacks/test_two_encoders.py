"""Attacks that write tokens on SDXL, whose two text encoders are reached at once; and on families that are not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from duo_unlearn.attacks.interface import Target, requests_for, why_not
from duo_unlearn.attacks.registry import ATTACKS
from duo_unlearn.families.denoising import Reader
from duo_unlearn.families.interface import Inverted, Model, SampleRequest, Tokens
from duo_unlearn.families.inversion import invert
from duo_unlearn.families.load import load_model
from duo_unlearn.families.tokens import (
    PLACEHOLDER,
    initial_vector,
    sequence,
    vocabulary,
    word_ids,
)
from duo_unlearn.features.clip import clip_score, clip_similarity
from duo_unlearn.mini.world.drawing import draw
from duo_unlearn.mini.world.scenes import Scene
from duo_unlearn.runs.search_state import NO_STATE

from ..families import small_models as small
from ..families.small_llms import LLMS
from ..slow import slow_but
from .prompt_cut import asked
from .test_searches import SMALL
from .test_searches import small as small_budget

TEXT = "a red knight with a boat"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """A small SDXL whose second tokenizer pads with another token, as the published one does."""
    loaded = load_model(str(small.sdxl(tmp_path_factory.mktemp("sdxl") / "model")), torch.device("cpu"))
    second = loaded.pipe.tokenizer_2
    second.pad_token = second.convert_ids_to_tokens(word_ids(loaded, "boat")[0])
    assert second.pad_token_id != loaded.pipe.tokenizer.pad_token_id
    return loaded


@pytest.fixture(scope="module")
def aim(model: Model) -> Target:
    images = [draw(Scene("knight", colour, "sword", "snow")) for colour in ("red", "blue", "green", "red")]

    def sample(requests: Sequence[SampleRequest]) -> list[Image.Image]:
        return model.sample(requests, steps=2, guidance=5.0, batch=4)

    moments = model.encode_images(images)
    return Target(
        model=model,
        reader=Reader(model),
        original=nullcontext,
        detect=lambda images: [False] * len(images),
        originals=lambda texts, seeds: sample([SampleRequest(t, s) for t, s in zip(texts, seeds, strict=True)]),
        sample=lambda requests: list(sample(requests)),
        score=lambda images, texts: clip_score("mini", [image for image in images if image], texts),
        similarity=lambda images, others: clip_similarity("mini", [image for image in images if image], others),
        moments=lambda: moments,
        contrast=lambda: [("a knight with a sword", "a knight with a flower")],
        benign=["a boat"],
        parts=(),
        seed=0,
        guidance=5.0,
    )


def test_ids_are_read_as_the_pipeline_reads_their_text(model: Model) -> None:
    read = model.condition(Tokens(torch.tensor([sequence(model, word_ids(model, TEXT))])))
    wanted = model.condition([TEXT])
    assert read.pooled is not None
    assert wanted.pooled is not None
    torch.testing.assert_close(read.text, wanted.text)
    torch.testing.assert_close(read.pooled, wanted.pooled)


def test_embeddings_side_by_side_stand_for_a_token_in_both_encoders(model: Model) -> None:
    ids, wanted = word_ids(model, TEXT), model.condition([TEXT])
    other = torch.tensor([sequence(model, [*ids[:2], word_ids(model, "sword")[0], *ids[3:]])])
    rows = vocabulary(model)[torch.tensor([ids[2:3]])]
    for read in (
        model.condition(Tokens(other, rows, first=3)),
        # Rows of whole sequences, as P4D gives them: the padding of each encoder stays its own.
        model.condition(Tokens(other, vocabulary(model)[torch.tensor([sequence(model, ids)])], first=0)),
        model.condition(Inverted([f"a red {PLACEHOLDER} with a boat"], initial_vector(model, "knight"))),
    ):
        torch.testing.assert_close(read.text, wanted.text)
        torch.testing.assert_close(read.pooled, wanted.pooled)


def test_gradients_reach_both_encoders(model: Model) -> None:
    vector = initial_vector(model, "knight").requires_grad_(True)
    read = model.condition(Inverted([f"a {PLACEHOLDER}"], vector))
    assert read.pooled is not None
    (gradient,) = torch.autograd.grad(read.text.square().sum() + read.pooled.square().sum(), [vector])
    first = model.pipe.text_encoder.config.hidden_size
    assert len(gradient) == first + model.pipe.text_encoder_2.config.hidden_size
    assert gradient[:first].abs().min() > 0
    assert gradient[first:].abs().min() > 0


@pytest.mark.parametrize("name", slow_but(sorted(SMALL), ("unlearndiffatk", "ring-a-bell", "concept-inversion")))
def test_a_search_writes_tokens_of_both(name: str, aim: Target) -> None:
    attack, budget = ATTACKS.get(name), small_budget(name)
    assert why_not(attack, aim.model, has_edits=True) is None
    prompts, seeds = asked(2), [3, 4]
    found = attack.find(aim, prompts, seeds, budget, lambda _share: None, NO_STATE)
    assert found.findings == attack.find(aim, prompts, seeds, budget, lambda _share: None, NO_STATE).findings
    requests = requests_for(found, seeds, [None, None])
    for request in requests:
        assert not isinstance(request.words, str)
        assert aim.model.condition(request.words).pooled is not None
    assert len(aim.sample(requests)) == 2


@pytest.mark.slow
def test_inversion_fits_its_images(model: Model, aim: Target) -> None:
    def error(vector: Tensor) -> float:
        eps = torch.randn(aim.moments().mean.shape, generator=torch.Generator().manual_seed(5))
        levels = torch.linspace(300, 900, len(eps)).long()
        read = model.condition(Inverted([f"a picture of {PLACEHOLDER}"], vector)).repeat(len(eps))
        with torch.no_grad():
            predicted = model.predict(model.noise.add_noise(aim.moments().mean, eps, levels), levels, read)
        return float((predicted - eps).square().mean())

    vector = invert(model, aim.moments(), steps=30, batch=4, seed=0, lr=5e-2, quiet=True)
    assert error(vector) < error(initial_vector(model, "picture"))


@pytest.mark.parametrize("make", [small.sd3, small.flux, LLMS["qwen-image"], LLMS["z-image"]])
def test_families_that_read_other_tokens_say_so(make: Callable[[Path], Any], tmp_path: Path) -> None:
    model = load_model(str(make(tmp_path / "model")), torch.device("cpu"))
    reasons = {name: why_not(ATTACKS.get(name), model, has_edits=True) for name in ATTACKS.names()}
    refused = {name for name, reason in reasons.items() if reason is not None}
    assert refused == set(SMALL)
    assert all(f"{model.family} reads {model.kind.reader}'s" in str(reasons[name]) for name in refused)
