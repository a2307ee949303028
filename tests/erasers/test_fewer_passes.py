"""Options of a training that save passes: the prior term every k-th step, and references that are asked once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from duo_unlearn.edits.lora import adapter_tensors, attach
from duo_unlearn.erasers.checkpoint import identity
from duo_unlearn.erasers.duo.eraser import passes_of
from duo_unlearn.erasers.duo.loss import DuoLoss, has_prior
from duo_unlearn.erasers.duo.objective import Terms
from duo_unlearn.erasers.duo.reference_bank import ReferenceBank
from duo_unlearn.erasers.duo.settings import TrainSettings
from duo_unlearn.erasers.duo.step import fixed_draw, make_batch, pair_at, round_at, terms_of
from duo_unlearn.erasers.latents import Cache
from duo_unlearn.erasers.trainer import train
from duo_unlearn.families.interface import Model
from duo_unlearn.families.load import load_model
from duo_unlearn.records import Pair
from duo_unlearn.runs.folder import Run
from duo_unlearn.storage.files import read_tensors
from duo_unlearn.storage.forms import deciding

from ..slow import slow
from .small import CPU, prepare, quick

SHAPE = torch.Size((4, 2, 2))


def trained_a_little(run: Run) -> tuple[Model, Cache, list[Pair], list[Tensor]]:
    """The mini model with an adapter off the identity, so that every term has a gradient."""
    model, cache, pairs = prepare(run)
    parameters = attach(model, rank=4, seed=0)
    generator = torch.Generator().manual_seed(1)
    for parameter in parameters:
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model, cache, pairs, list(parameters)


def gradient(terms: Terms, parameters: list[Tensor]) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(terms.loss, parameters)])


def bank_of(run: Run, model: Model, cache: Cache, pairs: list[Pair], settings: TrainSettings) -> ReferenceBank:
    return ReferenceBank(model, cache, pairs, run, settings, seed=0, name="duo")


# --- the prior term in every k-th step --------------------------------------------------------------------------------
def test_the_last_of_every_k_steps_has_the_prior_term() -> None:
    assert [has_prior(quick(prior_every=3), step) for step in range(6)] == [False, False, True] * 2
    assert all(has_prior(quick(), step) for step in range(6))
    assert not has_prior(quick(prior_weight=0), 0)


def test_k_1_is_the_step_as_it_was_bit_for_bit(run: Run) -> None:
    model, cache, _, parameters = trained_a_little(run)
    settings, samples = quick(prior_every=1), [2, 3]
    ours = DuoLoss(model, cache, settings, 0)(0, samples)
    before = terms_of(model, None, make_batch(cache, model, samples, quick(), 0), quick())
    assert all(torch.equal(a, b) for a, b in zip(ours, before, strict=True))
    assert torch.equal(gradient(ours, parameters), gradient(before, parameters))


@pytest.mark.slow
def test_the_gradient_over_k_steps_is_that_of_the_term_in_every_step(run: Run) -> None:
    model, cache, _, parameters = trained_a_little(run)
    settings, samples = quick(prior_every=3), [0, 1]
    # The same samples in each step: what is left of the difference is the option alone.
    thinned = DuoLoss(model, cache, settings, 0)
    steps = [thinned(step, samples) for step in range(3)]
    full = DuoLoss(model, cache, quick(), 0)(0, samples)
    found = [gradient(terms, parameters) for terms in steps]
    mean, wanted = torch.stack(found).mean(dim=0), gradient(full, parameters)
    assert float((mean - wanted).norm() / wanted.norm()) < 1e-5
    assert float((found[0] - wanted).norm() / wanted.norm()) > 1e-2  # the prior term weighs here
    assert [float(terms.prior) > 0 for terms in steps] == [False, False, True]


def test_a_step_without_the_term_says_nothing_of_it(run: Run) -> None:
    from duo_unlearn.runs.metrics import read_lines

    model, cache, pairs = prepare(run)
    train(model, cache, pairs, run, quick(prior_every=2, max_train_steps=2), seed=0, name="duo", quiet=True)
    assert ["prior" in line for line in read_lines(run.metrics("duo"))] == [False, True]


def test_the_way_back_stops_at_the_first_adapter_and_no_base_weight_has_a_gradient(run: Run) -> None:
    model, cache, _ = prepare(run)
    attach(model, rank=4, seed=0)
    reached: dict[str, bool] = {}
    for name in ("conv_in", "down_blocks.0", "down_blocks.1.resnets.0", "down_blocks.1.attentions.0"):
        model.denoiser.get_submodule(name).register_forward_hook(
            lambda _layer, _inputs, output, name=name: reached.update(
                {name: (output if isinstance(output, Tensor) else output[0]).requires_grad}
            )
        )
    DuoLoss(model, cache, quick(), 0)(0, [0, 1]).loss.backward()  # type: ignore[no-untyped-call]
    assert list(reached.values()) == [False, False, False, True]
    with_gradient = {name for name, value in model.denoiser.named_parameters() if value.grad is not None}
    assert with_gradient
    assert all("lora_" in name for name in with_gradient)


# --- references that are asked once -----------------------------------------------------------------------------------
def test_a_pair_sees_every_part_of_the_timesteps_and_nothing_but_its_own_draws() -> None:
    settings, rounds = quick(reference_bank=5), 5
    draws = fixed_draw([(3, number) for number in range(rounds)], rounds, SHAPE, settings, 0)
    assert sorted((draws.safe_t * rounds // 750).tolist()) == [0, 1, 2, 3, 4]
    assert torch.equal(draws.safe_t, draws.unsafe_t)
    again = fixed_draw([(3, 2)], rounds, SHAPE, settings, 0)
    assert torch.equal(again.eps[0], draws.eps[2])
    assert again.safe_t[0] == draws.safe_t[2]
    other = fixed_draw([(2, 2)], rounds, SHAPE, settings, 0)
    assert not torch.equal(again.eps, other.eps)
    apart = fixed_draw([(3, i) for i in range(rounds)], rounds, SHAPE, quick(share_timestep=False), 0)
    assert sorted((apart.unsafe_t * rounds // 750).tolist()) == [0, 1, 2, 3, 4]
    assert not torch.equal(apart.safe_t, apart.unsafe_t)


def test_an_epoch_has_one_round_of_every_pair() -> None:
    places = [(pair_at(sample, 7, 1), round_at(sample, 7, 3)) for sample in range(28)]
    assert len(set(places[:21])) == 21
    assert {number for _, number in places[21:]} == {0}


@pytest.mark.parametrize("changes", [{}, *slow([{"share_timestep": False, "pairing": "unpaired", "prior_weight": 0}])])
def test_a_kept_reference_gives_the_loss_and_the_gradient_of_one_that_is_asked(
    run: Run, changes: dict[str, object]
) -> None:
    model, cache, pairs, parameters = trained_a_little(run)
    settings = quick(reference_bank=2, **changes)
    bank, plain = bank_of(run, model, cache, pairs, settings), DuoLoss(model, cache, settings, 0)
    kept = DuoLoss(model, cache, settings, 0, bank)
    for samples in ([4, 5], [5, 6], [13, 14]):  # within a round, over two of them, and again
        ours, asked = kept(0, samples), plain(0, samples)
        torch.testing.assert_close(ours.loss, asked.loss, rtol=1e-5, atol=0)
        wanted = gradient(asked, parameters)
        assert float((gradient(ours, parameters) - wanted).norm() / wanted.norm()) < 1e-4


@pytest.mark.slow
def test_the_reference_is_asked_once_and_read_from_disk_after(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    model, cache, pairs = prepare(run)
    rows: list[int] = []
    real = model.denoiser.forward

    def counted(sample: Tensor, *rest: object, **named: object) -> object:
        rows.append(len(sample))
        return real(sample, *rest, **named)

    monkeypatch.setattr(model.denoiser, "forward", counted)
    attach(model, rank=4, seed=0)
    settings = quick(reference_bank=1)
    bank = bank_of(run, model, cache, pairs, settings)
    first = bank.of([0, 1], prior=True)
    assert sum(rows) == 3 * len(pairs)
    again = bank_of(run, model, cache, pairs, settings).of([0, 1], prior=True)
    assert sum(rows) == 3 * len(pairs)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert len(bank.of([0, 1], prior=False).prior) == 0
    tensors, _ = read_tensors(bank.path(0))
    assert {name: list(tensor.shape) for name, tensor in tensors.items()} == {
        "error": [2 * len(pairs)],
        "prior": [len(pairs), *cache.safe.mean.shape[1:]],
    }
    # Other draws are other references: the file is made anew.
    bank_of(run, model, cache, pairs, quick(reference_bank=1, max_timestep=500)).of([0], prior=True)
    assert sum(rows) == 2 * 3 * len(pairs)


@pytest.mark.slow
def test_a_resumed_training_with_a_bank_is_bit_for_bit_the_same(tmp_path: Path) -> None:
    whole, cut = Run(tmp_path / "whole"), Run(tmp_path / "cut")
    model, cache, pairs = prepare(whole)
    settings = quick(max_train_steps=8, reference_bank=2, prior_every=2)
    train(model, cache, pairs, whole, settings, seed=0, name="duo", quiet=True)
    expected = adapter_tensors(model.denoiser)
    shorter = settings.model_copy(update={"max_train_steps": 5})
    train(load_model("mini", CPU), cache, pairs, cut, shorter, seed=0, name="duo", quiet=True)
    resumed = load_model("mini", CPU)
    assert train(resumed, cache, pairs, cut, settings, seed=0, name="duo", quiet=True).resumed_at == 5
    assert all(torch.equal(value, expected[name]) for name, value in adapter_tensors(resumed.denoiser).items())


def test_what_is_said_of_passes_is_what_was_asked() -> None:
    base = {"train_batch_size": 4, "max_train_steps": 100}
    assert passes_of(quick(**base), 100, 10) == 2 * 100 * 12
    assert passes_of(quick(**base, prior_every=4), 100, 10) == 2 * (100 * 8 + 25 * 4)
    assert passes_of(quick(**base, prior_weight=0), 100, 10) == 2 * 100 * 8
    assert passes_of(quick(**base, reference_bank=8), 100, 10) == 100 * 12 + 8 * 10 * 3
    assert passes_of(quick(**base, reference_bank=8), 5, 10) == 5 * 12 + 2 * 10 * 3  # 20 samples: two rounds


def test_a_key_has_a_later_option_only_where_it_changes_something(run: Run) -> None:
    model, _, pairs = prepare(run)
    assert "prior_every" not in deciding(quick())
    assert "reference_bank" not in deciding(quick())
    keys = {
        identity(settings, pairs, model, 0) for settings in (quick(), quick(prior_every=2), quick(reference_bank=2))
    }
    assert len(keys) == 3
