"""Stable Diffusion 1.x and 2.x: one CLIP text encoder, a UNet that predicts ε or v. The mini model is one of these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, get_args

from torch import Tensor, nn

from ..errors import DuoError
from ..records import Prediction, Targets
from .family import Family
from .interface import Conditioning
from .noise import Diffusion, NoiseProcess

UNET_TARGETS: Final[dict[Targets, str]] = {
    # With the empty prompt in training, a change in self-attention acts for every prompt (authors' scripts).
    "self-attention": r".*\.attn1\.to_(q|k|v|out\.0)",
    "all-attention": r".*\.attn[12]\.to_(q|k|v|out\.0)",
}


def unet_noise(pipe: Any, _resolution: int) -> NoiseProcess:
    """The scheduler's ᾱ and prediction type; one that has none, or predicts something else, is a DuoError."""
    name, known = type(pipe.scheduler).__name__, get_args(Prediction)
    if not hasattr(pipe.scheduler, "alphas_cumprod") or pipe.scheduler.config.prediction_type not in known:
        got = f"{name}, prediction_type {pipe.scheduler.config.get('prediction_type')!r}"
        hint = f"a scheduler of {' or '.join(known)}, e.g. DDIMScheduler"
        raise DuoError("DUO has no target for the model's scheduler", got=got, hint=hint)
    return Diffusion(pipe.scheduler.alphas_cumprod, pipe.scheduler.config.prediction_type)


def _encode(pipe: Any, prompts: Sequence[str]) -> Conditioning:
    """The text encoder's last hidden state; longer prompts are cut."""
    return Conditioning(pipe.encode_prompt(list(prompts), pipe.device, 1, False)[0])


def _predict(_pipe: Any, network: nn.Module, noisy: Tensor, time: Tensor, conditioning: Conditioning) -> Tensor:
    output: Tensor = network(noisy, time, encoder_hidden_states=conditioning.text, return_dict=False)[0]
    return output


def _call(conditioning: Conditioning, negative: Conditioning, guidance: float) -> dict[str, Any]:
    return {
        "prompt_embeds": conditioning.text,
        "negative_prompt_embeds": negative.text,
        "guidance_scale": guidance,
    }


def _family(name: str, title: str, needs: str) -> Family:
    return Family(
        name=name,
        title=title,
        pipeline="StableDiffusionPipeline",
        image_to_image="StableDiffusionImg2ImgPipeline",
        denoiser="unet",
        text=("text_encoder",),
        optional=(),
        targets=UNET_TARGETS,
        noise=unet_noise,
        encode=_encode,
        predict=_predict,
        call=_call,
        needs=needs,
    )


MINI: Final = _family("mini", "the embedded mini model", "nothing: it ships in the package")
SD1: Final = _family("sd1", "Stable Diffusion 1.x", "ε-prediction, 512 px")
SD2: Final = _family("sd2", "Stable Diffusion 2.x", "v-prediction at 768 px, ε-prediction at 512 px (base)")
