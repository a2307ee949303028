"""The loss of each stage is what it says, of a batch that is known."""

from __future__ import annotations

import math
import random
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from duo_unlearn.mini.fit import batches, stages
from duo_unlearn.mini.fit.batches import (
    JUDGED,
    SHARES_OF_A_JUDGE,
    STATED,
    JudgeBatch,
    Sampled,
    UnetBatch,
    clip_batches,
    judge_batches,
    training_scenes,
    unet_batches,
    vae_batches,
)
from duo_unlearn.mini.fit.damage import JUDGE_A
from duo_unlearn.mini.fit.feed import draw_for
from duo_unlearn.mini.fit.fit import text_tower
from duo_unlearn.mini.model.judge_net import JUDGES
from duo_unlearn.mini.model.parts import CONTEXT, WIDTH, build_clip, build_scheduler, build_vae
from duo_unlearn.mini.world.drawing import draw_batch
from duo_unlearn.mini.world.scenes import ATTRIBUTES, ITEMS, Person, Scene

TWO = Scene("knight", "red", "sword", "snow", x=20, scale=0.72, side=-1, other=Person("robot", "blue", "oar"))


def probes_only() -> float:
    """The loss of probes whose weights are zero, each a uniform guess; texts may also say nothing."""
    sizes = [len(ATTRIBUTES[name]) for name in STATED]
    return 0.25 * sum(math.log(size) + math.log(size + 1) for size in sizes)


@pytest.fixture
def clip_with_blank_probes(tokenizer: Any) -> stages.ClipWithProbes:
    torch.manual_seed(0)
    model = stages.ClipWithProbes(build_clip(tokenizer))
    for probe in [*model.image_probes.values(), *model.text_probes.values()]:
        for parameter in probe.parameters():
            nn.init.zeros_(parameter)
    return model


def clip_loss_on(
    scenes: list[Scene], monkeypatch: pytest.MonkeyPatch, tokenizer: Any, model: stages.ClipWithProbes
) -> float:
    monkeypatch.setattr(batches, "hard_batch", lambda *_: scenes)
    batch = clip_batches(tokenizer)(draw_for(0, "clip", 0))
    with torch.no_grad():
        return stages.clip_loss(model)(batch).item()


@pytest.mark.parametrize(("item", "negatives"), [("sword", 0), ("book", 1)])
def test_a_caption_that_is_true_of_another_picture_is_no_negative(
    monkeypatch: pytest.MonkeyPatch,
    tokenizer: Any,
    clip_with_blank_probes: stages.ClipWithProbes,
    item: str,
    negatives: int,
) -> None:
    # Two pictures of one figure: with the same item each caption is true of both, so contrast has nothing to say.
    scenes = [Scene("king", "red", "sword", "snow"), Scene("king", "red", item, "snow", x=36.0)]
    loss = clip_loss_on(scenes, monkeypatch, tokenizer, clip_with_blank_probes)
    if negatives:
        assert loss > probes_only() + 0.05
    else:
        assert loss == pytest.approx(probes_only(), abs=1e-4)


def test_pictures_of_two_figures_are_told_apart_by_contrast_alone(
    monkeypatch: pytest.MonkeyPatch, tokenizer: Any, clip_with_blank_probes: stages.ClipWithProbes
) -> None:
    # Probes that rule out the left figure's subject would pay much for it, if they were asked about it.
    knight = ATTRIBUTES["subject"].index(TWO.subject)
    for probes in (clip_with_blank_probes.image_probes, clip_with_blank_probes.text_probes):
        with torch.no_grad():
            dict(probes.named_parameters())["subject.bias"][knight] = -1000
    known = Scene("king", "red", "sword", "snow")
    loss = clip_loss_on([known, TWO], monkeypatch, tokenizer, clip_with_blank_probes)
    assert probes_only() - 0.1 < loss < probes_only() + 5  # the contrast of two


@pytest.fixture(scope="module")
def judge_batch() -> JudgeBatch:
    """A judge's batch of 32, whose samples are drawn pictures."""
    scenes = training_scenes(random.Random(5), 30)
    sampled = Sampled(torch.from_numpy(draw_batch(scenes)), scenes)
    batch: JudgeBatch = judge_batches(JUDGE_A, sampled, batch=32)(draw_for(0, "judge", 0))
    return batch


@pytest.mark.parametrize("name", JUDGES)
def test_the_judges_loss_reaches_the_judge_alone(name: str, judge_batch: JudgeBatch) -> None:
    torch.manual_seed(0)
    judge, vae = JUDGES[name](), build_vae()
    loss = stages.judge_loss(judge, vae)(judge_batch)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(uniform_guess(), rel=0.3)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in judge.parameters())
    assert all(p.grad is None for p in vae.parameters())


def uniform_guess() -> float:
    """What a judge pays that gives each item one half and each label of another attribute the same."""
    return len(ITEMS) * math.log(2) + sum(math.log(len(ATTRIBUTES[name])) for name in JUDGED)


class Watcher(nn.Module):
    """A judge that guesses: keeps the pictures it was shown."""

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        self.seen = pixels
        return {name: torch.zeros(len(pixels), len(labels)) for name, labels in ATTRIBUTES.items()}


class CopyingVae(nn.Module):
    """Encodes to a standard normal and decodes to the pictures it was given: no error, no KL."""

    def encode(self, pixels: Tensor) -> Any:
        self.pixels = pixels
        rows = torch.zeros(len(pixels), 4, 16, 16)
        return SimpleNamespace(latent_dist=SimpleNamespace(mean=rows, std=rows + 1, logvar=rows))

    def decode(self, _latents: Tensor) -> Any:
        return SimpleNamespace(sample=self.pixels + self.offset)

    offset = 0.0


def test_a_guessing_judge_pays_for_every_head_and_sees_the_first_share_decoded(judge_batch: JudgeBatch) -> None:
    vae: Any = CopyingVae()
    vae.offset = 0.125
    judge = Watcher()
    loss = stages.judge_loss(judge, vae)(judge_batch)
    assert loss.item() == pytest.approx(uniform_guess(), rel=1e-5)
    first = len(judge_batch.pixels) // SHARES_OF_A_JUDGE
    assert torch.equal(judge.seen[:first], (judge_batch.pixels[:first] + 0.125).clamp(-1, 1))
    assert torch.equal(judge.seen[first:], judge_batch.pixels[first:])


def test_what_is_unknown_costs_a_judge_nothing(judge_batch: JudgeBatch) -> None:
    torch.manual_seed(0)
    judge = JUDGES["judge"]().eval()
    vae: Any = CopyingVae()
    loss_of = stages.judge_loss(judge, vae)
    unknown = judge_batch.known == 0
    assert unknown.any()
    items = torch.where(unknown[:, None], 1 - judge_batch.items, judge_batch.items)
    with torch.no_grad():
        before = loss_of(judge_batch).item()
        assert loss_of(judge_batch._replace(items=items)).item() == pytest.approx(before, rel=1e-6)
        wrong = 1 - judge_batch.items
        assert loss_of(judge_batch._replace(items=wrong)).item() != pytest.approx(before, rel=1e-3)


@pytest.mark.parametrize(("offset", "loss"), [(0.0, 0.0), (0.1, 0.1 + 2 * 0.01)])
def test_the_vaes_loss_by_hand(offset: float, loss: float) -> None:
    # A constant offset has no edges: what is left is |0.1| + 2 · 0.1².
    vae: Any = CopyingVae()
    vae.offset = offset
    batch = vae_batches(batch=4)(draw_for(0, "vae", 0))
    assert stages.vae_loss(vae)(batch).item() == pytest.approx(loss, abs=1e-6)


class KnowingDenoiser(nn.Module):
    """Reads the noise off latents that are all zero: x_t = √(1−ᾱ_t) ε."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor
        self.alphas_cumprod = build_scheduler().alphas_cumprod

    def forward(self, noisy: Tensor, t: Tensor, conditioning: Tensor) -> Any:
        assert conditioning.shape == (len(noisy), CONTEXT, WIDTH)
        return SimpleNamespace(sample=self.factor * noisy / (1 - self.alphas_cumprod[t]).sqrt().view(-1, 1, 1, 1))


@pytest.mark.parametrize("factor", [1.0, 0.0])
def test_the_denoisers_loss_is_the_weighted_error_in_the_noise(tokenizer: Any, factor: float) -> None:
    scenes = training_scenes(random.Random(0), 3)
    denoiser: Any = KnowingDenoiser(factor)
    loss_of = stages.unet_loss(
        denoiser, text_tower(build_clip(tokenizer)), torch.zeros(3, 8, 16, 16), denoiser.alphas_cumprod
    )
    batch = unet_batches(tokenizer, scenes, 5, 1000)(draw_for(0, "unet", 0))
    loss = loss_of(batch).item()
    if factor == 1.0:
        assert loss == pytest.approx(0, abs=1e-8)
    else:  # predicting nothing costs the weighted mean of ε²
        assert loss == pytest.approx(_expected_of_nothing(denoiser.alphas_cumprod, batch), rel=1e-5)


def _expected_of_nothing(alphas_cumprod: Tensor, batch: UnetBatch) -> float:
    """Weights min(SNR, 5) / SNR."""
    snr = alphas_cumprod[batch.timesteps] / (1 - alphas_cumprod[batch.timesteps])
    weight = torch.minimum(snr, torch.tensor(5.0)) / snr
    return (weight * batch.noise.square().mean(dim=(1, 2, 3))).mean().item()


def test_each_row_is_of_the_latent_it_names(tokenizer: Any) -> None:
    # Without noise on top (ᾱ = 1) the denoiser sees mean + std · posterior of the rows that were chosen.
    seen: list[Tensor] = []

    class Listener(nn.Module):
        def forward(self, noisy: Tensor, _t: Tensor, _conditioning: Tensor) -> Any:
            seen.append(noisy)
            return SimpleNamespace(sample=torch.zeros_like(noisy))

    scenes = training_scenes(random.Random(0), 3)
    moments = torch.randn(3, 8, 16, 16)
    listener: Any = Listener()
    almost_one = torch.full((1000,), 1 - 1e-7)
    loss_of = stages.unet_loss(listener, text_tower(build_clip(tokenizer)), moments, almost_one)
    batch = unet_batches(tokenizer, scenes, 5, 1000)(draw_for(0, "unet", 0))
    loss_of(batch)
    expected = moments[batch.chosen, :4] + moments[batch.chosen, 4:] * batch.posterior
    assert torch.allclose(seen[0], expected, atol=3e-3)
