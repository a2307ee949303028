"""What each stage learns from: scenes outside the held-out combinations, and losses that are what they say."""

from __future__ import annotations

import math
import random
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from duo_unlearn.mini.fit import stages
from duo_unlearn.mini.fit.fit import text_tower
from duo_unlearn.mini.fit.loop import Draw, draw_for
from duo_unlearn.mini.model.judge_net import JudgeNet
from duo_unlearn.mini.model.parts import build_clip, build_scheduler, build_vae
from duo_unlearn.mini.world.scenes import ATTRIBUTES, ITEMS, Scene, is_held_out

CPU = torch.device("cpu")


def test_training_never_sees_a_held_out_combination() -> None:
    rng = random.Random(0)
    assert not any(is_held_out(scene) for scene in stages.training_scenes(rng, 600))
    assert not any(is_held_out(scene) for scene in stages.hard_batch(rng, figures=40, objects=40))


def test_three_figures_to_an_object() -> None:
    figures = sum(scene.is_figure for scene in stages.training_scenes(random.Random(0), 800))
    assert figures / 800 == pytest.approx(0.75, abs=0.05)


def test_a_hard_batch_holds_each_figure_with_five_items() -> None:
    scenes = stages.hard_batch(random.Random(0), figures=4, objects=3)
    assert len(scenes) == 4 * 5 + 3
    for start in range(0, 20, 5):
        group = scenes[start : start + 5]
        assert len({scene.item for scene in group}) == 5
        assert len({scene.counterpart("none") for scene in group}) == 1
    assert not any(scene.is_figure for scene in scenes[20:])


def test_pixels_lie_between_minus_one_and_one() -> None:
    pixels = stages.pixels_of([Scene("king", "red", "sword", "snow")] * 2, CPU)
    assert pixels.shape == (2, 3, 64, 64)
    assert pixels.dtype == torch.float32
    assert -1 <= pixels.min() < -0.5
    assert 0.5 < pixels.max() <= 1


def probes_only() -> float:
    """The loss of probes whose weights are zero, each a uniform guess; texts may also say nothing."""
    sizes = [len(labels) for labels in ATTRIBUTES.values()]
    return 0.25 * sum(math.log(size) + math.log(size + 1) for size in sizes)


@pytest.fixture
def clip_with_blank_probes(tokenizer: Any) -> stages.ClipWithProbes:
    torch.manual_seed(0)
    model = stages.ClipWithProbes(build_clip(tokenizer))
    for probe in [*model.image_probes.values(), *model.text_probes.values()]:
        for parameter in probe.parameters():
            nn.init.zeros_(parameter)
    return model


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
    monkeypatch.setattr(stages, "hard_batch", lambda *_args, **_named: scenes)
    with torch.no_grad():
        loss = stages.clip_loss(clip_with_blank_probes, tokenizer, CPU)(draw_for(0, "clip", 0)).item()
    if negatives:
        assert loss > probes_only() + 0.05
    else:
        assert loss == pytest.approx(probes_only(), abs=1e-4)


def test_the_judges_loss_reaches_the_judge_alone() -> None:
    judge, vae = JudgeNet(), build_vae()
    loss = stages.judge_loss(judge, vae, CPU, batch=6)(draw_for(0, "judge", 0))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(sum(math.log(len(labels)) for labels in ATTRIBUTES.values()), rel=0.25)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in judge.parameters())
    assert all(p.grad is None for p in vae.parameters())


class CopyingVae(nn.Module):
    """Encodes to a standard normal and decodes to the pictures it was given: no error, no KL."""

    def encode(self, pixels: Tensor) -> Any:
        self.pixels = pixels
        rows = torch.zeros(len(pixels), 4, 16, 16)
        return SimpleNamespace(latent_dist=SimpleNamespace(mean=rows, std=rows + 1, logvar=rows))

    def decode(self, _latents: Tensor) -> Any:
        return SimpleNamespace(sample=self.pixels + self.offset)

    offset = 0.0


@pytest.mark.parametrize(("offset", "loss"), [(0.0, 0.0), (0.1, 0.1 + 2 * 0.01)])
def test_the_vaes_loss_by_hand(offset: float, loss: float) -> None:
    # A constant offset has no edges: what is left is |0.1| + 2 · 0.1².
    vae: Any = CopyingVae()
    vae.offset = offset
    assert stages.vae_loss(vae, CPU, batch=4)(draw_for(0, "vae", 0)).item() == pytest.approx(loss, abs=1e-6)


class KnowingDenoiser(nn.Module):
    """Reads the noise off latents that are all zero: x_t = √(1−ᾱ_t) ε."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor
        self.alphas_cumprod = build_scheduler().alphas_cumprod

    def forward(self, noisy: Tensor, t: Tensor, conditioning: Tensor) -> Any:
        assert conditioning.shape == (len(noisy), 24, 128)
        return SimpleNamespace(sample=self.factor * noisy / (1 - self.alphas_cumprod[t]).sqrt().view(-1, 1, 1, 1))


@pytest.mark.parametrize("factor", [1.0, 0.0])
def test_the_denoisers_loss_is_the_weighted_error_in_the_noise(tokenizer: Any, factor: float) -> None:
    scenes = stages.training_scenes(random.Random(0), 3)
    denoiser: Any = KnowingDenoiser(factor)
    loss_of = stages.unet_loss(
        denoiser, text_tower(build_clip(tokenizer)), tokenizer,
        scenes, torch.zeros(3, 8, 16, 16), denoiser.alphas_cumprod, CPU, batch=5,
    )  # fmt: skip
    draw = draw_for(0, "unet", 0)
    loss = loss_of(draw).item()
    if factor == 1.0:
        assert loss == pytest.approx(0, abs=1e-8)
    else:  # predicting nothing costs the weighted mean of ε²
        assert loss == pytest.approx(_expected_of_nothing(denoiser.alphas_cumprod), rel=1e-5)


def _expected_of_nothing(alphas_cumprod: Tensor) -> float:
    """The same draws again: latent noise, then ε, then t; weights min(SNR, 5) / SNR."""
    draw: Draw = draw_for(0, "unet", 0)
    torch.randn(5, 4, 16, 16, generator=draw.generator)
    noise = torch.randn(5, 4, 16, 16, generator=draw.generator)
    t = torch.randint(0, 1000, (5,), generator=draw.generator)
    snr = alphas_cumprod[t] / (1 - alphas_cumprod[t])
    weight = torch.minimum(snr, torch.tensor(5.0)) / snr
    return (weight * noise.square().mean(dim=(1, 2, 3))).mean().item()


def test_the_items_of_a_hard_batch_are_those_of_the_world() -> None:
    scenes = stages.hard_batch(random.Random(1), figures=30, objects=0)
    assert {scene.item for scene in scenes} == set(ITEMS)
