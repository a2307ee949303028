"""Pipelines of published size with random weights: for timing and memory, without a download. Pictures are noise."""

from __future__ import annotations

from typing import Any

import torch
from published import ENCODERS, published_denoiser, published_encoder

from duo_unlearn.families.model import DiffusersModel
from duo_unlearn.families.registry import FAMILIES
from duo_unlearn.mini.model.bundle import weights_folder


def random_model(family: str, device: torch.device, dtype: torch.dtype) -> DiffusersModel:
    """A family's published sizes (SD3 without T5), random weights; tokens are the mini model's."""
    import diffusers
    from transformers import CLIPTokenizer

    kind = FAMILIES.get(family)
    torch.manual_seed(0)
    with torch.device(device):
        parts: dict[str, Any] = {kind.denoiser: published_denoiser(family, device).to(dtype), "vae": _vae(family)}
        for i, config in enumerate(ENCODERS[family][:2]):
            parts["text_encoder" + ("_2" if i else "")] = published_encoder(config, device).to(dtype)
    for i in range(len(ENCODERS[family][:2])):
        tokenizer = CLIPTokenizer.from_pretrained(weights_folder() / "tokenizer", model_max_length=77)
        parts["tokenizer" + ("_2" if i else "")] = tokenizer
    parts["vae"].to(dtype)
    if family == "sd3":
        parts |= {"text_encoder_3": None, "tokenizer_3": None}
        parts["scheduler"] = diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0)
    else:
        parts["scheduler"] = diffusers.DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, clip_sample=False
        )
    if family == "sd1":
        parts |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    pipe = getattr(diffusers, kind.pipeline)(**parts)
    pipe.to(device)
    return DiffusersModel(pipe, kind, f"random {family}")


def _vae(family: str) -> Any:
    from diffusers import AutoencoderKL

    many = {"sd1": (4, 0.18215), "sdxl": (4, 0.13025), "sd3": (16, 1.5305)}
    channels, scale = many[family]
    return AutoencoderKL(
        block_out_channels=(128, 256, 512, 512),
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        layers_per_block=2,
        latent_channels=channels,
        scaling_factor=scale,
        shift_factor=0.0609 if family == "sd3" else None,
        sample_size=1024 if family != "sd1" else 512,
    )
