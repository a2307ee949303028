"""The parts are real classes of the sizes that the mini world needs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from duo_unlearn.mini.fit.fit import TOKENIZER
from duo_unlearn.mini.model.judge_net import JUDGES
from duo_unlearn.mini.model.parts import CONTEXT, WIDTH, build_clip, build_scheduler, build_unet, build_vae, token_ids


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@torch.no_grad()
def test_the_vae_turns_64_pixels_into_16_latents_and_back() -> None:
    vae = build_vae()
    mean = vae.encode(torch.zeros(2, 3, 64, 64)).latent_dist.mean
    assert mean.shape == (2, 4, 16, 16)
    assert vae.decode(mean).sample.shape == (2, 3, 64, 64)


@torch.no_grad()
def test_the_denoiser_reads_the_text_encoder_and_attends_at_8_and_4_alone() -> None:
    unet = build_unet()
    noisy, text = torch.zeros(2, 4, 16, 16), torch.randn(2, CONTEXT, WIDTH)
    assert unet(noisy, torch.tensor([3, 700]), text).sample.shape == (2, 4, 16, 16)
    blocks = {name.split(".attentions")[0] for name, _ in unet.named_modules() if name.endswith("attn1")}
    assert blocks == {"down_blocks.1", "down_blocks.2", "mid_block", "up_blocks.0", "up_blocks.1"}


@torch.no_grad()
def test_clip_embeds_pictures_and_texts_alike(tokenizer: Any) -> None:
    clip = build_clip(tokenizer)
    ids = token_ids(tokenizer, ["a red knight", "a boat"])
    out = clip(input_ids=ids, pixel_values=torch.zeros(3, 3, 64, 64))
    assert out.text_embeds.shape == (2, 64)
    assert out.image_embeds.shape == (3, 64)
    assert out.text_model_output.last_hidden_state.shape == (2, CONTEXT, WIDTH)


@torch.no_grad()
def test_clip_reads_a_text_up_to_its_end(tokenizer: Any) -> None:
    clip = build_clip(tokenizer).eval()
    ids = token_ids(tokenizer, ["a red knight"])
    changed = ids.clone()
    changed[0, -1] = 5  # behind the end: must not matter
    assert torch.equal(
        clip.get_text_features(input_ids=ids).pooler_output, clip.get_text_features(input_ids=changed).pooler_output
    )


def test_the_denoiser_has_seven_million_parameters() -> None:
    assert parameters(build_unet()) == pytest.approx(7.1e6, abs=5e4)


def test_a_prompt_has_forty_tokens(tokenizer: Any) -> None:
    assert CONTEXT == 40
    clip = build_clip(tokenizer)
    assert clip.config.text_config.max_position_embeddings == 40
    assert clip.text_model.embeddings.position_embedding.weight.shape == (40, WIDTH)


def test_everything_fits_in_32_megabytes_of_fp16(tokenizer: Any) -> None:
    clip = build_clip(tokenizer)
    parts = [clip, clip.text_model, build_vae(), build_unet(), *(network() for network in JUDGES.values())]
    words = 2 * (TOKENIZER["vocabulary"] - len(tokenizer)) * WIDTH  # of both copies of the text tower
    total = sum(parameters(part) for part in parts) + words
    assert 2 * total < 31.5e6  # the rest is for configurations and the tokenizer


def test_the_noise_schedule_is_stable_diffusions() -> None:
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    scheduler = build_scheduler()
    assert scheduler.alphas_cumprod.numpy() == pytest.approx(np.cumprod(1 - betas), rel=1e-4)
    assert scheduler.alphas_cumprod[999].item() ** -0.5 == pytest.approx(14.65, abs=0.02)  # method.md, section 2
    assert scheduler.config.prediction_type == "epsilon"
