"""FLUX.2: a transformer on patches of latents, rectified flow; klein reads Qwen3's tokens, dev reads Mistral's.

Latents are the VAE's 2×2 patches, (4c, h/2, w/2), with the statistics of its batch norm taken out: so the pipelines
draw their noise, and so the VAE's scale is defined.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from .family import Family, Size
from .latents import LatentSpace

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .interface import Conditioning
    from .noise import NoiseProcess

# As for FLUX.1: double-stream blocks keep image and text apart. A single-stream block has one projection for query,
# key, value and its feed-forward part, which sees both.
_IMAGE_STREAM: Final = r"transformer_blocks\.\d+\.attn\.to_(q|k|v|out\.0)"
_SHARED: Final = r"single_transformer_blocks\.\d+\.attn\.to_qkv_mlp_proj"
_TEXT_STREAM: Final = r"transformer_blocks\.\d+\.attn\.(add_(q|k|v)_proj|to_add_out)"
GUIDANCE: Final = 4.0
"""The guidance that dev reads in training: the pipeline's own default."""
TOKENS: Final = 512
"""How many tokens of a prompt are read, chat template and padding included: what the pipelines allow at most."""
STEPS: Final = 50
"""Steps of a sampling, on which the shift of the schedule depends: the pipelines' own default."""
STEPS_DISTILLED: Final = 4


def _noise(pipe: Any, resolution: int) -> NoiseProcess:
    """The schedule of the published number of steps."""
    from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu

    from .noise import Flow, flow_sigmas

    side = resolution // pipe.vae_scale_factor // 2
    steps = STEPS_DISTILLED if pipe.config.get("is_distilled") else STEPS
    mu = compute_empirical_mu(image_seq_len=side * side, num_steps=steps)
    return Flow(pipe.scheduler.time_shift(mu, 1.0, flow_sigmas(pipe.scheduler.config.num_train_timesteps)))


def _encode(pipe: Any, prompts: Sequence[str]) -> Conditioning:
    """Three hidden states of the language model side by side, padding included: the transformer reads it too."""
    from .interface import Conditioning

    return Conditioning(pipe.encode_prompt(list(prompts), device=pipe.device, max_sequence_length=TOKENS)[0])


def _pack(latents: Tensor) -> Tensor:
    """(b, c, h, w) → (b, h·w, c)."""
    return latents.flatten(2).transpose(1, 2)


def _unpack(tokens: Tensor) -> Tensor:
    """`_pack` undone, for square images."""
    side = math.isqrt(tokens.shape[1])
    return tokens.transpose(1, 2).reshape(len(tokens), -1, side, side)


def _places(rows: int, columns: int, tokens: int) -> Tensor:
    """The place of each token, (rows · columns · tokens, 4): 0, row, column, place in the text."""
    import torch

    return torch.cartesian_prod(torch.arange(1), torch.arange(rows), torch.arange(columns), torch.arange(tokens))


def _predict(pipe: Any, network: nn.Module, noisy: Tensor, time: Tensor, conditioning: Conditioning) -> Tensor:
    import torch

    height, width = noisy.shape[-2:]
    guided = pipe.transformer.config.guidance_embeds
    scale = GUIDANCE if conditioning.guidance is None else conditioning.guidance
    output: Tensor = network(
        hidden_states=_pack(noisy),
        timestep=time.to(noisy.dtype) / 1000,
        guidance=torch.full((len(noisy),), scale, device=noisy.device) if guided else None,
        encoder_hidden_states=conditioning.text,
        txt_ids=_places(1, 1, conditioning.text.shape[1]).to(noisy.device),
        img_ids=_places(height, width, 1).to(noisy.device),
        return_dict=False,
    )[0]
    return _unpack(output)


def _call(conditioning: Conditioning, negative: Conditioning, guidance: float) -> dict[str, Any]:
    return {
        "prompt_embeds": conditioning.text,
        "negative_prompt_embeds": negative.text,
        "guidance_scale": guidance,
    }


def _call_dev(conditioning: Conditioning, _negative: Conditioning, guidance: float) -> dict[str, Any]:
    # Distilled: one pass with the guidance as an input; there is no branch for a negative prompt.
    return {"prompt_embeds": conditioning.text, "guidance_scale": guidance}


def _shape(pipe: Any, resolution: int) -> tuple[int, int, int]:
    side = resolution // pipe.vae_scale_factor // 2
    return 4 * int(pipe.vae.config.latent_channels), side, side


def _scale(pipe: Any, like: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel of a patch, (1, 4c, 1, 1)."""
    norm = pipe.vae.bn
    std = (norm.running_var + pipe.vae.config.batch_norm_eps).sqrt()
    return norm.running_mean.view(1, -1, 1, 1).to(like), std.view(1, -1, 1, 1).to(like)


def _encode_pixels(pipe: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    import torch

    posterior = pipe.vae.encode(pixels).latent_dist
    raw, spread = (torch.nn.functional.pixel_unshuffle(x.float(), 2) for x in (posterior.mean, posterior.std))
    mean, std = _scale(pipe, raw)
    return (raw - mean) / std, spread / std


def _decode(pipe: Any, latents: Tensor) -> Tensor:
    import torch

    mean, std = _scale(pipe, latents)
    raw = torch.nn.functional.pixel_shuffle(latents * std + mean, 2)
    pixels: Tensor = pipe.vae.decode(raw.to(pipe.vae.dtype)).sample
    return pixels


LAYERS_4B: Final = 5
"""Double blocks of klein-4B; klein-9B has 8."""

KLEIN: Final = Family(
    name="flux2-klein",
    title="FLUX.2 klein",
    needs="1024 px; the models without base in their name are distilled: guidance 1 and 4 steps, and train on base",
    pipeline="Flux2KleinPipeline",
    image_to_image=None,
    denoiser="transformer",
    denoiser_class="Flux2Transformer2DModel",
    text=("text_encoder",),
    tokenizers=("tokenizer",),
    targets={"self-attention": _IMAGE_STREAM, "all-attention": f"{_IMAGE_STREAM}|{_SHARED}|{_TEXT_STREAM}"},
    text_tokens=TOKENS,
    hub_words=("flux.2-klein", "flux2-klein"),
    reader="Qwen3",
    guidance=4.0,
    size=Size(
        3875.5, 4107, (3.93, 27.53), 1024, (15.05, 0.736), (0.607, 1.612, 1.342), 34.8
    ),  # klein-4B; klein-9B has about twice that
    noise=_noise,
    encode=_encode,
    predict=_predict,
    call=_call,
    architecture=lambda pipe: f"Flux.2-klein-{'9b' if pipe.transformer.config.num_layers > LAYERS_4B else '4b'}",
    latents=LatentSpace(_shape, _encode_pixels, _decode, _pack, _unpack, pipeline_packs=True),
    positive_first=True,
    unguided=lambda pipe: bool(pipe.config.get("is_distilled")),
)
FLUX2: Final = replace(
    KLEIN,
    name="flux2",
    title="FLUX.2 dev",
    needs="1024 px; 32 B parameters, its tokenizer needs torchvision; negative prompts have no effect",
    pipeline="Flux2Pipeline",
    text_tokens=TOKENS,
    hub_words=("flux.2", "flux2"),
    reader="Mistral",
    guidance_is_input=True,
    size=Size(32223.3, 24095, (12.58, 119.54), 1024, (66.28, 3.228), (1.205, 1.612, 1.342), 282.6),
    call=_call_dev,
    architecture=lambda _pipe: "Flux.2-dev",
)
