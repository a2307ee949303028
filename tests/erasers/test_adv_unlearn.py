"""AdvUnlearn on a small SDXL, whose two text encoders it trains: its search, its two terms, and what stays."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from duo_unlearn.edits.files import read_edit
from duo_unlearn.edits.weights import WeightEdit
from duo_unlearn.erasers import adv_unlearn, descent
from duo_unlearn.erasers.adv_unlearn import ADV_UNLEARN, AdvUnlearnLoss, encoder_names, kept_prompts
from duo_unlearn.erasers.descent import generator_of
from duo_unlearn.erasers.interface import EraserContext
from duo_unlearn.erasers.trained import TrainedWeights, trained_weights
from duo_unlearn.families.interface import Model
from duo_unlearn.families.registry import FAMILIES
from duo_unlearn.families.tokens import plain_tokens, vocabulary

from ..slow import slow
from .small import killed_at
from .small_sdxl import context_on, small_sdxl

QUICK = {"steps": 3, "lr": 1e-2, "warm_up": 1, "renew_every": 2, "attack_steps": 2, "retain_batch": 2}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return small_sdxl(tmp_path_factory.mktemp("sdxl"))


def encoders(model: Model) -> dict[str, Tensor]:
    return {
        f"{part}.{name}": value.detach().clone()
        for _, part in model.kind.token_encoders
        for name, value in getattr(model.pipe, part).named_parameters()
    }


@contextlib.contextmanager
def begun(context: EraserContext) -> Iterator[tuple[AdvUnlearnLoss, TrainedWeights]]:
    with trained_weights(context.model, encoder_names(context.model)) as weights:
        yield AdvUnlearnLoss(context, weights), weights


def move(weights: TrainedWeights) -> None:
    """Another encoder than the original one."""
    generator = torch.Generator().manual_seed(1)
    for tensor in weights.tensors.values():
        tensor.data += 0.02 * torch.randn(tensor.shape, generator=generator)


def test_layers_and_final_norms_are_trained_and_no_embedding(model: Model) -> None:
    left = encoders(model).keys() - set(encoder_names(model))
    assert {name.rpartition("embeddings.")[2] for name in left if "embeddings" in name} == {
        "token_embedding.weight", "position_embedding.weight",
    }  # fmt: skip
    assert {name for name in left if "embeddings" not in name} == {"text_encoder_2.text_projection.weight"}


@pytest.mark.parametrize("fast", [*slow([False]), True])
def test_the_search_lowers_its_loss_on_fixed_latents(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fast: bool
) -> None:
    context = context_on(model, tmp_path, "advunlearn", attack_steps=8, attack_lr=1e-2, fast=fast)
    with begun(context) as (loss, weights):
        move(weights)
        prompts, seed = loss.texts[:2], generator_of(0, "fixed")
        fixed = loss.pictures.noised(prompts, "both", seed)
        monkeypatch.setattr(loss.pictures, "noised", lambda *_: fixed)
        seen: list[float] = []
        real = loss.distance

        def kept(*arguments: Any) -> Tensor:
            value = real(*arguments)
            seen.append(float(value.detach()))
            return value

        monkeypatch.setattr(loss, "distance", kept)
        rows = loss.search(prompts, torch.Generator().manual_seed(3))
        seen.append(float(real(prompts, rows, *fixed, *loss.wanted(prompts, [fixed])).detach()))
    # The gradients are each step's own, and what is handed back is the last step's.
    assert seen[1] < seen[0]
    assert seen[-1] == min(seen)


def test_the_search_moves_free_rows_and_nothing_else(model: Model, tmp_path: Path) -> None:
    before, words = encoders(model), vocabulary(model)
    with begun(context_on(model, tmp_path, "advunlearn", attack_steps=1)) as (loss, weights):
        prompts = loss.texts[:1]
        noisy, t = loss.pictures.noised(prompts, "both", torch.Generator().manual_seed(0))
        start = words[plain_tokens(model)[:1]].view(1, 1, -1).clone().requires_grad_(True)
        (wanted,) = loss.wanted(prompts, [(noisy, t)])
        loss.distance(prompts, start, noisy, t, wanted).backward()  # type: ignore[no-untyped-call]
        assert start.grad is not None
        assert start.grad.shape == (1, 1, words.shape[1])  # one row, in both encoders
        assert start.grad.abs().min() > 0
        for tensor in weights.tensors.values():
            tensor.grad = None
        rows = loss.search(prompts, torch.Generator().manual_seed(3))
        assert not rows.requires_grad
        assert all(tensor.grad is None for tensor in weights.tensors.values())
        # A step of Adam is one of its rate, away from a token of the vocabulary.
        nearest = (words - rows.view(1, -1)).abs().max(dim=1).values.min()
        assert float(nearest) == pytest.approx(1e-3, rel=1e-3)
        # What stands in front is read from the second place on; the start token is as it was.
        with torch.no_grad():
            read, plain = loss.read(prompts, rows).text, loss.read(prompts).text
        torch.testing.assert_close(read[:, 0], plain[:, 0])
        assert (read[:, 1:] - plain[:, 1:]).abs().amax(dim=-1).min() > 0
    assert all(torch.equal(before[name], value) for name, value in encoders(model).items())


def test_the_original_is_asked_ahead_of_a_search_what_it_says_at_each_step(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same to 1e-5 of the prediction, in batches of which the last is smaller; and of the original encoder."""
    monkeypatch.setattr(adv_unlearn, "AHEAD", 2)
    with begun(context_on(model, tmp_path, "advunlearn")) as (loss, weights), torch.no_grad():
        prompts, generator = loss.texts[:2], torch.Generator().manual_seed(0)
        pictures = [loss.pictures.noised(prompts, "both", generator) for _ in range(5)]
        alone = [loss._predict(*picture, loss.read(prompts)) for picture in pictures]
        move(weights)
        moved = [loss._predict(*picture, loss.read(prompts)) for picture in pictures]
        wanted = loss.wanted(prompts, pictures)
    assert len(wanted) == 5
    scale = float(torch.cat(alone).abs().mean())
    for found, expected, other in zip(wanted, alone, moved, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * scale)
        assert (found - other).abs().max() > 1e-4 * scale


def test_at_the_start_nothing_that_is_kept_has_moved(model: Model, tmp_path: Path) -> None:
    with begun(context_on(model, tmp_path, "advunlearn", warm_up=1)) as (loss, weights):
        erase, retain = loss.terms(0)
        assert float(retain.detach()) == pytest.approx(0, abs=1e-10)
        assert float(loss(0).detach()) == pytest.approx(float(erase.detach()))
        move(weights)
        erase, retain = loss.terms(0)
        assert float(retain.detach()) > 1e-6
        torch.testing.assert_close(loss(0), erase + 0.3 * retain)


@pytest.mark.parametrize(("eta", "share"), [(1.0, 4.0), (0.0, 1.0), (-1.0, 0.0)])
def test_the_loss_of_an_untouched_encoder_is_what_is_asked(
    model: Model, tmp_path: Path, eta: float, share: float
) -> None:
    # Without δ: (1 + η)² · mean (ε_c − ε_∅)².
    with begun(context_on(model, tmp_path, "advunlearn", warm_up=1, eta=eta)) as (loss, _):
        prompts, rows = loss.adversarial(0)
        assert rows is None
        generator = generator_of(0, "advunlearn", 0)
        adv_unlearn._draw(loss.kept, 5, generator)
        noisy, t = loss.pictures.noised(prompts, "both", generator)
        with torch.no_grad():
            concept, empty = (loss._predict(noisy, t, given) for given in (loss.read(prompts), loss.empty))
            expected = share * float((concept - empty).square().mean())
            assert float(loss.terms(0)[0]) == pytest.approx(expected, rel=1e-3, abs=1e-10)


def test_the_target_is_of_the_prompt_without_what_is_put_in_front(model: Model, tmp_path: Path) -> None:
    """η −1 asks for what the original predicts under c, and an untouched encoder gives what it predicts under c ⊕ δ."""
    context = context_on(model, tmp_path, "advunlearn", warm_up=0, attack_steps=1, eta=-1.0)
    with begun(context) as (loss, _):
        prompts, rows = loss.adversarial(0)
        assert rows is not None
        generator = generator_of(0, "advunlearn", 0)
        adv_unlearn._draw(loss.kept, 5, generator)
        noisy, t = loss.pictures.noised(prompts, "both", generator)
        (wanted,) = loss.wanted(prompts, [(noisy, t)])
        apart = float(loss.distance(prompts, rows, noisy, t, wanted).detach())
        assert apart > 1e-6
        assert float(loss.terms(0)[0].detach()) == pytest.approx(apart, rel=1e-3)


def test_with_pairs_the_target_leads_from_the_safe_prompt(model: Model, tmp_path: Path) -> None:
    """An untouched encoder then has the loss (1 + η)² · mean (ε_c − ε_safe)²."""
    context = context_on(model, tmp_path, "advunlearn", warm_up=1, eta=2.0, form="pair")
    with begun(context) as (loss, _):
        prompts, _ = loss.adversarial(0)
        generator = generator_of(0, "advunlearn", 0)
        adv_unlearn._draw(loss.kept, 5, generator)
        noisy, t = loss.pictures.noised(prompts, "both", generator)
        safe = {pair.unsafe_prompt: pair.safe_prompt for pair in context.pairs}
        with torch.no_grad():
            given = (loss.read(prompts), loss.read([str(safe[prompt]) for prompt in prompts]))
            concept, without = (loss._predict(noisy, t, one) for one in given)
            expected = 9 * float((concept - without).square().mean())
            assert float(loss.terms(0)[0]) == pytest.approx(expected, rel=1e-3)


def test_a_share_of_one_prompt_is_a_share_of_the_steps(model: Model, tmp_path: Path) -> None:
    context = context_on(model, tmp_path, "advunlearn", warm_up=0, attack_steps=1, plain_share=0.6)
    with begun(context) as (loss, _):
        assert 15 <= sum(loss.adversarial(step)[1] is None for step in range(40)) <= 33
        assert {loss._part(0.5, 4, "plain", step) for step in range(20)} == {2}
    assert ADV_UNLEARN.facts(context) == {"shares": "drawn"}


def test_steps_that_end_before_the_search_begins_are_told() -> None:
    def fault(**options: object) -> str | None:
        return ADV_UNLEARN.why_not_options(FAMILIES.get("sd1"), ADV_UNLEARN.settings.model_validate(options))

    assert "warm_up is 200" in str(fault(steps=200))
    assert fault() is fault(steps=201) is fault(steps=9, warm_up=9) is fault(steps=9, plain_share=1) is None


def test_a_share_of_prompts_stays_plain_and_is_erased_all_the_same(model: Model, tmp_path: Path) -> None:
    options = {"warm_up": 0, "batch": 4, "attack_steps": 1, "attack_tokens": 2}
    with begun(context_on(model, tmp_path, "advunlearn", **options, plain_share=0.5)) as (loss, _):
        prompts, rows = loss.adversarial(0)
        assert rows is not None
        assert rows.shape[:2] == (2, 2)
        with torch.no_grad():
            whole = loss.behind(prompts, rows).text
            torch.testing.assert_close(whole[:2], loss.read(prompts[:2]).text)
            torch.testing.assert_close(whole[2:], loss.read(prompts[2:], rows).text)
    with begun(context_on(model, tmp_path / "all", "advunlearn", **options, plain_share=1.0)) as (loss, _):
        assert loss.adversarial(0)[1] is None
        assert not loss.memory


def test_what_is_kept_behind_tokens_is_held_to_itself_without_them(model: Model, tmp_path: Path) -> None:
    """So an untouched encoder has something to learn, where nothing stands in front it has not."""
    losses = {}
    for share in (0.0, 0.5, 1.0):
        context = context_on(model, tmp_path / str(share), "advunlearn", retain_batch=2, retain_behind=share)
        with begun(context) as (loss, _), torch.no_grad():
            losses[share] = float(loss.terms(0)[1])
    assert losses[0.0] == pytest.approx(0, abs=1e-10)
    assert losses[1.0] > losses[0.5] > 1e-7


def test_no_step_leaves_the_encoders_bit_equal(model: Model, tmp_path: Path) -> None:
    before = encoders(model)
    with begun(context_on(model, tmp_path, "advunlearn")) as (_, weights):
        assert weights.changes() == {}
    assert all(torch.equal(before[name], value) for name, value in encoders(model).items())


def test_steps_between_two_searches_share_prompts_and_rows(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = context_on(model, tmp_path, "advunlearn", warm_up=2, renew_every=3, attack_steps=1, batch=2)
    with begun(context) as (loss, _):
        searches: list[Any] = []
        real = loss.search

        def counted(*arguments: Any) -> Tensor:
            searches.append(arguments)
            return real(*arguments)

        monkeypatch.setattr(loss, "search", counted)
        found = [loss.adversarial(step) for step in range(8)]
    assert len(searches) == 2
    assert [rows is None for _, rows in found] == [True, True, *[False] * 6]
    for first in (2, 5):
        prompts, rows = found[first]
        assert all(again == prompts and kept is rows for again, kept in found[first + 1 : first + 3])


def test_an_edit_of_the_encoders_alone_that_resumes_with_its_rows(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(descent, "CHECKPOINT_EVERY", 1)
    before, denoiser = encoders(model), {n: p.clone() for n, p in model.denoiser.named_parameters()}
    whole, killed = (context_on(model, tmp_path / name, "advunlearn", **QUICK) for name in ("whole", "killed"))
    assert ADV_UNLEARN.erase(whole, "advunlearn") == "done"
    with killed_at(monkeypatch, 3):  # within a search's steps: its rows come from the disk
        ADV_UNLEARN.erase(killed, "advunlearn")
    assert ADV_UNLEARN.erase(killed, "advunlearn") == "done"
    folders = [context.run.edit("advunlearn") for context in (whole, killed)]
    edits = [read_edit(folder) for folder in folders]
    assert edits[0].sha256 == edits[1].sha256
    assert isinstance(edits[0], WeightEdit)
    assert edits[0].changes
    assert set(edits[0].changes) <= set(encoder_names(model))
    # Three steps of four rows through the original (∅, c, two that are kept) and three through the student; one search
    # of two steps, of a row through each.
    assert edits[0].provenance["passes"] == 3 * (4 + 3) + 2 * 2
    assert all(torch.equal(before[name], value) for name, value in encoders(model).items())
    assert all(torch.equal(denoiser[name], value) for name, value in model.denoiser.named_parameters())


def test_what_is_kept_are_safe_prompts_and_those_of_the_concept_file(model: Model, tmp_path: Path) -> None:
    found = kept_prompts(context_on(model, tmp_path, "advunlearn"))
    assert "a blue knight with empty hands in the snow" in found
    assert any("castle" in prompt for prompt in found)
    assert not any("holding a sword" in prompt for prompt in found)


@pytest.mark.parametrize("family", ["sd3", "flux"])
def test_families_that_read_t5_cannot_have_it(family: str) -> None:
    assert "T5" in str(ADV_UNLEARN.why_not(FAMILIES.get(family)))
