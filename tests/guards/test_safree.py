"""SAFREE: projections, triggers and the number of steps by hand, and which prompts it leaves alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import Tensor

from duo_unlearn.families.interface import Guidance, Hooks, Inverted, Model, SampleRequest, Tokens
from duo_unlearn.families.load import load_model
from duo_unlearn.families.tokens import PLACEHOLDER, initial_vector, tokens_of
from duo_unlearn.guards import safree
from duo_unlearn.guards.registry import GUARDS
from duo_unlearn.guards.safree import SafreeSettings, filtered_steps, projector, triggers

from .small import REQUESTS, context_of, sample


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model("mini", torch.device("cpu"))


def hook(model: Model, folder: Path, **options: object) -> Hooks:
    return GUARDS.get("safree").build(options, context_of(model, folder))


def guidance_of(model: Model, requests: list[SampleRequest]) -> Guidance:
    rows = [model.condition([r.words] if isinstance(r.words, str) else r.words).text for r in requests]
    empty = model.condition([""] * len(requests))
    return Guidance(empty._replace(text=torch.cat(rows)), empty)


def test_a_projector_is_idempotent_and_symmetric_and_leaves_what_is_orthogonal() -> None:
    rows = torch.randn(5, 32, generator=torch.Generator().manual_seed(0))
    onto = projector(rows)
    torch.testing.assert_close(onto @ onto, onto)
    torch.testing.assert_close(onto, onto.T)
    torch.testing.assert_close(rows.double() @ onto, rows.double())
    assert int(torch.linalg.matrix_rank(onto)) == 5
    assert int(torch.linalg.matrix_rank(projector(torch.cat([rows, rows])))) == 5
    prompt = torch.randn(3, 32, generator=torch.Generator().manual_seed(1)).double()
    prompt -= prompt @ onto
    torch.testing.assert_close(prompt @ projector(prompt) @ (torch.eye(32) - onto), prompt)


@pytest.mark.parametrize(("beta", "steps"), [(0.40, 0), (0.50, 2), (0.533, 5), (0.55, 7), (0.60, 10)])
def test_how_many_steps_are_filtered(beta: float, steps: int) -> None:
    assert filtered_steps(beta) == steps


def test_a_trigger_is_farther_than_the_others_are_on_average() -> None:
    assert triggers(torch.tensor([1.0, 1.0, 1.02]), 0.01).tolist() == [False, False, True]
    assert triggers(torch.tensor([1.0, 1.0, 1.005]), 0.01).tolist() == [False, False, False]
    assert triggers(torch.tensor([1.0]), 0.0).tolist() == [False]


def test_a_triggers_row_is_put_into_the_prompts_span_and_out_of_the_phrases(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By hand: the phrases span e₁, "red sword" without "red" is 2 e₃ and without "sword" e₁ + e₂."""

    def pooled(_model: Model, tokens: Tokens) -> Tensor:
        return torch.tensor([[0.0, 0.0, 2.0] if ids[1] == 0 else [1.0, 1.0, 0.0] for ids in tokens.ids])

    monkeypatch.setattr(safree, "_pooled", pooled)
    rows = torch.full((24, 3), 7.0)  # of padding, which counts for nothing
    rows[:4] = torch.tensor([[4.0, 3.0, 0.0], [4.0, 3.0, 0.0], [3.0, 4.0, 0.0], [1.0, 0.0, 0.0]])
    away = torch.diag(torch.tensor([1.0, 0.0, 0.0])).double()
    found = safree._filtered(
        safree._MaskedEmbeddings(model), tokens_of(model, "red sword"), rows, away, SafreeSettings()
    )
    assert found is not None
    # Outside the phrases lies 2 of the first and 1 of the second: "red" is the trigger. Its row (4, 3, 0) has
    # (3.5, 3.5, 0) in the span of e₃ and e₁ + e₂, and (0, 3.5, 0) of that is not the phrases'.
    expected = rows.clone()
    expected[1] = torch.tensor([0.0, 3.5, 0.0])
    torch.testing.assert_close(found.rows, expected)
    # Start to end token have the cosines 3/5, 3/5, 4/5 and 0 with what they become: β is 0.5, which filters 2 steps.
    assert found.share == 2 / 50


def test_words_rows_change_as_published_and_all_rows_from_the_trigger_on(model: Model, tmp_path: Path) -> None:
    guidance = guidance_of(model, REQUESTS[:1])
    changed = {}
    for mode in ("published", "all-rows"):
        hooks = hook(model, tmp_path, mode=mode)
        assert hooks.conditioning is not None
        found = hooks.conditioning(REQUESTS[:1], guidance)
        assert found.later is not None
        assert torch.equal(found.later.text, guidance.positive.text)
        changed[mode] = (found.positive.text != guidance.positive.text)[0].any(dim=1)
    words = 9  # of "a red knight with a sword in the snow"
    assert changed["published"].any()
    assert not changed["published"][0]  # the start token
    assert not changed["published"][words + 1 :].any()  # end token and padding
    first = int(changed["published"].int().argmax())
    assert changed["all-rows"].tolist() == [place >= first for place in range(len(changed["all-rows"]))]


def test_prompts_without_a_trigger_stay_bit_for_bit(model: Model, tmp_path: Path) -> None:
    hooks = hook(model, tmp_path, alpha=10.0)
    assert hooks.conditioning is not None
    guidance = guidance_of(model, REQUESTS)
    assert hooks.conditioning(REQUESTS, guidance) is guidance
    assert torch.equal(sample(model, hooks, steps=2), sample(model, None, steps=2))


def test_a_free_vector_is_masked_like_a_word(model: Model, tmp_path: Path) -> None:
    hooks = hook(model, tmp_path)
    assert hooks.conditioning is not None
    vector = initial_vector(model, "sword")
    words = Inverted([f"a red knight with a {PLACEHOLDER} in the snow"], vector)
    read = model.condition(tokens_of(model, words)).text
    torch.testing.assert_close(read, model.condition(words).text)
    plain = guidance_of(model, REQUESTS[:1])
    by_words = hooks.conditioning(REQUESTS[:1], plain).positive.text
    torch.testing.assert_close(by_words, hooks.conditioning([SampleRequest(words, 3)], plain).positive.text)


def test_the_prompt_that_was_asked_longest_ago_is_let_go_first(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safree, "KEPT", 2)
    kept, read, made = safree._MaskedEmbeddings(model), safree._pooled, list[int]()

    def counted(*given: Any) -> Tensor:
        made.append(1)
        return read(*given)

    monkeypatch.setattr(safree, "_pooled", counted)
    red, blue, green = (tokens_of(model, f"{colour} sword") for colour in ("red", "blue", "green"))
    with torch.no_grad():
        for tokens, masked_in_all in ((red, 1), (blue, 2), (red, 2), (green, 3), (red, 3), (blue, 4)):
            kept.of(tokens, model.condition(tokens).text[0])
            assert len(made) == masked_in_all
    assert len(kept.kept) == 2


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_after_its_steps_the_prompt_is_read_as_it_is(model: Model, strength: float, tmp_path: Path) -> None:
    """The text that the denoiser gets, step by step: filtered in the steps i ≤ t · steps / 50.

    i counts from the first step that is taken, so an image that starts from a picture is filtered too.
    """
    picture = Image.new("RGB", (64, 64), "green") if strength < 1 else None
    requests = [REQUESTS[0]._replace(start=picture, strength=strength)]
    hooks = hook(model, tmp_path, mode="all-rows")
    assert hooks.conditioning is not None
    guidance = guidance_of(model, REQUESTS[:1])
    found = hooks.conditioning(REQUESTS[:1], guidance)
    assert found.later is not None
    texts: list[Tensor] = []

    def note(_network: object, _inputs: object, named: dict[str, Tensor]) -> None:
        texts.append(named["encoder_hidden_states"][1])

    def early(_requests: object, _guidance: Guidance) -> Guidance:
        return found._replace(later=found.later and found.later._replace(share=torch.tensor([0.25])))

    seen = model.denoiser.register_forward_pre_hook(note, with_kwargs=True)
    try:
        sample(model, Hooks(conditioning=early), requests, steps=6)
    finally:
        seen.remove()
    filtered = [torch.equal(text, found.positive.text[0]) for text in texts]
    assert filtered == [True, True, False, False, False, False][: round(6 * strength)]  # i = 0, 1 ≤ 1.5
    assert all(torch.equal(text, guidance.positive.text[0]) for text in texts[2:])
