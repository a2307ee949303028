"""CE-SDWV: the subspace, the suppression, and the optimisation that stays outside the concept."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from duo_unlearn.errors import DuoError
from duo_unlearn.families.denoising import predict_noised
from duo_unlearn.families.interface import Conditioning, Guidance, Model
from duo_unlearn.families.load import load_model
from duo_unlearn.families.ode import noise_of
from duo_unlearn.guards.ce_sdwv import Subspace, _read, _subspaces
from duo_unlearn.guards.registry import GUARDS

from ..families import small_models
from .small import REQUESTS, WORDS, context_of, sample


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model("mini", torch.device("cpu"))


def rows(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, 16, generator=torch.Generator().manual_seed(seed))


def test_the_components_of_one_direction_are_that_direction() -> None:
    safe, direction = rows(20, 0), torch.nn.functional.normalize(rows(1, 1), dim=1)
    sizes = torch.linspace(1, 3, 20).unsqueeze(1)
    space = Subspace.of(safe + sizes * direction, safe, 0.95)
    assert space.basis.shape == (16, 1)
    torch.testing.assert_close(space.basis.abs()[:, 0], direction[0].abs(), atol=1e-5, rtol=0)
    torch.testing.assert_close(space.difference, 2 * direction[0], atol=1e-5, rtol=0)
    # A row that speaks of the concept as the vocabulary does loses it, one that does not stays, bit for bit.
    middle = space.safe.unsqueeze(0)
    torch.testing.assert_close(space.suppressed(middle + 2 * direction, 0.5), middle, atol=1e-5, rtol=0)
    half = middle + 0.8 * direction
    assert torch.equal(space.suppressed(half, 0.5), half)
    torch.testing.assert_close(space.orthogonal(direction), torch.zeros_like(direction), atol=1e-5, rtol=0)


def test_a_row_loses_the_concept_as_far_as_it_speaks_of_it_and_never_more() -> None:
    space = Subspace(torch.tensor([[1.0], [0.0]]), torch.zeros(2), torch.tensor([2.0, 0.0]))
    given = torch.tensor([[1.5, 3.0], [2.0, 3.0], [4.0, 3.0]])  # g = 0.75, 1 and 2
    expected = torch.tensor([[0.375, 3.0], [0.0, 3.0], [0.0, 3.0]])
    torch.testing.assert_close(space.suppressed(given, 0.65), expected)


def test_all_the_energy_takes_the_whole_span() -> None:
    safe = rows(40, 0)
    assert Subspace.of(safe + rows(40, 1), safe, 1.0).basis.shape == (16, 16)
    assert Subspace.of(safe + rows(40, 1), safe, 0.01).basis.shape == (16, 1)


def test_texts_that_do_not_differ_are_told() -> None:
    with pytest.raises(DuoError, match="no vocabulary"):
        Subspace.of(rows(3, 0), rows(3, 0), 0.9)


def test_prompts_of_something_else_stay_bit_for_bit(model: Model, tmp_path: Path) -> None:
    hooks = GUARDS.get("ce-sdwv").build({"steps": 0}, context_of(model, tmp_path))
    assert hooks.conditioning is not None
    texts = [str(request.words) for request in REQUESTS]
    guidance = Guidance(model.condition(texts), model.condition(["", ""]))
    found = hooks.conditioning(REQUESTS, guidance)
    assert not torch.equal(found.positive.text[0], guidance.positive.text[0])
    assert torch.equal(found.positive.text[1], guidance.positive.text[1])
    boats = [REQUESTS[1], REQUESTS[1]._replace(seed=5)]
    assert torch.equal(sample(model, hooks, boats, steps=2), sample(model, None, boats, steps=2))


def test_the_empty_prompt_stays_bit_for_bit_though_its_rows_reach_the_threshold(model: Model, tmp_path: Path) -> None:
    unsafe, safe = (model.condition([pair[side] for pair in WORDS]).text.flatten(0, 1) for side in (0, 1))
    nothing = model.condition([""])
    assert (Subspace.of(unsafe, safe, 0.95).share(nothing.text) >= 0.5).all()
    hooks = GUARDS.get("ce-sdwv").build({"threshold": 0.5, "steps": 1}, context_of(model, tmp_path))
    assert hooks.conditioning is not None
    # In a batch, and as a search has it: rows without words, which a batch may round otherwise.
    asked = model.condition([str(REQUESTS[0].words), ""])
    asked = asked._replace(text=torch.cat([asked.text, nothing.text * (1 + 1e-6)]))
    with torch.no_grad():
        after = hooks.conditioning([*REQUESTS, REQUESTS[0]], Guidance(asked, model.condition([""] * 3))).positive
    assert torch.equal(after.text[1:], asked.text[1:])
    assert not torch.equal(after.text[0], asked.text[0])
    empty = [REQUESTS[0]._replace(words="")]
    assert torch.equal(sample(model, hooks, empty, steps=2), sample(model, None, empty, steps=2))


def losses_of(model: Model, found: list[Conditioning], before: Conditioning) -> list[float]:
    """How far predictions are from those before, outside what the words change of them."""
    noise, t = noise_of(model, [0]), torch.tensor([999])

    @torch.no_grad()
    def predict(conditioning: Conditioning) -> torch.Tensor:
        count = len(conditioning.text)
        return predict_noised(model, noise.repeat(count, 1, 1, 1), t.repeat(count), conditioning).flatten(1)

    differences = predict(model.condition([a for a, _ in WORDS])) - predict(model.condition([b for _, b in WORDS]))
    basis = torch.linalg.svd(differences, full_matrices=False).Vh
    away = [predict(one) - predict(before) for one in found]
    return [(one - one @ basis.T @ basis).square().mean().item() for one in away]


@pytest.mark.parametrize("precision", [torch.float16, torch.bfloat16])
def test_in_half_precision_the_optimisation_is_what_it_is_in_full(
    model: Model, tmp_path: Path, precision: torch.dtype
) -> None:
    found = []
    for one in (model, load_model("mini", torch.device("cpu"), precision)):
        hooks = GUARDS.get("ce-sdwv").build({"steps": 2}, context_of(one, tmp_path))
        assert hooks.conditioning is not None
        before = one.condition([str(REQUESTS[0].words)])
        with torch.no_grad():
            found.append(hooks.conditioning(REQUESTS[:1], Guidance(before, one.condition([""]))).positive.text)
    full, half = found
    assert half.dtype == precision
    torch.testing.assert_close(half.float(), full, atol=0.1, rtol=0.1)


@pytest.mark.slow
def test_the_optimisation_brings_the_prediction_back_and_never_the_concept(model: Model, tmp_path: Path) -> None:
    context, requests = context_of(model, tmp_path), REQUESTS[:1]
    before = model.condition([str(requests[0].words)])
    guidance = Guidance(before, model.condition([""]))
    found = []
    for steps in (0, 3):
        hooks = GUARDS.get("ce-sdwv").build({"steps": steps}, context)
        assert hooks.conditioning is not None
        with torch.no_grad():
            found.append(hooks.conditioning(requests, guidance).positive)
    unsafe, safe = (model.condition([pair[side] for pair in WORDS]).text.flatten(0, 1) for side in (0, 1))
    assert losses_of(model, found, before)[1] < losses_of(model, found, before)[0]
    space = Subspace.of(unsafe, safe, 0.95)
    change = (found[1].text - found[0].text)[0]
    assert change.norm() > 0.01
    assert (change @ space.basis).norm() < 1e-3 * change.norm()


def test_a_pooled_vector_is_changed_alike_whatever_shares_its_batch(tmp_path: Path) -> None:
    model = load_model(str(small_models.sdxl(tmp_path / "model")), torch.device("cpu"))
    hooks = GUARDS.get("ce-sdwv").build({"steps": 0, "threshold": -100}, context_of(model, tmp_path))
    assert hooks.conditioning is not None
    asked = model.condition([WORDS[0][0]] * 2)
    # Rows of zeros stay, so of the first prompt the vector alone is changed.
    asked = asked._replace(text=torch.cat([torch.zeros_like(asked.text[:1]), asked.text[1:]]))
    alone, both = (
        hooks.conditioning(REQUESTS[:count], Guidance(asked.rows(slice(0, count)), model.condition([""] * count)))
        for count in (1, 2)
    )
    assert asked.pooled is not None
    assert alone.positive.pooled is not None
    assert both.positive.pooled is not None
    assert torch.equal(alone.positive.text, asked.text[:1])
    assert not torch.equal(alone.positive.pooled, asked.pooled[:1])
    torch.testing.assert_close(alone.positive.pooled, both.positive.pooled[:1])


def test_what_stands_beside_padding_is_no_part_of_the_concept() -> None:
    """A longer prompt has rows where a shorter one has none; they are whole rows, and would outweigh any difference."""
    a, b, concept, more = torch.eye(4)
    texts = {"unsafe": torch.stack([a + 0.1 * concept, b, 5 * more]), "safe": torch.stack([a, b, torch.zeros(4)])}
    kind = SimpleNamespace(padded=True)
    model: Any = SimpleNamespace(
        kind=kind, condition=lambda asked: Conditioning(torch.stack([texts[text] for text in asked]))
    )
    words, pooled = _subspaces(model, [("unsafe", "safe")], 0.95)
    assert pooled is None
    torch.testing.assert_close(words.basis.abs(), concept.unsqueeze(1))
    torch.testing.assert_close(words.difference, 0.1 * concept)


def test_words_are_held_against_what_sdxls_encoders_read_of_no_words(tmp_path: Path) -> None:
    """Its empty prompt is zeros: beside these the start token's row, which all prompts share, was the concept."""
    model = load_model(str(small_models.sdxl(tmp_path / "model")), torch.device("cpu"))
    assert not model.condition([""]).text.any()
    read = _read(model, ["a sword", "", "a blade"])
    torch.testing.assert_close(read.text[1, 0], read.text[0, 0])
    assert read.pooled is not None
    assert read.text[1].any(dim=-1).all()
    assert read.pooled[1].any()
    named = model.condition(["a sword", "", "a blade"])
    assert torch.equal(read.text[[0, 2]], named.text[[0, 2]])
    words, pooled = _subspaces(model, [("a sword", ""), ("a blade", "")], 0.95)
    assert pooled is not None
    assert words.safe.any()
    assert pooled.safe.any()
