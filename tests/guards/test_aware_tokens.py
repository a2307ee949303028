"""A search that is aware of guards which act by a prompt's tokens sees what they do to those that it has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from duo_unlearn.arena.guarded_reader import STEPS, GuardedReader
from duo_unlearn.families.interface import Conditioning, Hooks, Model, Tokens
from duo_unlearn.families.load import load_model
from duo_unlearn.families.tokens import ends, tokens_of, vocabulary
from duo_unlearn.features.registry import clip_source
from duo_unlearn.guards.registry import GUARDS
from duo_unlearn.storage.files import read_tensors

from .small import REQUESTS, Given, context_of, given_to_scheduler

SCALE = 5.0
NEAR, FAR = REQUESTS
SAFREE: dict[str, Any] = {"steps": 20, "middle": -10}
"""By these a prompt with a trigger is filtered in the steps 0 to 20 of 50."""
PROTOTYPES: dict[str, Any] = {"steps": 2, "threshold": 0.25}


@pytest.fixture(scope="module")
def loaded() -> Model:
    return load_model("mini", torch.device("cpu"))


@pytest.fixture
def model(loaded: Model) -> Iterator[Model]:
    yield loaded
    loaded.hooks = []


def behind(model: Model, folder: Path, name: str, **options: Any) -> Hooks:
    """The hooks of a guard, which watches over the model then."""
    hooks = GUARDS.get(name).build(options, context_of(model, folder))
    model.hooks = [hooks]
    return hooks


def reader_of(model: Model) -> GuardedReader:
    """An aware search that is shown guidance too, as the scheduler is."""
    reader = GuardedReader(model, SCALE)
    reader.guided = True
    return reader


def as_p4d_reads(model: Model, tokens: Tokens) -> tuple[Tensor, Conditioning]:
    """The free rows of all tokens, (1, token, width), and the conditioning under them."""
    rows = vocabulary(model)[tokens.ids].float().requires_grad_(True)
    return rows, model.condition(Tokens(tokens.ids, rows, first=0))


def distances(model: Model, given: list[Given], tokens: Tokens, told: list[Tokens] | None) -> list[float]:
    """How far what an aware search predicts is from what the scheduler was given, at each step."""
    reader, (_, read) = reader_of(model), as_p4d_reads(model, tokens)
    with torch.no_grad():
        found = [reader.predict(one.latents, one.t, read, told) for one in given]
    return [float((one - other.output).abs().max()) for one, other in zip(found, given, strict=True)]


@pytest.mark.slow
def test_safree_filters_a_searchs_rows_in_the_steps_in_which_it_filters_a_sampling(
    model: Model, tmp_path: Path
) -> None:
    tokens = tokens_of(model, NEAR.words)
    given = given_to_scheduler(model, behind(model, tmp_path, "safree", **SAFREE), NEAR, SCALE, STEPS)
    numbers = (0, 10, 20, 21, 35, 49)
    given = [given[number] for number in numbers]
    assert max(distances(model, given, tokens, [tokens])) < 1e-4
    # Told no tokens, as of a soft prompt, it filters nothing: that is another prediction in its steps.
    apart = distances(model, given, tokens, None)
    assert [distance > 1e-3 for distance in apart] == [number <= 20 for number in numbers]


@pytest.mark.parametrize("request_", [NEAR, FAR])
def test_prototypes_act_on_a_search_above_their_threshold_alone(model: Model, request_: Any, tmp_path: Path) -> None:
    tokens = tokens_of(model, request_.words)
    hooks = behind(model, tmp_path, "prototypes", **PROTOTYPES, clusters=1)
    given = given_to_scheduler(model, hooks, request_, SCALE, 4)
    assert max(distances(model, given, tokens, [tokens])) < 1e-4
    model.hooks = []
    assert (min(distances(model, given, tokens, [tokens])) > 1e-2) == (request_ is NEAR)


def test_a_search_is_guided_away_from_the_prototype_that_its_tokens_come_nearest_to(
    model: Model, tmp_path: Path
) -> None:
    tokens = tokens_of(model, NEAR.words)
    hooks = behind(model, tmp_path, "prototypes", **PROTOTYPES | {"threshold": -1.0}, clusters=2)
    (path,) = tmp_path.glob("prototypes-*.safetensors")
    projection = clip_source("mini").load().model.text_projection
    pooled = model.condition(tokens).text[0, int(ends(model, tokens.ids))]
    assert int((read_tensors(path)[0]["centres"] @ projection(pooled)).argmax()) == 1
    given = given_to_scheduler(model, hooks, NEAR, SCALE, 4)
    assert max(distances(model, given, tokens, [tokens])) < 1e-4
    # Told no tokens, it is the first one.
    assert min(distances(model, given, tokens, None)) > 1e-2


def test_the_gradient_of_tokens_rows_goes_through_safrees_filter(model: Model, tmp_path: Path) -> None:
    """Along a direction it is what a small step there changes, of the triggers that the tokens have."""
    tokens = tokens_of(model, NEAR.words)
    noisy, t = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([900])
    behind(model, tmp_path, "safree", **SAFREE)
    reader, (rows, read) = GuardedReader(model, SCALE), as_p4d_reads(model, tokens)

    def loss(read: Conditioning, told: list[Tokens] | None) -> Tensor:
        return reader.predict(noisy, t, read, told).double().square().sum()

    (seen,) = torch.autograd.grad(loss(read, [tokens]), [rows], retain_graph=True)
    (unseen,) = torch.autograd.grad(loss(read, None), [rows])
    assert (seen - unseen).norm() > 0.05 * unseen.norm()
    way = 1e-2 * seen / seen.norm()
    with torch.no_grad():
        ahead, back = (model.condition(Tokens(tokens.ids, rows + step, first=0)) for step in (way, -way))
        measured = (loss(ahead, [tokens]) - loss(back, [tokens])) / 2
    torch.testing.assert_close((seen * way).sum().double(), measured, rtol=0.05, atol=0)


def test_rows_of_a_batch_are_filtered_by_their_own_tokens_and_noise_levels(model: Model, tmp_path: Path) -> None:
    behind(model, tmp_path, "safree", **SAFREE)
    noisy = torch.randn(4, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    t, texts = torch.tensor([990, 990, 300, 990]), [str(NEAR.words), "", str(NEAR.words), str(NEAR.words)]
    words = [*(tokens_of(model, text) for text in texts[:3]), Tokens(torch.zeros(1, 0, dtype=torch.long))]
    read, reader = model.condition(texts), GuardedReader(model, SCALE)
    with torch.no_grad():
        changed = (reader.predict(noisy, t, read, words) - reader.predict(noisy, t, read)).flatten(1).abs().amax(dim=1)
    assert (changed > 1e-3).tolist() == [True, False, False, False]


def test_a_prompt_is_masked_once_while_its_text_encoder_stays(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    behind(model, tmp_path, "safree", **SAFREE)
    tokens, other = (tokens_of(model, request.words) for request in REQUESTS)
    noisy, t = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([990, 990])
    reader, read, prompts = GuardedReader(model, SCALE), model.condition, []

    def counted(words: Any) -> Conditioning:
        if isinstance(words, Tokens):
            prompts.append(len(words.ids))
        return read(words)

    def ask(words: Tokens) -> None:
        before = read(words).repeat(2)
        reader.predict(noisy, t, before, [words] * 2)

    monkeypatch.setattr(model, "condition", counted)
    count = int(ends(model, tokens.ids)) - 1
    with torch.no_grad():
        ask(tokens)
        ask(tokens)
        assert prompts == [count]
        ask(other)
        ask(tokens)
        assert len(prompts) == 2
        weight = model.pipe.text_encoder.get_input_embeddings().weight
        kept = weight.detach().clone()
        weight.data.mul_(1.01)
        try:
            ask(tokens)
        finally:
            weight.data.copy_(kept)
    assert prompts[0] == prompts[2] == count
    assert len(prompts) == 3
