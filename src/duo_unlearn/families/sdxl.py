"""Stable Diffusion XL: two text encoders, a pooled embedding and the picture's sizes beside the text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from .family import Family, Size
from .stable_diffusion import UNET_TARGETS, unet_noise

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .interface import Conditioning


def _encode(pipe: Any, prompts: Sequence[str]) -> Conditioning:
    """Both encoders' next to last hidden states side by side, and the second one's pooled output.

    The empty prompt is zeros where the pipeline's own unconditional branch is (`force_zeros_for_empty_prompt`).
    """
    import torch

    from .interface import Conditioning

    text, _, pooled, _ = pipe.encode_prompt(
        list(prompts), device=pipe.device, num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    if pipe.config.force_zeros_for_empty_prompt:
        named = torch.tensor([bool(prompt) for prompt in prompts], device=text.device)
        text, pooled = text * named.view(-1, 1, 1), pooled * named.view(-1, 1)
    return Conditioning(text, pooled)


def _predict(pipe: Any, network: nn.Module, noisy: Tensor, time: Tensor, conditioning: Conditioning) -> Tensor:
    import torch

    # Sizes that the network was trained to read: the picture is whole, and as large as it is drawn.
    height, width = (side * pipe.vae_scale_factor for side in noisy.shape[-2:])
    sizes = torch.tensor([[height, width, 0, 0, height, width]], device=noisy.device, dtype=conditioning.text.dtype)
    added = {"text_embeds": conditioning.pooled, "time_ids": sizes.expand(len(noisy), -1)}
    output: Tensor = network(
        noisy, time, encoder_hidden_states=conditioning.text, added_cond_kwargs=added, return_dict=False
    )[0]
    return output


def pooled_call(conditioning: Conditioning, negative: Conditioning, guidance: float) -> dict[str, Any]:
    """Call arguments of pipelines that take text and pooled embeddings, and their negatives."""
    return {
        "prompt_embeds": conditioning.text,
        "pooled_prompt_embeds": conditioning.pooled,
        "negative_prompt_embeds": negative.text,
        "negative_pooled_prompt_embeds": negative.pooled,
        "guidance_scale": guidance,
    }


SDXL: Final = Family(
    name="sdxl",
    title="Stable Diffusion XL",
    needs="1024 px; its VAE overflows in fp16 and is run in float32 for that",
    pipeline="StableDiffusionXLPipeline",
    image_to_image="StableDiffusionXLImg2ImgPipeline",
    denoiser="unet",
    denoiser_class="UNet2DConditionModel",
    text=("text_encoder", "text_encoder_2"),
    tokenizers=("tokenizer", "tokenizer_2"),
    targets=UNET_TARGETS,
    hub_words=("stable-diffusion-xl", "sdxl", "-xl"),
    checkpoint_names=("conditioner.embedders.1.model.ln_final.weight",),
    token_encoders=(("tokenizer", "text_encoder"), ("tokenizer_2", "text_encoder_2")),
    guidance=5.0,
    size=Size(2567.5, 902, (21.3, 46.4), 1024, (6.88, 0.488), (0.165, 1.611, 1.342), 6.76),
    noise=unet_noise,
    encode=_encode,
    predict=_predict,
    call=pooled_call,
    architecture=lambda _pipe: "stable-diffusion-xl-v1-base",
)
