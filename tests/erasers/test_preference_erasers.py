"""Diffusion-DPO and DCPO are DUO's training under their names: the same loss, at half their β."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import Tensor

from duo_unlearn.edits.lora import adapter_tensors, adapters_off, attach, detach
from duo_unlearn.erasers.descent import descend
from duo_unlearn.erasers.duo.settings import TrainSettings
from duo_unlearn.erasers.duo.step import make_batch, terms_of
from duo_unlearn.erasers.latents import build_cache
from duo_unlearn.erasers.preference import DCPO, DIFFUSION_DPO, DcpoSettings, DiffusionDpoSettings
from duo_unlearn.erasers.registry import ERASERS
from duo_unlearn.erasers.trainer import train
from duo_unlearn.families.load import load_model
from duo_unlearn.runs.folder import Run

from .small import CPU, pairs_in, prepare, quick
from .small_sdxl import context_on

ASKED, ANSWERED = "a red knight with a sword", "a red knight with a book"


def published_loss(policy: Tensor, reference: Tensor, target: Tensor, beta_dpo: float) -> Tensor:
    """−log σ(−½ β_dpo [(l_θ⁺ − l_θ⁻) − (l_φ⁺ − l_φ⁻)]), the mean over pairs; rows [safe; unsafe]."""
    losses = [(output - target).square().mean(dim=(1, 2, 3)).chunk(2) for output in (policy, reference)]
    (safe, unsafe), (safe_before, unsafe_before) = losses
    bracket = (safe - unsafe) - (safe_before - unsafe_before)
    return -torch.log(torch.sigmoid(-0.5 * beta_dpo * bracket)).mean()


@pytest.mark.parametrize(
    ("settings", "safe", "beta_dpo"),
    # DCPO with one caption for both members is Diffusion-DPO.
    [
        (DiffusionDpoSettings(caption_dropout=0), ANSWERED, 5000.0),
        (DcpoSettings(), ANSWERED, 500.0),
        pytest.param(DcpoSettings(beta=2500.0), ASKED, 5000.0, marks=pytest.mark.slow),
    ],
)
def test_half_their_beta_gives_their_loss(run: Run, settings: TrainSettings, safe: str, beta_dpo: float) -> None:
    model = load_model("mini", CPU)
    pairs = [dataclasses.replace(pair, unsafe_prompt=ASKED, safe_prompt=safe) for pair in pairs_in(run.folder, 3)]
    cache = build_cache(model, pairs, run.pairs, run.moments, captions=settings.captions)
    attach(model, rank=2, seed=0)
    for name, tensor in model.denoiser.named_parameters():
        if "lora_B" in name:
            tensor.data.normal_(std=0.02, generator=torch.Generator().manual_seed(len(name)))
    batch = make_batch(cache, model, [0, 1, 2], settings, seed=0)
    assert len(batch.noisy) == 6  # no prior rows
    with torch.no_grad():
        policy = model.predict(batch.noisy, batch.t, batch.conditioning)
        with adapters_off(model.denoiser):
            reference = model.predict(batch.noisy, batch.t, batch.conditioning)
        found = terms_of(model, None, batch, settings)
    assert settings.beta == beta_dpo / 2
    assert found.loss.item() == pytest.approx(
        published_loss(policy, reference, batch.target, beta_dpo).item(), rel=1e-4
    )
    assert found.loss.item() != pytest.approx(0.693147, abs=1e-4)
    one_caption = torch.equal(*batch.conditioning.text.chunk(2))
    assert one_caption == (settings.captions == "unsafe" or safe == ASKED)


def test_the_arithmetic_by_hand() -> None:
    # l_θ⁺ = 0.01, l_θ⁻ = 0.04, l_φ⁺ = 0.02, l_φ⁻ = 0.02: the bracket is −0.03, and so is m⁺ − m⁻ = −0.01 − 0.02.
    def rows(safe: float, unsafe: float) -> Tensor:
        return torch.tensor([safe, unsafe]).sqrt().view(2, 1, 1, 1).expand(2, 4, 2, 2)

    policy, reference, target = rows(0.01, 0.04), rows(0.02, 0.02), torch.zeros(2, 4, 2, 2)
    from duo_unlearn.erasers.duo.objective import Reference, duo_loss

    none = torch.zeros(0, 4, 2, 2)
    ours = duo_loss(policy, Reference.of(reference, target, none), target, none, beta=50, prior_weight=0).loss
    theirs = published_loss(policy, reference, target, beta_dpo=100)
    # −log σ(½ · 100 · 0.03) = −log σ(1.5) = log(1 + e^−1.5)
    assert ours.item() == pytest.approx(0.201413, abs=1e-5)
    assert theirs.item() == pytest.approx(0.201413, abs=1e-5)


def test_the_defaults_are_the_published_ones() -> None:
    dpo, dcpo = DiffusionDpoSettings(), DcpoSettings()
    assert (dpo.beta, dcpo.beta) == (5000 / 2, 500 / 2)
    assert (dpo.captions, dcpo.captions) == ("unsafe", "dual")
    for settings in (dpo, dcpo):
        assert settings.learning_rate == pytest.approx(3e-2 / settings.beta)
        assert (settings.prior_weight, settings.pairing, settings.sides) == (0, "paired", "both")
        assert settings.model_dump().keys() == TrainSettings().model_dump().keys()
    assert (DIFFUSION_DPO.trains, DCPO.trains) == (True, True)


@pytest.mark.slow
def test_the_course_for_wraps_is_the_training_bit_for_bit(tmp_path: Path) -> None:
    changes = {"max_train_steps": 3, "lr_scheduler": "cosine", "gradient_accumulation_steps": 2, "train_batch_size": 1}
    run = Run(tmp_path / "plain")
    model, cache, pairs = prepare(run)
    train(model, cache, pairs, run, quick(**changes), seed=0, name="duo", quiet=True)
    expected = {name: tensor.clone() for name, tensor in adapter_tensors(model.denoiser).items()}
    detach(model)
    context = context_on(model, tmp_path / "course", "duo")
    context = context._replace(run=run, pairs=pairs, options=quick(**changes))
    make = ERASERS.get("duo").course
    assert make is not None
    with make(context) as course:
        descend(course.descent, model.denoiser, run, "course", "key", quiet=True)
        found = adapter_tensors(model.denoiser)
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            assert torch.equal(found[name], tensor)
    assert not hasattr(model.denoiser, "peft_config")
